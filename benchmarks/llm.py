"""Requests per second against a server that answers each after 50 ms; prints one JSON line of ratios.

    python benchmarks/llm.py --out benchmarks/results/llm.json

The server is a separate process on bare asyncio (tests/llm_server.py). In the same run and with the same bodies:

- `ideal`: requests in flight / latency;
- `server`: a client on sockets that only sends bytes and reads the answer: the limit of server and machine;
- `official`: `chat.completions.create` of the official client in a loop with as many requests in flight, which stores
  nothing. `official_aiohttp` is the same with aiohttp as its transport;
- `regen`: `regen_hf.llm.ask`, which retries, validates, stores and counts.

Each number is the median over the rounds, whose order alternates; CPU seconds are those of the client's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel, ConfigDict

from regen_hf import llm
from tests.llm_server import Process

LATENCY = 0.05
WORDS = "the customer bought a soft blue pen and writes that it flows well, dries fast and fits a small hand. " * 40


class Summary(BaseModel):
    """An answer of two fields."""

    model_config = ConfigDict(extra="forbid")
    summary: str
    profile: str


ANSWER = json.dumps({"summary": WORDS[:400], "profile": "Buyer of soft blue pens"})


def config_of(url: str, in_flight: int) -> llm.LLMConfig:
    """The settings of a run."""
    return llm.LLMConfig(
        backend="openai", model="m", base_url=url, concurrency=in_flight, price_in=0.0, price_out=0.0, timeout=120
    )


def request(number: int, config: llm.LLMConfig) -> llm.Request:
    """A request of about a thousand tokens."""
    messages = (
        {"role": "system", "content": "Describe the customer."},
        {"role": "user", "content": f"{number} {WORDS}"},
    )
    return llm.Request.of(config, messages, Summary)


def regen(url: str, in_flight: int, count: int) -> None:
    """`llm.ask` with a fresh store."""
    config = config_of(url, in_flight)
    with tempfile.TemporaryDirectory() as folder, llm.Store(Path(folder) / "requests.sqlite") as store:
        llm.ask(lambda: (request(number, config) for number in range(count)), config, store, count, "llm")
        if store.totals()["replies"] != count:
            raise SystemExit("not every request was answered once")


def official(url: str, in_flight: int, count: int, aiohttp: bool = False) -> None:
    """The official client without a store."""
    import openai

    config = config_of(url, in_flight)

    async def run() -> None:
        transport = {"http_client": openai.DefaultAioHttpClient()} if aiohttp else {}
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, **transport) as client:
            numbers = iter(range(count))

            async def work() -> None:
                for number in numbers:
                    await client.chat.completions.create(**request(number, config).body("json_schema"))

            await asyncio.gather(*(work() for _ in range(in_flight)))

    asyncio.run(run())


def official_aiohttp(url: str, in_flight: int, count: int) -> None:
    """The official client on aiohttp."""
    official(url, in_flight, count, aiohttp=True)


def server(url: str, in_flight: int, count: int) -> None:
    """A client on sockets that sends one body repeatedly."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(request(0, config_of(url, in_flight)).body("json_schema")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def run() -> None:
        numbers = iter(range(count))

        async def work() -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            for _ in numbers:
                writer.write(head + body)
                lines = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(lines.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            writer.close()

        await asyncio.gather(*(work() for _ in range(in_flight)))

    asyncio.run(run())


CLIENTS = {
    "server": server,
    "official": official,
    "official_aiohttp": official_aiohttp,
    "regen": regen,
}


def one(name: str, url: str, in_flight: int, count: int) -> dict[str, float]:
    """Run a client in this process; its seconds, CPU and memory."""
    CLIENTS[name](url, in_flight, min(count, in_flight))  # imports and connections
    started, cpu = time.perf_counter(), time.process_time()
    CLIENTS[name](url, in_flight, count)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"per_second": count / seconds, "cpu_ms": 1000 * cpu / count, "peak_mb": peak}


