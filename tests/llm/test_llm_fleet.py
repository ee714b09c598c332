"""Several servers that share the requests, limits per minute, and the progress."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from regen_hf import llm
from regen_hf.errors import RunError
from regen_hf.llm.statistics import RunStatistics, Statistics
from tests.llm.test_llm import Colour, answers, request, requests, settings
from tests.llm_server import HANG, RESET, Server, completion, error

GOOD = Colour(colour="Some words.")
DEAD = "http://127.0.0.1:9/v1"


def ask(asked, store, *urls, **changes):
    config = settings(urls, **changes)
    llm.ask(lambda: iter(asked), config, store, len(asked), "test")


def test_a_single_address_can_be_a_text():
    assert settings("http://x/v1").base_url == settings(("http://x/v1",)).base_url == ("http://x/v1",)


def test_each_request_goes_to_the_server_with_the_lowest_load(store):
    asked = requests(120)
    with Server(delay=0.01) as fast, Server(delay=0.04) as slow:
        ask(asked, store, fast.url, slow.url, concurrency=8)
    assert answers(asked, store) == [GOOD] * 120
    assert len(fast.bodies) + len(slow.bodies) == 120
    assert fast.most_in_flight + slow.most_in_flight <= 9
    assert len(fast.bodies) > 1.5 * len(slow.bodies) > 15
    statistics = store.counts()["this_run"]
    assert statistics["requests"] == 120
    servers = statistics["servers"]
    assert {name: one["requests"] for name, one in servers.items()} == {
        fast.url: len(fast.bodies),
        slow.url: len(slow.bodies),
    }
    assert 0.01 <= servers[fast.url]["median_seconds"] < servers[slow.url]["median_seconds"]
    assert servers[slow.url]["median_seconds"] >= 0.039


def test_each_server_has_its_own_dialect(store):
    def words_only(number, body):
        return error(400, "no response_format") if "response_format" in body else None

    with Server(delay=0.01) as strict, Server(words_only, delay=0.01) as old:
        ask(requests(40), store, strict.url, old.url)
        ask(requests(60), store, strict.url, old.url)
    assert all("response_format" in body for body in strict.bodies)
    assert sum("response_format" in body for body in old.bodies) <= 12  # of the first requests
    assert store.dialects(strict.url)["m"].form == "json_schema"
    assert store.dialects(old.url)["m"].form == "instructions"


def test_few_rejections_by_a_server_that_answers_nothing_go_to_the_others(store):
    asked = requests(16)
    with Server(delay=0.01) as fake, Server(lambda number, body: error(422, "no"), delay=0.05) as broken:
        ask(asked, store, fake.url, broken.url, concurrency=4)
    assert answers(asked, store) == [GOOD] * 16
    assert broken.bodies


@pytest.mark.parametrize("fault", [None, error(500, "broken"), RESET], ids=["refused connection", "500", "reset"])
def test_a_dead_server_is_set_aside_and_its_requests_go_to_the_others(store, capsys, fault):
    asked = requests(40)
    with Server(delay=0.01) as fake, Server(lambda number, body: fault) as broken:
        ask(asked, store, fake.url, broken.url if fault else DEAD, retries=9)
    assert answers(asked, store) == [GOOD] * 40
    assert len(fake.bodies) == 40
    assert len(broken.bodies) <= 8 + 4
    message = capsys.readouterr().err
    assert message.count("is set aside, and its requests go to others") == 1
    assert (broken.url if fault else f"{DEAD} is set aside") in message


@pytest.mark.parametrize("fault", [error(429, "too many"), error(500, "broken")], ids=["429", "500"])
@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_request_goes_to_another_server_before_it_is_left_without_an_answer(store, fault, retries):
    asked = requests(12)
    with Server(lambda number, body: fault) as broken, Server(delay=0.01) as fake:
        ask(asked, store, broken.url, fake.url, concurrency=4, retries=retries)
    assert answers(asked, store) == [GOOD] * 12


def test_a_server_that_dies_in_the_middle_loses_no_request(store, capsys):
    asked = requests(60)
    with Server(delay=0.01) as fake, Server(lambda number, body: HANG if number > 10 else None, delay=0.01) as dying:
        ask(asked, store, fake.url, dying.url, timeout=0.3, concurrency=8)
    assert answers(asked, store) == [GOOD] * 60
    assert len(dying.bodies) < 30


def test_a_server_that_rejects_everything_gives_its_requests_to_the_others(store):
    asked = requests(60)
    with Server(delay=0.01) as fake, Server(lambda number, body: error(422, "no such thing")) as broken:
        ask(asked, store, fake.url, broken.url, concurrency=4)
    assert answers(asked, store) == [GOOD] * 60


def test_a_server_that_works_again_gets_requests_again(store, capsys, monkeypatch):
    monkeypatch.setattr("regen_hf.llm.fleet.ASIDE", 0.2)
    asked = requests(120)
    with Server(delay=0.02) as fake, Server(lambda number, body: RESET if number < 8 else None, delay=0.02) as other:
        ask(asked, store, fake.url, other.url, retries=9, concurrency=4)
    assert answers(asked, store) == [GOOD] * 120
    assert len(other.bodies) > 8 + 10
    assert f"the server {other.url} answers again" in capsys.readouterr().err


def test_without_any_server_the_run_ends_and_names_all(store):
    with pytest.raises(RunError, match=r"servers http://127.0.0.1:9/v1, http://127.0.0.1:1/v1 left .* is refused"):
        ask(requests(20), store, DEAD, "http://127.0.0.1:1/v1", retries=1, concurrency=2)


def test_requests_per_minute_are_kept_over_all_servers(store):
    asked = requests(20)
    with Server() as one, Server() as other:
        ask(asked, store, one.url, other.url, requests_per_minute=1200.0)  # every 50 ms
    times = sorted([*one.times, *other.times])
    assert answers(asked, store) == [GOOD] * 20
    assert times[-1] - times[0] >= 0.9 * 19 * 0.05
    windows = [sum(start <= at < start + 0.25 for at in times) for start in times]
    assert max(windows) <= 0.25 / 0.05 + 2


def test_tokens_per_minute_are_estimated_first_and_corrected_by_the_usage(store):
    def fault(number, body):
        return 200, {}, completion('{"colour": "red"}') | {"usage": {"prompt_tokens": 50, "completion_tokens": 10}}

    asked = [request(number, max_tokens=400) for number in range(20)]
    with Server(fault) as fake:
        ask(asked, store, fake.url, tokens_per_minute=60_000.0)  # 60 tokens each: one in 60 ms
    seconds = fake.times[-1] - fake.times[0]
    assert 0.8 * 19 * 0.06 <= seconds < 2.5  # 8 s with the estimates of at most 400 tokens for each answer


def test_an_interrupt_ends_the_wait_for_a_limit_and_a_long_one_is_reported(store, capsys):
    asked = requests(5)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with Server() as fake, pytest.raises(KeyboardInterrupt):
        ask(asked, store, fake.url, requests_per_minute=0.5)
    assert time.monotonic() - started < 5
    assert capsys.readouterr().err.count("warning: requests_per_minute delays the next request by 120 s") == 1
    assert len(fake.bodies) == store.totals()["replies"] == 1


def test_statistics_have_exact_quantiles_in_constant_memory():
    reply = llm.Reply("", prompt_tokens=3, completion_tokens=1)
    run = RunStatistics()
    for number in range(1, 10_001):
        run.of("server").add(number / 1000, reply)
    summary = run.summary()
    assert summary["median_seconds"] == pytest.approx(5, rel=0.011)
    assert summary["p95_seconds"] == pytest.approx(9.5, rel=0.011)
    assert (summary["requests"], summary["prompt_tokens"], summary["completion_tokens"]) == (10_000, 30_000, 10_000)
    assert Statistics().quantile(0.5) is None
    assert RunStatistics().summary() == {}
    assert len(run.of("server")._latencies) < 600


def test_a_log_has_lines_with_the_state_of_the_requests(tmp_path):
    """Slow answers: the requests in flight are not answered, and the time left comes from the answers."""
    script = (
        "import sys\n"
        "from regen_hf import llm, progress\n"
        "from tests.llm.test_llm import requests, settings\n"
        "progress.LOG_SECONDS = 0.25\n"
        "with llm.Store(sys.argv[1]) as store:\n"
        "    llm.ask(lambda: iter(requests(12)), settings(sys.argv[2], concurrency=6), store, 12, 'narratives')\n"
    ).replace("llm.Store(sys.argv[1])", "llm.Store(__import__('pathlib').Path(sys.argv[1]))")
    with Server(delay=0.4) as fake:
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "requests.sqlite"), fake.url],
            capture_output=True,
            text=True,
            check=True,
        )
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr
    assert 4 <= len(lines) <= 12
    assert all(line.startswith("narratives: ") for line in lines)
    early = next(line for line in lines if "in flight" in line)
    assert "0/12" in early
    assert "1 in flight, 0 waiting" in early  # the first request opens the way for the others
    assert any("4 in flight, 2 waiting" in line or "5 in flight, 1 waiting" in line for line in lines)
    assert "12/12" in lines[-1]
    assert "0 in flight, 0 waiting, 0 failed, 144 tokens" in lines[-1]
