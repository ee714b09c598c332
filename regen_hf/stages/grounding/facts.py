"""The facts of a claim, each compared with the user's record.

A narrative is cut into claims (clauses). Fixed rules find names of the catalogue, prices, ratings, counts and opinions
in each, and compare every such fact with the user's history. The rules do not understand language:
`benchmarks/grounding.py` measures their precision and recall by kind of fact.
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
    BEYOND,
    CLAUSE,
    COMPARED,
    COUNT,
    DISLIKED,
    EVALUATES,
    EVERY,
    FIRST,
    GIFT,
    IDIOM,
    LAST,
    LIKED,
    LINK,
    MOST,
    NO_OTHER,
    NOT,
    NUMBERS,
    OF,
    PEOPLE,
    PRICE,
    QUANTIFIER,
    RATING,
    SEQUENCE,
    THE_BRAND,
    TIMES,
)
from .vocabulary import Mention, Vocabulary, mentions, stem, stems

Span = tuple[int, int]
ENTITIES = ("item", "brand", "category", "colour")
KINDS = (
    *(*ENTITIES, "price", "rating", "count", "sentiment"),
    *("favourite", "order", "recipient"),
)


@dataclass(frozen=True)
class Record:
    """One purchase, in the form that the rules compare."""

    words: frozenset[str]
    """Stems of title, category and description."""
    named: frozenset[str]
    """Stems of title and category only, which name the item."""
    title: tuple[str, ...]
    price: float | None
    rating: float | None
    said: frozenset[str] = frozenset()
    """Stems of the review."""

    @classmethod
    def read(cls, purchase: Mapping[str, Any]) -> Record:
        """The record of one entry of a `purchase_history`."""
        item, review = purchase["item"] or {}, purchase["review"] or {}
        named = [*stems(item.get("title")), *stems(item.get("category"))]
        price = item.get("price")
        return cls(
            frozenset((*named, *stems(item.get("description")))),
            frozenset(named),
            tuple(stems(item.get("title"))),
            price if price and price > 0 else None,
            review.get("rating"),
            frozenset((*stems(review.get("summary")), *stems(review.get("text")))),
        )

    def matches(self, mention: Mention) -> bool:
        """Whether this purchase has every attribute of a mention.

        A category or brand must be in its title or category; a colour may be in the description only.
        """
        if mention.titles:
            return all(_within(title, self.title) for title in mention.titles) and mention.words <= self.words
        names = {word for term in (*mention.brands, *mention.categories) for word in term}
        return names <= self.named and mention.words <= self.words


@dataclass(frozen=True)
class Fact:
    """A checkable statement of a claim, and whether the record supports it."""

    kind: str
    """One of KINDS."""
    text: str
    """Its words in the claim."""
    value: tuple[Any, ...]
    """The statement in a form that can be compared with facts of other texts."""
    supported: bool


def claims(text: str) -> list[str]:
    """The clauses of a narrative; a sentence with a piece of fewer than three words is not cut.

    >>> claims("It follows a red mug and a $4.50 pen, and reviews praise both. Rated 5 of 5; a hit!")
    ['It follows a red mug and a $4.50 pen', 'reviews praise both.', 'Rated 5 of 5; a hit!']
    """
    clauses: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+(?!\d)", " ".join(text.split())):
        parts = [part for part in CLAUSE.split(sentence) if part]
        if len(parts) > 1 and all(len(part.split()) > 2 for part in parts):
            clauses += parts
        elif sentence:
            clauses.append(sentence)
    return clauses


def facts(text: str, before: str, history: Sequence[Record], vocabulary: Vocabulary) -> list[Fact]:
    """The facts of the claim `text`, each checked against the history.

    `before` is the claim before it in the narrative, to which "the brand" refers; `history` is oldest first.
    """
    named = mentions(text, vocabulary)
    absent = bool(ABSENT.search(text)) and not COMPARED.search(text)
    checked = []
    for mention in named:
        bought = any(record.matches(mention) for record in history)
        checked.append(Fact(mention.kind, mention.text, (absent, *sorted(mention.words)), bought != absent))
    things = [mention for mention in named if mention.kind in ("item", "category")]
    # A price or a rating is compared with the items that the claim names, or else with the complete history.
    records = [record for record in history if not things or any(map(record.matches, things))]
    titles = [(mention.start, mention.end) for mention in named if mention.titles]  # a number in a title is no fact
    checked += _prices(text, records, bool(things))
    checked += _ratings(text, records, bool(things), titles)
    checked += _counts(text, named or mentions(before, vocabulary), history, titles)
    if things and not absent:
        checked += _opinions(text, things, history)
    if named and not absent:
        checked += _favourites(text, named, history, vocabulary)
        checked += _order(text, things, history)
    checked += _recipients(text, history)
    return checked


def beyond(text: str, read_facts: Sequence[Fact]) -> bool:
    """Whether the claim `text` says more than its facts check."""
    kinds = {fact.kind for fact in read_facts}
    if EVALUATES.search(text) and not kinds & {"sentiment", "rating"}:
        return True
    if BEYOND.search(text) and not kinds & {"favourite", "order"}:
        return True
    entities = [fact for fact in read_facts if fact.kind in ENTITIES]
    rest = text  # without the words that a rule has read
    if "sentiment" in kinds:  # a denied opinion
        for match in [*LIKED.finditer(text), *DISLIKED.finditer(text)]:
            rest = NOT.sub(lambda denied: " " * len(denied[0]), rest[: match.start()]) + rest[match.start() :]
    read = [
        IDIOM,
        *([LIKED, DISLIKED] if "sentiment" in kinds else []),
        *([MOST, NO_OTHER] if "favourite" in kinds else []),
    ]
    read += [FIRST, LAST] if "order" in kinds else []
    read += [ABSENT] if any(fact.value[0] for fact in entities) else []
    for pattern in read:
        rest = pattern.sub(" ", rest)
    limits = any(fact.kind == "price" and fact.value[0] != "at" for fact in read_facts)
    of_all = "rating" in kinds and not any(fact.kind in ("item", "category") for fact in entities)
    if QUANTIFIER.search(rest) and not limits and not of_all:
        return True
    counts = " ".join(fact.text for fact in read_facts if fact.kind == "count")
    if any(match[0] not in counts for match in TIMES.finditer(rest)):
        return True
    sides = [(text[: match.start()], text[match.end() :]) for match in SEQUENCE.finditer(text)]
    return (
        "order" not in kinds
        and len(entities) > 1
        and any((not lead.strip() or _names(lead, entities)) and _names(tail, entities) for lead, tail in sides)
    )


def _names(text: str, entities: Sequence[Fact]) -> bool:
    return any(fact.text in text for fact in entities)


def _prices(text: str, records: Sequence[Record], named: bool) -> Iterator[Fact]:
    known = [record.price for record in records if record.price is not None]
    for match in PRICE.finditer(text):
        digits = match[1] or match[2]
        value = float(digits.replace(",", ""))
        lead = text[: match.start()]
        limit = BELOW.search(lead) or ABOVE.search(lead)
        if limit:
            denied = bool(NOT.search(lead[: limit.start()]))  # "never more than": at most, always
            bound = "below" if bool(BELOW.search(lead)) != denied else "above"
            matches = [price <= value if bound == "below" else price >= value for price in known]
        else:
            bound = "at"
            near = max(0.06 * value, 0.5) if ABOUT.search(lead) else 0.005 if "." in digits else 0.5
            sums = [] if named or len(known) < 2 else [mean(known), median(known), sum(known)]
            options = sums if AVERAGE.search(text) and sums else [*known, *sums]
            matches = [abs(option - value) <= near for option in options]
        if bound != "at" and AVERAGE.search(text) and known:
            matches = [(mean(known) <= value) == (bound == "below")]
        every = bound != "at" and bool(EVERY.search(text)) and bool(matches)
        yield Fact("price", match[0].strip(), (bound, value), all(matches) if every else any(matches))


def _ratings(text: str, records: Sequence[Record], named: bool, titles: Sequence[Span]) -> Iterator[Fact]:
    known = [record.rating for record in records if record.rating is not None]
    for match in RATING.finditer(text):
        if _overlaps(match.span(), titles):
            continue
        number = (match[1] or match[2] or "").lower()
        if match[3]:
            value = 1.0 if "lowest" in match[3].lower() else 5.0
        else:
            value = float(NUMBERS.index(number)) if number in NUMBERS else float(number)
        if AVERAGE.search(text) and not named:
            near = 0.0501 if "." in number else 0.5
            supported = bool(known) and abs(mean(known) - value) <= near
        elif EVERY.search(text) and not named:
            supported = bool(known) and all(rating == value for rating in known)
        else:
            supported = value in known
        yield Fact("rating", match[0], ("rating", value), supported)


def _counts(text: str, named: Sequence[Mention], history: Sequence[Record], titles: Sequence[Span]) -> Iterator[Fact]:
    total = len(history)
    taken = [*titles] + [match.span() for pattern in (PRICE, RATING) for match in pattern.finditer(text)]
    for match in OF.finditer(text):
        if _overlaps(match.span(), taken):
            continue
        taken.append(match.span())
        part, stated_total = _number(match[1]), _number(match[2])
        if THE_BRAND.search(text):
            named = [Mention(0, 0, "", brands=mention.brands) for mention in named if mention.brands]
        counted = [sum(record.matches(mention) for record in history) for mention in named]
        supported = stated_total in (total, total - 1) and (part in counted if counted else part <= stated_total)
        yield Fact("count", match[0], ("of", part, stated_total, *_subject(named)), supported)
    for match in COUNT.finditer(text):
        start, end = match.span()
        if _overlaps((start, end), taken):
            continue
        value = {"once": 1, "twice": 2}.get(match[1].lower()) or _number(match[1])
        after = [mention for mention in named if mention.start == match.end(1) + 1]
        linked = LINK.match(text, end)
        tail = linked.end() if linked else -1
        after += [
            mention
            for mention in named
            # In a list, "five items from Pens (3) and Paper (2)", the count is not of the first name only.
            if match[2] and mention.start == tail and not re.match(r"\s?(?:,|\(|and\b|&)", text[mention.end :])
        ]
        inside = [mention for mention in named if match.end(1) < mention.start < end]
        subject = (after or inside)[:1]
        if subject:
            number = sum(record.matches(subject[0]) for record in history)
        elif match[2] and match[1].lower() not in ("once", "twice"):
            number = total
        else:
            continue  # a number of things that are not purchases
        lead = text[:start]
        if ABOVE.search(lead):
            supported = number >= value
        elif BELOW.search(lead):
            supported = number <= value
        else:
            earlier = not subject and re.search(r"\b(?:earlier|previous|prior|before)\b", text)
            supported = value == number - 1 if earlier else value == number
        words = (match[0].strip() + (f" {subject[0].text}" if subject and subject[0].start >= end else "")).strip()
        yield Fact("count", words, ("count", value, *_subject(subject)), supported)


def _opinions(text: str, things: Sequence[Mention], history: Sequence[Record]) -> Iterator[Fact]:
    opinions = [(match, True) for match in LIKED.finditer(text)] + [(match, False) for match in DISLIKED.finditer(text)]
    for match, good in opinions:
        liked = good != bool(NOT.search(text[: match.start()]))
        thing = min(things, key=lambda mention: min(abs(mention.start - match.end()), abs(match.start() - mention.end)))
        ratings = [record.rating for record in history if record.matches(thing) and record.rating is not None]
        supported = any(rating >= 4 if liked else rating <= 3 for rating in ratings)
        yield Fact("sentiment", f"{match[0]}: {thing.text}", (liked, *sorted(thing.words)), supported)


def _favourites(
    text: str, named: Sequence[Mention], history: Sequence[Record], vocabulary: Vocabulary
) -> Iterator[Fact]:
    """What was bought most often: no other brand, category or colour has more purchases."""
    match = MOST.search(text)
    mention = next((mention for mention in named if mention.kind != "item"), None)
    if not match or mention is None:
        return
    kind = mention.kind
    others = {
        "brand": [Mention(0, 0, "", brands=(term,)) for term in vocabulary.brands],
        "category": [Mention(0, 0, "", categories=(term,)) for term in vocabulary.categories if len(term) > 0],
        "colour": [Mention(0, 0, "", colours=((word,),)) for word in vocabulary.colours],
    }[kind]
    own = sum(record.matches(mention) for record in history)
    most = max((sum(record.matches(other) for record in history) for other in others), default=0)
    # A level of the category path has the purchases of all levels below it, so its number is no measure for the others.
    supported = own >= most if kind != "category" else own > 1
    yield Fact("favourite", f"{match[0]}: {mention.text}", ("most", *sorted(mention.words)), supported and own > 0)


def _order(text: str, things: Sequence[Mention], history: Sequence[Record]) -> Iterator[Fact]:
    """The first or the last purchase, which is the thing that the claim names next to it."""
    for index, pattern in ((0, FIRST), (-1, LAST)):
        match = pattern.search(text)
        if match and things and history:
            thing = min(things, key=lambda each: min(abs(each.start - match.end()), abs(match.start() - each.end)))
            value = ("first" if index == 0 else "last", *sorted(thing.words))
            yield Fact("order", f"{match[0]}: {thing.text}", value, history[index].matches(thing))


def _recipients(text: str, history: Sequence[Record]) -> Iterator[Fact]:
    """The person to whom something was given, whom a review names."""
    if GIFT.search(text):
        for match in PEOPLE.finditer(text):
            person = stem(match[1])
            supported = any(person in record.said for record in history)
            yield Fact("recipient", match[0], (person,), supported)


def _subject(named: Sequence[Mention]) -> tuple[str, ...]:
    return tuple(sorted(word for mention in named[:1] for word in mention.words))


def _number(text: str) -> int:
    text = text.lower().replace(",", "")
    return 12 if text == "a dozen" else NUMBERS.index(text) if text in NUMBERS else int(text[:20])


def _overlaps(span: Span, taken: Sequence[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in taken)


def _within(part: tuple[str, ...], words: tuple[str, ...]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))
