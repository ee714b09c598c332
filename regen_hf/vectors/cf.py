"""The CF matrix of users and items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..outputs import count, rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def user_item_matrix(train: list[Path], asins: list[str], alpha: float) -> csr_matrix:
    """Confidence of each train user in each item, shape (users, items); an empty cell means not bought.

    A purchase counts `1 + alpha * rating` (Hu et al., equation for c_ui), several of one item their highest. A purchase
    without a rating counts as one of three stars.
    """
    from scipy.sparse import csr_matrix

    index = {asin: number for number, asin in enumerate(asins)}
    cells: dict[tuple[int, int], float] = {}
    for user, row in enumerate(rows(train, ["purchase_history"])):
        for purchase in row["purchase_history"]:
            rating = purchase["review"]["rating"]
            cell = (user, index[purchase["item"]["asin"]])
            cells[cell] = max(cells.get(cell, 0.0), 1.0 + alpha * (3 if rating is None else rating))
    places = np.array(list(cells), dtype=np.int32).reshape(-1, 2)
    values = np.fromiter(cells.values(), dtype=np.float32, count=len(cells))
    return csr_matrix((values, (places[:, 0], places[:, 1])), shape=(count(train), len(asins)))
