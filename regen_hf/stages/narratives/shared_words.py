"""Words that a narrative shares with other texts: pure functions of text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation.

    >>> words("Don't buy: it's a RED pen!")
    ["don't", 'buy', "it's", 'a', 'red', 'pen']
    """
    return WORD.findall(text.lower().replace("’", "'"))


def joined(texts: Iterable[list[str]]) -> str:
    """Texts as one string of words to search in; a mark between two texts prevents matches across them.

    >>> joined([["a", "red", "pen"], ["fine"]])
    ' a red pen § fine § '
    """
    return " " + "".join(f"{' '.join(text)} § " for text in texts)


def bigrams(texts: Iterable[list[str]]) -> frozenset[tuple[str, str]]:
    """All pairs of neighbouring words."""
    return frozenset(pair for text in texts for pair in itertools.pairwise(text))


def shared_runs(text: Sequence[str], source: str, names: frozenset[tuple[str, str]] = frozenset()) -> list[int]:
    """The lengths of the runs of words that a narrative shares with other texts, in its order, without overlap.

    Words of product names do not count: narrative and review name the same products.

    Args:
        text: the words of the narrative.
        source: the words of the other texts, `joined`.
        names: pairs of neighbouring words in the names of the products.

    >>> shared_runs(words("They say it writes like a dream, a red pen."), joined([words("It writes like a dream!")]))
    [5, 1]
    """
    counted = [1] * len(text)
    for index, pair in enumerate(itertools.pairwise(text)):
        if pair in names:
            counted[index] = counted[index + 1] = 0
    before = [0, *itertools.accumulate(counted)]  # words that count before each index
    runs: list[int] = []
    covered = end = 0
    for start in range(len(text)):
        # The rest of a shared run after its first word is shared too, so `end` never decreases.
        last, end = end, max(end, start)
        while end < len(text) and f" {' '.join(text[start : end + 1])} " in source:
            end += 1
        if end > max(last, start):
            if start < covered:  # it overlaps the run before: the longer one counts
                runs[-1] = max(runs[-1], before[end] - before[start])
            else:
                runs.append(before[end] - before[start])
            covered = end
    return [run for run in runs if run]


def shared_run(text: Sequence[str], source: str, names: frozenset[tuple[str, str]] = frozenset()) -> int:
    """The longest of `shared_runs`.

    >>> reviews = joined([words("It writes like a dream, really!"), words("I love the Pilot Precise V7 pen")])
    >>> shared_run(words("They say it writes like a dream."), reviews)
    5
    >>> shared_run(words("They like the Pilot Precise V7 Pen."), reviews)
    5
    >>> shared_run(words("They like the Pilot Precise V7 Pen."), reviews, bigrams([words("Pilot Precise V7 Pen")]))
    1
    >>> shared_run(words("Nothing of it."), reviews), shared_run([], reviews), shared_run(words("A pen."), joined([]))
    (1, 0, 0)
    """
    return max(shared_runs(text, source, names), default=0)


def shares(text: Sequence[str], source: str, length: int, known: str = "") -> bool:
    """Whether `length` words in a row of `text` also occur in `source`, but not in `known`; both are `joined`.

    >>> shares(words("They like a red pen."), joined([words("I like a red pen")]), 4)
    True
    >>> shares(words("They like a red pen."), joined([words("I like a red pen")]), 4, joined([words("like a red pen")]))
    False
    """
    if not source:
        return False
    runs = (f" {' '.join(text[start : start + length])} " for start in range(len(text) - length + 1))
    return any(run in source and run not in known for run in runs)
