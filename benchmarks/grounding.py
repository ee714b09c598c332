"""Precision and recall of `regen grounding RUN` on planted true and false claims, by kind of claim.

    python benchmarks/grounding.py --out benchmarks/results/grounding.json

Plants 500 true and 500 false claims about shoppers of the sample world, whose truth is known: the claims come from the
items, ratings and counts of the world, not from the texts that the checker reads. A false claim is a near miss: a brand
of another shopper, one thing with attributes of two purchases, a count or a rating with a small error.

The rules were written with part of the wordings in view (`known`) and without the others (`unseen`). Scores of each
kind: `precision`, true claims among those with the verdict supported; `recall`, the share of true claims with the
verdict supported; `caught`, the share of false claims with the verdict unsupported; `unchecked`, the share of claims
without a verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from regen_hf.stages.grounding.build import claims_of
from regen_hf.stages.grounding.entailment import CrossEncoderNLI, Question
from regen_hf.stages.grounding.facts import Record
from regen_hf.stages.grounding.vocabulary import Vocabulary
from regen_hf.stages.sample.item_text import item_record
from regen_hf.stages.sample.review_text import review_records
from regen_hf.stages.sample.world import (
    BRANDS,
    COLOURS,
    KINDS,
    RECIPIENTS,
    Item,
    Shopper,
    article,
    make_items,
    make_shoppers,
)

NUMBERS = "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # (known, unseen)
    "item": (
        ("They bought {a_thing}.", "The history holds {a_thing}.", "{A_thing} is among the purchases."),
        (
            "At some point {a_thing} found its way into the basket.",
            "You already own {a_thing}, so you know what to expect.",
            "One of the orders was for {a_thing}.",
        ),
    ),
    "brand": (
        ("They have bought from {brand}.", "{brand} is a name that comes up in this history."),
        (
            "Among the makers chosen is {brand}.",
            "Something by {brand} was ordered.",
            "A {brand} product is on the list.",
        ),
    ),
    "category": (
        ("The customer has bought {a_kind}.", "There is {a_kind} in the history."),
        ("{Kinds} are part of what this person shops for.", "This shopper's basket has included {a_kind}."),
    ),
    "colour": (
        ("At least one purchase was {colour}.", "They own something {colour}."),
        ("{Colour} shows up among the shades chosen.", "The shopper has picked a thing in {colour}."),
    ),
    "price": (
        ("The {thing} cost ${price}.", "They paid ${price} for the {thing}.", "The {thing} cost less than ${above}."),
        (
            "At ${price}, the {thing} was theirs.",
            "The {thing} went for {price} dollars.",
            "For the {thing} they spent no more than ${above}.",
        ),
    ),
    "rating": (
        (
            "The {thing} was rated {rating} of 5.",
            "They gave the {thing} {rating} stars.",
            "Their average rating is {average} of 5.",
        ),
        (
            "With {rating} out of 5, the {thing} got its verdict.",
            "{Rating_word} stars went to the {thing}.",
            "On average they hand out {average} stars.",
        ),
    ),
    "count": (
        (
            "The history has {size} purchases.",
            "{Brand_count} of {size_word} purchases are from {brand}.",
            "They bought {colour_count} {colour} items.",
        ),
        (
            "In total the customer ordered {size_word} products.",
            "{brand} accounts for {brand_count} of the {size} orders.",
            "Of {size} things bought, {colour_count} are {colour}.",
        ),
    ),
    "sentiment": (
        (
            "They {loved} the {thing}.",
            "The {thing} {pleased} them.",
            "{Praise} was all they had for the {thing}.",
            "The {thing} turned out to be {good}.",
            "They {swore} the {thing}.",
            "The {thing} {worked}.",
        ),
        (
            "They {recall} the {thing}.",
            "The {thing} {ticks}.",
        ),
    ),
    "favourite": (
        (
            "{brand} is the brand bought most often.",
            "They buy {colour} things more than any others.",
            "{brand} is their first choice.",
            "Nothing beats {colour} for this shopper.",
            "{brand} heads the ranking of makers.",
            "No shade is picked as frequently as {colour}.",
            "Whenever possible they turn to {brand}.",
        ),
        (
            "Their purse opens widest for {brand}.",
            "{Colour} is the shade of choice.",
            "{brand} is where most of the money goes.",
        ),
    ),
    "order": (
        (
            "The first purchase was {a_thing}.",
            "It all began with {a_thing}.",
            "The latest purchase is {a_thing}.",
            "{A_thing} opened the list.",
            "Right at the end of the record stands {a_thing}.",
            "{A_thing} was what they bought before anything else.",
            "The most recent order on file: {a_thing}.",
        ),
        (
            "Their shopping here dates back to {a_thing}.",
            "{A_thing} is where the record stops.",
            "They had {a_thing} before the rest.",
        ),
    ),
    "recipient": (
        (
            "Some purchases were gifts for their {who}.",
            "Their {who} has been given presents from this list.",
            "Now and then they pick something out for their {who}.",
            "Birthdays of their {who} are remembered here.",
        ),
        (
            "Their {who} got something from this list.",
            "They had their {who} in mind more than once when they gave presents.",
        ),
    ),
    "absence": (
        ("They have never bought {a_kind}.", "Nothing by {brand} is in the history."),
        ("{brand} is absent from this list.", "No {kind} was ever ordered."),
    ),
}


@dataclass(frozen=True)
class Planted:
    """A claim whose truth is known."""

    shopper: int
    kind: str
    text: str
    true: bool
    wording: str
    """known or unseen."""


class World:
    """Simulated shoppers with their histories in the form of a dataset."""

    def __init__(self, shoppers: int, seed: int) -> None:
        world, text = (np.random.default_rng([seed, stream]) for stream in range(2))
        items = make_items(800, world)
        self.shoppers = make_shoppers(shoppers, items, world)
        self.items = {item.asin: self._item(item_record(item, text)) for item in items}
        self.histories = [
            [
                {
                    "item": self.items[record["asin"]],
                    "review": {
                        "summary": record["summary"],
                        "rating": int(record["overall"]),
                        "text": record["reviewText"],
                        "unix_time": record["unixReviewTime"],
                    },
                }
                for record in review_records(shopper, text)
            ]
            for shopper in self.shoppers
        ]
        texts = (purchase["review"]["text"] for history in self.histories for purchase in history)
        self.vocabulary = Vocabulary.of(list(self.items.values()), texts)

    @staticmethod
    def _item(record: dict[str, Any]) -> dict[str, Any]:
        price = record["price"]
        return {
            "asin": record["asin"],
            "title": record["title"],
            "category": " - ".join(record["category"]),
            "description": " ".join(record["description"]) or None,
            "price": float(price[1:]) if price and "-" not in price else None,
        }


def plant(world: World, number: int, seed: int) -> Iterator[Planted]:
    """`number` true and `number` false claims, with all kinds and wordings in turn."""
    rng = np.random.default_rng([seed, 9])
    for true in (True, False):
        for index in range(number):
            kind = list(WORDINGS)[index % len(WORDINGS)]
            turn = index // len(WORDINGS)
            wording = ("known", "unseen")[turn % 2]
            options = WORDINGS[kind][turn % 2]
            template = options[turn // 2 % len(options)]
            while True:
                shopper = int(rng.integers(len(world.shoppers)))
                words = WORDS[kind](world, shopper, true, rng)
                if words is not None:
                    break
            yield Planted(shopper, kind, template.format(**words), true, wording)


Words = dict[str, Any]


def has(shopper: Shopper, **attributes: str) -> list[int]:
    """Indices of the purchases whose item has all these attributes."""
    return [
        index
        for index, purchase in enumerate(shopper.purchases)
        if all(getattr(purchase.item, name) == value for name, value in attributes.items())
    ]


def described(item: Item, names: Sequence[str]) -> str:
    """An item named by some of its attributes: "navy Elmsgate mug"."""
    return " ".join(getattr(item, name) for name in names)


def naming(rng: np.random.Generator) -> tuple[str, ...]:
    """The attributes that name an item, drawn at random."""
    options = (("colour", "kind"), ("brand", "kind"), ("colour", "brand", "kind"))
    return options[rng.integers(len(options))]


def one_of(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """A random option, None without options."""
    return options[rng.integers(len(options))] if len(options) else None


def thing_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """A thing that was bought; or one whose attributes no single purchase has."""
    shopper, names = world.shoppers[number], naming(rng)
    chosen = {name: getattr(one_of(rng, shopper.purchases).item, name) for name in names}
    if true:
        item = one_of(rng, shopper.purchases).item
        chosen = {name: getattr(item, name) for name in names}
    elif rng.random() < 0.5:
        chosen["kind"] = one_of(rng, KINDS)
    if bool(has(shopper, **chosen)) != true:
        return None
    thing = " ".join(chosen[name] for name in names)
    return {"a_thing": article(thing), "A_thing": article(thing, capital=True)}


def attribute_words(name: str, values: Sequence[str]) -> Callable[..., Words | None]:
    """A function that draws a brand, kind or colour that was bought (true) or was not."""

    def words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
        shopper = world.shoppers[number]
        value = one_of(rng, [value for value in values if bool(has(shopper, **{name: value})) == true])
        if value is None:
            return None  # the shopper has bought every colour
        plural = "boxes" if value.endswith("box") else f"{value}s"
        return {name: value, "Colour": value.capitalize(), "a_kind": article(value), "Kinds": plural.capitalize()}

    return words


def unique(world: World, number: int, rng: np.random.Generator) -> tuple[int, str] | None:
    """The index of a purchase, and a name that only its item has among the shopper's purchases."""
    shopper, names = world.shoppers[number], naming(rng)
    index = int(rng.integers(len(shopper.purchases)))
    item = shopper.purchases[index].item
    if len(has(shopper, **{name: getattr(item, name) for name in names})) > 1:
        return None
    return index, described(item, names)


