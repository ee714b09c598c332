"""Krippendorff's alpha of votes."""

from __future__ import annotations

import math

import numpy as np

POINTS = 7


MOST_UNITS = 200_000
"""Texts that alpha is computed on; of more, a random part: it takes 400 bytes for each."""


def alpha(patterns: dict[tuple[int, ...], int]) -> float | None:
    """Krippendorff's alpha for ordinal scores, None where no two votes differ or no text has two.

    Args:
        patterns: How many texts have so many votes for each point of the scale.

    >>> alpha({(3, 0, 0, 0, 0, 0, 0): 4, (0, 0, 0, 0, 0, 0, 3): 4})
    1.0
    >>> alpha({(0, 0, 0, 3, 0, 0, 0): 9}) is None
    True
    """
    if sum(any(column) for column in zip(*patterns, strict=True)) < 2:
        return None
    import krippendorff

    counts = np.array(list(patterns.values()))
    if counts.sum() > MOST_UNITS:
        counts = np.random.default_rng(0).multivariate_hypergeometric(counts, MOST_UNITS)
    units = np.repeat(np.array(list(patterns)), counts, axis=0)
    points = list(range(1, POINTS + 1))
    value = krippendorff.alpha(value_counts=units, value_domain=points, level_of_measurement="ordinal")
    return None if math.isnan(value) else float(value)
