"""Bootstrap intervals and p-values over users.

Shapes:
    U   users
    S   statistics of a user, see `text_metrics.STATISTICS`
    B   resamples
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..intervals import NO_INTERVAL, Interval

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


def resample(table: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Sums of the statistics over users drawn with replacement, (U, S) to (B, S).

    The same seed and number of users give the same draws, so two models are compared on the same users in each
    resample.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // max(1, len(table)))  # resamples in memory at once: 32 MB of counts
    parts = [_draw(generator, len(table), min(chunk, RESAMPLES - start)) for start in range(0, RESAMPLES, chunk)]
    return np.concatenate([part @ table for part in parts])


def mean_interval(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """The mean of one value per user, (U,), with its 95 % interval.

    >>> mean_interval(np.array([2.0, 2.0]))
    {'mean': 2.0, 'low': 2.0, 'high': 2.0}
    >>> mean_interval(np.array([]))
    {'mean': None, 'low': None, 'high': None}
    """
    if not len(values):
        return dict(NO_INTERVAL)
    return interval(float(values.mean()), resample(values[:, None], seed)[:, 0] / len(values))


def share_interval(sums: NDArray[np.float64], seed: int = 0) -> Interval:
    """The total of the first column over that of the second, (U, 2), with its 95 % interval; None if that is zero.

    >>> share_interval(np.array([[1.0, 2.0], [1.0, 2.0]]))
    {'mean': 0.5, 'low': 0.5, 'high': 0.5}
    >>> share_interval(np.zeros((3, 2)))
    {'mean': None, 'low': None, 'high': None}
    """
    part, total = sums.sum(axis=0)
    if not total:
        return dict(NO_INTERVAL)
    drawn = resample(sums, seed)
    with np.errstate(invalid="ignore"):
        return interval(float(part / total), drawn[:, 0] / drawn[:, 1])


def interval(mean: float, drawn: NDArray[np.float64]) -> Interval:
    """`mean` with the 95 % interval of the scores `drawn`, (B,); None where they are NaN.

    >>> interval(2.0, np.array([1.0, 2.0, 3.0]))
    {'mean': 2.0, 'low': 1.05, 'high': 2.95}
    >>> interval(float("nan"), np.array([]))
    {'mean': None, 'low': None, 'high': None}
    """
    if np.isnan(mean) or np.isnan(drawn).all():
        return dict(NO_INTERVAL)
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).round(12)
    return {"mean": mean, "low": float(low), "high": float(high)}


def p_value(difference: float, drawn: NDArray[np.float64]) -> float | None:
    """The two-sided p-value of a paired bootstrap (Riezler and Maxwell 2005, as in sacrebleu); None for NaN.

    Args:
        difference: the score of one model minus that of the other.
        drawn: the same difference in each resample, (B,).

    >>> p_value(1.0, np.array([0.9, 1.0, 1.1])), p_value(0.0, np.array([-1.0, 1.0]))
    (0.25, 1.0)
    >>> p_value(1.0, np.array([np.nan, -2.0, 2.0])), p_value(1.0, np.array([np.nan]))
    (1.0, None)
    """
    drawn = drawn[~np.isnan(drawn)]  # distinct-n of a resample without any word is NaN
    if np.isnan(difference) or not len(drawn):
        return None
    # Under the null hypothesis the differences vary around 0 as `drawn` does around its mean; 1e-9 absorbs rounding.
    beyond = np.abs(drawn - drawn.mean()) >= abs(difference) - 1e-9
    return float((beyond.sum() + 1) / (len(drawn) + 1))


def _draw(generator: np.random.Generator, users: int, resamples: int) -> NDArray[np.float64]:
    """How often each user is drawn in each resample, (resamples, U)."""
    drawn = generator.integers(0, users, (resamples, users)) + users * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * users).reshape(resamples, users).astype(np.float64)
