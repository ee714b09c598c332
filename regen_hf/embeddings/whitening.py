"""Whitening of the content vectors: what they all share is taken away, and what tells them apart is made to count.

The vectors of an encoder point into one narrow cone, and of what is left a few directions hold nearly all: the kind of
item, say, and not that a customer wrote of a gift. Both are there for a linear map to read, and a language model finds
the second hundreds of steps later, if ever. Full whitening (Su et al. 2021, "Whitening Sentence Representations") gives
every direction the same variance, the noise included; a power of the covariance lies between.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

FILE = "content_moments.safetensors"
FLOOR = 0.01
"""Share of the mean variance added to that of each direction: one without any would become noise alone."""


class Moments:
    """Mean and covariance of vectors that come piece by piece.

    Args:
        dim: width D of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.total = np.zeros(dim)
        self.products = np.zeros((dim, dim))

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Count `vectors` (n, D) in."""
        self.count += len(vectors)
        self.total += vectors.sum(0, dtype=np.float64)
        self.products += vectors.T @ vectors

    def save(self, folder: Path) -> None:
        """Write `mean` (D,) and `covariance` (D, D); of no vectors both are zero."""
        mean = self.total / max(1, self.count)
        covariance = self.products / max(1, self.count) - np.outer(mean, mean)
        save_file({"mean": mean.astype(np.float32), "covariance": covariance.astype(np.float32)}, folder / FILE)


def whitening(folder: Path, power: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `RegenForCausalLM.from_backbone` takes as `content_mean` and `content_matrix` to whiten content vectors.

    Args:
        folder: the stage `embeddings`.
        power: 1 to give every direction the same variance, 0 for the mean alone.

    Returns:
        The mean (D,), and the covariance to the power of -`power` / 2, (D, D).
    """
    moments = load_file(folder / FILE)
    variances, directions = np.linalg.eigh(moments["covariance"].astype(np.float64))
    variances = np.maximum(variances, 0) + FLOOR * max(float(variances.mean()), 1e-12)
    matrix = directions * variances ** (-power / 2) @ directions.T
    return moments["mean"], matrix.astype(np.float32)
