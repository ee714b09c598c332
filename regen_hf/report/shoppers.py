"""Some shoppers with what they bought, their reference narratives and the models'."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..outputs import rows, split_files
from ..schema import TASKS
from .blocks import Section, Shopper, Text, words

SHOPPERS = 10
MOST = 600
"""Characters of a review that are shown."""


def section(run: Path) -> Section:
    """The first shoppers that the evaluation wrote about."""
    path = run / "evaluation" / "predictions.parquet"
    found = Section("shoppers", "Shoppers, side by side")
    if not path.exists():
        return found
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    written: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for row in pq.read_table(path).to_pylist():
        written.setdefault(row["reviewer_id"], {}).setdefault(row["task"], {})[row["model"]] = row
    chosen = dict(list(written.items())[:SHOPPERS])
    main = next(iter(results["models"]))
    for user in rows(split_files(run / "dataset", results["split"])):
        if user["reviewer_id"] in chosen:
            found.blocks.append(_shopper(user, chosen.pop(user["reviewer_id"]), main))
        if not chosen:
            break
    if found.blocks:
        by = ", ".join("fixed rules (reference)" if name == "reference" else name for name in results["narrators"])
        told = f"The reference, written by {by}, beside the narrative of {words(main)}; the controls are folded away."
        found.blocks.insert(0, Text(told))
    return found


def _shopper(user: dict[str, Any], written: dict[str, dict[str, dict[str, str]]], main: str) -> Shopper:
    history = user["purchase_history"]
    return Shopper(
        name=user["reviewer_id"],
        about=f"{len(history)} purchase{'s' if len(history) != 1 else ''}",
        purchases=[_purchase(purchase) for purchase in history],
        narratives=[
            {
                "task": words(task),
                "texts": [
                    ("reference", next(iter(written[task].values()))["reference"]),
                    *[(words(main), written[task][main]["prediction"]) for _ in "1" if main in written[task]],
                ],
                "others": [(words(model), row["prediction"]) for model, row in written[task].items() if model != main],
            }
            for task in TASKS
            if task in written
        ],
    )


def _purchase(purchase: dict[str, Any]) -> dict[str, str]:
    item, review = purchase["item"], purchase["review"] or {}
    stars = "★" * review["rating"] + "☆" * (5 - review["rating"]) if review.get("rating") else ""
    said = ": ".join(review[name] for name in ("summary", "text") if review.get(name))
    price = f"${item['price']:,.2f}" if item["price"] else ""
    return {
        "title": item["title"] or item["asin"],
        "detail": "  ".join(part for part in (_date(review.get("unix_time")), stars, price) if part),
        "review": said if len(said) <= MOST else said[:MOST].rstrip() + "…",
    }


def _date(time: int | None) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d") if time is not None else ""
    except (ValueError, OverflowError, OSError):
        return ""
