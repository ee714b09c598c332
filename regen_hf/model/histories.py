"""Reads and checks purchase histories: one, several, or rows of a dataset, as every function that takes some does.

The containers of numpy, pandas, pyarrow and `datasets` are recognised by their methods, so that none of them is needed.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

EXPECTED = (
    'expected a list of purchases, oldest first, each {"item": {"asin", "title", "category", "description", "price"}, '
    '"review": {"summary", "rating", "text", "unix_time"} or None}, or a row of the dataset, or a list of either'
)
ROW = "purchase_history"
"""The column of a dataset's row that holds its history."""
PLAIN = (str, int, float, list, tuple, dict, type(None))
EXACT = 2.0**53
"""From this number on, floats cannot hold every integer."""


class Checked(list[dict[str, Any]]):
    """A history that was checked, which is not checked again where one function passes it to another."""


def read_histories(history: Any) -> tuple[list[Checked], bool]:
    """The histories as lists of purchases with all fields, and whether `history` was a single one.

    Missing values (None, NaN, NA, NaT) are None. Ids are text; integers become text. Ratings are rounded to stars from
    1 to 5, halves up, as the reader of logs rounds them: no model saw others in training. Times in milli-, micro- or
    nanoseconds become seconds. Surrogates are joined or replaced by U+FFFD. Other keys are left out.

    Args:
        history: a list of purchases, a row of the dataset (`{"purchase_history": [...], ...}`), a list of either, or
            rows as `datasets` slices them (`dataset[:8]`, a `Dataset`). Lists may be arrays of numpy, columns or tables
            of pandas and pyarrow, or mappings of lists.

    Raises:
        ValueError: a value or a part has the wrong type or is out of range, or the purchases are not in the order of
            their times; the message names the purchase and the field.

    >>> histories, single = read_histories([{"item": {"asin": 17.0, "title": "Gel pen"}, "review": {"rating": 4.5}}])
    >>> histories[0][0]["item"]
    {'asin': '17', 'title': 'Gel pen', 'category': None, 'description': None, 'price': None}
    >>> histories[0][0]["review"], single
    ({'summary': None, 'rating': 5, 'text': None, 'unix_time': None}, True)
    >>> read_histories({"reviewer_id": "A", "purchase_history": []})
    ([[]], True)
    >>> read_histories([[], []])
    ([[], []], False)
    """
    is_table = ROW in _columns(history)
    history = _plain(history)
    if _is_row(history):
        history = _plain(history[ROW])
    parts = [_plain(part) for part in _purchases(history, "The history")]
    rows = [_plain(part[ROW]) if _is_row(part) else part for part in parts]
    several = is_table or any(map(_is_row, parts)) or (bool(rows) and all(map(_is_list, rows)))
    if not several:
        return [_checked(rows, "the history")], True
    names = ["the history"] if len(rows) == 1 else [f"history {number}" for number in range(len(rows))]
    return [
        row if isinstance(row, Checked) else _checked(_purchases(row, name.capitalize()), name)
        for row, name in zip(rows, names, strict=True)
    ], False


def _columns(table: Any) -> list[Any]:
    """The names of the columns of a table of `datasets`, pandas or pyarrow; empty for anything else."""
    names = getattr(table, "column_names", None)
    return list(getattr(table, "columns", ()) if names is None else names)


def _plain(value: Any) -> Any:
    """`value` as a list, a mapping or a scalar of Python; what is inside may be of numpy, pandas or pyarrow."""
    if type(value) in PLAIN:
        return value
    for method in ("to_pylist", "as_py"):  # pyarrow: tables and arrays, scalars
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "to_dict") and hasattr(value, "iloc"):  # pandas: a table, a row of one, or a column
        if hasattr(value, "columns"):
            return value.to_dict("records")
        names = (ROW, *FIELDS, *(name for rules in FIELDS.values() for name in rules))
        return value.to_dict() if any(name in value.index for name in names) else value.tolist()
    return value.tolist() if hasattr(value, "tolist") else value  # numpy, torch


def _is_row(part: Any) -> bool:
    return isinstance(part, Mapping) and ROW in part


def _is_list(part: Any) -> bool:
    """Whether `part` holds purchases: a list, or a mapping with a list of items, as `Sequence` of `datasets`."""
    return isinstance(_plain(part.get("item")) if isinstance(part, Mapping) else part, list | tuple)


def _purchases(history: Any, name: str) -> list[Any]:
    """The purchases of one history (`name`, for errors), not yet checked."""
    if isinstance(history, Mapping) and _is_list(history):
        items, reviews = _plain(history["item"]), _plain(history.get("review"))
        if reviews is None:
            reviews = [None] * len(items)
        if not isinstance(reviews, list | tuple) or len(reviews) != len(items):
            raise ValueError(
                f'{name} has a list of {len(items)} for "item", expected one as long for "review" or None.'
            )
        return [{"item": item, "review": review} for item, review in zip(items, reviews, strict=True)]
    if not is_list(history):
        raise ValueError(f"{name} is a {type(history).__name__}, {EXPECTED}.")
    return list(history)


