"""The CF matrix of users and items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..model.fold_in import confidences
from ..outputs import count, rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def user_item_matrix(train: list[Path], asins: list[str], alpha: float) -> csr_matrix:
    """The ALS confidence of each train user in each item, shape (users, items); an empty cell means not bought.

    See `model.fold_in.confidences` for the values.
    """
    from scipy.sparse import csr_matrix

    column = {asin: number for number, asin in enumerate(asins)}
    cells: list[tuple[int, int, float]] = []
    for user, row in enumerate(rows(train, ["purchase_history"])):
        cells += [(user, column[asin], value) for asin, value in confidences(row["purchase_history"], alpha).items()]
    users, items, values = zip(*cells, strict=True) if cells else ((), (), ())
    return csr_matrix((np.array(values, np.float32), (users, items)), shape=(count(train), len(asins)))
