"""The number of requests in flight, with servers that are slow or reject a part of them."""

import asyncio
import collections
import itertools
import time

import pytest

from regen_hf.errors import ConfigError, RunError
from regen_hf.llm.fleet import Fleet
from regen_hf.llm.pace import Pace
from regen_hf.llm.turns import Turns
from tests.llm.test_llm import Colour, answers, ask, requests, settings
from tests.llm_server import HANG, Server, error

GOOD = Colour(colour="Some words.")


def test_retry_after_silences_all_requests(store):
    with Server(
        lambda number, body: (429, {"retry-after": "0.6"}, {"error": {"message": "slower"}}) if number == 10 else None,
        delay=0.01,
    ) as fake:
        ask(requests(60), fake, store, concurrency=4)
    assert store.totals()["replies"] == 60
    gaps = [later - earlier for earlier, later in zip(fake.times, fake.times[1:], strict=False)]
    # Requests in flight return; no further one is sent before the pause is over.
    assert max(gaps) > 0.55
    assert gaps.index(max(gaps)) <= 10 + 4


def test_a_stop_does_not_wait_for_a_retry_after_which_is_reported(store, capsys):
    def fault(number, body):
        return (429, {"retry-after": "3000"}, {"error": {"message": "slower"}}) if number == 5 else late(number)

    def late(number):
        return error(401, "revoked") if number > 6 else None

    started = time.monotonic()
    with Server(fault, delay=0.05) as fake, pytest.raises(ConfigError, match="revoked"):
        ask(requests(40), fake, store, concurrency=4)
    assert time.monotonic() - started < 300
    assert capsys.readouterr().err.count("asks for a pause of 3000 s: Error code: 429 - slower") == 1


def test_a_rate_limit_narrows_the_requests_in_flight_and_all_are_answered(store):
    """A server that takes 4 at once and refuses the fifth, asked by 32: refusals do not use up tries."""
    asked = requests(150)

    def fault(number, body):
        return error(429, "busy") if fake.in_flight > 4 else None

    fake = Server(fault, delay=0.01)
    with fake:
        ask(asked, fake, store, concurrency=32, retries=2)
    assert answers(asked, store) == [GOOD] * 150
    refused = len(fake.bodies) - 150
    assert refused < 150  # 32 workers that only waited and tried again would be refused far more often


def test_after_a_refusal_as_many_as_before_are_in_flight_again(store):
    seen = []

    def fault(number, body):
        seen.append(fake.in_flight)
        return error(429, "busy") if number in (20, 21) else None

    fake = Server(fault, delay=0.02)
    with fake:
        ask(requests(250), fake, store, concurrency=8)
    assert min(max(seen[number : number + 8]) for number in range(22, 60)) <= 5
    assert max(seen[-40:]) == 8


def test_the_limit_halves_once_for_a_burst_and_grows_again(store):
    async def play():
        fleet = Fleet(settings("http://127.0.0.1:9/v1", concurrency=16), store, print)
        pace = fleet.servers[0].pace
        for _ in range(12):
            pace.speed_up(time.monotonic())
        started = time.monotonic()
        servers = [await fleet.enter() for _ in range(16)]
        blocked = asyncio.ensure_future(fleet.enter())
        await asyncio.sleep(0)
        assert not blocked.done()
        for _ in servers:
            pace.slow_down(started, None)
        assert pace.limit == 8
        for server in servers[:8]:
            fleet.leave(server)
        await asyncio.sleep(0)
        assert not blocked.done()
        fleet.leave(servers[8])
        await blocked
        pace.slow_down(time.monotonic(), None)
        assert pace.limit == 4
        for _ in range(10):
            pace.speed_up(time.monotonic())
        assert 5 < pace.limit < 8
        for _ in range(10_000):
            pace.speed_up(time.monotonic())
        assert pace.limit == 16
        await fleet.close()

    asyncio.run(play())


def test_a_server_that_is_always_busy_is_given_up(store):
    with Server(lambda number, body: error(429, "come back never")) as fake, pytest.raises(RunError, match="never"):
        ask(requests(30), fake, store, concurrency=2, retries=2)
    assert store.totals()["replies"] == 0
    assert 8 * 3 <= len(fake.bodies) <= 8 * 3 + 2  # eight requests, each three times