def _checked(history: list[Any], name: str) -> Checked:
    """The purchases of `history` with checked values."""
    purchases = Checked()
    latest = -1
    for index, part in enumerate(history):
        purchase, where = _plain(part), f"purchase {index} of {name}"
        item = _plain(purchase.get("item")) if isinstance(purchase, Mapping) else None
        if not isinstance(item, Mapping):
            raise ValueError(f'{where.capitalize()} has no "item" mapping, {EXPECTED}.')
        review = _plain(purchase.get("review"))
        if _is_missing(review):
            review = None
        elif not isinstance(review, Mapping):
            raise ValueError(f'"review" of {where} is a {type(review).__name__}, {EXPECTED}.')
        checked = {
            "item": _fields("item", item, where),
            "review": None if review is None else _fields("review", review, where),
        }
        time = None if checked["review"] is None else checked["review"]["unix_time"]
        if time is not None:
            # Sorting would move the results that are by position, such as the influence of each purchase.
            if time < latest:
                raise ValueError(
                    f'"unix_time" of {where} is {time}, before {latest} of an earlier purchase, expected purchases '
                    "oldest first. Sort them by unix_time, or set a time that is not known to None."
                )
            latest = time
        purchases.append(checked)
    return purchases


def _fields(part: str, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The checked values of the item or the review."""
    checked: dict[str, Any] = dict.fromkeys(FIELDS[part])
    for name, rule in FIELDS[part].items():
        value = values.get(name)
        if value is None:
            continue
        if type(value) is not str:
            value = _plain(value)
            if _is_missing(value):
                continue
        try:
            checked[name] = rule(value)
        except ValueError as expected:
            raise ValueError(
                f'"{part}"."{name}" of {where} is {reprlib.repr(value)}, expected {expected} or None.'
            ) from None
    return checked


def _is_missing(value: Any) -> bool:
    """Whether `value` is None, NaN, or NA or NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value.is_nan() if isinstance(value, Decimal) else isinstance(value, float) and value != value


def _item_id(value: Any) -> str | None:
    """An id as text, as the reader of logs makes it; None for an empty one.

    Raises:
        ValueError: it is neither text nor an integer; the message is what was expected.

    >>> _item_id(" B01 "), _item_id(17), _item_id(17.0)
    ('B01', '17', '17')
    """
    if isinstance(value, str):
        return _text(value).strip() or None
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:  # pandas, where one id is missing
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("text, an integer")


def item_ids(name: str, values: Any) -> list[str]:
    """The ids `values` as text; `name` is for errors.

    Raises:
        ValueError: an id is missing, or neither text nor an integer.
    """
    ids = []
    for index, value in enumerate(_plain(values)):
        try:
            item = _item_id(_plain(value))
        except ValueError:
            item = None
        if item is None:
            raise ValueError(f"{name}[{index}] is {reprlib.repr(value)}, expected text or an integer.")
        ids.append(item)
    return ids


def encodable(text: str) -> str:
    r"""`text` with joined surrogates, and U+FFFD for each one that is alone: tokenizers read neither.

    >>> encodable("\ud83d\ude00 pen\ud800") == "\U0001f600 pen\ufffd"
    True
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return encodable(value)


def _number(value: Any, low: float, high: float, expected: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not low <= value <= high:
        raise ValueError(expected)
    return value


def _price(value: Any) -> float:
    return float(_number(value, 0, sys.float_info.max, "a number of at least 0"))


def _rating(value: Any) -> int:
    return math.floor(float(_number(value, 0.5, 5, "a number from 1 to 5")) + 0.5)


def _time(value: Any) -> int:
    seconds = int(_number(value, 0, sys.maxsize, "a number of seconds since 1970"))
    while seconds >= 10**11:  # as seconds the year 5138: milli-, micro- or nanoseconds
        seconds //= 1000
    return seconds


FIELDS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "item": {"asin": _item_id, "title": _text, "category": _text, "description": _text, "price": _price},
    "review": {"summary": _text, "rating": _rating, "text": _text, "unix_time": _time},
}
"""The fields of a purchase, and the rule that checks the value of each."""


def is_list(value: Any) -> bool:
    """Whether `value` can hold several values: something to iterate over that is neither text nor a mapping."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def one_each(name: str, value: str | Sequence[str | None] | None, n_histories: int) -> list[str | None]:
    """One value per history, from one value for all or a list of values.

    Raises:
        ValueError: the numbers of values and histories differ, or `value` is neither text nor a list.
    """
    if value is None or isinstance(value, str):
        return [value] * n_histories
    value = _plain(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected text, or a list with one text per history.")
    if len(value) != n_histories:
        raise ValueError(f"{name} has {len(value)} values for {n_histories} histories, expected one value per history.")
    return list(value)


def first_columns(lengths: list[int]) -> np.ndarray:
    """A mask, true in the first `length` columns of each row, with at least one column.

    >>> first_columns([2, 0]).tolist()
    [[True, True], [False, False]]
    """
    return np.arange(max([1, *lengths])) < np.array(lengths)[:, None]


__all__ = ["encodable", "first_columns", "is_list", "item_ids", "one_each", "read_histories"]
