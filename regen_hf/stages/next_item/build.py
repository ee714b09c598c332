"""Evaluate next item prediction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...intervals import NO_INTERVAL, format_interval
from ...metrics.bootstrap import interval, mean_interval, p_value, resample
from ...metrics.tables import markdown
from ...metrics.text_metrics import signatures
from . import critiques, endorsements
from .fused import FusedModel
from .recommender import MODELS, PARTS, WITHOUT_ALS, Cases, Recommender, choose_weights, ranks, read_cases
from .settings import PACKAGES, NextItemConfig

SPLIT = "test"
RECALL, NDCG = (1, 5, 10, 50), (5, 10)
"""The k of each metric."""
METRICS = (*(f"recall@{k}" for k in RECALL), *(f"ndcg@{k}" for k in NDCG), "mrr")
MAX_VALIDATION = 1000
"""Number of validation users, the first of the split, on which the weights of the blend are chosen."""


def build(run: Path, out: Path, work: Path, config: NextItemConfig, optional: Collection[str] = ()) -> dict[str, Any]:
    """Rank the catalogue for the test users of `run`; results, ranks and endorsements go into `out`.

    The trained model takes part if `optional`, the stages whose optional output can be used, contains `train`.
    """
    recommender = Recommender.of(run, config)
    cases = held_out_cases(run, recommender, config)
    model = FusedModel.of(run, SPLIT) if "train" in optional else None
    steered = critiques.check(run, model) if config.critiques else None  # raises before the ranking
    results, table = evaluate(run, recommender, cases, config, model)
    counts = {"users": results["n_users"], "items": results["catalogue"]["items"]}
    tasks = outputs.manifest(run, "train")["config"]["tasks"] if model else ()
    if model and endorsements.TASK in tasks and config.endorsed_users:
        signatures()  # raises for a missing library before a text is generated
        endorsed = endorsements.write(run, model, recommender, cases, config.endorsed_users, work)
        if len(endorsed):
            results["endorsements"] = endorsements.scores(run, endorsed, table, config.seed)
            outputs.write_parquet(out / outputs.ENDORSEMENTS, endorsed)
            counts["endorsements"] = len(endorsed)
    if steered:
        by = critiques.ranks(run, steered, recommender, cases, config.seed)
        users = len(by["none"])
        results["critiques"] = {
            "n_users": users,
            "by": {name: metrics_of(ranked, config.seed) for name, ranked in by.items()},
            "minus_none": {
                name: compared(ranked, by["none"], config.seed) for name, ranked in by.items() if name != "none"
            },
        }
        counts["critiques"] = users
    outputs.write_results(out, results | {"versions": outputs.versions(PACKAGES)})
    outputs.write_parquet(out / outputs.RANKS, table)
    return counts


def held_out_cases(run: Path, recommender: Recommender, config: NextItemConfig) -> Cases:
    """The test users of `run` with their last purchase hidden.

    Raises:
        InputError: no test user has a last purchase to predict.
    """
    cases = read_cases(run, SPLIT, recommender.index, recommender.alpha, config.users)
    if not len(cases):
        raise InputError(
            "No test user has a last purchase to predict, which requires two purchases of different items. Users left "
            f"out: {cases.left_out}."
            + (outputs.preview(run) or " Provide more reviews, or a larger share for the test split.")
        )
    return cases


def evaluate(
    run: Path, recommender: Recommender, cases: Cases, config: NextItemConfig, model: FusedModel | None = None
) -> tuple[dict[str, Any], pa.Table]:
    """The metrics of all models on the users of `cases`, and the rank of every target by model."""
    validation = read_cases(run, "validation", recommender.index, recommender.alpha, MAX_VALIDATION)
    weights = choose_weights(recommender, validation)
    by_model = ranks(recommender, cases, weights, {} if model is None else {"fused": model.scores(cases)})
    cold = recommender.popularity[cases.targets] == 0
    groups = {
        "all": np.ones(len(cases), dtype=bool),
        "warm": ~cold,
        "cold": cold,
        "same_time": cases.same_time,
        "other_time": ~cases.same_time,
    }
    results = {
        "split": SPLIT,
        "n_users": len(cases),
        "left_out": cases.left_out,
        "catalogue": {"items": len(recommender.popularity), "cold": int((recommender.popularity == 0).sum())},
        "targets": {"warm": int((~cold).sum()), "cold": int(cold.sum())},
        "times": {name: int(groups[name].sum()) for name in ("same_time", "other_time")},
        "blend": {
            "weights": None if weights is None else dict(zip(recommender.parts, weights, strict=True)),
            "validation_users": len(validation),
            "chosen_by": "mrr",
        },
        "models": {
            model: {group: metrics_of(target_ranks[members], config.seed) for group, members in groups.items()}
            for model, target_ranks in by_model.items()
        },
        "differences": differences(by_model, groups, config.seed),
        "about": {model: MODELS[model] for model in by_model}
        | {part: WITHOUT_ALS for part in PARTS if part not in by_model},
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


def differences(
    by_model: Mapping[str, NDArray[np.int64]], groups: Mapping[str, NDArray[np.bool_]], seed: int
) -> dict[str, Any]:
    """By other model and group, the metrics of `fused` minus its, paired by user, each with interval and p-value."""
    if "fused" not in by_model:
        return {}
    fused = by_model["fused"]
    return {
        model: {group: compared(fused[members], ranks[members], seed) for group, members in groups.items()}
        for model, ranks in by_model.items()
        if model != "fused"
    }


def compared(ranks: NDArray[np.int64], others: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """The metrics of `ranks` (U,) minus those of `others` (U,), paired by user, each with interval and p-value."""
    theirs = gains(others)
    return {name: paired(gain - theirs[name], seed) for name, gain in gains(ranks).items()}


def paired(values: NDArray[np.float64], seed: int) -> dict[str, float | None]:
    """The mean of one difference per user, (U,), with its 95 % interval and the p-value `p` of a paired bootstrap.

    >>> paired(np.array([]), 0)
    {'mean': None, 'low': None, 'high': None, 'p': None}
    """
    if not len(values):
        return NO_INTERVAL | {"p": None}
    mean, drawn = float(values.mean()), resample(values[:, None], seed)[:, 0] / len(values)
    return interval(mean, drawn) | {"p": p_value(mean, drawn)}


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = outputs.read_json(folder / outputs.RESULTS)
    head = (
        f"Last purchase of {results['n_users']} test users among {results['catalogue']['items']} items, without those "
        f"bought before; {results['targets']['cold']} targets are cold (no train user bought them), and "
        f"{results['times']['same_time']} have the time of the purchase before (same_time)."
    )
    if results["about"].get("als") == WITHOUT_ALS:
        head += f" `als` is {WITHOUT_ALS}."
    grid = [["model", "targets", *METRICS]]
    shown = ["all", *(("warm", "cold") if results["targets"]["cold"] else ())]
    shown += ("same_time", "other_time") if results["times"]["same_time"] else ()
    for group in shown:
        for model, groups in results["models"].items():
            if groups[group]["n"]:
                grid.append([model, group, *(format_interval(groups[group][name]) for name in METRICS)])
    text = f"{head}\n\n{markdown(grid)}"
    if results["differences"]:
        differences = [["fused minus", "targets", *METRICS]]
        for group in shown:
            for model, groups in results["differences"].items():
                differences.append([model, group, *(format_interval(groups[group][name]) for name in METRICS)])
        text += f"\n\nDifferences over the same users:\n\n{markdown(differences)}"
    if "endorsements" in results:
        text += f"\n\n{endorsements.summary(results['endorsements'])}"
    if "critiques" in results:
        text += f"\n\n{critiques.summary(results['critiques'])}"
    return text
