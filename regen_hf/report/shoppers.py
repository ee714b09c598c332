"""The section with some shoppers: their purchases, reference narratives and the models' narratives."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import outputs
from ..cards.facts import ranks_only
from ..schema import TASKS
from .blocks import Section, Shopper, Text, words

SHOPPERS = 10
MAX_REVIEW = 600
"""Characters of a review that are shown."""


def section(run: Path) -> Section:
    """The section with the first evaluated users."""
    section = Section("shoppers", "Shoppers, side by side")
    results = outputs.results(run)
    if not results or ranks_only(run):
        return section
    by_user: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for row in outputs.predictions(run).to_pylist():
        by_user.setdefault(row["reviewer_id"], {}).setdefault(row["task"], {})[row["model"]] = row
    chosen = dict(list(by_user.items())[:SHOPPERS])
    main = next(iter(results["models"]))
    by = ", ".join("fixed rules (reference)" if name == "reference" else name for name in results["narrators"])
    text = f"The reference, written by {by}, beside the narrative of {words(main)}. The controls are folded."
    for user in outputs.rows(outputs.dataset_files(run, results["split"])):
        if user["reviewer_id"] in chosen:
            section.blocks.append(_shopper(user, chosen.pop(user["reviewer_id"]), main))
        if not chosen:
            break
    if section.blocks:
        section.blocks.insert(0, Text(text))
    return section


def _shopper(user: dict[str, Any], by_task: dict[str, dict[str, dict[str, str]]], main: str) -> Shopper:
    history = user["purchase_history"]
    return Shopper(
        name=user["reviewer_id"],
        about=f"{len(history)} purchase{'s' if len(history) != 1 else ''}",
        purchases=[_purchase(purchase) for purchase in history],
        narratives=[_narratives(task, by_task[task], main) for task in TASKS if task in by_task],
    )


def _narratives(task: str, by_model: dict[str, dict[str, str]], main: str) -> dict[str, Any]:
    texts = [(words(model), row["prediction"]) for model, row in by_model.items() if model == main]
    return {
        "task": words(task),
        "texts": [("reference", next(iter(by_model.values()))["reference"]), *texts],
        "others": [(words(model), row["prediction"]) for model, row in by_model.items() if model != main],
    }


def _purchase(purchase: dict[str, Any]) -> dict[str, str]:
    item, review = purchase["item"], purchase["review"] or {}
    stars = "★" * review["rating"] + "☆" * (5 - review["rating"]) if review.get("rating") else ""
    text = ": ".join(review[name] for name in ("summary", "text") if review.get(name))
    price = f"${item['price']:,.2f}" if item["price"] else ""
    return {
        "title": item["title"] or item["asin"],
        "detail": "  ".join(part for part in (_date(review.get("unix_time")), stars, price) if part),
        "review": text if len(text) <= MAX_REVIEW else text[:MAX_REVIEW].rstrip() + "…",
    }


def _date(time: int | None) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d") if time is not None else ""
    except (ValueError, OverflowError, OSError):
        return ""
