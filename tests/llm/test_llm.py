"""Requests to a model, against a real HTTP server whose faults are scripted."""

import importlib.util
import json
import sqlite3
import sys

import pytest
from pydantic import BaseModel, ConfigDict

from regen_hf import llm
from regen_hf.errors import ConfigError, RegenError, RunError
from tests.llm_server import Process, answer_to, completion, error
from tests.llm_server import Server as FakeServer
from tests.paths import ROOT


class Size(BaseModel):
    size: str


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: str


def request(number, **changes):
    message = {"role": "user", "content": f"question {number}"}
    fields = {"model": "m", "messages": (message,), "answer": Colour, "temperature": 0.5, "seed": 1, "max_tokens": 50}
    return llm.Request(**fields | changes)


def requests(count):
    return [request(number) for number in range(count)]


def settings(url, **changes):
    return llm.LLMConfig(**{"backend": "openai", "model": "m", "base_url": url, "retries": 2} | changes)


def ask(asked, fake, store, concurrency=4, **changes):
    config = settings(fake.url, concurrency=concurrency, **changes)
    llm.ask(lambda: iter(asked), config, store, len(asked), "test")


def answers(asked, store):
    return [llm.read(one, store) for one in asked]


def test_every_request_is_answered_and_sent_once(store):
    asked = requests(30)
    with FakeServer() as fake:
        ask(asked, fake, store)
        ask(asked, fake, store)
    assert answers(asked, store) == [Colour(colour="Some words.")] * 30
    assert len(fake.bodies) == 30
    assert {body["messages"][0]["content"] for body in fake.bodies} == {f"question {n}" for n in range(30)}
    assert store.totals() == {"replies": 30, "repaired": 0, "prompt_tokens": 300, "completion_tokens": 60}


def test_the_request_carries_model_sampling_and_schema(store):
    with FakeServer() as fake:
        ask([request(0)], fake, store)
    (body,) = fake.bodies
    assert fake.paths == ["/v1/chat/completions"]
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0.5, 1)
    form = body["response_format"]["json_schema"]
    assert form["strict"]
    assert form["schema"]["additionalProperties"] is False
    assert form["schema"]["required"] == ["colour"]


@pytest.mark.parametrize(
    "changes", [{"model": "other"}, {"temperature": 0.6}, {"seed": 2}, {"vote": 1}, {"max_tokens": 9}, {"messages": ()}]
)
def test_another_model_sampling_vote_or_prompt_is_another_request(changes):
    assert request(0).key == request(0).key
    assert request(0, **changes).key != request(0).key


def test_no_more_than_the_given_number_are_in_flight(store):
    with FakeServer(delay=0.02) as fake:
        ask(requests(24), fake, store, concurrency=3)
    assert fake.most_in_flight == 3


def test_identical_requests_are_paid_for_once_although_all_could_be_in_flight(store):
    bad = completion('{"colour": 3}')
    asked = [request(number % 3) for number in range(30)]

    def fault(number, body):
        said = [message["content"] for message in body["messages"]]
        return (200, {}, bad) if said == ["question 1"] else None

    with FakeServer(fault, delay=0.05) as fake:
        ask(asked, fake, store, concurrency=16)
    assert answers(asked, store) == [Colour(colour="Some words.")] * 30
    assert len(fake.bodies) == 3 + 1  # the invalid answer is repeated


def test_identical_requests_without_an_answer_come_to_an_end(store):
    asked = [request(0), *(request(1) for _ in range(5)), request(2)]

    def fault(number, body):
        return error(500, "boom") if body["messages"][0]["content"] == "question 1" else None

    with FakeServer(fault) as fake, pytest.raises(RunError, match="left 5 requests without an answer"):
        ask(asked, fake, store, retries=0)
    assert [type(one) for one in answers(asked, store)] == [Colour, *[llm.Request] * 5, Colour]


def test_requests_are_drawn_only_as_they_are_sent(store):
    drawn = []

    def lazily():
        for one in requests(40):
            drawn.append(one)
            yield one

    seen = []
    with FakeServer(lambda number, body: seen.append(len(drawn) - number)) as fake:
        llm.ask(lazily, settings(fake.url, concurrency=2), store, 40, "test")
    assert len(seen) == 40
    assert max(seen) <= 3


