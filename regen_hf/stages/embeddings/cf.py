"""Collaborative filtering: weighted ALS (Hu, Koren and Volinsky 2008) on the train users' purchases alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import InputError, missing_extra
from ...outputs import item_files, split_files

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from .settings import EmbeddingsConfig
from ...vectors.cf import user_item_matrix


def build(dataset: Path, out: Path, config: EmbeddingsConfig) -> dict[str, Any]:
    """Fit ALS and write `items.parquet` and `cf.safetensors` into `out`."""
    from safetensors.numpy import save_file

    items = pq.read_table(item_files(dataset), columns=["asin"])
    train = split_files(dataset, "train")
    user_items = user_item_matrix(train, items.column("asin").to_pylist(), config.cf_alpha)
    if user_items.nnz == 0:
        raise InputError("The train split holds no purchases, so there is nothing to fit CF on. Add reviews.")
    item_factors, user_gram = fit(user_items, config)
    norms = np.linalg.norm(item_factors, axis=1)
    warm = norms > 0
    pq.write_table(items, out / "items.parquet")
    save_file(
        {
            "item_factors": item_factors,
            "mean_norm": norms[warm].mean(keepdims=True).astype(np.float32),
            "user_gram": user_gram,
        },
        out / "cf.safetensors",
    )
    return {"items": len(item_factors), "cold_items": int((~warm).sum()), "train_interactions": int(user_items.nnz)}


def fit(user_items: csr_matrix, config: EmbeddingsConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Item vectors of weighted ALS, and what new items need to be folded in.

    Returns:
        Vectors of shape (items, cf_dim), zero for items that nobody in `user_items` bought; and the sum of x x' over
        the vectors of the users, shape (cf_dim, cf_dim).
    """
    try:
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise missing_extra("implicit", "train") from None

    # implicit runs its own threads; a second pool of BLAS threads under them would fight for the cores.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=config.cf_dim,
            regularization=config.cf_regularization,
            iterations=config.cf_iterations,
            random_state=config.seed,
            use_gpu=False,
        )
        model.fit(user_items)
    item_factors = np.ascontiguousarray(model.item_factors, dtype=np.float32)
    item_factors[np.asarray(user_items.getnnz(axis=0)) == 0] = 0.0
    user_factors = np.asarray(model.user_factors, dtype=np.float32)
    return item_factors, user_factors.T @ user_factors
