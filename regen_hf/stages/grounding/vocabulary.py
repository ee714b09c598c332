"""The catalogue's own words: what it calls its brands, kinds and colours, read from item records alone.

An item has no field for its brand, so brands come from titles: a word that opens several titles, or stands after "by"
or "from", and that the texts of the catalogue and of the reviews hardly ever write in small letters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...prompts.filler import FILLER

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9'’&+-]*")
SMALL = 0.05
"""A name may be written in small letters in this share of its places at most."""
COLOURS = frozenset(
    """amber aqua azure beige black blue bronze brown burgundy charcoal chrome copper coral cream crimson cyan gold
    green grey indigo ivory khaki lavender lilac lime magenta maroon mint mustard navy ochre olive orange peach pink
    plum purple red rose ruby rust salmon scarlet silver tan taupe teal turquoise violet white yellow""".split()  # noqa: SIM905
)
CUT = 5
"""Words of a title that stand for it where a text cuts it short."""
PARTS = ("brand", "category", "colour", "modifier", "title")
Term = tuple[str, ...]


def stem(word: str) -> str:
    """A word in small letters and singular, as far as its ending tells.

    >>> stem("Mugs"), stem("lunch-boxes"), stem("Batteries"), stem("Corraday's"), stem("glass")
    ('mug', 'lunch-box', 'battery', 'corraday', 'glass')
    """
    word = re.sub(r"['’]s?$", "", word.lower())
    if word == "gray":
        return "grey"
    if re.search(r"ies$", word) and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(x|ch|sh|ss|zz)es$", word):
        return word[:-2]
    return word[:-1] if re.search(r"[^su]s$", word) and len(word) > 3 else word


def stems(text: str | None) -> list[str]:
    """The stems of all words of a text, in order.

    >>> stems("Navy Tote Bags, by Elmsgate")
    ['navy', 'tote', 'bag', 'by', 'elmsgate']
    """
    return [stem(word) for word in TOKEN.findall(text or "")]


@dataclass
class Vocabulary:
    """Terms of the catalogue, each a tuple of stems."""

    brands: set[Term] = field(default_factory=set)
    categories: set[Term] = field(default_factory=set)
    """Names of the levels of category paths, and the parts of such as "Bags & Storage"."""
    colours: frozenset[str] = COLOURS
    modifiers: set[str] = field(default_factory=set)
    """Words that stand in several titles, beside names of brands, kinds and colours."""
    titles: dict[Term, set[Term]] = field(default_factory=dict)
    """By their first three words: whole titles, and their parts before a comma, a dash or a bracket."""

    def __post_init__(self) -> None:
        self.longest = max(map(len, [*self.brands, *self.categories]), default=1)

    def title_at(self, words: Sequence[str], place: int) -> Term:
        """The longest title that begins at `place`, or five words and more of one; () where there is none."""
        best: Term = ()
        for title in self.titles.get(tuple(words[place : place + 3]), ()):
            same = 3
            while same < len(title) and place + same < len(words) and title[same] == words[place + same]:
                same += 1
            if same > len(best) and (same == len(title) or same >= CUT):
                best = title[:same]
        return best

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]], texts: Iterable[str]) -> Vocabulary:
        """The vocabulary of a catalogue.

        Args:
            items: Rows of schema.ITEMS.
            texts: Prose in which names are written as such: reviews.
        """
        categories = {
            term
            for item in items
            for level in (item["category"] or "").split(" - ")
            for name in (level, *re.split(r"\s*[&,/]\s*", level))
            if 0 < len(term := tuple(stems(name))) <= 4 and not FILLER.issuperset(term)
        }
        prose = [item["description"] or "" for item in items]
        small, capital = _cases([*prose, *texts])
        # A word of a category is no name, and neither is a colour.
        common = {word for term in categories for word in term} | COLOURS

        def is_name(word: str) -> bool:
            written = stem(word)
            return (
                word[:1].isupper()
                and not any(letter.isdigit() for letter in word)
                and written not in common
                and written not in FILLER
                and small[written] <= SMALL * (small[written] + capital[written])
            )

        opens: Counter[Term] = Counter()
        after: Counter[Term] = Counter()
        for item in items:
            words = TOKEN.findall(item["title"] or "")
            for length in (1, 2):
                opens[tuple(map(stem, words[:length]))] += len(words) > length and all(map(is_name, words[:length]))
            for place, word in enumerate(words[:-1]):
                if word in ("by", "from") and is_name(words[place + 1]):
                    after[(stem(words[place + 1]),)] += 1
        firsts = opens + after
        brands: set[Term] = {term for term, count in firsts.items() if len(term) == 1 and count > 1}
        # Two words are one name where the first hardly stands without the second.
        pairs = {term for term, count in opens.items() if len(term) == 2 and count > 1}
        pairs = {pair for pair in pairs if opens[pair] >= 0.8 * firsts[pair[:1]]}
        brands = (brands - {pair[:1] for pair in pairs}) | pairs

        in_titles = Counter(word for item in items for word in set(stems(item["title"])))
        taken = common | {word for term in brands for word in term} | FILLER
        often = max(3, 0.005 * len(items))
        modifiers = {
            word for word, count in in_titles.items() if count >= often and word not in taken and word.isalpha()
        }
        titles: dict[Term, set[Term]] = {}
        for item in items:
            title = item["title"] or ""
            for part in (title, re.split(r",| - | \(", title)[0]):
                if len(term := tuple(stems(part))) > 2:
                    titles.setdefault(term[:3], set()).add(term)
        return cls(brands, categories, COLOURS, {word for word in modifiers if len(word) > 3}, titles)


def _cases(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each stem is written in small letters, and with a capital inside a sentence."""
    small: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in texts:
        for found in TOKEN.finditer(text):
            word = found[0]
            if word[0].islower():
                small[stem(word)] += 1
            elif not re.search(r"(^|[.!?:]\s*)$", text[max(0, found.start() - 3) : found.start()]):
                capital[stem(word)] += 1
    return small, capital


