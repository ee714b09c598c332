"""Reads and checks purchase histories: one, a batch, or rows of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

EXPECTED = (
    'expected a list of purchases, oldest first, each {"item": {"asin", "title", "category", "description", "price"}, '
    '"review": {"summary", "rating", "text", "unix_time"} or None}, or a row of the dataset, or a list of either'
)
FIELDS: dict[str, dict[str, Any]] = {
    "item": {"title": str, "category": str, "description": str, "price": Real},
    "review": {"summary": str, "rating": Real, "text": str, "unix_time": Real},
}


def read_histories(history: Any) -> tuple[list[list[Mapping[str, Any]]], bool]:
    """The histories as lists of checked purchases, and whether `history` was a single one.

    Args:
        history: a list of purchases, a row of the dataset (`{"purchase_history": [...], ...}`), a list of either, or
            rows as `datasets` slices them (`dataset[:8]`, a `Dataset`).

    Raises:
        ValueError: a part has the wrong type; the message names the purchase.

    >>> read_histories([{"item": {"title": "Gel pen"}}])
    ([[{'item': {'title': 'Gel pen'}}]], True)
    >>> read_histories({"reviewer_id": "A", "purchase_history": []})
    ([[]], True)
    >>> read_histories([[], [{"item": {}}]])
    ([[], [{'item': {}}]], False)
    """
    if isinstance(history, Mapping) and "purchase_history" in history:
        history = history["purchase_history"]
    parts = _listed(history)
    rows = [part["purchase_history"] if _is_row(part) else part for part in parts]
    if any(map(_is_row, parts)) or (rows and all(isinstance(row, list | tuple) for row in rows)):
        return [_checked(_listed(row)) for row in rows], False
    return [_checked(rows)], True


def _is_row(part: Any) -> bool:
    return isinstance(part, Mapping) and "purchase_history" in part


def _listed(history: Any) -> list[Any]:
    if isinstance(history, str | bytes | Mapping) or not isinstance(history, Iterable):
        raise ValueError(f"The history is a {type(history).__name__}, {EXPECTED}.")
    return list(history)


def _checked(history: list[Any]) -> list[Mapping[str, Any]]:
    """`history`, after a check of the types of all fields."""
    for index, purchase in enumerate(history):
        if not isinstance(purchase, Mapping) or not isinstance(purchase.get("item"), Mapping):
            raise ValueError(f'Purchase {index} of the history has no "item" mapping, {EXPECTED}.')
        for part, types in FIELDS.items():
            values = purchase.get(part)
            if values is not None and not isinstance(values, Mapping):
                raise ValueError(f'"{part}" of purchase {index} is a {type(values).__name__}, {EXPECTED}.')
            for name, kind in types.items():
                value = (values or {}).get(name)
                if value is not None and not isinstance(value, kind):
                    raise ValueError(
                        f'"{part}"."{name}" of purchase {index} is {value!r}, expected '
                        f"{'text' if kind is str else 'a number'} or None."
                    )
    return history


def one_each(name: str, value: str | Sequence[str | None] | None, n_histories: int) -> list[str | None]:
    """One value per history, from one value for all or a list of values.

    Raises:
        ValueError: the numbers of values and histories differ.
    """
    if value is None or isinstance(value, str):
        return [value] * n_histories
    if len(value) != n_histories:
        raise ValueError(f"{name} has {len(value)} values for {n_histories} histories, expected one value per history.")
    return list(value)


def first_columns(lengths: list[int]) -> np.ndarray:
    """A mask, true in the first `length` columns of each row, with at least one column.

    >>> first_columns([2, 0]).tolist()
    [[True, True], [False, False]]
    """
    return np.arange(max([1, *lengths])) < np.array(lengths)[:, None]


__all__ = ["first_columns", "one_each", "read_histories"]
