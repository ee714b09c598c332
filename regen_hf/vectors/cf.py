"""The CF matrix of users and items."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..model.fold_in import confidences
from ..outputs import count, rows
from ..schema import purchase_columns

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def user_item_matrix(train: list[Path], asins: list[str], alpha: float) -> csr_matrix:
    """The ALS confidence of each train user in each item, shape (users, items); an empty cell means not bought.

    See `model.fold_in.confidences` for the values.
    """
    from scipy.sparse import csr_matrix

    column = {asin: number for number, asin in enumerate(asins)}
    values, items, ends = array("f"), array("i"), array("q", [0])
    for row in rows(train, purchase_columns("item.asin", "review.rating")):
        weights = confidences(row["purchase_history"], alpha)
        values.extend(weights.values())
        items.extend(column[asin] for asin in weights)
        ends.append(len(items))
    arrays = np.array(values, np.float32), np.array(items, np.int32), np.array(ends, np.int64)
    matrix = csr_matrix(arrays, shape=(count(train), len(asins)))
    matrix.sort_indices()
    return matrix