def measured(name: str, url: str, in_flight: int, count: int) -> dict[str, float]:
    """`one` in a separate process, for its peak memory."""
    command = [
        sys.executable,
        __file__,
        "--one",
        name,
        "--url",
        url,
        "--in-flight",
        str(in_flight),
        "--requests",
        str(count),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout)


def measure_many(options: argparse.Namespace, before: dict) -> None:
    """Print the peak memory of a long and of a short run."""
    in_flight = options.in_flight[0]
    with Process(ANSWER, LATENCY) as process:
        few, many = (measured("regen", process.url, in_flight, count) for count in (options.few, options.many))
    result = {
        "benchmark": "llm",
        "runs": 1,
        "requests": options.many,
        "few_requests": options.few,
        "in_flight": in_flight,
        "regen_peak_mb": round(many["peak_mb"], 1),
        "regen_peak_mb_few": round(few["peak_mb"], 1),
        "memory_growth": round(many["peak_mb"] / few["peak_mb"], 3),
    }
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(before | {"many": result}) + "\n", encoding="utf-8")


def main() -> None:
    """Measure all clients and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="requests per run (%(default)s)")
    parser.add_argument("--few", type=int, default=2_000, help="requests of the smaller run (%(default)s)")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256], help="requests in flight (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs per client (%(default)s)")
    parser.add_argument("--many", type=int, help="only measure the peak memory of this number of requests by regen")
    parser.add_argument("--out", type=Path, help="also write the line to this file; --many adds to it")
    parser.add_argument("--one", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.url, options.in_flight[0], options.requests)))
        return
    written = options.out.read_text(encoding="utf-8") if options.out and options.out.is_file() else ""
    before = json.loads(written or "{}")
    if options.many:
        measure_many(options, before)
        return
    results: dict[str, object] = {}
    with Process(ANSWER, LATENCY) as process:
        for in_flight in options.in_flight:
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
            for number in range(options.rounds):
                names = list(CLIENTS) if number % 2 == 0 else list(CLIENTS)[::-1]
                for name in names:
                    # The official clients are slow, so a tenth of the requests is enough.
                    count = (
                        options.requests if name in ("regen", "server") else max(options.few, options.requests // 10)
                    )
                    rounds[name].append(measured(name, process.url, in_flight, count))
            few = measured("regen", process.url, in_flight, options.few)
            median = {
                name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                for name, runs in rounds.items()
            }
            ideal = in_flight / LATENCY
            rate = median["regen"]["per_second"]
            results[str(in_flight)] = {
                "ideal_per_second": ideal,
                **{f"{name}_per_second": round(values["per_second"], 1) for name, values in median.items()},
                **{f"{name}_cpu_ms_per_request": round(values["cpu_ms"], 3) for name, values in median.items()},
                "regen_to_ideal": round(rate / ideal, 3),
                "regen_to_ideal_or_server": round(rate / min(ideal, median["server"]["per_second"]), 3),
                "regen_to_ideal_or_official": round(rate / min(ideal, median["official"]["per_second"]), 3),
                "regen_to_ideal_or_official_aiohttp": round(
                    rate / min(ideal, median["official_aiohttp"]["per_second"]), 3
                ),
                "regen_peak_mb": round(median["regen"]["peak_mb"], 1),
                "regen_peak_mb_few": round(few["peak_mb"], 1),
                "memory_growth": round(median["regen"]["peak_mb"] / few["peak_mb"], 3),
            }
    line = json.dumps(
        ({"many": before["many"]} if "many" in before else {})
        | {
            "benchmark": "llm",
            "requests": options.requests,
            "few_requests": options.few,
            "latency_seconds": LATENCY,
            "prompt_bytes": len(WORDS),
            "rounds": options.rounds,
            "in_flight": results,
            "machine": {
                "cpus": os.cpu_count(),
                "load_at_end": round(os.getloadavg()[0], 1),
                "python": platform.python_version(),
            },
        }
    )
    print(line)
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
