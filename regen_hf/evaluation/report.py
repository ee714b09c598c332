"""What `regen quickstart` prints: the table of scores and some users' narratives, from the files of a run alone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..schema import TASKS, rows, split_files
from .tables import PAPER, UNITS, latex, markdown, scores


def summary(run: Path, shoppers: int = 3) -> str:
    """The scores of a run, and reference and generated narratives of `shoppers` of its users."""
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    return "\n".join([table(results), "", *_examples(run, results, shoppers)])


def table(results: dict[str, Any]) -> str:
    """The main scores of each task by model, as a Markdown table; those of the first model with their intervals."""
    first = next(iter(results["models"]))
    head = (
        f"{_users(results)}. {UNITS}; `{first}` with its 95 % interval over the users. All metrics and intervals: "
        "`table.md` beside `results.json`."
    )
    return "\n\n".join([head, markdown(scores(results["models"], PAPER, spans=[first])), *_missing(results)])


def write_tables(out: Path, results: dict[str, Any]) -> None:
    """All metrics with their intervals as `table.md` and `table.tex` into the folder `out`."""
    grid = scores(results["models"])
    head = f"{_users(results)}. {UNITS}, each with its 95 % interval over the users."
    about = [f"- `{model}`: {text}" for model, text in results["about"].items() if model in results["models"]]
    text = "\n".join([head, "", markdown(grid), "", *about, *(f"- {line}" for line in _missing(results)), ""])
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "table.tex").write_text(latex(grid, head) + "\n", encoding="utf-8")


def _missing(results: dict[str, Any]) -> list[str]:
    """What is to be said of models that left users out: their scores are of those that they chose."""
    missing = {model: sum(by.values()) for model, by in (results.get("missing_predictions") or {}).items()}
    return [
        f"`{model}` has no prediction for {number:,} narratives that the split has, and is scored on the others alone."
        for model, number in missing.items()
        if number
    ]


def _users(results: dict[str, Any]) -> str:
    return f"{results['n_users']} {results['split']} users" if results["split"] else f"{results['n_users']} users"


def _examples(run: Path, results: dict[str, Any], shoppers: int) -> list[str]:
    predictions: dict[tuple[str, str], tuple[str, str]] = {}
    for row in pq.read_table(run / "evaluation" / "predictions.parquet").to_pylist():
        if row["model"] == "fused":
            predictions[row["reviewer_id"], row["task"]] = (row["reference"], row["prediction"])
    lines = []
    for user in rows(split_files(run / "dataset", results["split"]), limit=shoppers):
        history = user["purchase_history"]
        lines += [f"Shopper {user['reviewer_id']}, {len(history)} purchases, the latest:"]
        for purchase in history[-3:]:
            rating = purchase["review"]["rating"]
            lines.append(f"    {'★' * rating if rating else '–':<5}  {purchase['item']['title']}")
        for task in TASKS:
            if pair := predictions.get((user["reviewer_id"], task)):
                lines.append(f"  {task}")
                for label, text in zip(("reference", "generated"), pair, strict=True):
                    said = text or "–"
                    lines.append(textwrap.fill(said, 112, initial_indent=f"    {label}  ", subsequent_indent=" " * 15))
        lines.append("")
    return lines
