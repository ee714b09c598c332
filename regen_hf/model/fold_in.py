"""CF vectors of new users and items: one closed-form step of weighted ALS, without fitting again.

Shapes: I items, K vectors, d the width of the CF vectors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def solve(gram: np.ndarray, vectors: np.ndarray, confidence: np.ndarray, regularization: float) -> np.ndarray:
    """The ALS vector x, argmin of sum c (1 - x'v)^2 + sum over the others (x'v)^2 + λ|x|^2, of shape (d,).

    Hu, Koren and Volinsky (2008), equations 4 and 5: (G + V' (C - I) V + λI) x = V' C 1.

    Args:
        gram: G, the sum of v v' over all items (for a user) or users (for an item), shape (d, d).
        vectors: V, the vectors of the items bought or of the users who bought, shape (K, d).
        confidence: c of each, shape (K,).
        regularization: λ of ALS.
    """
    normal = gram + vectors.T @ ((confidence - 1)[:, None] * vectors) + regularization * np.eye(len(gram))  # (d, d)
    return np.linalg.solve(normal, vectors.T @ confidence)  # (d,)


def confidences(history: Sequence[Mapping[str, Any]], alpha: float) -> dict[str, float]:
    """The ALS confidence of each item of a history, 1 + alpha * rating (c_ui of Hu et al.), by asin.

    A missing rating counts as three stars; several purchases of one item count as the highest of them.

    >>> pen = {"item": {"asin": "pen"}, "review": {"rating": 5}}
    >>> confidences([pen, {"item": {"asin": "ink"}}, {"item": {"asin": "pen"}, "review": None}], alpha=1.0)
    {'pen': 6.0, 'ink': 4.0}
    """
    weight: dict[str, float] = {}
    for purchase in history:
        asin, rating = purchase["item"].get("asin"), (purchase.get("review") or {}).get("rating")
        if asin is not None:
            weight[asin] = max(weight.get(asin, 0.0), 1.0 + alpha * (3 if rating is None else rating))
    return weight


def fold_in_user(
    weight: Mapping[str, float],
    rows: Mapping[str, int],
    item_factors: np.ndarray,
    item_gram: np.ndarray,
    regularization: float,
) -> np.ndarray | None:
    """The CF vector of a user, shape (d,); None where no item bought has a vector.

    Args:
        weight: the result of `confidences`.
        rows: the row of `item_factors` of each item that has a vector.
        item_factors: shape (I, d).
        item_gram: the sum of v v' over all items, shape (d, d).
        regularization: λ of ALS.
    """
    known = [asin for asin in weight if asin in rows]
    if not known:
        return None
    confidence = np.array([weight[asin] for asin in known])
    return solve(item_gram, item_factors[[rows[asin] for asin in known]], confidence, regularization)


def fold_in_items(
    histories: Sequence[Sequence[Mapping[str, Any]]],
    rows: Mapping[str, int],
    item_factors: np.ndarray,
    user_gram: np.ndarray,
    alpha: float,
    regularization: float,
) -> dict[str, np.ndarray]:
    """CF vectors of the items of `histories` that have none, by asin.

    A user's vector is solved from the items with a vector, then a new item's from the users who bought it.

    Args:
        histories: purchases of each user, of new items and of items with a vector.
        rows: the row of `item_factors` of each item that has a vector.
        item_factors: shape (I, d).
        user_gram: the sum of x x' over the users of the fit, shape (d, d).
        alpha: see `confidences`.
        regularization: λ of ALS.
    """
    item_factors = item_factors.astype(np.float64)
    item_gram = item_factors.T @ item_factors  # (d, d)
    buyers: dict[str, list[tuple[np.ndarray, float]]] = defaultdict(list)
    for history in histories:
        weight = confidences(history, alpha)
        user = fold_in_user(weight, rows, item_factors, item_gram, regularization)  # (d,)
        if user is None:
            continue
        for asin in weight.keys() - rows.keys():
            buyers[asin].append((user, weight[asin]))
    return {
        asin: solve(
            user_gram.astype(np.float64),
            np.stack([user for user, _ in users]),
            np.array([confidence for _, confidence in users]),
            regularization,
        ).astype(np.float32)
        for asin, users in sorted(buyers.items())
    }


__all__ = ["confidences", "fold_in_items", "fold_in_user", "solve"]
