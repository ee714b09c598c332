"""The CF table of the processor: vectors of purchases and of new items, and next items.

Shapes: N purchases, I items of the table, d the width of the CF vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .fold_in import confidences, fold_in_items, fold_in_user
from .histories import read_histories

logger = logging.getLogger(__name__)


def check_table(processor: Any) -> None:
    """Check the CF vectors of `processor` and the settings of ALS.

    Raises:
        ValueError: they do not match each other, or a value is NaN, infinite or negative.
    """
    asins, factors, gram = processor.cf_asins, processor.cf_factors, processor.cf_user_gram
    if factors is None:
        if asins:
            raise ValueError(f"cf_asins has {len(asins)} items, but cf_factors is None: pass both.")
    elif factors.ndim != 2 or len(factors) != len(asins):
        raise ValueError(
            f"cf_factors has the shape {factors.shape}, expected ({len(asins)}, cf_dim), one row per item of cf_asins."
        )
    elif gram is not None and gram.shape != (factors.shape[1],) * 2:
        raise ValueError(
            f"cf_user_gram has the shape {gram.shape}, expected (cf_dim, cf_dim) as in cf_factors {factors.shape}."
        )
    for name, values in (("cf_factors", factors), ("cf_user_gram", gram)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinity, expected finite values: fit the CF vectors again.")
    for name, value in (("cf_alpha", processor.cf_alpha), ("cf_regularization", processor.cf_regularization)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value}, expected a finite number of at least 0, as in the fit of ALS.")
    if len(set(asins)) != len(asins):
        raise ValueError("cf_asins contains an item twice, expected each item once.")


def fold_in(processor: Any, histories: Any) -> list[str]:
    """Add CF vectors of the new items of `histories` to `processor`; see [`RegenProcessor.fold_in`]."""
    if processor.cf_factors is None or processor.cf_user_gram is None:
        raise ValueError(
            "cf_user_gram is None, expected the sum of x x' over the user vectors of ALS, which new items need: pass "
            "it to RegenProcessor with the CF vectors."
        )
    vectors = fold_in_items(
        read_histories(histories)[0],
        processor._cf_rows,
        processor.cf_factors,
        processor.cf_user_gram,
        processor.cf_alpha,
        processor.cf_regularization,
    )
    rows = {asin: row for row, asin in enumerate(processor.cf_asins)}
    added = [asin for asin in vectors if asin not in rows]
    rows |= {asin: row for row, asin in enumerate(added, len(rows))}
    processor.cf_asins += added
    padding = np.zeros((len(added), processor.cf_factors.shape[1]), np.float32)
    processor.cf_factors = np.vstack([processor.cf_factors, padding])
    for asin, vector in vectors.items():
        processor.cf_factors[rows[asin]] = vector
        processor._cf_rows[asin] = rows[asin]
    return list(vectors)


def recommend(processor: Any, history: Any, n: int) -> Any:
    """The `n` best next items by the CF table of `processor`; see [`RegenProcessor.recommend`]."""
    if processor.cf_factors is None:
        raise ValueError("This processor has no CF vectors, expected cf_asins and cf_factors: recommend needs them.")
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n is {n!r}, expected a number of items of at least 1.")
    histories, single = read_histories(history)
    item_rows, factors = processor._cf_rows, processor.cf_factors
    asins, rows = list(item_rows), np.array(list(item_rows.values()), dtype=np.int64)
    gram = (factors.T @ factors).astype(np.float64)  # (d, d)
    best: list[list[tuple[str, float]]] = []
    for purchases in histories:
        weight = confidences(purchases, processor.cf_alpha)
        user = fold_in_user(weight, item_rows, factors, gram, processor.cf_regularization)  # (d,)
        if user is None:
            best.append([])
            continue
        scores = factors[rows] @ user  # (items with a vector,)
        order = (int(row) for row in np.argsort(-scores, kind="stable") if asins[row] not in weight)
        best.append([(asins[row], float(scores[row])) for row in islice(order, n)])
    return best[0] if single else best


def cf_vectors(processor: Any, purchases: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """v_i of each purchase, zero for a cold item, (N, d); None for a processor without CF vectors."""
    if processor.cf_factors is None:
        return None
    rows = np.array([processor._cf_rows.get(purchase["item"]["asin"], -1) for purchase in purchases], dtype=np.int64)
    vectors = np.zeros((len(rows), processor.cf_factors.shape[1]), dtype=np.float32)
    known = rows >= 0
    vectors[known] = processor.cf_factors[rows[known]]
    if not known.all() and not processor._warned_of_cold_items:
        processor._warned_of_cold_items = True
        logger.warning(
            "%d of %d purchases are of items without a CF vector: the model reads only their text. This warning is "
            "shown once.",
            int((~known).sum()),
            len(rows),
        )
    return vectors


__all__ = ["cf_vectors", "check_table", "fold_in", "recommend"]
