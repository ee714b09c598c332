"""How often the profile changes with changes of the history that say nothing new about the user."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...metrics.bootstrap import mean_interval
from .deletion import BATCH, overlap, same_words

TASK = "user_profile"
SYNONYMS = {
    "great": "excellent",
    "good": "fine",
    "bad": "poor",
    "nice": "pleasant",
    "big": "large",
    "small": "little",
    "quick": "fast",
    "quickly": "fast",
    "cheap": "inexpensive",
    "buy": "purchase",
    "bought": "purchased",
    "got": "received",
    "use": "employ",
    "very": "really",
    "really": "very",
    "however": "but",
    "also": "too",
    "love": "adore",
    "loves": "adores",
    "perfect": "ideal",
    "easy": "simple",
    "broke": "failed",
    "arrived": "came",
    "month": "30 days",
    "weeks": "couple of weeks",
}
Purchase = dict[str, Any]
History = list[Purchase]
Change = Callable[[History, np.random.Generator], "History | None"]


def with_a_neutral_purchase(items: Sequence[Mapping[str, Any]]) -> Change:
    """A change that adds a purchase of a random item without rating and review, neither first nor last."""

    def change(history: History, random: np.random.Generator) -> History | None:
        bought = {purchase["item"]["asin"] for purchase in history}
        item = items[int(random.integers(len(items)))]
        if len(history) < 2 or item["asin"] in bought:
            return None
        index = int(random.integers(1, len(history)))
        review = history[index - 1]["review"] or {}
        silent = {"summary": None, "rating": None, "text": None, "unix_time": review.get("unix_time")}
        return [*history[:index], {"item": dict(item), "review": silent}, *history[index:]]

    return change


def with_two_swapped(history: History, random: np.random.Generator) -> History | None:
    """Two adjacent purchases in the other order, each with the time of both: those closest in time, not the last one.

    Purchases of one day have no order; where there are none, the two of the shortest time are given the same.
    """
    times = [(purchase["review"] or {}).get("unix_time") for purchase in history]
    gaps = {
        index: later - earlier
        for index, (earlier, later) in enumerate(itertools.pairwise(times[:-1]))
        if earlier is not None and later is not None
    }
    if not gaps:
        return None
    index = min(gaps, key=gaps.__getitem__)
    first, second = history[index], history[index + 1]
    moved = [{**purchase, "review": {**purchase["review"], "unix_time": times[index]}} for purchase in (second, first)]
    return [*history[:index], *moved, *history[index + 2 :]]


def with_a_paraphrase(history: History, random: np.random.Generator) -> History | None:
    """One random review with its sentences in another order and common words replaced by synonyms."""
    reviewed = [index for index, purchase in enumerate(history) if (purchase["review"] or {}).get("text")]
    if not reviewed:
        return None
    index = reviewed[int(random.integers(len(reviewed)))]
    review = history[index]["review"]
    text = paraphrase(review["text"])
    if text == review["text"]:
        return None
    return [*history[:index], {**history[index], "review": {**review, "text": text}}, *history[index + 1 :]]


def paraphrase(text: str) -> str:
    """`text` with its first sentence last, and common words replaced by synonyms.

    >>> paraphrase("A great pen. I bought two.")
    'I purchased two. A excellent pen.'
    """
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]

    def other(match: re.Match[str]) -> str:
        word = match[0]
        synonym = SYNONYMS.get(word.lower(), word)
        return synonym.capitalize() if word[0].isupper() and synonym != word else synonym

    return re.sub(r"[A-Za-z]+", other, " ".join([*sentences[1:], *sentences[:1]]))


def robustness(
    regen: Any, histories: Sequence[History], items: Sequence[Mapping[str, Any]], max_new_tokens: int, seed: int
) -> dict[str, Any]:
    """The share of profiles that change with each change, and the overlap of words, with intervals over the users."""
    changes: dict[str, Change] = {
        "neutral_purchase": with_a_neutral_purchase(items),
        "two_swapped": with_two_swapped,
        "paraphrase": with_a_paraphrase,
    }
    options = {"task": TASK, "max_new_tokens": max_new_tokens, "batch_size": BATCH}
    before = regen.narrate(list(histories), **options) if histories else []
    results = {}
    for name, change in changes.items():
        random = np.random.default_rng(seed)
        changed = [(user, change(history, random)) for user, history in enumerate(histories)]
        cases = [(user, history) for user, history in changed if history]
        after = regen.narrate([history for _, history in cases], **options) if cases else []
        pairs = [(before[user], text) for (user, _), text in zip(cases, after, strict=True)]
        results[name] = {
            "users": len(cases),
            "changed": mean_interval(np.array([not same_words(*pair) for pair in pairs], dtype=float), seed),
            "overlap": mean_interval(np.array([overlap(*pair) for pair in pairs]), seed),
        }
    return results
