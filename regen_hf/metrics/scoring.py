"""Scores of predictions against their references, for the model of a run and for any other model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import outputs
from ..intervals import NO_INTERVAL, Interval
from ..progress import Bar
from ..vectors.encoder import load_encoder
from .bootstrap import RESAMPLES, interval, resample
from .text_metrics import METRICS, STATISTICS, scores, signatures, statistics

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

KEYS = ("reviewer_id", "task", "model")
PREDICTION_SCHEMA = pa.schema([(name, pa.string()) for name in (*KEYS, "prediction", "reference")])
SCORE_SCHEMA = pa.schema([(name, pa.string()) for name in KEYS] + [(name, pa.float64()) for name in STATISTICS])
"""`scores.parquet`: additive statistics; `text_metrics.scores` computes metrics from their sums over users."""


def similarity_encoder(run: Path | None, name: str | None) -> tuple[str | None, SentenceTransformer | None]:
    """The encoder behind `similarity` and the name to report for it.

    Args:
        run: the run whose content encoder is the default; without it and without `name` there is no encoder.
        name: Hub name or path of a sentence-transformers model.
    """
    if name is None and run is not None:
        name = outputs.manifest(run, "embeddings")["config"]["content_encoder"]
        if name is None:
            own = "content_encoder of this run (static, trained on its train users)"
            return own, load_encoder(str(outputs.folder(run, "embeddings") / outputs.CONTENT_ENCODER))
    if name is None:
        return None, None
    return Path(name).name if Path(name).is_absolute() else name, load_encoder(name)


def intervals(table: NDArray[np.float64], seed: int = 0) -> dict[str, Interval]:
    """Every metric with its 95 % interval, from the statistics of users, shape (U, S)."""
    if not len(table):
        return {name: dict(NO_INTERVAL) for name in METRICS}
    means, drawn = scores(table.sum(axis=0), len(table)), scores(resample(table, seed), len(table))
    return {name: interval(float(means[name]), drawn[name]) for name in METRICS}


def score(
    predictions: pa.Table,
    models: Sequence[str],
    tasks: Sequence[str],
    encoder: SentenceTransformer | None,
    seed: int,
) -> tuple[dict[str, Any], pa.Table]:
    """The scores of each model and task with their 95 % intervals over the users; null without predictions.

    Args:
        predictions: a table of `PREDICTION_SCHEMA`.
        models: the models in the table, in the order of the results.
        tasks: the tasks in the table, in the order of the results.
        encoder: the model behind `similarity`, which is null without one.
        seed: seed of the bootstrap.

    Returns:
        Entries of `results.json`, and a table of `SCORE_SCHEMA`.
    """
    groups: dict[tuple[str, str], list[dict[str, str]]] = {(model, task): [] for model in models for task in tasks}
    for row in predictions.to_pylist():
        groups[row["model"], row["task"]].append(row)
    parts: list[pa.Table] = [SCORE_SCHEMA.empty_table()]
    by_model: dict[str, dict[str, dict[str, Any]]] = {model: {} for model in models}
    for (model, task), rows in Bar(groups.items(), "scoring", unit="tables"):
        table = statistics([row["prediction"] for row in rows], [row["reference"] for row in rows], encoder)
        by_model[model][task] = {"n": len(rows), **intervals(table, seed)}
        keys = [[row[name] for row in rows] for name in KEYS]
        parts.append(pa.table([*keys, *np.ascontiguousarray(table.T)], schema=SCORE_SCHEMA))
    results = {
        "models": by_model,
        "empty_predictions": sum(not text.strip() for text in predictions.column("prediction").to_pylist()),
        "bootstrap": {"over": "users", "resamples": RESAMPLES},
        **signatures(),
    }
    return results, pa.concat_tables(parts)
