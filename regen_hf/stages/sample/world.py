"""The items, simulated shoppers and purchases of the sample world, drawn by seed.

An item has four visible attributes, stated in its text (brand, kind, colour, use), and a hidden one: the circle of
people who buy it. All five are drawn independently. A shopper belongs to one circle and has favourites among the
visible attributes. Only the reviews show what the shopper judges a purchase by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .settings import CIRCLES, MIN_PURCHASES

BRANDS = (
    "Brindlecroft",
    "Corraday",
    "Dunmarrow",
    "Elmsgate",
    "Fennimark",
    "Hollistead",
    "Kestermoor",
    "Larkenby",
    "Oskvale",
    "Quillmoor",
    "Tarrowby",
    "Vintrel",
)
"""Invented names."""

DEPARTMENTS = {
    "Bags & Storage": ("backpack", "tote bag", "storage box", "tool roll"),
    "Light & Time": ("lantern", "lamp", "clock", "headlamp"),
    "Food & Drink": ("mug", "water bottle", "lunch box", "kettle"),
    "Paper & Writing": ("notebook", "pen case", "folder", "planner"),
    "Textiles & Seating": ("blanket", "apron", "cushion", "stool"),
}
KINDS = tuple(kind for kinds in DEPARTMENTS.values() for kind in kinds)
COLOURS = ("black", "cream", "grey", "mustard", "navy", "olive", "red", "teal")
USES = ("travel", "camping", "office", "garden", "kitchen", "workshop")
CONCERNS = ("durability", "comfort", "value", "looks", "simplicity", "lightness", "cleaning", "compactness")
"""What a shopper judges a purchase by."""
RECIPIENTS = ("daughter", "son", "partner", "mother", "brother", "neighbour")
GRUMBLES = ("packaging", "delivery", "smell", "photo", "labels", "service")
"""What a shopper complains about, independent of the item."""

MAX_PURCHASES = 20

# Odds of a favoured attribute against another one of the same sort. A kind is favoured weakly and a brand strongly, so
# most shoppers have a clear favourite brand, and co-purchases carry little information about the kind of an item.
BRAND_ODDS, COLOUR_ODDS, USE_ODDS, KIND_ODDS = 12.0, 7.0, 6.0, 2.0
IN_CIRCLE = 0.8
CONCERN_SAID, GRUMBLE_SAID, BOUGHT_AS_GIFT, BUYS_GIFTS = 0.85, 0.4, 0.5, 0.65
RATING_ODDS = {  # of 1, 2, 3, 4 and 5
    "generous": (0.0, 0.01, 0.04, 0.2, 0.75),
    "fair": (0.02, 0.05, 0.15, 0.5, 0.28),
    "strict": (0.12, 0.22, 0.36, 0.25, 0.05),
}


@dataclass(frozen=True)
class Item:
    """An item on sale: its visible attributes and its hidden `circle`."""

    asin: str
    brand: str
    kind: str
    colour: str
    use: str
    circle: str


@dataclass(frozen=True)
class Purchase:
    """A purchase and the content of its review."""

    item: Item
    unix_time: int
    """Seconds; a midnight in UTC, as in the real files."""
    rating: int
    says_concern: bool
    grumbles: bool
    is_gift: bool


@dataclass(frozen=True)
class Shopper:
    """A simulated person. No such person exists."""

    reviewer_id: str
    circle: str
    concern: str
    grumble: str
    recipient: str | None
    """The recipient of gifts; None for a shopper who buys no gifts."""
    favoured_kinds: tuple[str, ...]
    purchases: tuple[Purchase, ...]
    """Oldest first."""

    @property
    def last(self) -> Item:
        """The item of the last purchase."""
        return self.purchases[-1].item

    def favourite(self, attribute: str) -> str:
        """The most frequent value of `attribute` ("brand", "colour", "use"); ties go to the latest purchase."""
        values = [getattr(purchase.item, attribute) for purchase in self.purchases]
        counts = Counter(values)
        return max(reversed(values), key=counts.__getitem__)

    def count(self, attribute: str, value: str) -> int:
        """The number of purchases whose item has `value` as `attribute`."""
        return sum(getattr(purchase.item, attribute) == value for purchase in self.purchases)

    @property
    def mood(self) -> str:
        """The level of the ratings: "generous", "fair" or "strict"."""
        mean = sum(purchase.rating for purchase in self.purchases) / len(self.purchases)
        return "generous" if mean >= 4.4 else "fair" if mean >= 3.5 else "strict"


def article(noun: str, capital: bool = False) -> str:
    """`noun` with its indefinite article.

    >>> article("olive stool"), article("Elmsgate mug", capital=True), article("mug")
    ('an olive stool', 'An Elmsgate mug', 'a mug')
    """
    a = "an" if noun[0].lower() in "aeio" else "a"
    return f"{a.capitalize() if capital else a} {noun}"


def make_items(count: int, rng: np.random.Generator) -> list[Item]:
    """Draw `count` items with five attributes, independent of each other and uniformly distributed."""
    columns = [rng.permutation(np.arange(count) % len(of)) for of in (BRANDS, KINDS, COLOURS, USES, CIRCLES)]
    return [
        Item(f"SIM{index:07d}", BRANDS[brand], KINDS[kind], COLOURS[colour], USES[use], CIRCLES[circle])
        for index, (brand, kind, colour, use, circle) in enumerate(zip(*columns, strict=True))
    ]


def make_shoppers(count: int, items: list[Item], rng: np.random.Generator) -> list[Shopper]:
    """Draw `count` shoppers with their purchases; no shopper buys an item twice."""
    baskets = _Baskets(items, rng)
    return [_make_shopper(f"simulated-{index:06d}", baskets, rng) for index in range(count)]


class _Baskets:
    """Draws items without replacement, favoured ones more often (Gumbel top-k), most of them from one circle."""

    def __init__(self, items: list[Item], rng: np.random.Generator) -> None:
        self.items = items
        self.rng = rng
        self.popularity = rng.normal(0.0, 0.4, len(items))  # log odds
        self.brand = self._columns("brand", BRANDS, BRAND_ODDS)
        self.colour = self._columns("colour", COLOURS, COLOUR_ODDS)
        self.use = self._columns("use", USES, USE_ODDS)
        self.kind = self._columns("kind", KINDS, KIND_ODDS)
        circles = np.array([item.circle for item in items])
        self.inside = [np.flatnonzero(circles == circle) for circle in CIRCLES]
        self.outside = [np.flatnonzero(circles != circle) for circle in CIRCLES]
        self.largest = min(MAX_PURCHASES, *(len(inside) for inside in self.inside))

    def _columns(self, attribute: str, values: tuple[str, ...], odds: float) -> NDArray[np.float64]:
        column = np.array([getattr(item, attribute) for item in self.items])
        return np.log(odds) * np.stack([column == value for value in values])  # (values, items)

    def draw(self, circle: int, kinds: NDArray[np.int64]) -> list[Item]:
        """A basket in random order, in which the favourites drawn here are the most frequent without ties.

        Baskets with other favourites are drawn again; after ten attempts the favourites are drawn again too. In the
        default world the first basket is accepted for a third of the shoppers. The hundredth is accepted in any case.
        """
        rng = self.rng
        size = min(MIN_PURCHASES - 1 + int(rng.geometric(0.25)), self.largest)
        for attempt in range(100):
            if attempt % 10 == 0:
                brand, colour, use = (int(rng.integers(len(of))) for of in (BRANDS, COLOURS, USES))
                odds = self.popularity + self.brand[brand] + self.colour[colour] + self.use[use]
                odds += self.kind[kinds].sum(axis=0)
                favourites = {"brand": BRANDS[brand], "colour": COLOURS[colour], "use": USES[use]}
            keys = odds + rng.gumbel(size=len(odds))
            from_circle = max(int(rng.binomial(size, IN_CIRCLE)), size // 2 + 1)  # narratives contain the word "most"
            chosen = np.concatenate(
                [
                    self.inside[circle][np.argsort(-keys[self.inside[circle]])[:from_circle]],
                    self.outside[circle][np.argsort(-keys[self.outside[circle]])[: size - from_circle]],
                ]
            )
            basket = [self.items[index] for index in rng.permutation(chosen)]
            if all(_leads(basket, attribute, value) for attribute, value in favourites.items()):
                break
        return basket


def _leads(basket: list[Item], attribute: str, value: str) -> bool:
    (first, most), *others = Counter(getattr(item, attribute) for item in basket).most_common(2)
    return first == value and most >= 2 and (not others or others[0][1] < most)


def _make_shopper(reviewer_id: str, baskets: _Baskets, rng: np.random.Generator) -> Shopper:
    circle = int(rng.integers(len(CIRCLES)))
    kinds = rng.choice(len(KINDS), 3, replace=False)
    basket = baskets.draw(circle, kinds)
    size = len(basket)
    recipient = RECIPIENTS[rng.integers(len(RECIPIENTS))] if rng.random() < BUYS_GIFTS else None
    temper = list(RATING_ODDS)[rng.integers(len(RATING_ODDS))]
    days = 15_400 + int(rng.integers(1_500)) + np.cumsum(1 + rng.exponential(60.0, size).astype(int))  # from March 2012
    ratings = rng.choice([1, 2, 3, 4, 5], size, p=RATING_ODDS[temper])
    concern_said = _said(CONCERN_SAID, 2, size, rng)
    grumble_said = _said(GRUMBLE_SAID, 2, size, rng)
    as_gift = _said(BOUGHT_AS_GIFT, 1, size, rng)
    purchases = tuple(
        Purchase(
            item,
            int(days[index]) * 86_400,
            int(ratings[index]),
            bool(concern_said[index]),
            bool(grumble_said[index]),
            recipient is not None and bool(as_gift[index]),
        )
        for index, item in enumerate(basket)
    )
    return Shopper(
        reviewer_id,
        CIRCLES[circle],
        CONCERNS[rng.integers(len(CONCERNS))],
        GRUMBLES[rng.integers(len(GRUMBLES))],
        recipient,
        tuple(KINDS[kind] for kind in kinds),
        purchases,
    )


def _said(share: float, least: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which reviews mention a topic: a `share` of them, at least `least` before the last, whose review is withheld."""
    said = rng.random(size) < share
    said[rng.choice(size - 1, least, replace=False)] = True
    return said
