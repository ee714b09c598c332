"""Words and small pieces of sentences for the reference narratives: pure functions of text and numbers."""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"[a-z][a-z'-]*[a-z]")
# Words too common to characterize a shopper: function words, praise, and the vocabulary of reviews.
COMMON = frozenset(
    """about above absolutely actually after again against all almost also although always am an and another any anyone
    anything are around as asked at away awesome back bad be because been before being below best better between
    big bit both bought but buy buying by came can can't cannot come company completely could couldn't couple
    course day days definitely did didn't do does doesn't doing don't done down each easily else enjoy enjoyed
    enough especially even ever every everyone everything exactly excellent expected far few find fine first five
    for found four from full gave get gets getting give given gives go goes going good got great had happy hard
    has have haven't having he help her here hers high highly him his how however huge i'd i'll i'm i've idea
    ideas if in instead into is isn't issue issues it it's item items its just keep kept kind know last lasted
    later least left less like liked likes little long look looked looking looks lot lots love loved loves low
    made make makes many may me mind mine minutes month months more most much must my need needed needs never new
    next nice no none nor not nothing now of off often okay old on once one ones only onto or order ordered other
    others our out over own part people perfect perfectly person place please pleased pretty price probably
    problem problems product products purchase purchased purpose put quality quickly quite rather really reason
    reasonable received recommend review reviews right said same say says see seem seems send sent set several she
    should since small so some someone something sometimes soon sorry star stars still stuff such super sure take
    terrible than thank thanks that that's the their them then there these they thing things think this those
    though thought three through time times to too took tried try two type under until up us use used using
    usually very want wanted was wasn't way we week weeks well were what when where which while who whole why will
    wish with within without won't wonderful work worked working works worth would wouldn't year years yes yet you
    your""".split()  # noqa: SIM905 (a list of strings would be pages)
)
COUNTS = "no one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905


@dataclass(frozen=True)
class Phrasing:
    """Chooses one of several wordings of a statement, the same one for the same user."""

    key: str

    def __call__(self, *options: str) -> str:
        """One of `options`; the choice depends on the user and on the options, not on earlier choices."""
        return options[zlib.crc32(f"{self.key}:{len(options)}:{options[0][:12]}".encode()) % len(options)]


def shorten(title: str, limit: int = 60) -> str:
    """Cut a title to at most `limit` characters: at a mark that ends its main part, otherwise between two words.

    >>> shorten("Gift Card in a Santa Tin (Ho! Ho! Ho! Card Design)", 30)
    'Gift Card in a Santa Tin'
    >>> shorten("A very long title without any mark at all", 20)
    'A very long title'
    >>> shorten("Donaudampfschifffahrtsgesellschaft", 10)
    'Donaudampf'
    """
    while len(title) > limit:
        cut = max(title.rfind(mark) for mark in (" (", ", ", " - ", " | ", ": ", "; "))
        if cut < 10:
            break
        title = title[:cut]
    if len(title) > limit:
        title = title[: limit + 1].rpartition(" ")[0] or title[:limit]
        title = re.sub(r"([\s,;:|&(-]+(and|or|with|for|of|in|on|to|by|the|a|an))+$", "", title, flags=re.IGNORECASE)
    return title.rstrip(" ,;:-|&(")


def leaf(category: str | None) -> str | None:
    """The most specific level of a category path that is a name; scraped sentences and markup are skipped.

    >>> leaf("Office Products - Pens - Gel Pens")
    'Gel Pens'
    >>> leaf("Gift Cards - Gift Cards - No expiration, no fees. - </span>")
    'Gift Cards'
    >>> leaf(" - ") is None
    True
    """
    for level in reversed((category or "").split(" - ")):
        name = " ".join(html.unescape(level).split())
        if name and len(name) <= 40 and len(name.split()) <= 6 and not re.search(r"[<>.!?:\d]", name):
            return name
    return None


def first_sentence(description: str | None) -> str | None:
    """The first sentence of a description if it is prose of at most 25 words, otherwise None.

    >>> first_sentence("Fine paper for daily notes. Made to last.")
    'Fine paper for daily notes.'
    >>> first_sentence("<b>12 pcs</b>") is None
    True
    """
    text = " ".join(html.unescape(description or "").split())
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    prose = (
        20 <= len(sentence) <= 220 and len(sentence.split()) <= 25 and sentence[0].isupper() and sentence[-1] in ".!?"
    )
    return sentence if prose and not re.search(r"[<>{}]", sentence) else None


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun; numbers up to twelve as words.

    >>> counted(1, "item"), counted(3, "item"), counted(40, "item")
    ('one item', 'three items', '40 items')
    """
    word = COUNTS[number] if number < len(COUNTS) else f"{number:,}"
    return f"{word} {noun if number == 1 else plural or noun + 's'}"


def times(number: int) -> str:
    """A number of times in words.

    >>> times(1), times(2), times(3)
    ('once', 'twice', 'three times')
    """
    return {1: "once", 2: "twice"}.get(number) or counted(number, "time")


def listed(names: Sequence[str]) -> str:
    """`names` joined with commas and "and".

    >>> listed(["a", "b", "c"]), listed(["a", "b"]), listed([])
    ('a, b and c', 'a and b', '')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def usd(price: float) -> str:
    """A price in US dollars.

    >>> usd(1234.5)
    '$1,234.50'
    """
    return f"${price:,.2f}"
