"""Kills of a run at random moments: by the server's count, only requests in flight are paid for twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from regen_hf import llm
from tests.llm.test_llm import Colour, request
from tests.llm_server import Process
from tests.paths import ROOT

CONCURRENCY = 8
REQUESTS = 900
KILLS = 20
# Imports once, then forks a process for each run: starting Python would take most of the time.
RUNS = f"""
import os, resource, sys
from pathlib import Path
import aiohttp, openai.resources.chat.completions, pydantic
from regen_hf import llm
from regen_hf.errors import RunError
import regen_hf.llm.server
from tests.llm.test_llm import request, settings
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        if line.strip() != "run":  # a maximum file size, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(line), int(line)))
        config = settings(sys.argv[2], concurrency={CONCURRENCY}, retries=0)
        try:
            with llm.Store(Path(sys.argv[1])) as store:
                llm.ask(lambda: (request(n) for n in range({REQUESTS})), config, store, {REQUESTS}, "test")
        except KeyboardInterrupt:
            os._exit(130)
        except RunError as error:
            os._exit(28 if "free space" in str(error) else 1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@contextlib.contextmanager
def runs_of(path, server):
    """`start()` returns the process id of a new run, `status()` its exit status once it has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, str(path), server.url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as runs:

        def status():
            return int(runs.stdout.readline())

        def start(line="run"):
            runs.stdin.write(f"{line}\n")
            runs.stdin.flush()
            return status()

        yield start, status
        runs.stdin.close()


def wait_for(server, paid):
    while server.paid()["paid"] < paid:
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_run_waits_for_what_is_in_flight_and_pays_nothing_twice(tmp_path, number):
    path = tmp_path / "requests.sqlite"
    with Process('{"colour": "red"}', 0.2) as server, runs_of(path, server) as (start, status):
        run = start()
        wait_for(server, 20)
        os.kill(run, number)
        assert status() == 130 << 8
        with llm.Store(path) as store:
            assert store.totals()["replies"] == server.paid()["paid"] >= 20


def test_a_disk_that_fills_up_stops_the_run_and_costs_no_more_than_what_was_in_flight(tmp_path):
    path = tmp_path / "requests.sqlite"
    with Process('{"colour": "red"}', 0.01) as server, runs_of(path, server) as (start, status):
        start(200_000)
        assert status() == 28 << 8
        first = server.paid()["paid"]
        with llm.Store(path) as store:
            assert store.execute("PRAGMA integrity_check") == [("ok",)]
            assert 0 < first - CONCURRENCY <= store.totals()["replies"] <= first < REQUESTS
        start()
        assert status() == 0
        assert REQUESTS <= server.paid()["paid"] <= REQUESTS + CONCURRENCY
        assert server.paid()["distinct"] == REQUESTS


def test_twenty_random_kills_pay_again_for_no_more_than_what_was_in_flight(tmp_path):
    chance = random.Random(0)
    path = tmp_path / "requests.sqlite"
    seen = []
    with Process('{"colour": "red"}', 0.05) as server, runs_of(path, server) as (start, status):
        for kills in range(1, KILLS + 1):
            before = server.paid()["paid"]
            run = start()
            wait_for(server, before + 1)
            time.sleep(chance.uniform(0, 0.2))
            os.kill(run, signal.SIGKILL)
            assert status() == signal.SIGKILL, "the run ended before the kill: it needs more requests"
            time.sleep(0.06)  # the server counts what had arrived
            paid = server.paid()["paid"]
            seen.append(paid)
            with llm.Store(path) as store:
                assert store.execute("PRAGMA integrity_check") == [("ok",)]
                # The store has every paid reply, except those in flight at this kill and the earlier ones.
                assert 0 <= paid - store.totals()["replies"] <= CONCURRENCY * kills
        assert len(set(seen)) == KILLS
        start()
        assert status() == 0
        paid = server.paid()
    assert paid["distinct"] == REQUESTS
    assert REQUESTS <= paid["paid"] <= REQUESTS + CONCURRENCY * KILLS
    with llm.Store(path) as store:
        assert all(llm.read(request(number), store) == Colour(colour="red") for number in range(REQUESTS))
        assert store.totals()["replies"] == REQUESTS
