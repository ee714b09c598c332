"""The Space under load: start, answers of 20 visitors at once, and memory over 200 answers.

    python benchmarks/space.py RUN --write

RUN is a run with a trained model. Reported: the seconds from the command to the first page; the seconds to the first
text and to the complete answer with the influence of each purchase, for one visitor and for 20 visitors at once; the
errors; and the resident memory of the server after 20 and after 200 answers. Prints one JSON line; `--write` stores it
in benchmarks/results/space.json.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from gradio_client import Client

RESULTS = Path(__file__).parent / "results" / "space.json"
VISITORS = 20
ANSWERS = 200
START = 120
"""Seconds in which the page must be there."""


def ask(url: str, history: list, task: str) -> tuple[float, float] | None:
    """Seconds to the first text and to the end of an answer with its influence; None after an error."""
    client = Client(url, verbose=False)
    try:
        started = time.perf_counter()
        job = client.submit(history, task, api_name="/narrate")
        next(iter(job))
        first = time.perf_counter() - started
        job.result(timeout=300)
        client.predict(history, task, api_name="/explain")
        return first, time.perf_counter() - started
    except Exception as error:  # counted
        print(type(error).__name__, error, file=sys.stderr)
        return None


def summary(answers: list[tuple[float, float] | None]) -> dict[str, float]:
    """Median and 95th percentile of both times, and the errors."""
    done = [answer for answer in answers if answer]
    report: dict[str, float] = {"answers": len(answers), "errors": len(answers) - len(done)}
    for number, name in enumerate(("first_text", "complete")):
        times = sorted(answer[number] for answer in done)
        report[f"{name}_median_s"] = round(statistics.median(times), 2)
        report[f"{name}_p95_s"] = round(times[max(0, round(0.95 * len(times)) - 1)], 2)
    return report


def main() -> None:
    """Serve a run and measure it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--write", action="store_true", help=f"store the result in {RESULTS.name}")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "regen_hf.cli", "demo", str(options.run), "--port", str(port)]
    started = time.perf_counter()
    server = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                config = json.loads(urllib.request.urlopen(f"{url}/config", timeout=5).read())
                break
            except OSError:
                if server.poll() is not None or time.perf_counter() - started > START:
                    raise SystemExit("The demo did not start.") from None
                time.sleep(0.1)
        result = {"start_s": round(time.perf_counter() - started, 1), "cpus": os.cpu_count()}
        result |= {"machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
        histories, tasks = shoppers(options.run)
        task = "long_user_summary" if "long_user_summary" in tasks else tasks[0]
        process = psutil.Process(server.pid)
        assert config["dependencies"]

        def many(number: int, at_once: int) -> list[tuple[float, float] | None]:
            with ThreadPoolExecutor(at_once) as pool:
                return list(pool.map(lambda each: ask(url, histories[each % len(histories)], task), range(number)))

        result["one_visitor"] = summary(many(5, 1))
        result[f"{VISITORS}_visitors"] = summary(many(VISITORS, VISITORS))
        result["memory_before_mb"] = round(process.memory_info().rss / 1e6)
        result[f"{ANSWERS}_answers"] = summary(many(ANSWERS, 4))
        result["memory_after_mb"] = round(process.memory_info().rss / 1e6)
    finally:
        server.terminate()
        server.wait(20)
    print(json.dumps(result))
    if options.write:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def shoppers(run: Path) -> tuple[list, list[str]]:
    """The histories of the test users of a run, and the tasks of its model."""
    import pyarrow.parquet as pq

    from regen_hf.hub.space import space_config

    config = json.loads(space_config(run, "model", "dataset"))
    path = next((run / "dataset" / config["dataset_config"]).glob(f"{config['split']}-*.parquet"))
    return pq.read_table(path).column("purchase_history").to_pylist(), [task["name"] for task in config["tasks"]]


if __name__ == "__main__":
    main()
