"""Whitening of the content vectors: what they all share is taken away, and what tells them apart is made to count.

The vectors of an encoder have a direction in common, and of what is left some directions hold most: the kind of item,
say, and not that a customer wrote of a gift. Both are there for a linear map to read, and a language model finds the
second hundreds of steps later, if ever. Full whitening (Su et al. 2021, "Whitening Sentence Representations") gives
every direction the same variance, the noise included; a power of the covariance lies between.
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


def whitening(store: VectorStore, power: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `RegenForCausalLM.from_backbone` takes as `content_mean` and `content_matrix` to whiten content vectors.

    Args:
        store: the purchases of the train users.
        power: 1 to give every direction the same variance, 0 to take away the mean alone.

    Returns:
        The mean (D,), and the covariance to the power of -`power` / 2, (D, D).

    Raises:
        InputError: a vector is not finite.
    """
    count, dim = int(store.offsets[-1]), store.vectors.shape[1]
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, count, ROWS):
        vectors = store.vectors[start : min(start + ROWS, count)].astype(np.float32)
        total += vectors.sum(0, dtype=np.float64)
        products += vectors.T @ vectors
        store.release()
    mean = total / max(1, count)
    covariance = products / max(1, count) - np.outer(mean, mean)
    if not np.isfinite(covariance).all():
        raise InputError("A content vector of the train split is not finite. Run the `embeddings` stage again.")
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + FLOOR * max(float(variances.mean()), 1e-6)
    matrix = directions * variances ** (-power / 2) @ directions.T
    return mean.astype(np.float32), matrix.astype(np.float32)
