"""Krippendorff's alpha of votes."""

from __future__ import annotations

import math

import numpy as np

POINTS = 7
"""Points of the rating scale."""
MAX_UNITS = 200_000
"""Maximum number of texts; alpha of more texts uses a random sample, because each text takes 400 bytes."""


def alpha(patterns: dict[tuple[int, ...], int]) -> float | None:
    """Krippendorff's alpha for ordinal scores; None where all votes are equal or no text has two votes.

    Args:
        patterns: number of texts by their votes for each point of the scale.

    >>> alpha({(3, 0, 0, 0, 0, 0, 0): 4, (0, 0, 0, 0, 0, 0, 3): 4})
    1.0
    >>> alpha({(0, 0, 0, 3, 0, 0, 0): 9}) is None
    True
    """
    if sum(any(votes) for votes in zip(*patterns, strict=True)) < 2:
        return None
    import krippendorff

    counts = np.array(list(patterns.values()))
    if counts.sum() > MAX_UNITS:
        counts = np.random.default_rng(0).multivariate_hypergeometric(counts, MAX_UNITS)
    units = np.repeat(np.array(list(patterns)), counts, axis=0)
    points = list(range(1, POINTS + 1))
    value = krippendorff.alpha(value_counts=units, value_domain=points, level_of_measurement="ordinal")
    return None if math.isnan(value) else float(value)
