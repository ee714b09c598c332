"""The vocabulary of the catalogue: names of brands, categories and colours, from the item records.

An item has no field for its brand, so brands come from titles: a word that begins several titles or follows "by" or
"from", and that is hardly ever lower case in the texts of the catalogue and of the reviews.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...metrics.stop_words import STOP_WORDS

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9'’&+-]*")
MAX_LOWER_CASE = 0.05
"""Largest share of lower-case occurrences of a name."""
COLOURS = frozenset(
    """amber aqua azure beige black blue bronze brown burgundy charcoal chrome copper coral cream crimson cyan gold
    green grey indigo ivory khaki lavender lilac lime magenta maroon mint mustard navy ochre olive orange peach pink
    plum purple red rose ruby rust salmon scarlet silver tan taupe teal turquoise violet white yellow""".split()  # noqa: SIM905
)
MIN_PREFIX = 5
"""Number of words at the beginning of a title that identify it in a text."""
PARTS = ("brand", "category", "colour", "modifier", "title")
Term = tuple[str, ...]


def stem(word: str) -> str:
    """A word in lower case and in the singular, by simple rules for its ending.

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
    """Names of the levels of category paths, and the parts of names such as "Bags & Storage"."""
    colours: frozenset[str] = COLOURS
    modifiers: set[str] = field(default_factory=set)
    """Words of several titles that are not brands, categories or colours."""
    titles: dict[Term, set[Term]] = field(default_factory=dict)
    """Titles, and their parts before a comma, a dash or a bracket, by their first three words."""

    def __post_init__(self) -> None:
        self.longest = max(map(len, [*self.brands, *self.categories]), default=1)

    def title_at(self, words: Sequence[str], start: int) -> Term:
        """The longest title that begins at `start`, or its first five words and more; () without a match."""
        best: Term = ()
        for title in self.titles.get(tuple(words[start : start + 3]), ()):
            length = 3
            while length < len(title) and start + length < len(words) and title[length] == words[start + length]:
                length += 1
            if length > len(best) and (length == len(title) or length >= MIN_PREFIX):
                best = title[:length]
        return best

    @classmethod
    def of(cls, items: Sequence[Mapping[str, Any]], texts: Iterable[str]) -> Vocabulary:
        """The vocabulary of a catalogue (rows of `schema.ITEMS`); `texts` are prose with usual capitals: reviews."""
        categories = {
            term
            for item in items
            for level in (item["category"] or "").split(" - ")
            for name in (level, *re.split(r"\s*[&,/]\s*", level))
            if 0 < len(term := tuple(stems(name))) <= 4 and not STOP_WORDS.issuperset(term)
        }
        prose = [item["description"] or "" for item in items]
        lower, upper = _cases([*prose, *texts])
        # Words of categories and colours are not brands.
        common = {word for term in categories for word in term} | COLOURS

        def is_name(word: str) -> bool:
            stemmed = stem(word)
            return (
                word[:1].isupper()
                and not any(letter.isdigit() for letter in word)
                and stemmed not in common
                and stemmed not in STOP_WORDS
                and lower[stemmed] <= MAX_LOWER_CASE * (lower[stemmed] + upper[stemmed])
            )

        opens: Counter[Term] = Counter()
        after: Counter[Term] = Counter()
        for item in items:
            words = TOKEN.findall(item["title"] or "")
            for length in (1, 2):
                opens[tuple(map(stem, words[:length]))] += len(words) > length and all(map(is_name, words[:length]))
            for word, following in itertools.pairwise(words):
                if word in ("by", "from") and is_name(following):
                    after[(stem(following),)] += 1
        firsts = opens + after
        brands: set[Term] = {term for term, count in firsts.items() if len(term) == 1 and count > 1}
        # Two words are one name if the first rarely occurs without the second.
        pairs = {term for term, count in opens.items() if len(term) == 2 and count > 1}
        pairs = {pair for pair in pairs if opens[pair] >= 0.8 * firsts[pair[:1]]}
        brands = (brands - {pair[:1] for pair in pairs}) | pairs

        in_titles = Counter(word for item in items for word in set(stems(item["title"])))
        taken = common | {word for term in brands for word in term} | STOP_WORDS
        min_count = max(3, 0.005 * len(items))
        modifiers = {
            word for word, count in in_titles.items() if count >= min_count and word not in taken and word.isalpha()
        }
        titles: dict[Term, set[Term]] = {}
        for item in items:
            title = item["title"] or ""
            for part in (title, re.split(r",| - | \(", title)[0]):
                if len(term := tuple(stems(part))) > 2:
                    titles.setdefault(term[:3], set()).add(term)
        return cls(brands, categories, COLOURS, {word for word in modifiers if len(word) > 3}, titles)


