"""Critiques: who has one, the choice among candidates, and candidates by fixed rules.

A critique is said about the purchase before the last and leads to the last one, so only users whose last two purchases
are similar have one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .critique_faults import is_unmet, leaks
from .names import stems
from .settings import NarrativesConfig
from .wording import Phrasing, leaf

LEAST_SHARED, LEAST_SHARE = 2, 0.25
"""Words that two titles share, as a number and as a share of the words of both, from which the items are similar."""
PRICE_STEP = 1.1
"""Ratio of two prices from which the difference is worth a remark."""

Chosen = TypeVar("Chosen")


def wanted(history: Sequence[Mapping[str, Any]], config: NarrativesConfig) -> bool:
    """Whether the user with `history` gets a critique: the settings ask for one, and the last two items are similar."""
    return config.critiques > 0 and len(history) > 1 and similar(*pair(history), levels=config.critique_levels)


def pair(history: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The items of the last two purchases, without their reviews."""
    first, last = (purchase["item"] or {} for purchase in history[-2:])
    return first, last


def similar(first: Mapping[str, Any], last: Mapping[str, Any], levels: int) -> bool:
    """Whether two different items share the first `levels` levels of their categories.

    Where a category has fewer levels, the words of the titles decide. No content vectors exist at this stage.

    >>> pens = [{"asin": name, "title": name, "category": "Office - Pens - " + name} for name in ("Gel", "Ball")]
    >>> similar(*pens, levels=2), similar(*pens, levels=3), similar(pens[0], pens[0], levels=2)
    (True, False, False)
    >>> films = [{"asin": title, "title": title} for title in ("Toy Story 2 (1999)", "Toy Story (1995)", "Heat")]
    >>> similar(*films[:2], levels=2), similar(*films[1:], levels=2)
    (True, False)
    """
    name = "title" if first.get("asin") is None else "asin"
    if first.get(name) == last.get(name):
        return False
    own, other = _levels(first), _levels(last)
    if min(len(own), len(other)) >= levels:
        return own[:levels] == other[:levels]
    words, others = (set(stems(item.get("title") or "")) for item in (first, last))
    shared = len(words & others)
    return shared >= LEAST_SHARED and shared >= LEAST_SHARE * len(words | others)


def choose(candidates: Sequence[Chosen], reviewer_id: str) -> Chosen:
    """One of `candidates`, by a hash of the user id.

    >>> sorted({choose("abc", f"user{number}") for number in range(20)})
    ['a', 'b', 'c']
    """
    return candidates[zlib.crc32(reviewer_id.encode()) % len(candidates)]


def by_rules(reviewer_id: str, history: Sequence[Mapping[str, Any]], most: int, seed: int = 0) -> list[str]:
    """At most `most` candidates that state a difference in category or price; none if there is no such difference."""
    first, last = pair(history)
    say = Phrasing(f"{seed}:{reviewer_id}")
    kind, other_kind = leaf(last.get("category")), leaf(first.get("category"))
    kind = kind.lower() if kind and other_kind and kind != other_kind else None
    price, before = last.get("price") or 0, first.get("price") or 0
    candidates = []
    if kind:
        candidates.append(
            say(f"I would rather look at {kind}.", f"Show me {kind} instead.", f"Have you got {kind} too?")
        )
    if price and before and max(price, before) >= PRICE_STEP * min(price, before):
        cheaper = price < before
        candidates.append(
            say("Something cheaper, please.", "I would like to pay less.", "Have you got one that costs less?")
            if cheaper
            else say("I am ready to pay more.", "It may cost more.", "Have you got a more expensive one?")
        )
        if kind:
            candidates.append(f"I would rather look at {kind}, and pay {'less' if cheaper else 'more'}.")
    return [text for text in candidates if not leaks(text, first, last) and not is_unmet(text, first, last)][:most]


def _levels(item: Mapping[str, Any]) -> list[str]:
    return [level for level in map(str.strip, re.split(" [->] ", item.get("category") or "")) if level]