def test_the_limit_doubles_per_round_until_the_first_overload():
    gate = Pace(64, timeout=60)
    assert gate.limit == 4
    for _ in range(4):
        gate.speed_up(time.monotonic())
    assert gate.limit == 8
    for _ in range(100):
        gate.speed_up(time.monotonic())
    assert gate.limit == 64
    gate.slow_down(time.monotonic(), None)
    gate.speed_up(time.monotonic())
    assert 32 < gate.limit < 32.1


def test_an_answer_that_waited_in_a_queue_does_not_raise_the_limit():
    gate = Pace(64, timeout=30)
    gate.speed_up(time.monotonic() - 2)
    assert gate.limit == 5
    gate.speed_up(time.monotonic() - 11)
    assert gate.limit == 5
    slow = Pace(64, timeout=30)
    slow.speed_up(time.monotonic() - 20)
    slow.speed_up(time.monotonic() - 25)  # not longer than the others: no queue
    assert slow.limit == 6


def test_a_server_that_answers_one_at_a_time_gets_no_request_twice(store):
    asked = requests(40)
    with Server(delay=0.1, one_at_a_time=True) as fake:
        ask(asked, fake, store, concurrency=64, timeout=1.0)
    assert answers(asked, store) == [GOOD] * 40
    assert len(fake.bodies) <= 44


def test_a_request_that_timed_out_is_sent_again_after_another_answer(store):
    """The server stops once, as at the load of a model, with four requests in flight."""
    asked = requests(30)
    hanging, answered = set(), []

    def fault(number, body):
        text = body["messages"][0]["content"]
        if text in ("question 8", "question 9") and text not in hanging:
            hanging.add(text)
            return HANG
        answered.append((text, time.monotonic()))
        return None

    with Server(fault, delay=0.15) as fake:
        ask(asked, fake, store, concurrency=3, timeout=0.4)
    assert answers(asked, store) == [GOOD] * 30
    assert len(fake.bodies) == 32
    posts = collections.defaultdict(list)
    for body, at in zip(fake.bodies, fake.times, strict=True):
        posts[body["messages"][0]["content"]].append(at)
    for text in hanging:
        first, second = posts[text]
        assert any(first + 0.4 < at + 0.15 < second for other, at in answered if other != text)


def test_a_time_out_halves_the_requests_in_flight(store):
    seen = []

    def fault(number, body):
        seen.append(fake.in_flight)
        return HANG if number in (40, 41) else None

    fake = Server(fault, delay=0.05)
    with fake:
        ask(requests(100), fake, store, concurrency=8, timeout=0.4)
    # A request that hangs leaves `in_flight` of the server at once.
    assert max(seen[30:40]) == 8
    assert min(max(seen[number : number + 6]) for number in range(42, 90)) <= 5


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_server_that_hangs_is_given_up_and_nothing_is_stored(store, concurrency):
    with (
        Server(lambda number, body: HANG) as fake,
        pytest.raises(RunError, match=r"without an answer: no answer within 0\.05 seconds"),
    ):
        ask(requests(30), fake, store, concurrency=concurrency, retries=1, timeout=0.05)
    assert store.totals()["replies"] == 0
    assert len(fake.bodies) <= 30


def test_answers_that_arrive_together_are_processed_in_bursts_over_most_of_a_latency_and_others_at_once():
    async def play():
        turns, done = Turns(), []
        started = time.monotonic()

        async def process(number):
            await turns.next(64, 0.5)
            done.append((number, time.monotonic() - started))

        await asyncio.gather(*(process(number) for number in range(64)))
        await asyncio.sleep(0.1)
        before = time.monotonic()
        await process(64)
        return done, time.monotonic() - before

    done, wait = asyncio.run(play())
    assert [number for number, _ in done] == list(range(65))
    times = [seconds for _, seconds in done[:64]]
    assert (64 - 16) / 64 * 0.5 / 1.3 * 0.85 <= times[-1] < 1
    assert sum(after - before > 0.003 for before, after in itertools.pairwise(times)) <= 12  # 3 on an idle machine
    assert wait < 0.05
