"""Critiques of simulated shoppers: what differs between the items of their last two purchases, from the truth.

A critique states one difference. It asks for the last item's colour, use or kind in one word, for a lower or higher
price, or rejects the brand of the item before.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from .world import Item, Shopper, article

PHRASES = {
    "colour": (
        "I would like it in {value}.",
        "Nice, but rather in {value}.",
        "Have you got something like this in {value}?",
        "Not in {old}: I prefer {value}.",
    ),
    "use": (
        "I need one for {value}.",
        "Have you got something for {value}?",
        "It should be made for {value}, not for {old}.",
        "Nice, but I am looking for something for {value}.",
    ),
    "kind": (
        "I would rather have {value}.",
        "Show me {value} instead.",
        "Have you got {value} like this?",
        "Close, but I am looking for {value}.",
    ),
    "lower": (
        "Something cheaper, please.",
        "I would like to pay less.",
        "Have you got one that costs less?",
        "Nice, but I want a cheaper one.",
    ),
    "higher": (
        "I am ready to pay more.",
        "It may cost more.",
        "Have you got a more expensive one?",
        "Nice, but show me one at a higher price.",
    ),
    "brand": (
        "Not {old}, please.",
        "I would like another brand than {old}.",
        "Have you got one that is not by {old}?",
        "Anything but {old}, please.",
    ),
}
"""Phrasings by attribute, for the price by its direction. {value} is of the last item, {old} of the one before."""
PRICE = re.compile(r"\$(\d+\.\d\d)")
PRICE_STEP = 1.1
"""Ratio of two prices from which a shopper mentions the difference."""


@dataclass(frozen=True)
class Critique:
    """A critique, and the attribute that it is about."""

    text: str
    attribute: str
    """colour, use, kind, price or brand."""
    value: str
    """What the last item has, for the price lower or higher; of the brand, the one that is rejected."""


def critiques(shopper: Shopper, prices: Mapping[str, str]) -> list[dict[str, str]]:
    """A critique for each attribute that differs between the last two items, in an order by a hash of the shopper.

    Args:
        shopper: a simulated shopper.
        prices: the price in the record of each item, such as "$9.99"; ranges and missing prices are not compared.
    """
    first, last = shopper.purchases[-2].item, shopper.last
    attributes = ("colour", "use", "kind", "price", "brand")
    found = (_of(attribute, first, last, prices, shopper.reviewer_id) for attribute in attributes)
    given = [critique for critique in found if critique]
    return [asdict(critique) for critique in sorted(given, key=lambda one: _hash(shopper.reviewer_id, one.attribute))]


def _of(attribute: str, first: Item, last: Item, prices: Mapping[str, str], reviewer_id: str) -> Critique | None:
    """The critique about one attribute, None where it does not differ."""
    old, value = _values(attribute, first, last, prices)
    if old == value:
        return None
    phrases = PHRASES[value if attribute == "price" else attribute]
    phrase = phrases[_hash(reviewer_id, attribute, "phrase") % len(phrases)]
    text = phrase.format(value=_noun(attribute, value), old=_noun(attribute, old))
    return Critique(text, attribute, old if attribute == "brand" else value)


def _values(attribute: str, first: Item, last: Item, prices: Mapping[str, str]) -> tuple[str, str]:
    """An attribute of both items: of a kind its last word, as two words of a title would give the item away."""
    if attribute == "price":
        shown = [PRICE.fullmatch(prices[item.asin]) for item in (first, last)]
        before, price = (float(match[1]) if match else 0.0 for match in shown)
        if not before or not price or max(before, price) < PRICE_STEP * min(before, price):
            return "", ""
        return ("higher", "lower") if price < before else ("lower", "higher")
    old, value = getattr(first, attribute), getattr(last, attribute)
    return (old.rpartition(" ")[2], value.rpartition(" ")[2]) if attribute == "kind" else (old, value)


def _noun(attribute: str, value: str) -> str:
    if attribute == "use":
        return value if value in ("travel", "camping") else f"the {value}"
    return article(value) if attribute == "kind" else value


def _hash(*parts: str) -> int:
    return zlib.crc32("\t".join(parts).encode())
