"""Whitening of the content vectors: removes what all vectors share, and stretches what differs between users.

The vectors of an encoder have a common direction, and most of the remaining variance lies in a few directions: the
kind of an item, for example, rather than a mention of a gift. A linear map can read both, but a language model learns
the second hundreds of steps later, if at all. Full whitening (Su et al. 2021, "Whitening Sentence Representations")
gives all directions the same variance, including noise; a lower power of the covariance is a compromise.

Of two directions of the same variance, one may differ between purchases and the other between customers: what they
complain about, how easily they praise. The second is what a narrative about a customer needs. The covariance between
customers identifies it, as the covariance between classes does in Fisher's linear discriminant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...vectors.store import VectorStore

FLOOR = 0.01
"""Share of the mean variance that is added to each direction; without it a constant direction would become noise."""
ROWS = 2**15
"""Vectors per block, or those of one user if they are more."""
SAMPLE = 2**18
"""Vectors after which no further block is read: the users are in the order of a hash, so the first are a sample."""


def whitening(
    store: VectorStore, power: float, between_users: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The `content_mean` and `content_matrix` of `RegenForCausalLM.from_backbone` that whiten content vectors.

    Args:
        store: the purchases of the train users. Purchases without a text, whose vector is zero, are ignored; the model
            keeps them zero.
        power: 1 to give all directions the same variance, 0 to remove only the mean.
        between_users: stretches each axis of the fully whitened space to 1 + between_users sqrt(r), where r is the
            share of its variance between users: the covariance of two purchases of one user, divided by the variance.

    Returns:
        The mean (D,), and the matrix (D, D) by which a row is multiplied: the covariance to the power of -`power` / 2,
        then the stretch.

    Raises:
        InputError: a vector is not finite.
    """
    offsets = store.offsets[np.append(True, np.diff(store.offsets) > 0)]  # without the users who bought nothing
    dim, users = store.vectors.shape[1], len(offsets) - 1
    total, total_several = np.zeros(dim), np.zeros(dim)
    products, between = np.zeros((dim, dim)), np.zeros((dim, dim))
    count, count_several, first = 0, 0, 0  # vectors, vectors of users with several, users
    while first < users and offsets[first] < SAMPLE:  # in blocks of complete users, at least one
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + ROWS, side="right")) - 1)
        vectors = store.vectors[offsets[first] : offsets[last]].astype(np.float32)
        starts = offsets[first:last] - offsets[first]
        lengths = np.add.reduceat(vectors.any(1), starts, dtype=np.int64)  # (users,)
        count += int(lengths.sum())
        products += vectors.T @ vectors
        sums = np.add.reduceat(vectors, starts, axis=0)  # (users, D)
        total += sums.sum(0, dtype=np.float64)
        if between_users:
            # All pairs of a user's purchases, weighted so that each purchase counts once: no long history dominates.
            weights = np.where(lengths > 1, np.maximum(lengths - 1, 1) ** -0.5, 0).astype(np.float32)
            weighted_sums = sums * weights[:, None]
            weighted = vectors * weights.repeat(np.diff(offsets[first : last + 1]))[:, None]
            between += weighted_sums.T @ weighted_sums - weighted.T @ weighted
            total_several += sums[lengths > 1].sum(0, dtype=np.float64)
            count_several += int(lengths[lengths > 1].sum())
        store.release()
        first = last
    mean = total / max(1, count)
    covariance = products / max(1, count) - np.outer(mean, mean)
    if not np.isfinite(covariance).all():
        raise InputError("A content vector of the train split is not finite. Run the `embeddings` stage again.")
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + FLOOR * max(float(variances.mean()), 1e-6)
    matrix = directions * variances ** (-power / 2) @ directions.T
    if count_several:
        shift = np.outer(mean, total_several / count_several)
        between = between / count_several - shift - shift.T + np.outer(mean, mean)
        white = directions * variances**-0.5 @ directions.T
        shares, axes = np.linalg.eigh(white @ between @ white)
        matrix = matrix @ (axes * (1 + between_users * np.sqrt(np.clip(shares, 0, 1))) @ axes.T)
    return mean.astype(np.float32), matrix.astype(np.float32)
