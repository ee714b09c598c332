"""The end of the output of `regen quickstart`: a few results, from the files of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import outputs
from ...cards.facts import ranks_only
from ...intervals import format_interval
from ...schema import TASKS

SHOWN = {"fused": "model", "empty_history": "without history", "nearest": "most similar train user"}
"""The models of the first line, and their names."""


def summary(run: Path) -> str:
    """Scores of one task, a generated narrative, Recall@10 of next items, and the commands for everything else.

    Without texts for a model that was trained to rank only.
    """
    results = outputs.results(run)
    lines = [] if ranks_only(run) else [*_scores(results), *_example(run, results["split"])]
    more = (
        f"All scores: regen evaluate {run}. A shopper: regen inspect {run}. Everything in a file: regen report {run}."
    )
    return "\n".join([*lines, *_next_item(run), more])


def _scores(results: dict[str, Any]) -> Iterator[str]:
    """ROUGE-Lsum of the first evaluated task, for the model and two controls."""
    task = next(name for name in TASKS if name in results["models"]["fused"])
    scores = {name: results["models"][model].get(task) for model, name in SHOWN.items() if model in results["models"]}
    shown = [f"{name} {format_interval(score['rougeLsum'], 1)}" for name, score in scores.items() if score]
    yield f"ROUGE-Lsum of {task}, {results['n_users']} {results['split']} users: {', '.join(shown)}"


def _example(run: Path, split: str) -> Iterator[str]:
    """The latest purchases of the first user and the shortest narrative that the model wrote about this user."""
    user = next(outputs.rows(outputs.dataset_files(run, split), limit=1))
    texts = {
        row["task"]: row["prediction"]
        for row in outputs.predictions(run).to_pylist()
        if row["model"] == "fused" and row["reviewer_id"] == user["reviewer_id"] and row["prediction"]
    }
    titles = [purchase["item"]["title"] for purchase in user["purchase_history"][-2:]]
    yield f"Shopper {user['reviewer_id']}, {len(user['purchase_history'])} purchases, the latest: {'; '.join(titles)}"
    if texts:
        task = min(texts, key=lambda name: len(texts[name]))
        yield textwrap.shorten(f"{task}, generated: {texts[task]}", 240, placeholder=" …")


def _next_item(run: Path) -> Iterator[str]:
    """Recall@10 of the model, if it has an item head, and of ALS; nothing without the evaluation `next-item`."""
    if results := outputs.results(run, "next-item"):
        users, items = results["n_users"], results["catalogue"]["items"]
        shown = [
            f"{name} {format_interval(results['models'][model]['all']['recall@10'])}"
            for model, name in (("fused", "model"), ("als", "ALS"))
            if model in results["models"]
        ]
        shown += [] if "als" in results["models"] else ["ALS none (the CF vectors are those of another recommender)"]
        yield f"Next purchase of {users} test users among {items} items, Recall@10: {', '.join(shown)}"
