"""Faults of a critique, by the two items that it leads from and to: pure functions of texts.

The critique is said about the `first` item by somebody who does not know the `last` one. Lists of words are English.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

from ...metrics.stop_words import STOP_WORDS
from .shared_words import WORD, words

COLOURS = frozenset(
    """amber beige black blue bronze brown burgundy charcoal copper coral cream cyan gold golden gray green grey indigo
    ivory khaki lavender lilac lime magenta maroon mustard navy olive orange peach pink purple red rose silver tan teal
    turquoise violet white yellow""".split()  # noqa: SIM905
)
CLAUSE = re.compile(r"[,;:.!?–—]|(?<!anything )(?<!anybody )(?<!nothing )\bbut\b", re.IGNORECASE)
"""Marks between two clauses."""
REJECTION = re.compile(
    r"\b(?:not|no|non|never|without|than|instead of|except|apart from|avoid|nothing|nor|over|hate|dislike|skip|stop|"
    r"any(?:thing|body|one) but)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words that reject what follows them in the same clause."""
CHEAPER = re.compile(
    r"\b(?:cheaper|less (?:expensive|costly|money)|pay less|costs? less|inexpensive|more affordable|"
    r"lower[- ](?:price|priced|cost)|not (?:as|so|quite so|quite as|too|that) (?:expensive|costly|pricey))\b",
    re.IGNORECASE,
)
DEARER = re.compile(
    r"\b(?:(?<!not )more (?:expensive|costly)|pricier|pay more|costs? more|higher[- ](?:price|priced))\b", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+|\n")


def is_several_sentences(text: str) -> bool:
    """Whether a text is more than one sentence.

    >>> is_several_sentences("Not in black, please!"), is_several_sentences("At $3.50 it is fine. Not in black!")
    (False, True)
    """
    return sum(bool(part.strip()) for part in SENTENCE_END.split(text)) > 1


def leaks(
    text: str, first: Mapping[str, Any], last: Mapping[str, Any], brands: Collection[str] = (), language: str = "en"
) -> bool:
    """Whether a critique contains the last item's brand, model, numbers or two words in a row of its title.

    What the first item's texts contain too is no leak. Single words of the title, such as a colour, are none either.

    Args:
        text: the critique.
        first: the item that it is said about.
        last: the item that it leads to.
        brands: the names of brands of the catalogue, in lower case.
        language: the language of the critique; in English, a capital inside the sentence marks a name.

    >>> first, last = {"title": "Elmsgate Black Mug"}, {"title": "Vintrel V2 Teal Garden Mug for Travel"}
    >>> wrong = ("Rather a Vintrel.", "Better the V2.", "I want a teal garden mug.", "In teal, from vintrel.")
    >>> [leaks(text, first, last, {"vintrel"}) for text in wrong]
    [True, True, True, True]
    >>> right = ("In teal, and for the garden.", "Not an Elmsgate, please.", "One for travel.", "I want it in Teal.")
    >>> [leaks(text, first, last, {"vintrel"}) for text in right]
    [False, False, False, False]
    """
    tokens = words(text)
    known, texts = set(words(_texts(first))), words(_texts(last))
    price = f"{last['price']:.2f}" if last.get("price") else ""
    numbers = {word for word in [*texts, *words(price)] if any(map(str.isdigit, word))}
    names = {*brands, *(_capitals(text) if language == "en" else ())}
    if ((numbers | (set(texts) & names)) - known) & set(tokens):
        return True
    runs = _pairs(words(last.get("title") or "")) - _pairs(words(first.get("title") or ""))
    return bool(runs & _pairs(tokens))


def is_unmet(text: str, first: Mapping[str, Any], last: Mapping[str, Any], brands: Collection[str] = ()) -> bool:
    """Whether an English critique asks for what the last item is not, as far as words show: colour, price, brand.

    A colour must be in the texts of the last item, a rejected one must not be in its title. The brand of the first item
    may only be rejected, unless the last item has it too.

    >>> first = {"title": "Elmsgate Black Mug", "price": 9.0}
    >>> last = {"title": "Vintrel Teal Mug", "price": 12.0}
    >>> wrong = ("In red, please.", "Anything but teal.", "Something cheaper.", "I want one more Elmsgate.")
    >>> [is_unmet(text, first, last) for text in wrong]
    [True, True, True, True]
    >>> right = ("Not in black but in teal.", "In teal instead of black.", "It may cost more.", "No Elmsgate, please.")
    >>> [is_unmet(text, first, last) for text in right]
    [False, False, False, False]
    """
    title, texts = _shades(last.get("title")), _shades(_texts(last))
    for match in re.finditer(r"\w+", text):
        colour = _shade(match[0].lower())
        if colour in COLOURS and (colour in title if _rejected(text, match.start()) else colour not in texts):
            return True
    price, before = last.get("price"), first.get("price")
    if price and before and ((CHEAPER.search(text) and price >= before) or (DEARER.search(text) and price <= before)):
        return True
    known, other = set(words(first.get("title") or "")), set(words(last.get("title") or ""))
    for name in known & {*brands, *_capitals(text)}:
        for match in re.finditer(rf"\b{re.escape(name)}\b", text, re.IGNORECASE):
            if _rejected(text, match.start()) == (name in other):
                return True
    return False


def _capitals(text: str) -> set[str]:
    """The words with a capital after the first word, in lower case; they name a brand or a model, except colours."""
    inner = {word.lower() for word in WORD.findall(text)[1:] if word[0].isupper() and len(word) > 2}
    return inner - COLOURS - STOP_WORDS


def _rejected(text: str, position: int) -> bool:
    """Whether the clause before `position` rejects what stands there."""
    return REJECTION.search(CLAUSE.split(text[:position])[-1]) is not None


def _texts(item: Mapping[str, Any]) -> str:
    return "\n".join(item.get(name) or "" for name in ("title", "category", "description"))


def _pairs(tokens: list[str]) -> set[tuple[str, str]]:
    """Neighbouring words, without function words and the plural s."""
    stems = [word.rstrip("s") if len(word) > 3 else word for word in tokens]
    content = [word not in STOP_WORDS and (len(word) > 2 or any(map(str.isdigit, word))) for word in tokens]
    return {pair for pair, both in zip(pairwise(stems), pairwise(content), strict=True) if all(both)}


def _shades(text: str | None) -> set[str]:
    return set(map(_shade, words(text or "")))


def _shade(word: str) -> str:
    return {"gray": "grey", "golden": "gold"}.get(word, word)
