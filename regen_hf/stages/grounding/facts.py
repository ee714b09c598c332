"""What a claim says that the record can be asked about, and what the record answers.

A narrative is cut into claims (clauses). In each, names of the catalogue, prices, ratings, counts and verdicts are
found by fixed rules, and each such fact is compared with this user's history. The rules do not understand language:
`benchmarks/grounding.py` measures how well they do, by kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from .patterns import (
    ABOUT,
    ABOVE,
    ABSENT,
    AVERAGE,
    BELOW,
    CLAUSE,
    COMPARED,
    COUNT,
    DISLIKED,
    EVERY,
    LIKED,
    LINK,
    NOT,
    NUMBERS,
    OF,
    PRICE,
    RATING,
    THE_BRAND,
)
from .vocabulary import Mention, Vocabulary, mentions, stems

Span = tuple[int, int]
KINDS = ("item", "brand", "category", "colour", "price", "rating", "count", "sentiment")


@dataclass(frozen=True)
class Record:
    """One purchase, as the rules read it."""

    words: frozenset[str]
    """Stems of title, category and description."""
    named: frozenset[str]
    """Stems of title and category: what it is, not what is said about it."""
    title: tuple[str, ...]
    price: float | None
    rating: float | None

    @classmethod
    def read(cls, purchase: Mapping[str, Any]) -> Record:
        """Read one entry of a `purchase_history`."""
        item, review = purchase["item"] or {}, purchase["review"] or {}
        named = [*stems(item.get("title")), *stems(item.get("category"))]
        price = item.get("price")
        return cls(
            frozenset((*named, *stems(item.get("description")))),
            frozenset(named),
            tuple(stems(item.get("title"))),
            price if price and price > 0 else None,
            review.get("rating"),
        )

    def is_meant_by(self, mention: Mention) -> bool:
        """Whether all that a mention says is true of this purchase.

        A kind and a brand stand in its title or category, a colour may stand in the description alone.
        """
        if mention.titles:
            return all(_within(title, self.title) for title in mention.titles) and mention.words <= self.words
        firm = {word for term in (*mention.brands, *mention.categories) for word in term}
        return firm <= self.named and mention.words <= self.words


@dataclass(frozen=True)
class Fact:
    """Something that a claim says, and whether the record bears it out."""

    kind: str
    """One of KINDS."""
    text: str
    """As the claim has it."""
    value: tuple[Any, ...]
    """What is said, in a form that another text's can be compared with."""
    supported: bool


def claims(text: str) -> list[str]:
    """A narrative cut into clauses, without splitting off pieces of fewer than three words.

    >>> claims("It follows a red mug and a $4.50 pen, and reviews praise both. Rated 5 of 5; a hit!")
    ['It follows a red mug and a $4.50 pen', 'reviews praise both.', 'Rated 5 of 5; a hit!']
    """
    found: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+(?!\d)", " ".join(text.split())):
        parts = [part for part in CLAUSE.split(sentence) if part]
        if len(parts) > 1 and all(len(part.split()) > 2 for part in parts):
            found += parts
        elif sentence:
            found.append(sentence)
    return found


def facts(text: str, before: str, history: Sequence[Record], vocabulary: Vocabulary) -> list[Fact]:
    """What the claim `text` says that the record can be asked about.

    Args:
        text: One claim.
        before: The claim before it in the narrative, where "the brand" and "it" find what they mean.
        history: The purchases, oldest first.
        vocabulary: Of the catalogue.
    """
    named = mentions(text, vocabulary)
    absent = bool(ABSENT.search(text)) and not COMPARED.search(text)
    found = []
    for mention in named:
        there = any(record.is_meant_by(mention) for record in history)
        found.append(Fact(mention.kind, mention.text, (absent, *sorted(mention.words)), there != absent))
    things = [mention for mention in named if mention.kind in ("item", "category")]
    meant = [record for record in history if any(record.is_meant_by(thing) for thing in things)]
    # A price or a rating is of the item that the claim names, else of any in the history.
    titles = [(mention.start, mention.end) for mention in named if mention.titles]  # a number in a name says nothing
    found += _prices(text, meant if things else list(history), bool(things))
    found += _ratings(text, meant if things else list(history), bool(things), titles)
    found += _counts(text, named or mentions(before, vocabulary), history, titles)
    if things and not absent:
        found += _verdicts(text, things, history)
    return found