def price_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The price of a thing, or the price of another one."""
    if (drawn := unique(world, number, rng)) is None:
        return None
    index, thing = drawn
    price = world.histories[number][index]["item"]["price"]
    others = [purchase["item"]["price"] for purchase in world.histories[number]]
    stated = price if true else one_of(rng, [other for other in others if other and price and abs(other - price) > 1])
    if not price or not stated:
        return None
    return {"thing": thing, "price": f"{stated:.2f}", "above": round(price * (1.3 if true else 0.7))}


def rating_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The rating of a thing, or another rating."""
    if (drawn := unique(world, number, rng)) is None:
        return None
    index, thing = drawn
    shopper = world.shoppers[number]
    rating = shopper.purchases[index].rating
    average = sum(purchase.rating for purchase in shopper.purchases) / len(shopper.purchases)
    if not true:
        rating = one_of(rng, [other for other in (2, 3, 4, 5) if other != rating])
        average += 0.4 if average < 4 else -0.4
    if rating < 2:
        return None  # "1 stars"
    return {
        "thing": thing,
        "rating": rating,
        "Rating_word": NUMBERS[rating].capitalize(),
        "average": f"{average:.1f}",
    }


def count_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The numbers of purchases in total, of a brand and in a colour; or one or two more."""
    shopper = world.shoppers[number]
    item = one_of(rng, shopper.purchases).item
    off = 0 if true else int(rng.integers(1, 3))
    size = len(shopper.purchases)
    brands, colours = (len(has(shopper, **{name: getattr(item, name)})) for name in ("brand", "colour"))
    if size + off > 10 or brands + off > size or colours + off > size or min(brands, colours) < 2:
        return None
    return {
        "size": size + off,
        "size_word": NUMBERS[size + off],
        "brand": item.brand,
        "colour": item.colour,
        "brand_count": NUMBERS[brands + off],
        "Brand_count": NUMBERS[brands + off].capitalize(),
        "colour_count": NUMBERS[colours + off],
    }


def sentiment_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The opinion about a thing by its rating, or the opposite; None for a rating of three stars."""
    if (drawn := unique(world, number, rng)) is None:
        return None
    index, thing = drawn
    rating = world.shoppers[number].purchases[index].rating
    if rating == 3:
        return None
    good = (rating > 3) == true
    return {
        "thing": thing,
        "loved": one_of(rng, ("loved", "praised", "were happy with") if good else ("disliked", "complained about")),
        "pleased": one_of(rng, ("delighted", "pleased") if good else ("disappointed", "did not please")),
        "Praise": "Praise" if good else "Blame",
        "good": one_of(rng, ("a joy", "just right") if good else ("a waste of money", "a nuisance")),
        "recall": one_of(
            rng, ("keep coming back to", "rave about") if good else ("had no patience with", "would rather forget")
        ),
        "ticks": one_of(rng, ("ticks every box", "was well worth it") if good else ("let them down", "left them cold")),
        "swore": one_of(rng, ("would not be without", "cannot fault") if good else ("gave up on", "were angry about")),
        "worked": one_of(
            rng, ("never let them down", "is a keeper") if good else ("ended up in the bin", "was no use")
        ),
    }


