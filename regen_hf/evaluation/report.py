"""What `regen quickstart` prints: the table of scores and some users' narratives, from the files of a run alone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..schema import TASKS, rows, split_files


def summary(run: Path, shoppers: int = 3) -> str:
    """The scores of a run, and reference and generated narratives of `shoppers` of its users."""
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    return "\n".join([table(results), "", *_examples(run, results, shoppers)])


def table(results: dict[str, Any]) -> str:
    """The scores of each task by model, as a Markdown table."""
    models = list(results["models"])
    lines = [
        f"{results['n_users']} {results['split']} users. BLEU and ROUGE-Lsum in percent, similarity as a cosine, "
        "each with its 95 % interval.",
        "",
        "| task | metric | " + " | ".join(models) + " |",
        "|---|---|" + "---|" * len(models),
    ]
    for task in results["models"][models[0]]:
        for metric, name, digits in (
            ("bleu", "BLEU", 1),
            ("rougeLsum", "ROUGE-Lsum", 1),
            ("similarity", "Similarity", 3),
        ):
            cells = [_cell(results["models"][model][task][metric], digits) for model in models]
            lines.append(f"| {task} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: dict[str, float | None], digits: int) -> str:
    if interval["mean"] is None:
        return "–"
    return f"{interval['mean']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


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
                    lines.append(textwrap.fill(text, 112, initial_indent=f"    {label}  ", subsequent_indent=" " * 15))
        lines.append("")
    return lines