def _prices(text: str, records: Sequence[Record], named: bool) -> Iterator[Fact]:
    known = [record.price for record in records if record.price is not None]
    for found in PRICE.finditer(text):
        told = found[1] or found[2]
        value = float(told.replace(",", ""))
        lead = text[: found.start()]
        limit = BELOW.search(lead) or ABOVE.search(lead)
        if limit:
            denied = bool(NOT.search(lead[: limit.start()]))  # "never more than": at most, always
            bound = "below" if bool(BELOW.search(lead)) != denied else "above"
            hold = [price <= value if bound == "below" else price >= value for price in known]
        else:
            bound = "at"
            near = max(0.06 * value, 0.5) if ABOUT.search(lead) else 0.005 if "." in told else 0.5
            sums = [] if named or len(known) < 2 else [mean(known), median(known), sum(known)]
            options = sums if AVERAGE.search(text) and sums else [*known, *sums]
            hold = [abs(option - value) <= near for option in options]
        if bound != "at" and AVERAGE.search(text) and known:
            hold = [(mean(known) <= value) == (bound == "below")]
        every = bound != "at" and bool(EVERY.search(text)) and bool(hold)
        yield Fact("price", found[0].strip(), (bound, value), all(hold) if every else any(hold))


def _ratings(text: str, records: Sequence[Record], named: bool, titles: Sequence[Span]) -> Iterator[Fact]:
    known = [record.rating for record in records if record.rating is not None]
    for found in RATING.finditer(text):
        if _overlaps(found.span(), titles):
            continue
        told = (found[1] or found[2] or "").lower()
        if found[3]:
            value = 1.0 if "lowest" in found[3].lower() else 5.0
        else:
            value = float(NUMBERS.index(told)) if told in NUMBERS else float(told)
        if AVERAGE.search(text) and not named:
            near = 0.0501 if "." in told else 0.5
            supported = bool(known) and abs(mean(known) - value) <= near
        elif EVERY.search(text) and not named:
            supported = bool(known) and all(rating == value for rating in known)
        else:
            supported = value in known
        yield Fact("rating", found[0], ("rating", value), supported)


def _counts(text: str, named: Sequence[Mention], history: Sequence[Record], titles: Sequence[Span]) -> Iterator[Fact]:
    total = len(history)
    taken = [*titles] + [found.span() for pattern in (PRICE, RATING) for found in pattern.finditer(text)]
    for found in OF.finditer(text):
        if _overlaps(found.span(), taken):
            continue
        taken.append(found.span())
        some, whole = _number(found[1]), _number(found[2])
        if THE_BRAND.search(text):
            named = [Mention(0, 0, "", brands=mention.brands) for mention in named if mention.brands]
        counted = [sum(record.is_meant_by(mention) for record in history) for mention in named]
        supported = whole in (total, total - 1) and (some in counted if counted else some <= whole)
        yield Fact("count", found[0], ("of", some, whole, *_subject(named)), supported)
    for found in COUNT.finditer(text):
        start, end = found.span()
        if _overlaps((start, end), taken):
            continue
        value = {"once": 1, "twice": 2}.get(found[1].lower()) or _number(found[1])
        after = [mention for mention in named if mention.start == found.end(1) + 1]
        linked = LINK.match(text, end)
        tail = linked.end() if linked else -1
        after += [
            mention
            for mention in named
            # Of a list, "five items from Pens (3) and Paper (2)", the first alone is not what is counted.
            if found[2] and mention.start == tail and not re.match(r"\s?(?:,|\(|and\b|&)", text[mention.end :])
        ]
        inside = [mention for mention in named if found.end(1) < mention.start < end]
        subject = (after or inside)[:1]
        if subject:
            number = sum(record.is_meant_by(subject[0]) for record in history)
        elif found[2] and found[1].lower() not in ("once", "twice"):
            number = total
        else:
            continue  # a number of something that the record does not count
        lead = text[:start]
        if ABOVE.search(lead):
            supported = number >= value
        elif BELOW.search(lead):
            supported = number <= value
        else:
            earlier = not subject and re.search(r"\b(?:earlier|previous|prior|before)\b", text)
            supported = value == number - 1 if earlier else value == number
        text_of = (found[0].strip() + (f" {subject[0].text}" if subject and subject[0].start >= end else "")).strip()
        yield Fact("count", text_of, ("count", value, *_subject(subject)), supported)


def _verdicts(text: str, things: Sequence[Mention], history: Sequence[Record]) -> Iterator[Fact]:
    verdicts = [(found, True) for found in LIKED.finditer(text)] + [(found, False) for found in DISLIKED.finditer(text)]
    for found, good in verdicts:
        liked = good != bool(NOT.search(text[: found.start()]))
        thing = min(things, key=lambda mention: min(abs(mention.start - found.end()), abs(found.start() - mention.end)))
        ratings = [record.rating for record in history if record.is_meant_by(thing) and record.rating is not None]
        supported = any(rating >= 4 if liked else rating <= 3 for rating in ratings)
        yield Fact("sentiment", f"{found[0]}: {thing.text}", (liked, *sorted(thing.words)), supported)


def _subject(named: Sequence[Mention]) -> tuple[str, ...]:
    return tuple(sorted(word for mention in named[:1] for word in mention.words))


def _number(text: str) -> int:
    text = text.lower().replace(",", "")
    return 12 if text == "a dozen" else NUMBERS.index(text) if text in NUMBERS else int(text[:20])


def _overlaps(span: Span, taken: Sequence[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in taken)


def _within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(whole[place : place + len(part)] == part for place in range(len(whole) - len(part) + 1))
