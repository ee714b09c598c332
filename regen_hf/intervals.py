"""Means with their 95 % intervals, as results files store them and as readers see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Interval = dict[str, float | None]
"""`mean`, and the bounds `low` and `high` of its 95 % interval; all None without data."""

NO_INTERVAL: Interval = {"mean": None, "low": None, "high": None}


def format_number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals (an integer without any), a dash for None.

    >>> format_number(47744), format_number(71.25, 1), format_number(None)
    ('47,744', '71.2', '–')
    """
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def format_interval(value: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A mean with its interval, or a number without one.

    >>> format_interval({"mean": 71.25, "low": 65.0, "high": 77.0}, 1)
    '71.2 [65.0, 77.0]'
    >>> format_interval({"mean": None}), format_interval(7)
    ('–', '7')
    """
    if not isinstance(value, Mapping):
        return format_number(value, digits)
    if value["mean"] is None:
        return "–"
    mean, low, high = (format_number(value[name], digits) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