def _cases(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Occurrences of each stem in lower case, and with a capital inside a sentence."""
    lower: Counter[str] = Counter()
    upper: Counter[str] = Counter()
    for text in texts:
        for match in TOKEN.finditer(text):
            word = match[0]
            if word[0].islower():
                lower[stem(word)] += 1
            elif not re.search(r"(^|[.!?:]\s*)$", text[max(0, match.start() - 3) : match.start()]):
                upper[stem(word)] += 1
    return lower, upper


@dataclass(frozen=True)
class Mention:
    """A name of the catalogue in a text, or several adjacent ones: "navy Elmsgate lunch box"."""

    start: int
    end: int
    """Offsets of its characters in the text."""
    text: str
    brands: tuple[Term, ...] = ()
    categories: tuple[Term, ...] = ()
    colours: tuple[Term, ...] = ()
    modifiers: tuple[Term, ...] = ()
    titles: tuple[Term, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of its fact: item, brand, category or colour."""
        parts = (self.brands, self.categories, self.colours, self.modifiers)
        if self.titles or sum(map(len, parts)) > 1:
            return "item"
        return "brand" if self.brands else "category" if self.categories else "colour"

    @property
    def words(self) -> frozenset[str]:
        """All of its stems."""
        parts = (self.brands, self.categories, self.colours, self.modifiers, self.titles)
        return frozenset(word for terms in parts for term in terms for word in term)


def mentions(text: str, vocabulary: Vocabulary) -> list[Mention]:
    """The names of the catalogue in a text, in order; adjacent names that end with a category are one mention.

    >>> vocabulary = Vocabulary(brands={("elmsgate",)}, categories={("lunch", "box"), ("mug",)})
    >>> [mention.text for mention in mentions("A navy Elmsgate lunch box, then red mugs.", vocabulary)]
    ['navy Elmsgate lunch box', 'red mugs']
    """
    tokens = list(TOKEN.finditer(text))
    words = [stem(token[0]) for token in tokens]
    groups: list[list[tuple[str, Term, int, int]]] = []
    index, joins = 0, False
    while index < len(words):
        name, term = _longest(words, tokens, index, vocabulary)
        start, end = tokens[index].start(), tokens[index + max(1, len(term)) - 1].end()
        if name:
            if joins and text[groups[-1][-1][3] : start].isspace():
                groups[-1].append((name, term, start, end))
            else:
                groups.append([(name, term, start, end)])
        joins = name in ("brand", "colour", "modifier")
        index += max(1, len(term))
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
    words: Sequence[str], tokens: Sequence[re.Match[str]], index: int, vocabulary: Vocabulary
) -> tuple[str | None, Term]:
    """The part (one of PARTS) and the stems of the longest term at `index`; (None, ()) without a match."""
    if title := vocabulary.title_at(words, index):
        return "title", title
    for length in range(min(vocabulary.longest, len(words) - index), 0, -1):
        term = tuple(words[index : index + length])
        if term in vocabulary.brands and tokens[index][0][:1].isupper():
            return "brand", term
        if term in vocabulary.categories:
            return "category", term
    if words[index] in vocabulary.colours:
        return "colour", (words[index],)
    return ("modifier", (words[index],)) if words[index] in vocabulary.modifiers else (None, ())
