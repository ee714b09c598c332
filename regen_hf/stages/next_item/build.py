"""Evaluate next item prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...intervals import format_interval
from ...metrics.bootstrap import mean_interval
from .settings import PACKAGES

if TYPE_CHECKING:
    pass
from .recommender import MODELS, PARTS, Recommender, choose_weights, ranks, read_cases
from .settings import NextItemConfig

RECALL, NDCG = (1, 5, 10, 50), (5, 10)


MOST_VALIDATION = 1000
"""Validation users that the weights of the blend are chosen on, the first of the split."""


def build(run: Path, out: Path, work: Path, config: NextItemConfig) -> dict[str, Any]:
    """Rank the catalogue for the test users of `run`; `results.json` and `ranks.parquet` go into `out`.

    Raises:
        InputError: no test user has a last purchase to predict.
    """
    recommender = Recommender.of(run, config)
    results, table = evaluate(run, recommender, config)
    results["versions"] = outputs.versions(PACKAGES)
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(table, out / "ranks.parquet")
    return {"users": results["n_users"], "items": results["catalogue"]["items"]}


def evaluate(run: Path, recommender: Recommender, config: NextItemConfig) -> tuple[dict[str, Any], pa.Table]:
    """The figures for the test users in the dataset of `run`, and the rank of every target by model.

    Raises:
        InputError: no test user has a last purchase to predict.
    """
    cases = read_cases(run, "test", recommender.index, recommender.alpha, config.max_users)
    if not len(cases):
        raise InputError(
            "No test user has a last purchase to predict: it takes two purchases of different items. Users left out: "
            f"{cases.left_out}. Give more reviews, or a larger share to the test split."
        )
    tuning = read_cases(run, "validation", recommender.index, recommender.alpha, MOST_VALIDATION)
    weights = choose_weights(recommender, tuning)
    found = ranks(recommender, cases, weights)
    cold = recommender.popularity[cases.targets] == 0
    results = {
        "split": "test",
        "n_users": len(cases),
        "left_out": cases.left_out,
        "catalogue": {"items": len(recommender.popularity), "cold": int((recommender.popularity == 0).sum())},
        "targets": {"warm": int((~cold).sum()), "cold": int(cold.sum())},
        "blend": {
            "weights": None if weights is None else dict(zip(PARTS, weights, strict=True)),
            "validation_users": len(tuning),
            "chosen_by": "mrr",
        },
        "models": {
            model: {
                group: metrics_of(of_model[chosen], config.seed)
                for group, chosen in (("all", slice(None)), ("warm", ~cold), ("cold", cold))
            }
            for model, of_model in found.items()
        },
        "about": {model: MODELS[model] for model in found},
        "seed": config.seed,
    }
    targets = np.array(recommender.asins)[cases.targets].tolist()
    return results, pa.table({"reviewer_id": cases.reviewer_ids, "target": targets, "cold": cold} | found)


def metrics_of(ranks: NDArray[np.int64], seed: int = 0) -> dict[str, Any]:
    """Recall, NDCG and MRR of the ranks of targets, each with its 95 % bootstrap interval over users; null over none.

    >>> found = metrics_of(np.array([1, 3, 60, 2]))
    >>> found["n"], found["recall@1"]["mean"], found["recall@5"]["mean"]
    (4, 0.25, 0.75)
    >>> round(found["mrr"]["mean"], 4), round(found["ndcg@5"]["mean"], 4)
    (0.4625, 0.5327)
    >>> metrics_of(np.array([], dtype=int))["mrr"]["mean"] is None
    True
    """
    gains = {
        **{f"recall@{k}": (ranks <= k).astype(np.float64) for k in RECALL},
        **{f"ndcg@{k}": np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0) for k in NDCG},
        "mrr": 1 / ranks,
    }
    return {"n": len(ranks)} | {name: mean_interval(gain, seed) for name, gain in gains.items()}


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    names = [*(f"recall@{k}" for k in RECALL), *(f"ndcg@{k}" for k in NDCG), "mrr"]
    lines = [
        f"Last purchase of {results['n_users']} test users among {results['catalogue']['items']} items, those bought "
        f"before left out; {results['targets']['cold']} targets are cold (no train user bought them).",
        "",
        "| model | targets | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for group in ("all", "warm", "cold") if results["targets"]["cold"] else ("all",):
        for model, groups in results["models"].items():
            if groups[group]["n"]:
                lines.append(
                    f"| {model} | {group} | "
                    + " | ".join(format_interval(groups[group][name]) for name in names)
                    + " |"
                )
    return "\n".join(lines)
