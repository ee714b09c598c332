"""Tests of the citations by deletion: the text is written again without the cited purchases, and with them only.

A citation is necessary if the sentence disappears without the cited purchases, and sufficient if it stays with only
them (arXiv 2604.06172). Both are compared with random purchases of the same number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ...metrics.bootstrap import share_interval

BATCH = 16
"""Texts per batch."""
ARMS = ("cited", "random")
TESTS = ("without", "only")
Prompted = tuple[list[dict[str, Any]], str]
"""A history and a task."""


def deletion(
    regen: Any, users: Sequence[Prompted], firsts: Sequence[int], max_new_tokens: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The results of the tests, and the cited sentences of each of `users`.

    Args:
        regen: the [`RegenPipeline`].
        users: their histories and tasks.
        firsts: the first purchase of each history that the model reads; the others are in no test.
        max_new_tokens: of a text.
        seed: of the random purchases and of the intervals.

    Returns:
        The shares of the cited sentences that `without` and `only` the `cited` purchases, or as many `random` ones,
        are written again (`stays`: the same words in the same order, in any case; `overlap`: F1 of its words with the
        most similar sentence), each with its interval over the users; and the sentences with the position of their
        user in `users`.
    """
    options = {"max_new_tokens": max_new_tokens, "batch_size": BATCH}
    histories, tasks = [history for history, _ in users], [task for _, task in users]
    written = regen.narrate(histories, tasks, cite=True, **options) if users else []
    sentences = [{"user": user, **sentence} for user, text in enumerate(written) for sentence in text]
    random = np.random.default_rng(seed)
    cases, again = [], []
    for sentence in sentences:
        history, first = histories[sentence["user"]], firsts[sentence["user"]]
        cited = [citation["purchase"] for citation in sentence["citations"]]
        if cited and len(cited) < len(history) - first:
            drawn = random.choice(range(first, len(history)), len(cited), replace=False).tolist()
            for arm, chosen in zip(ARMS, (cited, drawn), strict=True):
                for test in TESTS:
                    cases.append((sentence, test, arm))
                    again.append([p for n, p in enumerate(history[first:], first) if (n in chosen) == (test == "only")])
    of_user = [tasks[sentence["user"]] for sentence, _, _ in cases]
    texts = regen.narrate(again, of_user, **options) if cases else []
    sums = {(test, arm): np.zeros((len(users), 3)) for test in TESTS for arm in ARMS}  # stays, overlap, sentences
    for (sentence, test, arm), text in zip(cases, texts, strict=True):
        own, others = sentence["text"], sentences_of(text)
        stays = any(map(partial(same_words, own), others))
        sums[test, arm][sentence["user"]] += (stays, max(map(partial(overlap, own), others), default=0.0), 1)
    results = {
        test: {
            arm: {
                name: share_interval(sums[test, arm][:, [column, 2]], seed)
                for column, name in enumerate(("stays", "overlap"))
            }
            for arm in ARMS
        }
        for test in TESTS
    }
    counts = {
        "users": len(users),
        "sentences": len(sentences),
        "cited": sum(bool(sentence["citations"]) for sentence in sentences),
        "tested": len(cases) // 4,
    }
    return counts | results, sentences


def same_words(one: str, other: str) -> bool:
    """Whether two texts have the same words in the same order, in any case.

    >>> same_words("A red pen, a cup.", "a Red pen, a cup. "), same_words("A red pen, a cup.", "A cup, a red pen.")
    (True, False)
    """
    return one.lower().split() == other.lower().split()


def overlap(one: str, other: str) -> float:
    """The F1 of the words of two texts in any order; 1 for two empty ones.

    >>> overlap("A red pen.", "A blue pen."), overlap("A red pen.", ""), overlap("", "")
    (0.6666666666666666, 0.0, 1.0)
    """
    words, others = Counter(one.lower().split()), Counter(other.lower().split())
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else 1.0


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, as citations have them."""
    from ...model.citations import SENTENCE_END

    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return [
        text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if text[start:end].strip()
    ]
