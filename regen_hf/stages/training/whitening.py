"""Whitening of the content vectors: what they all share is taken away, and what tells customers apart is made to count.

The vectors of an encoder have a direction in common, and of what is left some directions hold most: the kind of item,
say, and not that a customer wrote of a gift. Both are there for a linear map to read, and a language model finds the
second hundreds of steps later, if ever. Full whitening (Su et al. 2021, "Whitening Sentence Representations") gives
every direction the same variance, the noise included; a power of the covariance lies between.

Of two directions of the same variance, one may differ from purchase to purchase and the other from customer to
customer: what they complain of, how easily they praise. The second is what a portrait is made of. The covariance
between customers tells which it is, as that between classes does for Fisher's linear discriminant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...vectors.store import VectorStore

FLOOR = 0.01
"""Share of the mean variance added to that of each direction: one without any would become noise alone."""
ROWS = 2**15
"""Vectors looked at at a time, or those of one user where there are more."""


def whitening(
    store: VectorStore, power: float, between_users: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `RegenForCausalLM.from_backbone` takes as `content_mean` and `content_matrix` to whiten content vectors.

    Args:
        store: the purchases of the train users. Those without a text, whose vector is zero, count for nothing, as the
            model leaves them zero.
        power: 1 to give every direction the same variance, 0 to take away the mean alone.
        between_users: stretches each axis of the fully whitened space to 1 + between_users sqrt(r), where r is the
            share of its variance that lies between users: the covariance of two purchases of one user, over it.

    Returns:
        The mean (D,), and the matrix (D, D) by which a row is multiplied: the covariance to the power of -`power` / 2,
        then the stretch.

    Raises:
        InputError: a vector is not finite.
    """
    offsets = store.offsets[np.append(True, np.diff(store.offsets) > 0)]  # without the users who bought nothing
    dim, users = store.vectors.shape[1], len(offsets) - 1
    total, of_several = np.zeros(dim), np.zeros(dim)
    products, between = np.zeros((dim, dim)), np.zeros((dim, dim))
    count, several, first = 0, 0, 0  # vectors, those of users with several, users
    while first < users:  # as many whole users as ROWS holds, at least one
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + ROWS, side="right")) - 1)
        vectors = store.vectors[offsets[first] : offsets[last]].astype(np.float32)
        starts = offsets[first:last] - offsets[first]
        lengths = np.add.reduceat(vectors.any(1), starts, dtype=np.int64)  # (users,)
        count += int(lengths.sum())
        products += vectors.T @ vectors
        sums = np.add.reduceat(vectors, starts, axis=0)  # (users, D)
        total += sums.sum(0, dtype=np.float64)
        if between_users:
            # All pairs of a user's purchases, so weighted that each purchase counts once: no long history decides.
            weights = np.where(lengths > 1, np.maximum(lengths - 1, 1) ** -0.5, 0).astype(np.float32)
            of_users = sums * weights[:, None]
            alone = vectors * weights.repeat(np.diff(offsets[first : last + 1]))[:, None]
            between += of_users.T @ of_users - alone.T @ alone
            of_several += sums[lengths > 1].sum(0, dtype=np.float64)
            several += int(lengths[lengths > 1].sum())
        store.release()
        first = last
    mean = total / max(1, count)
    covariance = products / max(1, count) - np.outer(mean, mean)
    if not np.isfinite(covariance).all():
        raise InputError("A content vector of the train split is not finite. Run the `embeddings` stage again.")
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + FLOOR * max(float(variances.mean()), 1e-6)
    matrix = directions * variances ** (-power / 2) @ directions.T
    if several:
        shift = np.outer(mean, of_several / several)
        between = between / several - shift - shift.T + np.outer(mean, mean)
        white = directions * variances**-0.5 @ directions.T
        shares, axes = np.linalg.eigh(white @ between @ white)
        matrix = matrix @ (axes * (1 + between_users * np.sqrt(np.clip(shares, 0, 1))) @ axes.T)
    return mean.astype(np.float32), matrix.astype(np.float32)
