"""From votes to scores (section 3.3): pure functions of lists. A failed vote is None and is not counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def score(votes: Sequence[int | None]) -> int | None:
    """The score of one attribute: the majority of more than half of the votes, otherwise the mean, rounded down.

    Args:
        votes: scores of 1..7, None for a failed vote. Half of the votes means half of the votes that did not fail.

    Returns:
        A score of 1..7, or None without votes.

    >>> score([7, 7, 7, 1, 1])  # three of five agree
    7
    >>> score([7, 7, 1, 1])  # exactly half is no majority: the mean is 4
    4
    >>> score([6, 6, 7, 5, 4])  # 28 / 5 = 5.6, rounded down
    5
    >>> score([7, None, None])  # one vote of one is a majority
    7
    >>> score([None, None]) is None, score([]) is None
    (True, True)
    """
    cast = [vote for vote in votes if vote is not None]
    if not cast:
        return None
    value, count = Counter(cast).most_common(1)[0]
    return value if 2 * count > len(cast) else sum(cast) // len(cast)


def plurality(votes: Sequence[int | None]) -> int | None:
    """The most frequent vote; ties go to the lowest, consistent with rounding down.

    >>> plurality([5, 5, 6, 7])
    5
    >>> plurality([7, 7, 4, 4, 1])  # a tie: the lower one
    4
    >>> plurality([None, 3])
    3
    >>> plurality([None]) is None
    True
    """
    counts = Counter(vote for vote in votes if vote is not None)
    return min(counts, key=lambda vote: (-counts[vote], vote)) if counts else None


def confidence(votes: Mapping[str, Sequence[int | None]]) -> int | None:
    """The confidence of a stage: the most frequent confidence vote of each attribute, averaged over the attributes.

    Args:
        votes: the confidence votes of 1..7 by attribute. An attribute without votes is left out of the mean.

    Returns:
        The mean, rounded down to a point of the scale, or None without votes.

    >>> confidence({"veracity": [6, 6, 2], "clarity": [5, 5, 7]})  # (6 + 5) / 2 = 5.5
    5
    >>> confidence({"veracity": [6, 6, 2], "clarity": [None]})
    6
    >>> confidence({"veracity": []}) is None
    True
    """
    frequent = [vote for vote in map(plurality, votes.values()) if vote is not None]
    return sum(frequent) // len(frequent) if frequent else None