def favourite_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The brand and colour that were bought most, or others in the history."""
    shopper = world.shoppers[number]
    words = {}
    for name in ("brand", "colour"):
        first = shopper.favourite(name)
        counts = {getattr(p.item, name): len(has(shopper, **{name: getattr(p.item, name)})) for p in shopper.purchases}
        others = [value for value, count in counts.items() if count < counts[first]]
        if true and any(value != first and count == counts[first] for value, count in counts.items()):
            return None
        words[name] = first if true else one_of(rng, others)
    return {**words, "Colour": words["colour"].capitalize()} if all(words.values()) else None


def order_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """A thing that was bought first and last; or one that was bought neither first nor last."""
    purchases, names = world.shoppers[number].purchases, naming(rng)
    ends = {described(purchases[index].item, names) for index in (0, -1)}
    thing = described((purchases[0] if true else one_of(rng, purchases[1:-1])).item, names)
    if true and len(ends) > 1:
        return None  # a wording may ask for the first or the last, so the same name must fit both
    if not true and thing in ends:
        return None
    return {"a_thing": article(thing), "A_thing": article(thing, capital=True)}


def recipient_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """The recipient of the shopper's gifts, or another one."""
    shopper = world.shoppers[number]
    if shopper.recipient is None and true:
        return None
    if true and not any(purchase.is_gift for purchase in shopper.purchases):
        return None
    return {"who": shopper.recipient if true else one_of(rng, [who for who in RECIPIENTS if who != shopper.recipient])}


