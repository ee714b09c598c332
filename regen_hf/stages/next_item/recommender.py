"""TODO docstring."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import InputError, missing_extra
from ...model.fold_in import confidences, solve
from ...outputs import rows, split_files

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
from .settings import NextItemConfig

MODELS = {
    "popularity": "how many train users bought the item",
    "item_knn": "items bought by the train users who bought those of the history (cosine)",
    "als": "the run's CF vectors, a new user folded in from the history",
    "content": "the run's content vectors of item metadata, against their mean over the history",
    "blend": "a weighted sum of the four others, weights chosen on validation users",
}


PARTS = tuple(MODELS)[:-1]


STEP = 5
"""Weights of the blend are multiples of 1 / STEP that add up to 1: 56 of them for four parts."""


MOST_SCORES = 4_000_000
"""Scores held at once for one model."""


@dataclass(frozen=True)
class Cases:
    """Users with their last purchase hidden."""

    reviewer_ids: list[str]
    histories: list[NDArray[np.int64]]
    """Items of each history, oldest first."""
    confidences: list[NDArray[np.float64]]
    """ALS confidence of each of them."""
    targets: NDArray[np.int64]
    """The item of each last purchase, shape (U,)."""
    left_out: dict[str, int]
    """Users that are no cases, by the reason."""

    def __len__(self) -> int:
        return len(self.reviewer_ids)


def read_cases(run: Path, split: str, index: Mapping[str, int], alpha: float, limit: int = 0) -> Cases:
    """The users of `split` in the dataset of `run` with their last purchase hidden, at most `limit` (0: all).

    Args:
        run: A run with a dataset.
        split: One of `schema.SPLITS`.
        index: The place of each asin in the catalogue.
        alpha: A purchase rated r has the ALS confidence 1 + alpha * r; without a rating, of three stars.
        limit: Cases to read.
    """
    cases = Cases([], [], [], np.zeros(0, dtype=np.int64), {"one_purchase": 0, "bought_before": 0})
    targets: list[int] = []
    for row in rows(split_files(run / "dataset", split), ["reviewer_id", "purchase_history"]):
        items = [index[purchase["item"]["asin"]] for purchase in row["purchase_history"]]
        if len(items) < 2 or items[-1] in items[:-1]:
            cases.left_out["one_purchase" if len(items) < 2 else "bought_before"] += 1
            continue
        confidence = confidences(row["purchase_history"][:-1], alpha)
        cases.reviewer_ids.append(row["reviewer_id"])
        cases.histories.append(np.array([index[asin] for asin in confidence], dtype=np.int64))
        cases.confidences.append(np.fromiter(confidence.values(), dtype=np.float64))
        targets.append(items[-1])
        if len(targets) == limit:
            break
    return Cases(
        cases.reviewer_ids, cases.histories, cases.confidences, np.array(targets, dtype=np.int64), cases.left_out
    )


class Recommender:
    """What scores the catalogue for a history, fitted on train users alone.

    Args:
        asins: The catalogue, I of them; its order is that of every array below.
        train: Which train user bought which item, shape (train users, I).
        item_factors: CF vectors, shape (I, d).
        content: Content vectors of the items' metadata, shape (I, d).
        alpha: Of the ALS confidence, see `read_cases`.
        regularization: λ of ALS.
        config: Neighbours, and the seed of the order among equal scores.
    """

    def __init__(
        self,
        asins: Sequence[str],
        train: csr_matrix,
        item_factors: NDArray[np.float32],
        content: NDArray[np.floating],
        alpha: float,
        regularization: float,
        config: NextItemConfig,
    ) -> None:
        try:
            from implicit.nearest_neighbours import ItemItemRecommender
        except ImportError:
            raise missing_extra("implicit", "train") from None
        self.asins = list(asins)
        self.index = {asin: number for number, asin in enumerate(asins)}
        self.alpha, self.regularization = alpha, regularization
        bought = train.astype(bool).astype(np.float64)
        self.popularity = np.asarray(bought.sum(axis=0)).ravel()  # (I,)
        neighbours = ItemItemRecommender(K=config.neighbours + 1)  # an item is its own nearest
        # Columns of length 1, so that their products are cosines. (implicit's CosineRecommender warns of its own work.)
        neighbours.fit(bought.multiply(np.maximum(self.popularity, 1) ** -0.5).tocsr(), show_progress=False)
        self.similarity = neighbours.similarity.tocsr()  # (I, I)
        self.item_factors = item_factors.astype(np.float64)
        self.gram = self.item_factors.T @ self.item_factors  # (d, d)
        norms = np.linalg.norm(content.astype(np.float32), axis=1, keepdims=True)
        self.content = content.astype(np.float32) / np.maximum(norms, 1e-12)
        self.tiebreak = np.random.default_rng(config.seed).permutation(len(self.asins))  # (I,)

    @classmethod
    def of(cls, run: Path, config: NextItemConfig) -> Recommender:
        """The recommender of a run with a dataset and embeddings."""
        from safetensors.numpy import load_file

        from ...vectors.cf import user_item_matrix

        folder = run / "embeddings"
        settings = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["config"]
        asins = pq.read_table(folder / "items.parquet").column("asin").to_pylist()
        train = user_item_matrix(split_files(run / "dataset", "train"), asins, settings["cf_alpha"])
        factors = load_file(folder / "cf.safetensors")["item_factors"]
        content = np.load(folder / "content_items.npy", allow_pickle=False)
        for name, vectors in (("CF", factors), ("content", content)):
            # Nothing is greater than a NaN, so that it would rank first.
            if (wrong := ~np.isfinite(vectors).all(axis=1)).any():
                raise InputError(
                    f"The {name} vectors of {wrong.sum()} items, such as {asins[int(wrong.argmax())]!r}, hold values "
                    f"that are not finite, expected numbers. Run `regen embeddings {run}` again, with other settings "
                    "if it happens again."
                )
        return cls(
            asins,
            train,
            factors,
            content,
            settings["cf_alpha"],
            settings["cf_regularization"],
            config,
        )

    def scores(self, part: str, cases: Cases, place: slice) -> NDArray[np.float64]:
        """The scores of `part` (one of PARTS) for the users at `place`, shape (U, I).

        An item of which the part knows nothing has -inf.
        """
        histories = cases.histories[place]
        if part == "popularity":
            scores = np.repeat(self.popularity[None], len(histories), axis=0)
        elif part == "item_knn":
            scores = _rows(histories, len(self.asins)).dot(self.similarity).toarray()
        elif part == "als":
            users = [
                solve(self.gram, self.item_factors[items], confidence, self.regularization)
                for items, confidence in zip(histories, cases.confidences[place], strict=True)
            ]
            scores = np.stack(users) @ self.item_factors.T
        else:
            profiles = np.stack([self.content[items].mean(axis=0) for items in histories])
            return (profiles @ self.content.T).astype(np.float64)
        scores[:, self.popularity == 0] = -np.inf
        return scores

    def standardised(self, part: str, cases: Cases, place: slice) -> NDArray[np.float64]:
        """Scores of mean 0 and deviation 1 over the items that the part knows, and 0 for the others, shape (U, I).

        Popularity is taken as its logarithm: a few items have most of it.
        """
        scores = self.scores(part, cases, place)
        if part == "popularity":
            scores = np.log1p(np.maximum(scores, 0.0))
            scores[:, self.popularity == 0] = -np.inf
        known = np.isfinite(scores)
        count = np.maximum(known.sum(axis=1, keepdims=True), 1)
        scores[~known] = 0.0
        mean = scores.sum(axis=1, keepdims=True) / count
        deviation = np.sqrt(((scores - mean) ** 2 * known).sum(axis=1, keepdims=True) / count)
        standard: NDArray[np.float64] = (scores - mean) * known / np.maximum(deviation, 1e-12)
        return standard

    def target_ranks(
        self, scores: NDArray[np.float64], histories: Sequence[NDArray[np.int64]], targets: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The place of each target among all items but those of the history, from 1, shape (U,)."""
        users = np.arange(len(targets))
        own = scores[users, targets][:, None]
        before = (scores > own) | ((scores == own) & (self.tiebreak < self.tiebreak[targets][:, None]))
        for user, items in enumerate(histories):
            before[user, items] = False
        found: NDArray[np.int64] = 1 + before.sum(axis=1)
        return found

    def ranking(self, scores: NDArray[np.float64], histories: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """All items but those of the history, best first, for each user: what `target_ranks` counts places in."""
        orders = np.lexsort((np.broadcast_to(self.tiebreak, scores.shape), -scores), axis=1)
        return [order[~np.isin(order, items)] for order, items in zip(orders, histories, strict=True)]


def choose_weights(recommender: Recommender, cases: Cases) -> tuple[float, ...] | None:
    """The weights of the parts that give `cases` the best MRR; of equals the first. None without any case."""
    if not len(cases):
        return None
    grid = list(weights_grid(len(PARTS)))
    totals = np.zeros(len(grid))
    for place in _places(len(cases), len(recommender.asins), "choosing weights"):
        parts = np.stack([recommender.standardised(part, cases, place) for part in PARTS])  # (parts, U, I)
        for number, weights in enumerate(grid):
            blended = np.tensordot(weights, parts, axes=1)
            found = recommender.target_ranks(blended, cases.histories[place], cases.targets[place])
            totals[number] += (1 / found).sum()
    return grid[int(np.argmax(totals))]


def weights_grid(parts: int) -> Iterator[tuple[float, ...]]:
    """All weights in steps of 1 / STEP that add up to 1.

    >>> len(list(weights_grid(4))), list(weights_grid(2))[:2]
    (56, [(0.0, 1.0), (0.2, 0.8)])
    """
    for steps in itertools.product(range(STEP + 1), repeat=parts - 1):
        if sum(steps) <= STEP:
            yield tuple(step / STEP for step in (*steps, STEP - sum(steps)))


def ranks(recommender: Recommender, cases: Cases, weights: Sequence[float] | None) -> dict[str, NDArray[np.int64]]:
    """The rank of each target by model, shape (U,); no `blend` without weights."""
    found: dict[str, list[NDArray[np.int64]]] = {part: [] for part in PARTS}
    if weights is not None:
        found["blend"] = []
    for place in _places(len(cases), len(recommender.asins), "ranking"):
        for model, blocks in found.items():
            scores = model_scores(recommender, model, cases, place, weights)
            blocks.append(recommender.target_ranks(scores, cases.histories[place], cases.targets[place]))
    return {model: np.concatenate(blocks) for model, blocks in found.items()}


def model_scores(
    recommender: Recommender, model: str, cases: Cases, place: slice, weights: Sequence[float] | None
) -> NDArray[np.float64]:
    """The scores of `model` (one of MODELS) for the users at `place`, shape (U, I)."""
    if model != "blend" or weights is None:
        return recommender.scores(model, cases, place)
    parts = ((weight, part) for weight, part in zip(weights, PARTS, strict=True) if weight)
    return np.sum([weight * recommender.standardised(part, cases, place) for weight, part in parts], axis=0)


def _rows(histories: Sequence[NDArray[np.int64]], width: int) -> csr_matrix:
    """One row per history with 1 where an item is in it, shape (U, width)."""
    from scipy.sparse import csr_matrix

    offsets = np.concatenate([[0], np.cumsum([len(items) for items in histories])])
    columns = np.concatenate(histories)
    return csr_matrix((np.ones(len(columns)), columns, offsets), shape=(len(histories), width))


def _places(users: int, items: int, about: str) -> Iterator[slice]:
    """Slices of the users such that one model's scores fit in memory, behind a progress bar."""
    size = max(1, MOST_SCORES // items)
    for start in tqdm(range(0, users, size), desc=f"      {about}", leave=False):
        yield slice(start, start + size)
