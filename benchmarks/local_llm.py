"""CPU-seconds per user of the narratives by a local model, before and after a change; prints one JSON line.

    python benchmarks/local_llm.py --write --llama-cpp ~/llama/bin/python

The stage `narratives` runs on the first users of the gift cards with SmolLM2-135M-Instruct (`make models`):

- `before`: the backend transformers of an earlier commit, from a work tree in a temporary folder;
- `after`: the backend transformers of this tree;
- `llama_cpp`: llama.cpp's server with the Q4_1 weights, asked by the backend openai, as a report. Without
  `--llama-cpp`, it is that of the results file.

Each round has its own seed, and the order alternates. CPU-seconds are those of the process, and of the server; one
thread, as threads that wait for each other on a busy machine count too. Answers are random: `before`, a few of them
repeat themselves until the token limit (`cut`); `after`, they are stopped (`loops`) and requested again. So CPU-seconds
per 1,000 tokens of answers stand beside those per user.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from real_llm import WINDOW, llama_cpp

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "gift_cards_2018"
BEFORE = "c72fc3a"
RESULTS = ROOT / "benchmarks" / "results" / "local_llm.json"


def regen(tree: Path, *arguments: str | Path, threads: int = 1) -> dict[str, float]:
    """Run a command of the package in `tree`; its CPU-seconds and seconds."""
    code = "import sys; from regen_hf.cli import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=tree, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"regen {arguments[0]} in {tree} failed with exit code {os.waitstatus_to_exitcode(status)}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": time.perf_counter() - started}


def run_of(tree: Path, folder: Path, users: int) -> Path:
    """A run of `tree` with the sequences of the first users of the gift cards."""
    files = [
        "--reviews",
        DATA / "Gift_Cards_5.json.gz",
        "--items",
        DATA / "meta_Gift_Cards.json.gz",
    ]
    regen(tree, "sequences", folder, *files)
    for path in (folder / "sequences").glob("*-of-*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.slice(0, users if path.name.startswith("train") else 0), path)
    return folder


def answers(run: Path) -> dict[str, Any]:
    """Tokens and answers of the narratives of `run`."""
    with sqlite3.connect(run / "requests" / "narratives.sqlite") as store:
        replies, prompt, completion, cut, loops = store.execute(
            "SELECT count(*), total(prompt_tokens), total(completion_tokens), total(finish_reason = 'length'), "
            "total(finish_reason = 'repetition') FROM replies WHERE state = 'answered'"
        ).fetchone()
    counts = json.loads((run / "narratives" / "manifest.json").read_text())["counts"]
    return {
        "replies": replies,
        "valid": counts["users"] * 2 - counts["failed"],
        "cut": int(cut),
        "loops": int(loops),
        "prompt_tokens": int(prompt),
        "completion_tokens": int(completion),
    }


def narrate(tree: Path, run: Path, model: str, seed: int, *options: str) -> dict[str, Any]:
    """The narratives of `run` with `seed`: its cost and its answers."""
    settings = ["--model", model, "--window", str(WINDOW), "--seed", str(seed), "--max-failed", "1", *options]
    if tree == ROOT:
        settings += ["--critiques", "0"]  # the commit to compare with writes none
    cost = regen(tree, "narratives", run, *settings)
    return cost | answers(run)


def by_llama_cpp(python: str, weights: Path, run: Path, seed: int) -> dict[str, Any]:
    """The narratives of `run` by llama.cpp's server."""
    with llama_cpp(python, weights, 1, run / "llama_cpp.log") as (url, server):
        result = narrate(ROOT, run, weights.stem, seed, "--backend", "openai", "--base-url", url, "--concurrency", "1")
        used = server.cpu_times()
    return result | {"cpu_seconds": result["cpu_seconds"] + used.user + used.system}


def summary(rounds: list[dict[str, Any]], users: int) -> dict[str, Any]:
    """The sums over the rounds, and the costs per user and per 1,000 tokens of answers."""
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    return {
        "cpu_seconds_per_user": round(total["cpu_seconds"] / users / len(rounds), 1),
        "cpu_seconds_per_1000_tokens": round(1000 * total["cpu_seconds"] / total["completion_tokens"], 1),
        "wall_seconds_per_user": round(total["wall_seconds"] / users / len(rounds), 1),
        **{name: value for name, value in total.items() if isinstance(value, int)},
        "cpu_seconds": [round(one["cpu_seconds"], 1) for one in rounds],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / ".models" / "smollm2-135m")
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--before", default=BEFORE, help="commit to compare with")
    parser.add_argument("--llama-cpp", help="Python with llama-cpp-python[server], in an environment of its own")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    model = options.model.resolve()
    weights = model.with_name(f"{model.name}.gguf")
    if not model.exists():
        raise SystemExit(f"{options.model} does not exist; run: make models")

    rounds: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tree = folder / "before"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "-q", "--detach", tree, options.before], check=True)
        try:
            for number in range(options.rounds):
                both = [("before", tree), ("after", ROOT)]
                for name, code in both if number % 2 == 0 else reversed(both):
                    run = run_of(code, folder / f"{name}{number}", options.users)
                    rounds[name].append(narrate(code, run, str(model), number, "--backend", "transformers"))
                    print(name, number, rounds[name][-1], flush=True)
                if options.llama_cpp:
                    run = run_of(ROOT, folder / f"llama_cpp{number}", options.users)
                    result = by_llama_cpp(options.llama_cpp, weights, run, number)
                    rounds.setdefault("llama_cpp", []).append(result)
                    print("llama_cpp", number, result, flush=True)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            subprocess.run(["git", "-C", ROOT, "worktree", "prune"], check=True)

    table = {name: summary(one, options.users) for name, one in rounds.items()}
    for name, row in table.items():
        print(f"{name:>10}", *(f"{key} {value}" for key, value in row.items()), sep="  ")
    if not options.llama_cpp and RESULTS.exists():
        print("llama.cpp was not run (--llama-cpp names the Python of its environment): its earlier figures are kept.")
        table |= {name: row for name, row in json.loads(RESULTS.read_text()).items() if name == "llama_cpp"}
    before, after = table["before"], table["after"]
    result = {
        "benchmark": "local_llm",
        "commit_before": options.before,
        "model": model.name,
        "users": options.users,
        "rounds": options.rounds,
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "before_over_after": {
            name: round(before[name] / after[name], 2)
            for name in ("cpu_seconds_per_user", "cpu_seconds_per_1000_tokens")
        },
        **table,
    }
    if options.write:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