@pytest.mark.parametrize(
    "fault",
    [
        error(429),
        error(500),
        error(503),
        error(408),
        (200, {"content-length": "100000"}, b'{"id": "c", "cho'),
    ],
    ids=["429", "500", "503", "408", "half a body"],
)
def test_a_fault_of_the_server_is_tried_again(store, fault):
    asked = requests(6)
    with FakeServer(lambda number, body: fault if number < 2 else None) as fake:
        ask(asked, fake, store, concurrency=1)
    assert answers(asked, store) == [Colour(colour="Some words.")] * 6
    assert len(fake.bodies) == 8


def test_a_slow_server_counts_as_not_answering(store):
    with FakeServer(delay=0.5) as fake, pytest.raises(RunError, match="without an answer"):
        ask([request(0)], fake, store, retries=0, timeout=0.05)
    assert store.totals()["replies"] == 0


def test_a_failed_run_is_resumed_with_only_the_missing_requests(store):
    asked = requests(40)
    kept = pytest.raises(RunError, match="The 15 answers of this run are kept")
    with FakeServer(lambda number, body: error(500) if number >= 15 else None) as broken, kept:
        ask(asked, broken, store, retries=0)
    assert len(broken.bodies) < 40
    with FakeServer() as mended:
        ask(asked, mended, store)
    assert len(mended.bodies) == 25
    answered = [body["messages"][0]["content"] for body in broken.bodies[:15] + mended.bodies]
    assert sorted(answered) == sorted(f"question {n}" for n in range(40))


def test_a_server_that_does_not_exist_is_reported_in_a_sentence(store):
    server = settings("http://127.0.0.1:9/v1", concurrency=1, retries=0)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/v1 left .* without an answer: the connection is refused"):
        llm.ask(lambda: requests(3), server, store, 3, "test")


@pytest.mark.parametrize(
    "broken",
    ["", "no json", '{"colour": 3}', '{"color": "red"}', '{"colour": "re'],
)
def test_a_bad_answer_is_asked_again_with_the_reason(store, broken):
    with FakeServer(lambda number, body: (200, {}, completion(broken)) if number == 0 else None) as fake:
        ask([request(0)], fake, store)
    assert llm.read(request(0), store) == Colour(colour="Some words.")
    first, again = (body["messages"] for body in fake.bodies)
    assert len(again) == len(first)
    assert again[-1]["content"].startswith(first[-1]["content"])  # a server that caches prefixes reads it once
    assert "cannot be used: " in again[-1]["content"]
    assert broken == "" or broken not in again[-1]["content"]  # small models copy it
    if "color" in broken:
        assert "colour: Field required" in again[-1]["content"]


def test_a_second_bad_answer_is_a_failure_with_its_raw_text_and_is_not_paid_again(store):
    def fault(number, body):
        is_refused = body["messages"][0]["content"].startswith("question 1")
        return (200, {}, completion("I would rather not.")) if is_refused else None

    asked = requests(3)
    with FakeServer(fault) as fake:
        ask(asked, fake, store)
        ask(asked, fake, store)
    assert len(fake.bodies) == 4
    good, failed, other = answers(asked, store)
    assert good == other == Colour(colour="Some words.")
    assert isinstance(failed, llm.Failure)
    assert failed.raw == "I would rather not."
    assert "Invalid JSON" in failed.reason


@pytest.mark.parametrize("payload", [completion(None, refusal="No."), {**completion(""), "choices": []}])
def test_refusals_and_empty_choices_are_bad_answers(store, payload):
    with FakeServer(lambda number, body: (200, {}, payload)) as fake:
        ask([request(0)], fake, store)
    assert isinstance(llm.read(request(0), store), llm.Failure)
    assert len(fake.bodies) == 2


@pytest.mark.parametrize(
    "page",
    [(200, {"content-type": "text/html"}, "<html>hello</html>"), (200, {}, "{ broken"), (200, {}, "[]")],
    ids=["html", "broken json", "another json"],
)
def test_a_payload_that_is_no_completion_is_no_answer(store, page):
    with FakeServer(lambda number, body: page) as fake, pytest.raises(RunError, match="without an answer"):
        ask([request(0)], fake, store, retries=0)
    assert store.totals()["replies"] == 0