@dataclass(frozen=True)
class Mention:
    """A name of the catalogue in a text, or several that stand together: "navy Elmsgate lunch box"."""

    start: int
    end: int
    """Characters of the text that it takes."""
    text: str
    brands: tuple[Term, ...] = ()
    categories: tuple[Term, ...] = ()
    colours: tuple[Term, ...] = ()
    modifiers: tuple[Term, ...] = ()
    titles: tuple[Term, ...] = ()

    @property
    def kind(self) -> str:
        """What a fact about it is called: item, brand, category or colour."""
        parts = (self.brands, self.categories, self.colours, self.modifiers)
        if self.titles or sum(map(len, parts)) > 1:
            return "item"
        return "brand" if self.brands else "category" if self.categories else "colour"

    @property
    def words(self) -> frozenset[str]:
        """All stems that it holds."""
        parts = (self.brands, self.categories, self.colours, self.modifiers, self.titles)
        return frozenset(word for terms in parts for term in terms for word in term)


def mentions(text: str, vocabulary: Vocabulary) -> list[Mention]:
    """The names of the catalogue in a text, the longest first; neighbours make one, up to the kind of the thing.

    >>> own = Vocabulary(brands={("elmsgate",)}, categories={("lunch", "box"), ("mug",)})
    >>> [mention.text for mention in mentions("A navy Elmsgate lunch box, then red mugs.", own)]
    ['navy Elmsgate lunch box', 'red mugs']
    """
    tokens = list(TOKEN.finditer(text))
    words = [stem(token[0]) for token in tokens]
    groups: list[list[tuple[str, Term, int, int]]] = []
    place, joins = 0, False
    while place < len(words):
        name, term = _longest(words, tokens, place, vocabulary)
        start, end = tokens[place].start(), tokens[place + max(1, len(term)) - 1].end()
        if name:
            if joins and text[groups[-1][-1][3] : start].isspace():
                groups[-1].append((name, term, start, end))
            else:
                groups.append([(name, term, start, end)])
        joins = name in ("brand", "colour", "modifier")
        place += max(1, len(term))
    return [
        Mention(
            group[0][2],
            group[-1][3],
            text[group[0][2] : group[-1][3]],
            *(tuple(term for name, term, _, _ in group if name == part) for part in PARTS),
        )
        for group in groups
        if any(name != "modifier" for name, _, _, _ in group)
    ]


def _longest(
    words: Sequence[str], tokens: Sequence[re.Match[str]], place: int, vocabulary: Vocabulary
) -> tuple[str | None, Term]:
    """Which part of the vocabulary the words from `place` on belong to, and as what term."""
    if title := vocabulary.title_at(words, place):
        return "title", title
    for length in range(min(vocabulary.longest, len(words) - place), 0, -1):
        term = tuple(words[place : place + length])
        if term in vocabulary.brands and tokens[place][0][:1].isupper():
            return "brand", term
        if term in vocabulary.categories:
            return "category", term
    if words[place] in vocabulary.colours:
        return "colour", (words[place],)
    return ("modifier", (words[place],)) if words[place] in vocabulary.modifiers else (None, ())
