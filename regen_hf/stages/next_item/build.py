"""Evaluate next item prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...intervals import format_interval
from ...metrics.bootstrap import mean_interval
from ...metrics.tables import markdown
from .fused import fused_scores
from .recommender import MODELS, PARTS, Recommender, choose_weights, ranks, read_cases
from .settings import PACKAGES, NextItemConfig

RECALL, NDCG = (1, 5, 10, 50), (5, 10)
"""The k of each metric."""
METRICS = (*(f"recall@{k}" for k in RECALL), *(f"ndcg@{k}" for k in NDCG), "mrr")
MAX_VALIDATION = 1000
"""Number of validation users, the first of the split, on which the weights of the blend are chosen."""


def build(run: Path, out: Path, work: Path, config: NextItemConfig) -> dict[str, Any]:
    """Rank the catalogue for the test users of `run`; results and ranks go into `out`."""
    results, table = evaluate(run, Recommender.of(run, config), config)
    outputs.write_results(out, results | {"versions": outputs.versions(PACKAGES)})
    outputs.write_parquet(out / outputs.RANKS, table)
    return {"users": results["n_users"], "items": results["catalogue"]["items"]}


def evaluate(run: Path, recommender: Recommender, config: NextItemConfig) -> tuple[dict[str, Any], pa.Table]:
    """The metrics of all models on the test users of `run`, and the rank of every target by model.

    Raises:
        InputError: no test user has a last purchase to predict.
    """
    cases = read_cases(run, "test", recommender.index, recommender.alpha, config.users)
    if not len(cases):
        raise InputError(
            "No test user has a last purchase to predict, which requires two purchases of different items. Users left "
            f"out: {cases.left_out}."
            + (outputs.preview(run) or " Provide more reviews, or a larger share for the test split.")
        )
    validation = read_cases(run, "validation", recommender.index, recommender.alpha, MAX_VALIDATION)
    weights = choose_weights(recommender, validation)
    fused = fused_scores(run, "test", cases)
    by_model = ranks(recommender, cases, weights, {} if fused is None else {"fused": fused})
    cold = recommender.popularity[cases.targets] == 0
    groups = {
        "all": np.ones(len(cases), dtype=bool),
        "warm": ~cold,
        "cold": cold,
        "same_time": cases.same_time,
        "other_time": ~cases.same_time,
    }
    results = {
        "split": "test",
        "n_users": len(cases),
        "left_out": cases.left_out,
        "catalogue": {"items": len(recommender.popularity), "cold": int((recommender.popularity == 0).sum())},
        "targets": {"warm": int((~cold).sum()), "cold": int(cold.sum())},
        "times": {name: int(groups[name].sum()) for name in ("same_time", "other_time")},
        "blend": {
            "weights": None if weights is None else dict(zip(PARTS, weights, strict=True)),
            "validation_users": len(validation),
            "chosen_by": "mrr",
        },
        "models": {
            model: {group: metrics_of(target_ranks[members], config.seed) for group, members in groups.items()}
            for model, target_ranks in by_model.items()
        },
        "differences": differences(by_model, config.seed),
        "about": {model: MODELS[model] for model in by_model},
        "seed": config.seed,
    }
    targets = np.array(recommender.asins)[cases.targets].tolist()
    return results, pa.table({"reviewer_id": cases.reviewer_ids, "target": targets, "cold": cold} | by_model)


def metrics_of(ranks: NDArray[np.int64], seed: int = 0) -> dict[str, Any]:
    """Recall, NDCG and MRR of the ranks of targets with 95 % bootstrap intervals over users; null without targets.

    >>> metrics = metrics_of(np.array([1, 3, 60, 2]))
    >>> metrics["n"], metrics["recall@1"]["mean"], metrics["recall@5"]["mean"]
    (4, 0.25, 0.75)
    >>> round(metrics["mrr"]["mean"], 4), round(metrics["ndcg@5"]["mean"], 4)
    (0.4625, 0.5327)
    >>> metrics_of(np.array([], dtype=int))["mrr"]["mean"] is None
    True
    """
    return {"n": len(ranks)} | {name: mean_interval(gain, seed) for name, gain in gains(ranks).items()}


def gains(ranks: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The value of each metric by user, shape (U,)."""
    return {
        **{f"recall@{k}": (ranks <= k).astype(np.float64) for k in RECALL},
        **{f"ndcg@{k}": np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0) for k in NDCG},
        "mrr": 1 / ranks,
    }


def differences(by_model: dict[str, NDArray[np.int64]], seed: int) -> dict[str, Any]:
    """By other model, the metrics of `fused` minus its, with paired intervals over the same users."""
    if "fused" not in by_model:
        return {}
    fused = gains(by_model["fused"])
    return {
        model: {name: mean_interval(fused[name] - gain, seed) for name, gain in gains(ranks).items()}
        for model, ranks in by_model.items()
        if model != "fused"
    }


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = outputs.read_json(folder / outputs.RESULTS)
    head = (
        f"Last purchase of {results['n_users']} test users among {results['catalogue']['items']} items, without those "
        f"bought before; {results['targets']['cold']} targets are cold (no train user bought them), and "
        f"{results['times']['same_time']} have the time of the purchase before (same_time)."
    )
    grid = [["model", "targets", *METRICS]]
    shown = ["all", *(("warm", "cold") if results["targets"]["cold"] else ())]
    shown += ("same_time", "other_time") if results["times"]["same_time"] else ()
    for group in shown:
        for model, groups in results["models"].items():
            if groups[group]["n"]:
                grid.append([model, group, *(format_interval(groups[group][name]) for name in METRICS)])
    text = f"{head}\n\n{markdown(grid)}"
    if results["differences"]:
        differences = [["fused minus", *METRICS]]
        for model, metrics in results["differences"].items():
            differences.append([model, *(format_interval(metrics[name]) for name in METRICS)])
        text += f"\n\nDifferences over the same users:\n\n{markdown(differences)}"
    return text
