"""The recommenders of the next item stage: users with a hidden last purchase, scores of the catalogue, ranks.

Shapes: U users, I items of the catalogue, d width of vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ... import outputs
from ...errors import InputError
from ...model.fold_in import confidences, solve
from ...progress import Bar
from ...vectors.cf import user_item_matrix
from .settings import NextItemConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MODELS = {
    "popularity": "how many train users bought the item",
    "item_knn": "similarity to the items of the history, by the train users who bought both (cosine)",
    "als": "the run's CF vectors, with the user folded in from the history",
    "content": "similarity of the run's content vectors of item metadata to their mean over the history",
    "blend": "a weighted sum of those above, with weights chosen on validation users",
    "fused": "the item head of the trained model, which reads the history as soft tokens",
}
PARTS = tuple(MODELS)[:4]
"""Models that the blend combines; without ALS where the CF vectors are those of another recommender."""
WITHOUT_ALS = "left out: the CF vectors are those of another recommender, and only ALS solves the vector of a new user"
STEPS = 5
"""The weights of the blend are multiples of 1 / STEPS with a total of 1: 56 combinations for four parts."""
MAX_SCORES = 4_000_000
"""Scores in memory at once for one model."""


@dataclass(frozen=True)
class Cases:
    """Users with a hidden last purchase."""

    reviewer_ids: list[str]
    rows: list[int]
    """The row of each user in the split."""
    histories: list[NDArray[np.int64]]
    """Items of each history, oldest first."""
    confidences: list[NDArray[np.float64]]
    """ALS confidences of the items of each history."""
    targets: NDArray[np.int64]
    """The item of each last purchase, shape (U,)."""
    same_time: NDArray[np.bool_]
    """Whether each last purchase has the time of the purchase before, shape (U,)."""
    left_out: dict[str, int]
    """Number of users without a case, by reason."""

    def __len__(self) -> int:
        return len(self.reviewer_ids)

    def some(self, cases: Sequence[int]) -> Cases:
        """Only the cases of these numbers."""
        chosen: dict[str, Any] = {
            name: values[cases] if isinstance(values, np.ndarray) else [values[case] for case in cases]
            for name, values in vars(self).items()
            if name != "left_out"
        }
        return Cases(**chosen, left_out=self.left_out)


def read_cases(run: Path, split: str, index: Mapping[str, int], alpha: float, limit: int = 0) -> Cases:
    """The users of `split` with their last purchase hidden.

    `index` is the index of each asin in the catalogue, `alpha` that of `model.fold_in.confidences`, and `limit` the
    maximum number of cases (0 for all).
    """
    left_out = {"one_purchase": 0, "bought_before": 0}
    cases = Cases([], [], [], [], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), left_out)
    targets: list[int] = []
    same_time: list[bool] = []
    columns = ["reviewer_id", "purchase_history"]
    for number, row in enumerate(outputs.rows(outputs.dataset_files(run, split), columns)):
        items = [index[purchase["item"]["asin"]] for purchase in row["purchase_history"]]
        if len(items) < 2 or items[-1] in items[:-1]:
            left_out["one_purchase" if len(items) < 2 else "bought_before"] += 1
            continue
        confidence = confidences(row["purchase_history"][:-1], alpha)
        cases.reviewer_ids.append(row["reviewer_id"])
        cases.rows.append(number)
        cases.histories.append(np.array([index[asin] for asin in confidence], dtype=np.int64))
        cases.confidences.append(np.fromiter(confidence.values(), dtype=np.float64))
        targets.append(items[-1])
        before, last = (purchase["review"]["unix_time"] for purchase in row["purchase_history"][-2:])
        same_time.append(last is not None and before == last)
        if len(targets) == limit:
            break
    return Cases(
        cases.reviewer_ids,
        cases.rows,
        cases.histories,
        cases.confidences,
        np.array(targets, dtype=np.int64),
        np.array(same_time, dtype=bool),
        left_out,
    )


class Recommender:
    """Scores the catalogue for a history; fitted on train users only.

    Args:
        asins: the catalogue, I items, in the order of every array below.
        train: purchases of the train users, shape (train users, I).
        item_factors: CF vectors, shape (I, d).
        content: content vectors of the items' metadata, shape (I, d).
        alpha: see `model.fold_in.confidences`.
        regularization: λ of ALS.
        config: number of neighbours, and the seed of the order among ties.
        is_als: whether the CF vectors are those of ALS; otherwise it is left out.
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
        is_als: bool = True,
    ) -> None:
        from implicit.nearest_neighbours import ItemItemRecommender

        self.parts = PARTS if is_als else tuple(part for part in PARTS if part != "als")
        self.asins = list(asins)
        self.index = {asin: number for number, asin in enumerate(asins)}
        self.alpha, self.regularization = alpha, regularization
        bought = train.astype(bool).astype(np.float64)
        self.popularity = np.asarray(bought.sum(axis=0)).ravel()  # (I,)
        neighbours = ItemItemRecommender(K=config.neighbours + 1)  # the nearest neighbour of an item is itself
        # Products of columns of norm 1 are cosines. (implicit's CosineRecommender warns about its own matrix format.)
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
        settings = outputs.manifest(run, "embeddings")["config"]
        alpha, regularization = settings["cf_alpha"], settings["cf_regularization"]
        items = outputs.item_vectors(run)
        for name, vectors in (("CF", items.item_factors), ("content", items.content)):
            # No score is greater than NaN, so such an item would rank first.
            if (wrong := ~np.isfinite(vectors).all(axis=1)).any():
                raise InputError(
                    f"The {name} vectors of {wrong.sum()} items, such as {items.asins[int(wrong.argmax())]!r}, contain "
                    f"values that are not finite, expected numbers. Run `regen embeddings {run}` again, with other "
                    "settings if the error persists."
                )
        train = user_item_matrix(outputs.dataset_files(run, "train"), items.asins, alpha)
        is_als = items.user_gram is not None
        return cls(items.asins, train, items.item_factors, items.content, alpha, regularization, config, is_als)

    def scores(self, part: str, cases: Cases, users: slice) -> NDArray[np.float64]:
        """The scores of `part` (one of `self.parts`) for a slice of the users, shape (U, I).

        An item without data for this part has the score -inf.
        """
        histories = cases.histories[users]
        if part == "popularity":
            scores = np.repeat(self.popularity[None], len(histories), axis=0)
        elif part == "item_knn":
            scores = _matrix(histories, len(self.asins)).dot(self.similarity).toarray()
        elif part == "als":
            with threadpool_limits(1, "blas"):  # the systems are small: more threads only wait for each other
                vectors = [
                    solve(self.gram, self.item_factors[items], confidence, self.regularization)
                    for items, confidence in zip(histories, cases.confidences[users], strict=True)
                ]
            scores = np.stack(vectors) @ self.item_factors.T
        else:
            profiles = np.stack([self.content[items].mean(axis=0) for items in histories])
            return (profiles @ self.content.T).astype(np.float64)
        scores[:, self.popularity == 0] = -np.inf
        return scores

    def standardised(self, part: str, cases: Cases, users: slice) -> NDArray[np.float64]:
        """Scores with mean 0 and standard deviation 1 over the items with data, 0 for the others, shape (U, I).

        Popularity enters as its logarithm, because it is concentrated on few items.
        """
        scores = self.scores(part, cases, users)
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
        """The rank of each target among all items outside of the history, from 1, shape (U,)."""
        users = np.arange(len(targets))
        own = scores[users, targets][:, None]
        before = (scores > own) | ((scores == own) & (self.tiebreak < self.tiebreak[targets][:, None]))
        for user, items in enumerate(histories):
            before[user, items] = False
        ranks: NDArray[np.int64] = 1 + before.sum(axis=1)
        return ranks

    def first_choices(self, scores: NDArray[np.float64], histories: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The first item of each `ranking`, shape (U,)."""
        left = scores.copy()
        for user, items in enumerate(histories):
            left[user, items] = -np.inf
        best = left == left.max(axis=1, keepdims=True)
        choices: NDArray[np.int64] = np.where(best, self.tiebreak, len(self.asins)).argmin(axis=1)
        return choices

    def ranking(self, scores: NDArray[np.float64], histories: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """The full ranking behind `target_ranks`: for each user all items outside of the history, best first."""
        orders = np.lexsort((np.broadcast_to(self.tiebreak, scores.shape), -scores), axis=1)
        return [order[~np.isin(order, items)] for order, items in zip(orders, histories, strict=True)]


def choose_weights(recommender: Recommender, cases: Cases) -> tuple[float, ...] | None:
    """The weights of the parts with the best MRR on `cases` (ties go to the first); None without any case."""
    if not len(cases):
        return None
    grid = list(weights_grid(len(recommender.parts)))
    totals = np.zeros(len(grid))
    for users in _slices(len(cases), len(recommender.asins), "choosing weights"):
        parts = np.stack([recommender.standardised(part, cases, users) for part in recommender.parts])  # (parts, U, I)
        for number, weights in enumerate(grid):
            blended = np.tensordot(weights, parts, axes=1)
            totals[number] += (
                1 / recommender.target_ranks(blended, cases.histories[users], cases.targets[users])
            ).sum()
    return grid[int(np.argmax(totals))]


def weights_grid(parts: int) -> Iterator[tuple[float, ...]]:
    """All combinations of weights in steps of 1 / STEPS with a total of 1.

    >>> len(list(weights_grid(4))), list(weights_grid(2))[:2]
    (56, [(0.0, 1.0), (0.2, 0.8)])
    """
    for steps in itertools.product(range(STEPS + 1), repeat=parts - 1):
        if sum(steps) <= STEPS:
            yield tuple(step / STEPS for step in (*steps, STEPS - sum(steps)))


def ranks(
    recommender: Recommender,
    cases: Cases,
    weights: Sequence[float] | None,
    further: Mapping[str, Callable[[slice], NDArray[np.float64]]] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """The rank of each target by model, shape (U,); without weights there is no `blend`.

    `further` are models outside of the recommender, each as a function from a slice of the users to scores (U, I).
    """
    further = further or {}
    models = [*recommender.parts, *(() if weights is None else ("blend",)), *further]
    by_model: dict[str, list[NDArray[np.int64]]] = {model: [] for model in models}
    for users in _slices(len(cases), len(recommender.asins), "ranking"):
        for model, blocks in by_model.items():
            scores = (
                further[model](users) if model in further else model_scores(recommender, model, cases, users, weights)
            )
            blocks.append(recommender.target_ranks(scores, cases.histories[users], cases.targets[users]))
    return {model: np.concatenate(blocks) for model, blocks in by_model.items()}


def model_scores(
    recommender: Recommender, model: str, cases: Cases, users: slice, weights: Sequence[float] | None
) -> NDArray[np.float64]:
    """The scores of `model` (one of MODELS) for a slice of the users, shape (U, I)."""
    if model != "blend" or weights is None:
        return recommender.scores(model, cases, users)
    parts = ((weight, part) for weight, part in zip(weights, recommender.parts, strict=True) if weight)
    return np.sum([weight * recommender.standardised(part, cases, users) for weight, part in parts], axis=0)


def _matrix(histories: Sequence[NDArray[np.int64]], width: int) -> csr_matrix:
    """One row per history with 1 for each of its items, shape (U, width)."""
    from scipy.sparse import csr_matrix

    offsets = np.concatenate([[0], np.cumsum([len(items) for items in histories])])
    columns = np.concatenate(histories)
    return csr_matrix((np.ones(len(columns)), columns, offsets), shape=(len(histories), width))


def _slices(users: int, items: int, about: str) -> Iterator[slice]:
    """Slices of the users with at most MAX_SCORES scores of one model, with a progress bar."""
    size = max(1, MAX_SCORES // items)
    for start in Bar(range(0, users, size), about, unit="batches"):
        yield slice(start, start + size)
