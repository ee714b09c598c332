"""The output of `regen quickstart`: scores, example narratives and Recall@10, from the files of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from ... import outputs
from ...cards.facts import ranks_only
from ...intervals import format_interval
from ...metrics.tables import score_table
from ...schema import TASKS


def summary(run: Path, shoppers: int = 3) -> str:
    """The scores of a run, reference and generated narratives of `shoppers` users, and Recall@10 of next items.

    Only the last for a model that was trained to rank only.
    """
    results = outputs.results(run)
    texts = [] if ranks_only(run) else [score_table(results), "", *_examples(run, results["split"], shoppers)]
    return "\n".join([*texts, *_next_item(run)])


def _examples(run: Path, split: str, shoppers: int) -> Iterator[str]:
    texts = {
        (row["reviewer_id"], row["task"]): {"reference": row["reference"], "generated": row["prediction"]}
        for row in outputs.predictions(run).to_pylist()
        if row["model"] == "fused"
    }
    for user in outputs.rows(outputs.dataset_files(run, split), limit=shoppers):
        history = user["purchase_history"]
        yield f"Shopper {user['reviewer_id']}, {len(history)} purchases, the latest:"
        for purchase in history[-3:]:
            rating = purchase["review"]["rating"]
            yield f"    {'★' * rating if rating else '–':<5}  {purchase['item']['title']}"
        for task in TASKS:
            if pair := texts.get((user["reviewer_id"], task)):
                yield f"  {task}"
                for label, text in pair.items():
                    yield textwrap.fill(text or "–", 112, initial_indent=f"    {label}  ", subsequent_indent=" " * 15)
        yield ""


def _next_item(run: Path) -> Iterator[str]:
    """Recall@10 of the model, if it has an item head, and of ALS; nothing without the evaluation `next-item`."""
    if results := outputs.results(run, "next-item"):
        users, items = results["n_users"], results["catalogue"]["items"]
        yield f"Next purchase of {users} test users among {items} items, Recall@10:"
        for model, name in (("fused", "model"), ("als", "ALS")):
            if model in results["models"]:
                yield f"  {name:<5}  {format_interval(results['models'][model]['all']['recall@10'])}"