def absence_words(world: World, number: int, true: bool, rng: np.random.Generator) -> Words | None:
    """A kind and a brand that were never bought, or that were."""
    kind = attribute_words("kind", KINDS)(world, number, not true, rng)
    brand = attribute_words("brand", BRANDS)(world, number, not true, rng)
    return {**kind, "brand": brand["brand"]} if kind and brand else None


WORDS: dict[str, Callable[[World, int, bool, np.random.Generator], Words | None]] = {
    "item": thing_words,
    "brand": attribute_words("brand", BRANDS),
    "category": attribute_words("kind", KINDS),
    "colour": attribute_words("colour", COLOURS),
    "price": price_words,
    "rating": rating_words,
    "count": count_words,
    "sentiment": sentiment_words,
    "favourite": favourite_words,
    "order": order_words,
    "recipient": recipient_words,
    "absence": absence_words,
}


def verdict(world: World, planted: Planted, nli: CrossEncoderNLI | None) -> bool | None:
    """Whether the checker supports a claim; None for unchecked."""
    history = world.histories[planted.shopper]
    claims = claims_of(planted.text, [Record.read(purchase) for purchase in history], world.vocabulary)
    verdicts = [claim.supported for claim in claims]
    if nli and None in verdicts:
        unchecked = tuple(claim.text for claim in claims if claim.supported is None)
        verdicts = [v for v in verdicts if v is not None] + nli(Question("", "", unchecked, history))
    if all(v is None for v in verdicts):
        return None
    return all(v is not False for v in verdicts)


def figures(verdicts: Sequence[tuple[Planted, bool | None]]) -> dict[str, Any]:
    """Precision, recall and the other scores of verdicts; a share of nothing is None."""
    true = [verdict for planted, verdict in verdicts if planted.true]
    false = [verdict for planted, verdict in verdicts if not planted.true]
    accepted = true.count(True) + false.count(True)

    def share(part: int, total: int) -> float | None:
        return round(part / total, 4) if total else None

    return {
        "true": len(true),
        "false": len(false),
        "precision": share(true.count(True), accepted),
        "recall": share(true.count(True), len(true)),
        "caught": share(false.count(False), len(false)),
        "unchecked": share(true.count(None) + false.count(None), len(verdicts)),
    }


def main() -> None:
    """Run the benchmark and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=500, help="number of true and of false claims (%(default)s)")
    parser.add_argument("--shoppers", type=int, default=400, help="number of simulated shoppers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world and of the claims (%(default)s)")
    parser.add_argument("--nli", help="a cross-encoder for the claims that the rules cannot check")
    parser.add_argument("--show", action="store_true", help="print wrong verdicts on known wordings to stderr")
    parser.add_argument("--out", type=Path, help="also write the JSON object to this file")
    options = parser.parse_args()
    world = World(options.shoppers, options.seed)
    nli = CrossEncoderNLI(options.nli, threshold=0.5) if options.nli else None
    verdicts = [(planted, verdict(world, planted, nli)) for planted in plant(world, options.claims, options.seed)]
    if options.show:
        for planted, supported in verdicts:
            if supported is not planted.true and planted.wording == "known":
                print(planted.kind, planted.true, supported, planted.text, file=sys.stderr)
    vocabulary = world.vocabulary
    line = json.dumps(
        {
            "all": figures(verdicts),
            "wordings": {
                wording: figures([pair for pair in verdicts if pair[0].wording == wording])
                for wording in ("known", "unseen")
            },
            "kinds": {kind: figures([pair for pair in verdicts if pair[0].kind == kind]) for kind in WORDINGS},
            "brands_from_titles": {
                "found": len(vocabulary.brands & {(brand.lower(),) for brand in BRANDS}),
                "of": len(BRANDS),
                "wrong": len(vocabulary.brands - {(brand.lower(),) for brand in BRANDS}),
            },
            "nli": Path(options.nli).name if options.nli else None,
            "sizes": {"claims": 2 * options.claims, "shoppers": options.shoppers, "items": len(world.items)},
            "seed": options.seed,
        }
    )
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
