"""Collaborative filtering: weighted ALS (Hu, Koren and Volinsky 2008)."""

from __future__ import annotations

import numpy as np
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from ...progress import Bar
from .settings import EmbeddingsConfig


def fit(user_items: csr_matrix, config: EmbeddingsConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The item vectors of weighted ALS, and the matrix that folds in new items.

    Returns:
        Item vectors of shape (items, cf_dim), zero for items that nobody in `user_items` bought; and the sum of x x'
        over the user vectors x, shape (cf_dim, cf_dim).
    """
    # implicit runs its own threads; a second pool of BLAS threads under them would compete for the cores.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=config.cf_dim,
            regularization=config.cf_regularization,
            iterations=config.cf_iterations,
            random_state=config.seed,
            use_gpu=False,
        )
        with Bar(about="ALS", total=config.cf_iterations, unit="iterations") as bar:
            model.fit(user_items, show_progress=False, callback=lambda *_: bar.update())
    item_factors = np.ascontiguousarray(model.item_factors, dtype=np.float32)
    item_factors[np.asarray(user_items.getnnz(axis=0)) == 0] = 0.0
    user_factors = np.asarray(model.user_factors, dtype=np.float32)
    return item_factors, user_factors.T @ user_factors
