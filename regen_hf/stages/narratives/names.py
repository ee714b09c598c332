"""Names in a narrative that its user's record does not contain, and the product that an endorsement is about.

An item has no field for its brand. A name is a word that begins several titles or follows "by" or "from" in one, is
written with a capital inside sentences of descriptions and reviews, and hardly ever without one.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...metrics.stop_words import STOP_WORDS
from .shared_words import WORD, words

MAX_LOWER_CASE = 0.05
"""Largest share of lower-case occurrences of a name."""
TITLE_START = 4
"""Words at the beginning of a title that identify the item in a text; shorter titles of three words count in full."""
# Written with a capital in English, and not names of products.
CALENDAR = frozenset(
    """january february march april may june july august september october november december monday tuesday wednesday
    thursday friday saturday sunday christmas easter halloween thanksgiving hanukkah valentine valentines english
    american british""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Names:
    """Names of the items of a catalogue, or of the few-shot examples."""

    words: frozenset[str] = frozenset()
    """Names of brands, in lower case."""
    titles: frozenset[str] = frozenset()
    """The beginnings of titles: words in lower case, separated by a space."""

    @classmethod
    def of(cls, items: Iterable[Mapping[str, Any]], texts: Iterable[str]) -> Names:
        """The names of `items` (rows of schema.ITEM); `texts` are prose with usual capitals: reviews.

        >>> texts = ["The Elmsgate mug is an Elmsgate classic.", "A mug by Elmsgate"]
        >>> names = Names.of([{"title": "Elmsgate Red Mug"}, {"title": "Elmsgate Blue Mug"}], texts)
        >>> sorted(names.words), sorted(names.titles)
        (['elmsgate'], ['elmsgate blue mug', 'elmsgate red mug'])
        """
        lower: Counter[str] = Counter()
        upper: Counter[str] = Counter()
        first: Counter[str] = Counter()
        titles = set()
        for item in items:
            count_cases(item.get("description") or "", lower, upper)
            tokens = WORD.findall(item.get("title") or "")
            if len(tokens) >= 3:
                titles.add(" ".join(words(" ".join(tokens[:TITLE_START]))))
            first.update(map(_name, tokens[:1]))
            first.update({_name(after): 2 for before, after in itertools.pairwise(tokens) if before in ("by", "from")})
        for text in texts:
            count_cases(text, lower, upper)
        return cls(
            frozenset(
                name
                for name, count in first.items()
                if count > 1 and upper[name] > 1 and lower[name] <= MAX_LOWER_CASE * (lower[name] + upper[name])
                if len(name) > 2 and name.isalpha() and name not in STOP_WORDS and name not in CALENDAR
            ),
            frozenset(titles),
        )

    def in_text(self, text: str, known: str) -> list[str]:
        """The names in a text that the words `known` (`joined`) do not contain.

        >>> names = Names(frozenset({"elmsgate"}), frozenset({"elmsgate red tea mug"}))
        >>> names.in_text("Elmsgate's mugs, such as the Elmsgate Red Tea Mug.", "")
        ['elmsgate', 'elmsgate red tea mug']
        >>> names.in_text("Elmsgate's mugs are fine.", " elmsgate § ")
        []
        """
        if not self.words and not self.titles:
            return []
        tokens = WORD.findall(text.replace("’", "'"))
        lower = [_name(token) for token in tokens]
        matches = dict.fromkeys(
            name
            for token, name in zip(tokens, lower, strict=True)
            if name in self.words and token != token.lower() and f" {name} " not in known
        )
        plain = [token.lower() for token in tokens]
        for start, first in enumerate(plain):
            for length in (3, TITLE_START) if first in self._first_words else ():
                title = " ".join(plain[start : start + length])
                # In lower case, the words can be a description of another item.
                upper = sum(token != token.lower() for token in tokens[start + 1 : start + length])
                if title in self.titles and upper > 1 and f" {title} " not in known:
                    matches[title] = None
        return list(matches)

    def begin_with(self, names: Iterable[str]) -> bool:
        """Whether a title begins with one of `names`: a brand that only one item has is not among `words`.

        >>> Names(titles=frozenset({"elmsgate red mug"})).begin_with(["parker", "elmsgate"])
        True
        """
        return not self._first_words.isdisjoint(names)

    @functools.cached_property
    def _first_words(self) -> frozenset[str]:
        return frozenset(title.partition(" ")[0] for title in self.titles)


NO_NAMES = Names()


def count_cases(text: str, lower: Counter[str], upper: Counter[str]) -> None:
    """Count the words of `text` in lower case, and those with a capital that do not begin a sentence."""
    end = 0
    for match in WORD.finditer(text):
        word = match[0]
        if word == word.lower():
            lower[_name(word)] += 1
        elif end and not re.search(r"[.!?:]", text[end : match.start()]):
            upper[_name(word)] += 1
        end = match.end()


def capitals(text: str, known: str) -> list[str]:
    """The words with a capital inside the sentences of an English text that the words `known` do not contain.

    >>> capitals("They like pens by Parker and Pilot. Ink, too.", " pilot § ")
    ['parker']
    """
    matches: dict[str, None] = {}
    end = 0
    before = ""
    for match in WORD.finditer(text.replace("’", "'")):
        word, name = match[0], _name(match[0])
        # After a word with a capital, it can be the next word of a heading.
        inside = end and not re.search(r"[^\s,]", text[end : match.start()]) and before == before.lower()
        named = inside and word[0].isupper() and len(name) > 2 and name not in STOP_WORDS and name not in CALENDAR
        if named and f" {name} " not in known and f" {word.lower()} " not in known:
            matches[name] = None
        before, end = word, match.end()
    return list(matches)


def is_about_another(text: str, history: Sequence[dict[str, Any]]) -> bool:
    """Whether an endorsement or a reason names an earlier item of the history, and nothing of the final one.

    Only the words that distinguish the two titles count. An item is named by most of them, at least two, or by its
    whole title. Titles that differ in numbers only are not distinguished.

    >>> history = [{"item": {"title": title}} for title in ("Elmsgate Red Mug", "Vintrel Travel Planner")]
    >>> is_about_another("Enjoy the Elmsgate mug in red!", history), is_about_another("Enjoy the planner!", history)
    (True, False)
    >>> is_about_another("You liked the Elmsgate mug in red; this planner is as good.", history)
    False
    >>> is_about_another("Vintrel Cards", [{"item": {"title": f"{brand} Cards"}} for brand in ("Vintrel", "Elmsgate")])
    True
    """
    items = [purchase["item"] or {} for purchase in history]
    if not items or not items[-1].get("title"):
        return False
    written, plain = set(stems(text)), text.replace("’", "'")
    final = set(stems(items[-1]["title"]))
    wider = final | set(stems((items[-1].get("category") or "").rpartition(" - ")[2]))
    for item in items[:-1]:
        title = set(stems(item.get("title") or ""))
        others, own = title - final, wider - title
        named = len(others & written)
        # With its capitals: in lower case, the words of a short title can describe the final item.
        whole = named > 0 and len(words(item["title"])) > 1 and item["title"].replace("’", "'") in plain
        if (whole or (named >= 2 and named >= 0.6 * len(others))) and own and not own & written:
            return True
    return False


def stems(text: str) -> list[str]:
    """The words of a text in lower case without function words, numbers and the plural s."""
    names = map(_name, words(text))
    return [name.rstrip("s") for name in names if len(name) > 2 and name.isalpha() and name not in STOP_WORDS]


def _name(word: str) -> str:
    return word.lower().replace("’", "'").removesuffix("'s").removesuffix("'")
