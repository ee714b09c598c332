"""Faults of a critique, by the two items that it leads from and to: pure functions of texts.

The critique is said about the `first` item by somebody who does not know the `last` one. Lists of words are English.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

from ...metrics.stop_words import STOP_WORDS
from .names import CALENDAR
from .shared_words import WORD, words

COLOURS = frozenset(
    """amber beige black blue bronze brown burgundy charcoal copper coral cream cyan gold golden gray green grey indigo
    ivory khaki lavender lilac lime magenta maroon mustard navy olive orange peach pink purple red rose silver tan teal
    turquoise violet white yellow""".split()  # noqa: SIM905
)
CLAUSE = re.compile(
    r"[,;:.!?–—]|(?<!anything )(?<!anybody )(?<!nothing )\bbut\b|\band\b(?= (?:in|with|for|rather|i|it)\b)",
    re.IGNORECASE,
)
"""Marks between two clauses."""
REJECTION = re.compile(
    r"\b(?:not|never|without|than|instead of|in place of|except|besides|(?:apart|aside|different|different \w+) from|"
    r"avoid|nothing|nor|too|hate|dislike|skip|stop|any(?:thing|body|one) but)\b|\b(?:non?|over)\b(?!-\w)|n['’]t\b",
    re.IGNORECASE,
)
"""Words that reject what follows them in the same clause; the first part of a compound, as in non-stick, does not."""
NEGATED_QUESTION = re.compile(
    r"\bwhy not\b|\b(?:do|does|did|is|are|has|have|ca|could|wo|would)n['’]t (?:you|there|it|they|we|one)\b|"
    r"n['’]t mind\b",
    re.IGNORECASE,
)
"""Negations that reject nothing, as in "Don't you have it in teal?"."""
CONTRAST = re.compile(r"\b(?:but|however|though|instead|rather|another|different)\b", re.IGNORECASE)
WISH = re.compile(
    r"\b(?:want|need|prefer|rather|another|one more|again|same|show|give|got|looking for|would like)\b|['’]d like\b",
    re.IGNORECASE,
)
CHEAPER = re.compile(
    r"\b(?:cheaper|(?:less|too) (?:expensive|costly|pricey)|less money|budget[- ]friendly|pay less|costs? less|"
    r"inexpensive|more affordable|"
    r"lower[- ](?:price|priced|cost)|not (?:as|so|quite so|quite as|too|that) (?:expensive|costly|pricey))\b",
    re.IGNORECASE,
)
DEARER = re.compile(
    r"\b(?:more (?:expensive|costly)|pricier|pay more|costs? more|higher[- ](?:price|priced))\b", re.IGNORECASE
)
MOST_USD = re.compile(r"\b(?:under|below|less than|at most|up to|no more than) \$(\d+(?:\.\d+)?)", re.IGNORECASE)
SENTENCE_END = re.compile(
    r"[!?…]+[\"'”’)\]]*(?=\s)|(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bSt)\.+[\"'”’)\]]*(?=\s+[^\sa-z\d])|[。！？]+|\n"
)
"""Ends of sentences; a full stop before a small letter or a digit ends an abbreviation."""


def is_several_sentences(text: str) -> bool:
    """Whether a text is more than one sentence.

    >>> is_several_sentences("Not in black, please!"), is_several_sentences("At $3.50 it is fine. Not in black!")
    (False, True)
    >>> is_several_sentences("One for Dr. Seuss, e.g. in teal.")
    False
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
    >>> wrong = ("Rather Vintrel's.", "Better the V2.", "I want a teal garden mug.", "In teal, from vintrel.")
    >>> [leaks(text, first, last, {"vintrel"}) for text in wrong]
    [True, True, True, True]
    >>> right = ("In teal, and for the garden.", "Not an Elmsgate, please.", "One for travel.", "I want it in Teal.")
    >>> [leaks(text, first, last, {"vintrel"}) for text in right]
    [False, False, False, False]
    """
    tokens = _words(text)
    known, texts = ({word for part in _texts(item) for word in _words(part)} for item in (first, last))
    numbers = {word for word in texts if any(map(str.isdigit, word))}
    names = {*brands, *(_capitals(text) if language == "en" else ())}
    if ((numbers | (texts & names)) - known) & set(tokens):
        return True
    runs = _pairs(last.get("title") or "").difference(*map(_pairs, _texts(first)))
    return bool(runs & _pairs(text))


def is_unmet(text: str, first: Mapping[str, Any], last: Mapping[str, Any], brands: Collection[str] = ()) -> bool:
    """Whether an English critique asks for what the last item is not, as far as words show: colour, price, brand.

    A colour must be in the texts of the last item, a rejected one must not be in its title. The brand of the first item
    may only be rejected, unless the last item has it too. A remark on the first item, before a contrast, is no wish.

    >>> first = {"title": "Elmsgate Black Mug", "price": 9.0}
    >>> last = {"title": "Vintrel Teal Mug", "price": 12.0}
    >>> wrong = ("In red, please.", "Anything but teal.", "Something cheaper.", "I want one more Elmsgate.")
    >>> [is_unmet(text, first, last) for text in wrong]
    [True, True, True, True]
    >>> right = ("Not in black but in teal.", "In teal instead of black.", "It may cost more.", "No Elmsgate, please.")
    >>> [is_unmet(text, first, last) for text in right]
    [False, False, False, False]
    >>> is_unmet("The black Elmsgate is nice, but haven't you got it in teal?", first, last)
    False
    """
    title, texts = _shades(last.get("title") or ""), _shades("\n".join(_texts(last)))
    for match in re.finditer(r"\w+", text):
        colour = _shade(match[0].lower())
        if colour not in COLOURS:
            continue
        if _rejected(text, match.start()):
            if colour in title:
                return True
        elif colour not in texts and not _is_remark(text, match.start()):
            return True
    if _is_unmet_price(text, first.get("price"), last.get("price")):
        return True
    known, other = (set(_words(item.get("title") or "")) for item in (first, last))
    rejected: set[str] = set()
    for name in known & {*brands, *_capitals(text)}:
        for match in re.finditer(rf"\b{re.escape(name)}\b", text, re.IGNORECASE):
            if _rejected(text, match.start()):
                rejected.add(name)
            elif name not in other and not _is_remark(text, match.start()):
                return True
    # A rejected title of several words can contain words that both titles have.
    return bool(rejected) and rejected <= other


def _is_unmet_price(text: str, before: float | None, price: float | None) -> bool:
    """Whether a critique asks for another price than that of the last item; an unknown price meets every wish."""
    if price and any(price > float(match[1]) for match in MOST_USD.finditer(text)):
        return True
    if not price or not before:
        return False
    cheaper = any(not _rejected(text, match.start()) for match in CHEAPER.finditer(text))
    dearer = [not _rejected(text, match.start()) for match in DEARER.finditer(text)]
    return (cheaper and price >= before) or (any(dearer) and price <= before) or (False in dearer and price > before)


def _capitals(text: str) -> set[str]:
    """The words with a capital after the first word, in lower case: names of brands and models, no colours."""
    inner = WORD.findall(text.replace("’", "'"))[1:]
    names = {word.lower().removesuffix("'s") for word in inner if word[0].isupper() and len(word) > 2}
    return names - COLOURS - STOP_WORDS - CALENDAR


def _rejected(text: str, position: int) -> bool:
    """Whether the clause before `position` rejects what stands there."""
    return REJECTION.search(NEGATED_QUESTION.sub("", CLAUSE.split(text[:position])[-1])) is not None


def _is_remark(text: str, position: int) -> bool:
    """Whether what stands at `position` only describes the first item: a contrast follows, and no wish precedes it."""
    rest = text[position:]
    contrast = CONTRAST.search(rest) or REJECTION.search(rest)
    return contrast is not None and not WISH.search(CLAUSE.split(text[:position])[-1])


def _texts(item: Mapping[str, Any]) -> list[str]:
    price = f"{item['price']:.2f}" if item.get("price") else ""
    return [*(item.get(name) or "" for name in ("title", "category", "description")), price]


def _words(text: str) -> list[str]:
    """The words in lower case, without the ending 's."""
    return [word.removesuffix("'s") for word in words(text)]


def _pairs(text: str) -> set[tuple[str, str]]:
    """Neighbouring words, without function words and the plural s; a compound with a hyphen is one word."""
    tokens = _words(re.sub(r"(?<=\w)-(?=\w)", "", text))
    stems = [word.rstrip("s") if len(word) > 3 else word for word in tokens]
    content = [word not in STOP_WORDS and (len(word) > 2 or any(map(str.isdigit, word))) for word in tokens]
    return {pair for pair, both in zip(pairwise(stems), pairwise(content), strict=True) if all(both)}


def _shades(text: str) -> set[str]:
    return set(map(_shade, words(text)))


def _shade(word: str) -> str:
    return {"gray": "grey", "golden": "gold"}.get(word, word)
