"""The scale of the ratings of a file: recognised as 1 to 5, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

LOWEST, HIGHEST = 0.5, 5.0
"""Ratings that need no `rating_scale`; halves are rounded up."""
FEWEST = 5
"""Ratings from which a scale is recognised."""
OUTSIDE = 0.01
"""Share of ratings outside the scale above which the file has another scale."""


@dataclass(frozen=True)
class Ratings:
    """The numeric ratings of some records."""

    count: int = 0
    outside: int = 0
    """Ratings below `LOWEST` or above `HIGHEST`."""
    binary: int = 0
    """Ratings that are 0 or 1."""
    low: float | None = None
    high: float | None = None

    def __add__(self, other: Ratings) -> Ratings:
        lows = [value for value in (self.low, other.low) if value is not None]
        highs = [value for value in (self.high, other.high) if value is not None]
        return Ratings(
            self.count + other.count,
            self.outside + other.outside,
            self.binary + other.binary,
            min(lows, default=None),
            max(highs, default=None),
        )


def check_scale(path: Path, ratings: Ratings) -> None:
    """Check that the `ratings` of the file at `path` are stars from 1 to 5.

    Raises:
        InputError: they have another scale.
    """
    thumbs = ratings.binary == ratings.count and (ratings.low, ratings.high) == (0, 1)
    if ratings.count >= FEWEST and (thumbs or ratings.outside > OUTSIDE * ratings.count):
        raise InputError(
            f"{path} has {ratings.count:,} ratings from {ratings.low:g} to {ratings.high:g}, of which "
            f"{ratings.outside:,} are outside the scale of 1 to 5. Map the scale with --rating-scale LOW HIGH (such as "
            f"{ratings.low:g} {ratings.high:g}) and name values that mean unrated with --rating-missing, or leave the "
            "rating unmapped for implicit feedback."
        )
