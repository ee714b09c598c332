"""From predictions beside their references to scores: no model is needed, whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from ..intervals import NO_INTERVAL, Interval
from .bootstrap import RESAMPLES, interval, resample
from .text_metrics import METRICS, STATISTICS, scores, signatures, statistics

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PREDICTIONS = pa.schema([(name, pa.string()) for name in ("reviewer_id", "task", "model", "prediction", "reference")])
SCORES = pa.schema(
    [(name, pa.string()) for name in ("reviewer_id", "task", "model")] + [(name, pa.float64()) for name in STATISTICS]
)
"""`scores.parquet`: what the metrics of any set of users are the sums of."""


def intervals(table: NDArray[np.float64], seed: int = 0) -> dict[str, Interval]:
    """Every metric of the statistics of some users, shape (users, statistics), with its 95 % interval."""
    if not len(table):
        return {name: dict(NO_INTERVAL) for name in METRICS}
    found, drawn = scores(table.sum(axis=0), len(table)), scores(resample(table, seed), len(table))
    return {name: interval(float(found[name]), drawn[name]) for name in METRICS}


def score(
    predictions: pa.Table,
    models: Sequence[str],
    tasks: Sequence[str],
    encoder: SentenceTransformer | None,
    seed: int,
) -> tuple[dict[str, Any], pa.Table]:
    """The scores of each model and task with their 95 % intervals over the users, null where there is nothing to score.

    Returns:
        What goes into results.json, and a table of `SCORES`.
    """
    kept: dict[tuple[str, str], list[dict[str, str]]] = {(model, task): [] for model in models for task in tasks}
    for row in predictions.to_pylist():
        kept[row["model"], row["task"]].append(row)
    parts: list[pa.Table] = [SCORES.empty_table()]
    found: dict[str, dict[str, dict[str, Any]]] = {model: {} for model in models}
    for (model, task), rows in tqdm(kept.items(), desc="      scoring", unit="table", leave=False):
        table = statistics([row["prediction"] for row in rows], [row["reference"] for row in rows], encoder)
        found[model][task] = {"n": len(rows), **intervals(table, seed)}
        ids = pa.array([row["reviewer_id"] for row in rows], pa.string())
        named = [ids, pa.array([task] * len(rows), pa.string()), pa.array([model] * len(rows), pa.string())]
        parts.append(pa.table([*named, *np.ascontiguousarray(table.T)], schema=SCORES))
    written = predictions.column("prediction").to_pylist()
    results = {
        "models": found,
        "empty_predictions": sum(not text.strip() for text in written),
        "bootstrap": {"over": "users", "resamples": RESAMPLES},
        **signatures(),
    }
    return results, pa.concat_tables(parts)
