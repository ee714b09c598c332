"""How critiques steer the ranking: by the trained model with the own critique, another user's, a masked one, and none.

Only users with a critique count. `masked` is the own critique without the words that are also in the title of the last
purchase, because they may give it away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...intervals import format_interval
from ...metrics.tables import markdown
from ...schema import CRITIQUE, text_columns
from ...vectors.histories import derangement
from .fused import FusedModel
from .recommender import Cases, Recommender

COLUMNS = ("recall@1", "recall@10", "recall@50", "ndcg@10", "mrr")
WORD = re.compile(r"\w+(?:['’]\w+)*")


def check(run: Path, model: FusedModel | None) -> FusedModel:
    """The model of `run` that reads critiques.

    Raises:
        InputError: there is none.
    """
    if model is None or not model.processor.reads_critiques:
        raise InputError(
            f"critiques was given, but {run} has no model with an item head that was trained with critiques. Write "
            "critiques with `regen narratives` (setting critiques), and train with next_item_weight above 0."
        )
    return model


def ranks(
    run: Path, model: FusedModel, recommender: Recommender, cases: Cases, seed: int
) -> dict[str, NDArray[np.int64]]:
    """The ranks of the targets with `none`, the `own`, `another` user's and the `masked` critique, each (U,).

    U are the users of `cases` with a critique.

    Raises:
        InputError: fewer than two users have one.
    """
    columns = text_columns([CRITIQUE.name])
    texts = [CRITIQUE.text(row) for row in outputs.rows(outputs.dataset_files(run, model.split), columns)]
    cases = cases.some([case for case, row in enumerate(cases.rows) if texts[row]])
    if len(cases) < 2:
        raise InputError(
            f"{len(cases)} test users with a last purchase to predict have a critique, expected at least 2. Raise the "
            "setting users, or write critiques for more users."
        )
    own = [str(texts[row]) for row in cases.rows]
    titles = {item["asin"]: item["title"] for item in outputs.rows(outputs.catalogue_files(run))}
    targets = [titles[recommender.asins[item]] or "" for item in cases.targets]
    by_name: dict[str, Sequence[str | None]] = {
        "none": [None] * len(own),
        "own": own,
        "another": [own[other] for other in derangement(len(own), seed)],
        "masked": [mask(text, title) for text, title in zip(own, targets, strict=True)],
    }
    return {name: _ranks(recommender, cases, model.scores(cases, critiques)) for name, critiques in by_name.items()}


def mask(critique: str, title: str) -> str:
    """The critique without the words of `title`.

    >>> mask("I'd like it in navy, not red.", "Vintrel pens, navy")
    "I'd like it in , not red."
    """
    words = set(WORD.findall(title.lower()))
    return WORD.sub(lambda match: "" if match[0].lower() in words else match[0], critique)


def summary(results: dict[str, Any]) -> str:
    """The metrics by critique, and their differences from no critique, as Markdown."""
    grid = [["critique", *COLUMNS]]
    grid += [[name, *(format_interval(metrics[one]) for one in COLUMNS)] for name, metrics in results["by"].items()]
    grid += [
        [f"{name} minus none", *(format_interval(metrics[one]) for one in COLUMNS)]
        for name, metrics in results["minus_none"].items()
    ]
    return (
        f"The trained model's ranking for the {results['n_users']} users with a critique; `masked` is the own critique "
        f"without the words of the last purchase's title:\n\n{markdown(grid)}"
    )


def _ranks(recommender: Recommender, cases: Cases, scores: Callable[[slice], NDArray[np.float64]]) -> NDArray[np.int64]:
    return recommender.target_ranks(scores(slice(None)), cases.histories, cases.targets)
