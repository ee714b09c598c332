"""Requests per second and CPU per request against a server that answers each after 1 s; prints one JSON line.

    python benchmarks/llm.py --write

The server is a separate process on bare asyncio (tests/llm_server.py), so its CPU does not count. After the ramp, in
which the number of requests in flight grows, a run goes on for a number of rounds; a round has as many requests as are
in flight. Each client is a process of its own:

- `regen`: `regen_hf.llm.ask`, which retries, validates, stores and counts;
- `aiohttp`: the HTTP library below it, which only sends the same bodies and reads the answers; all requests are sent
  together, and their answers arrive together;
- `aiohttp_spread`: the same, with the first requests spread over a second, so that its process wakes up for each
  answer; `regen` keeps answers that arrive together in bursts of 16;
- `official`, `official_aiohttp`: `chat.completions.create` of the official client in a loop with as many requests in
  flight, which stores nothing; the second has aiohttp as its transport.

The ideal rate is requests in flight / latency. The clients other than `regen` run for fewer rounds, at the first number
of requests in flight, and are reported by their CPU per request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "llm.json"
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel, ConfigDict

from regen_hf import llm
from tests.llm_server import Process

RAMP = 4
"""Rounds before the measurement; the limit of the requests in flight doubles per round of answers, so two would do."""
WORDS = "the customer bought a soft blue pen and writes that it flows well, dries fast and fits a small hand. " * 40


class Summary(BaseModel):
    """An answer of two fields."""

    model_config = ConfigDict(extra="forbid")
    summary: str
    profile: str


ANSWER = json.dumps({"summary": WORDS[:400], "profile": "Buyer of soft blue pens"})


class Numbers:
    """The numbers of the requests; measures the time and the CPU from the end of the ramp to the last draw.

    With `in_flight` requests in flight, a number is drawn when an answer was received.
    """

    def __init__(self, in_flight: int, rounds: int) -> None:
        self.ramp, self.measured = RAMP * in_flight, rounds * in_flight

    def __iter__(self) -> Iterator[int]:
        yield from range(self.ramp)
        started, cpu = time.perf_counter(), time.process_time()
        yield from range(self.ramp, self.ramp + self.measured)
        self.per_second = self.measured / (time.perf_counter() - started)
        self.cpu_ms = 1000 * (time.process_time() - cpu) / self.measured


def config_of(url: str, in_flight: int) -> llm.LLMConfig:
    """The settings of a run."""
    return llm.LLMConfig(
        backend="openai", model="m", base_url=(url,), concurrency=in_flight, price_in=0.0, price_out=0.0, timeout=120
    )


def request(number: int, config: llm.LLMConfig) -> llm.Request:
    """A request of about a thousand tokens."""
    messages = (
        {"role": "system", "content": "Describe the customer."},
        {"role": "user", "content": f"{number} {WORDS}"},
    )
    return llm.Request.of(config, messages, Summary)


def regen(url: str, in_flight: int, numbers: Numbers) -> None:
    """`llm.ask` with a fresh store."""
    config, count = config_of(url, in_flight), numbers.ramp + numbers.measured
    with tempfile.TemporaryDirectory() as folder, llm.Store(Path(folder) / "requests.sqlite") as store:
        llm.ask(lambda: (request(number, config) for number in numbers), config, store, count, "llm")
        if store.totals()["replies"] != count:
            raise SystemExit("not every request was answered once")


def aiohttp(url: str, in_flight: int, numbers: Numbers, spread: float = 0.0) -> None:
    """The HTTP library without anything above it; the first requests are sent within `spread` seconds."""
    import aiohttp

    config = config_of(url, in_flight)

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            drawn = iter(numbers)

            async def work(index: int) -> None:
                await asyncio.sleep(spread * index / in_flight)
                for number in drawn:
                    body = json.dumps(request(number, config).body("json_schema")).encode()
                    async with session.post(f"{url}/chat/completions", data=body) as response:
                        json.loads(await response.read())

            await asyncio.gather(*(work(index) for index in range(in_flight)))

    asyncio.run(run())


def aiohttp_spread(url: str, in_flight: int, numbers: Numbers) -> None:
    """The HTTP library with requests that are spread over a second."""
    aiohttp(url, in_flight, numbers, spread=1.0)


def official(url: str, in_flight: int, numbers: Numbers, with_aiohttp: bool = False) -> None:
    """The official client without a store."""
    import openai

    config = config_of(url, in_flight)

    async def run() -> None:
        transport = {"http_client": openai.DefaultAioHttpClient()} if with_aiohttp else {}
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, **transport) as client:
            drawn = iter(numbers)

            async def work() -> None:
                for number in drawn:
                    await client.chat.completions.create(**request(number, config).body("json_schema"))

            await asyncio.gather(*(work() for _ in range(in_flight)))

    asyncio.run(run())


def official_aiohttp(url: str, in_flight: int, numbers: Numbers) -> None:
    """The official client on aiohttp."""
    official(url, in_flight, numbers, with_aiohttp=True)


CLIENTS = {
    "regen": regen,
    "aiohttp": aiohttp,
    "aiohttp_spread": aiohttp_spread,
    "official": official,
    "official_aiohttp": official_aiohttp,
}


def one(name: str, url: str, in_flight: int, rounds: int) -> dict[str, float]:
    """Run a client in this process: its rate and CPU per request after the ramp, and its peak memory."""
    numbers = Numbers(in_flight, rounds)
    CLIENTS[name](url, in_flight, numbers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"per_second": numbers.per_second, "cpu_ms": numbers.cpu_ms, "peak_mb": peak}


def measured(name: str, url: str, in_flight: int, rounds: int) -> dict[str, float]:
    """`one` in a separate process, for its peak memory."""
    options = ["--one", name, "--url", url, "--in-flight", str(in_flight), "--rounds", str(rounds)]
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure all clients and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256, 1024], help="requests in flight")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of regen after the ramp (default: %(default)s)")
    parser.add_argument("--other-rounds", type=int, default=10, help="those of the others (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds until an answer (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write the line to results/{RESULTS.name}")
    parser.add_argument("--one", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.url, options.in_flight[0], options.rounds)))
        return
    load, by_number, others = os.getloadavg()[0], {}, {}
    with Process(ANSWER, options.latency) as process:
        for in_flight in options.in_flight:
            result = measured("regen", process.url, in_flight, options.rounds)
            ideal = in_flight / options.latency
            by_number[str(in_flight)] = {
                "requests": in_flight * options.rounds,
                "per_second": round(result["per_second"], 1),
                "regen_to_ideal": round(result["per_second"] / ideal, 4),
                "cpu_ms_per_request": round(result["cpu_ms"], 3),
                "peak_mb": round(result["peak_mb"], 1),
            }
        for name in CLIENTS:
            if name != "regen" and options.other_rounds:
                result = measured(name, process.url, options.in_flight[0], options.other_rounds)
                others[name] = {"cpu_ms_per_request": round(result["cpu_ms"], 3)}
    line = json.dumps(
        {
            "benchmark": "llm",
            "latency_seconds": options.latency,
            "rounds": options.rounds,
            "runs": 1,
            "prompt_bytes": len(WORDS),
            "in_flight": by_number,
            "others": {"in_flight": options.in_flight[0], "rounds": options.other_rounds, **others},
            "machine": {
                "cpus": os.cpu_count(),
                "load_at_start": round(load, 1),
                "python": platform.python_version(),
            },
        }
    )
    print(line)
    if options.write:
        RESULTS.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
