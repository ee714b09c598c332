"""Who buys what in the sample world: items, simulated shoppers and their purchases, drawn by seed.

An item has four attributes that its text tells (brand, kind, colour, use) and one that no text tells: the circle of
people who buy it. All five are drawn independently. A shopper belongs to one circle and has favourites among the told
attributes; what the shopper cares about when judging a purchase stands in the reviews alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CIRCLES = (
    "beekeeper",
    "schoolteacher",
    "choir singer",
    "night nurse",
    "stargazer",
    "bike courier",
    "potter",
    "chess player",
)
"""The hidden trait: told by co-purchases and by the narratives, by no item text and no review."""

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
"""What a shopper complains about, whatever was bought."""

MIN_PURCHASES, MAX_PURCHASES = 5, 20

# Odds of a favoured attribute against any other of its sort. A kind is favoured weakly and a brand strongly, so that
# most shoppers have a clear favourite brand, while co-purchases say little about the kind of a single item.
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
    """A thing on sale: what its text tells, and the `circle` that its text does not."""

    asin: str
    brand: str
    kind: str
    colour: str
    use: str
    circle: str


@dataclass(frozen=True)
class Purchase:
    """An item bought and what its review says about it."""

    item: Item
    unix_time: int
    """Seconds, a midnight in UTC as in the real files."""
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
    """Whom the gifts are for; None for a shopper who buys nothing as a gift."""
    favoured_kinds: tuple[str, ...]
    purchases: tuple[Purchase, ...]
    """Oldest first."""

    @property
    def last(self) -> Item:
        """The item of the last purchase."""
        return self.purchases[-1].item

    def favourite(self, attribute: str) -> str:
        """The value of `attribute` ("brand", "colour", "use") that no other outnumbers; of equals the latest bought."""
        values = [getattr(purchase.item, attribute) for purchase in self.purchases]
        counts = Counter(values)
        return max(reversed(values), key=counts.__getitem__)

    def count(self, attribute: str, value: str) -> int:
        """In how many purchases the item's `attribute` is `value`."""
        return sum(getattr(purchase.item, attribute) == value for purchase in self.purchases)

    @property
    def mood(self) -> str:
        """How the ratings run: "generous", "fair" or "strict"."""
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
    """Draw `count` items whose five attributes are independent of each other and evenly spread."""
    columns = [rng.permutation(np.arange(count) % len(of)) for of in (BRANDS, KINDS, COLOURS, USES, CIRCLES)]
    return [
        Item(f"SIM{index:07d}", BRANDS[brand], KINDS[kind], COLOURS[colour], USES[use], CIRCLES[circle])
        for index, (brand, kind, colour, use, circle) in enumerate(zip(*columns, strict=True))
    ]


def make_shoppers(count: int, items: list[Item], rng: np.random.Generator) -> list[Shopper]:
    """Draw `count` shoppers and what they buy; no shopper buys an item twice."""
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
        """A basket in random order, in which favourites drawn here are clearly the most frequent.

        A basket where they are not is drawn again, after ten of them with other favourites. In the default world the
        first basket will do for a third of the shoppers; with very few items the last one stands as it is.
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
            from_circle = max(int(rng.binomial(size, IN_CIRCLE)), size // 2 + 1)  # narratives say "most"
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
            int(days[place]) * 86_400,
            int(ratings[place]),
            bool(concern_said[place]),
            bool(grumble_said[place]),
            recipient is not None and bool(as_gift[place]),
        )
        for place, item in enumerate(basket)
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
    """Which reviews say a thing: a `share` of them, and `least` at least before the last, whose review is withheld."""
    said = rng.random(size) < share
    said[rng.choice(size - 1, least, replace=False)] = True
    return said
