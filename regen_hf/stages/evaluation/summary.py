"""What `regen quickstart` prints: the table of scores and some users' narratives, from the files of a run alone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ...metrics.results import table
from ...outputs import rows, split_files
from ...schema import TASKS


def summary(run: Path, shoppers: int = 3) -> str:
    """The scores of a run, and reference and generated narratives of `shoppers` of its users."""
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    return "\n".join([table(results), "", *_examples(run, results, shoppers)])


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
