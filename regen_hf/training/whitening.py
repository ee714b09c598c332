"""Whitening of the content vectors: what they all share is taken away, and what tells customers apart is made to count.

The vectors of an encoder have a direction in common, and of what is left some directions hold most: the kind of item,
say, and not that a customer wrote of a gift. Both are there for a linear map to read, and a language model finds the
second hundreds of steps later, if ever. Full whitening (Su et al. 2021, "Whitening Sentence Representations") gives
every direction the same variance, the noise included; a power of the covariance lies between.

Of two directions of the same variance, one may differ from purchase to purchase and the other from customer to
customer: what they complain of, how easily they praise. The second is what a portrait is made of, and the between-class
covariance of Fisher's linear discriminant, with customers as the classes, tells which it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..embeddings import VectorStore
from ..errors import InputError

FLOOR = 0.01
"""Share of the mean variance added to that of each direction: one without any would become noise alone."""
ROWS = 2**15
"""Vectors looked at at a time."""


def whitening(
    store: VectorStore, power: float, between_users: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `RegenForCausalLM.from_backbone` takes as `content_mean` and `content_matrix` to whiten content vectors.

    Args:
        store: the purchases of the train users.
        power: 1 to give every direction the same variance, 0 to take away the mean alone.
        between_users: stretches each direction to 1 + between_users sqrt(r), where r is the share of its variance that
            lies between users: the covariance of two purchases of one user, over the variance.

    Returns:
        The mean (D,), and the matrix (D, D) by which a row is multiplied: the covariance to the power of -`power` / 2,
        then the stretch.

    Raises:
        InputError: a vector is not finite.
    """
    offsets = store.offsets[np.append(True, np.diff(store.offsets) > 0)]  # without the users who bought nothing
    count, dim = int(offsets[-1]), store.vectors.shape[1]
    lengths = np.diff(offsets).astype(np.float64)
    total, weighted = np.zeros(dim), np.zeros(dim)
    products, of_users = np.zeros((dim, dim)), np.zeros((dim, dim))
    first = 0
    while first < len(lengths):  # as many whole users as ROWS holds, at least one
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + ROWS, side="right")) - 1)
        vectors = store.vectors[offsets[first] : offsets[last]].astype(np.float32)
        sums = np.add.reduceat(vectors, offsets[first:last] - offsets[first], axis=0)  # (users, D)
        total += sums.sum(0, dtype=np.float64)
        weighted += lengths[first:last] @ sums
        products += vectors.T @ vectors
        of_users += sums.T @ sums
        store.release()
        first = last
    mean = total / max(1, count)
    covariance = products / max(1, count) - np.outer(mean, mean)
    if not np.isfinite(covariance).all():
        raise InputError("A content vector of the train split is not finite. Run the `embeddings` stage again.")
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + FLOOR * max(float(variances.mean()), 1e-6)
    matrix = directions * variances ** (-power / 2) @ directions.T
    pairs = float((lengths * (lengths - 1)).sum())
    if between_users and pairs:
        # Of each pair of purchases of one user, the product of their distances from the mean.
        shift = np.outer(mean, weighted)
        of_users += np.outer(mean, mean) * (lengths**2).sum() - shift - shift.T
        between = (of_users - count * covariance) / pairs
        white = directions * variances**-0.5 @ directions.T
        shares, directions = np.linalg.eigh(white @ between @ white)
        matrix = matrix @ (directions * (1 + between_users * np.sqrt(np.maximum(shares, 0))) @ directions.T)
    return mean.astype(np.float32), matrix.astype(np.float32)