def test_a_rejected_request_does_not_stop_the_others_and_keeps_the_servers_words(store):
    def fault(number, body):
        return error(400, "too long for the window") if body["messages"][0]["content"] == "question 2" else None

    asked = requests(6)
    with FakeServer(fault) as fake:
        ask(asked, fake, store, concurrency=1)
        ask(asked, fake, store, concurrency=1)
    assert len(fake.bodies) == 6
    failed = llm.read(asked[2], store)
    assert isinstance(failed, llm.Failure)
    assert "too long for the window" in failed.reason


def test_a_server_that_rejects_everything_stops_the_run_and_no_rejection_is_stored(store):
    asked = requests(40)
    stopped = pytest.raises(RunError, match="no seed here")
    with FakeServer(lambda number, body: error(400, "no seed here")) as fake, stopped:
        ask(asked, fake, store, concurrency=1)
    assert len(fake.bodies) == 8 * 4  # each in every form
    assert store.totals()["replies"] == 0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_at_once_with_the_servers_words(store, status):
    stopped = pytest.raises(ConfigError, match="no such thing")
    with FakeServer(lambda number, body: error(status, "no such thing")) as fake, stopped:
        ask(requests(50), fake, store, concurrency=2)
    assert len(fake.bodies) <= 2


def test_the_key_goes_to_the_server_and_nowhere_else(store, tmp_path, monkeypatch, capfd):
    key = "sk-very-secret-key"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with FakeServer(lambda number, body: error(400, f"bad for {key}") if number == 1 else None) as fake:
        ask(requests(3), fake, store, concurrency=1)
    assert set(fake.authorizations) == {f"Bearer {key}"}
    with FakeServer(lambda number, body: error(401, f"wrong key {key}")) as fake, pytest.raises(RegenError) as caught:
        ask(requests(9), fake, store)
    assert key not in str(caught.value)
    assert key not in "".join(capfd.readouterr())
    store.close()
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes()


def test_organization_and_project_of_the_key_are_sent(store, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    with FakeServer() as fake:
        ask(requests(1), fake, store)
    (headers,) = fake.headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
    assert headers["user-agent"].startswith("regen-hf/")


def test_the_official_server_is_not_asked_without_a_key(store, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        llm.ask(lambda: [request(0)], settings(llm.OPENAI), store, 1, "test")


def test_without_the_client_the_extra_to_install_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(RegenError, match=r"pip install \"regen-hf\[llm\]\""):
        llm.ask(lambda: [request(0)], settings("http://127.0.0.1:9/v1"), store, 1, "test")


def test_a_damaged_store_is_reported_and_not_overwritten(tmp_path):
    path = tmp_path / "requests.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="delete it"):
        llm.Store(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_store_of_another_layout_is_reported_and_stays_as_it_is(tmp_path):
    path = tmp_path / "requests.sqlite"
    with llm.Store(path) as store:
        store.put(request(1), llm.Reply("kept"))
        store.execute("PRAGMA user_version=3")
    with pytest.raises(RunError, match=r"requests\.sqlite has layout 3, expected layout 6\. .* delete the file"):
        llm.Store(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT text FROM replies").fetchall() == [("kept",)]
    connection.close()


def test_a_full_disk_is_reported_and_stored_replies_stay(tmp_path):
    path = tmp_path / "requests.sqlite"
    with llm.Store(path) as store:
        store.put(request(1), llm.Reply("kept"))
        pages = store.execute("PRAGMA page_count")[0][0]
        store.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(RunError, match="full"):
            store.put(request(2), llm.Reply("x" * 100_000))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT text FROM replies").fetchall() == [("kept",)]
    connection.close()


def test_an_answer_made_from_the_schema_fits_it():
    assert Colour.model_validate_json(json.dumps(answer_to(Colour.model_json_schema())))


def test_the_benchmark_measures_every_client_on_a_tiny_run():
    spec = importlib.util.spec_from_file_location("llm_benchmark", ROOT / "benchmarks" / "llm.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    with Process(benchmark.ANSWER, 0.01) as server:
        for name in benchmark.CLIENTS:
            before = server.paid()["paid"]
            result = benchmark.one(name, server.url, in_flight=4, rounds=6)
            assert server.paid()["paid"] - before == 4 * (benchmark.RAMP + 6)
            assert 0 < result["per_second"] <= 4 / 0.01
            assert result["cpu_ms"] > 0
