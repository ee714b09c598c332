"""Rules that convert the raw text of a release to values: markup, entities, prices, categories."""

from __future__ import annotations

import contextlib
import html
import html.entities
import json
import re
from collections import Counter
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..model.histories import encodable
from .nulls import NULL_WORDS
from .records import python_literal

# Only names of HTML elements: "<3" and "<Black>" are text.
ELEMENTS = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|cite|code|dd|del|div|dl|dt|em|font|footer|form|h[1-6]|"
    "head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|noscript|object|ol|option|p|pre|q|s|script|"
    "section|select|small|span|strike|strong|style|sub|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
HIDDEN = [
    (name, re.compile(rf"(?is){start}.*?{end}"), re.compile(rf"(?i){end}"))
    for name, start, end in (
        ("<script", r"<script\b[^<>]*>", r"</script\s*>"),
        ("<style", r"<style\b[^<>]*>", r"</style\s*>"),
        ("<!--", "<!--", "-->"),
    )
]
"""Elements without visible text: their first characters, the whole, and the end of each."""
BREAK = re.compile(r"(?i)<br\s*/?>|</(?:p|div|li|tr|h[1-6])\s*>")
TAG = re.compile(rf"(?i)</?(?:{ELEMENTS})(?:\s[^<>]*)?/?>|<!--|<!doctype[^<>]*>")
ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")
"""With a semicolon only: `&copy=2` is part of a URL."""
MARKUP = re.compile(rf"(?i)</?(?:{ELEMENTS})(?:[\s/>]|$)|<!--|<!doctype")
TRUNCATED = re.compile(
    rf"(?i)<(?:{ELEMENTS})\s+[\w:-]+\s*=|</?(?!\w\b)(?:{ELEMENTS})(?:[\s/]|$)|<!doctype"  # "Size <S" is a text
)
SCRIPT = re.compile(r"getTime\(\)|\bfunction\s*\w*\s*\([^()]*\)\s*\{|[=({!;&|]\s*function\s*\(|^function\(")
"""The scripts that replace many titles of the 2018 release."""
SUSPECT = "[<\x00\xa0]|&[#\\w]+;"
"""Text without a match needs no cleaning."""
AMOUNT = r"\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
PRICE = re.compile(rf"(?:from\s+)?{AMOUNT}(?:\s*(?:-|–|to)\s*{AMOUNT})?")


def plain(text: str, counts: Counter[str]) -> str:
    r"""Text without markup, with line breaks and entities as characters; `counts` gets the rules that changed it.

    >>> counts = Counter()
    >>> plain("Tom &amp; I<br />love it &#34;a lot&#34; <3 <b>really</b>", counts), dict(counts)
    ('Tom & I\nlove it "a lot" <3 really', {'markup': 1, 'entities': 1})
    """
    text = _counted(text, _without_tags(text), "markup", counts)
    text = _counted(text, ENTITY.sub(lambda entity: _character(entity[0]), text), "entities", counts)
    return _counted(text, text.replace("\x00", ""), "nul_characters", counts).replace("\xa0", " ").strip()


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    lower = text.lower()
    for name, element, end in HIDDEN:
        if name not in lower:  # most texts with markup have no other than <br>
            continue
        # Only up to the last end: a search from every unclosed start would take quadratic time.
        last = max((match.end() for match in end.finditer(text)), default=0)
        text = element.sub(" ", text[:last]) + text[last:]
    return TAG.sub("", BREAK.sub("\n", text))


@lru_cache
def _character(entity: str) -> str:
    # `html.unescape` converts the start of an unknown name too: "&copying;" would become "©ing;".
    known = entity[1] == "#" or entity[1:] in html.entities.html5
    return html.unescape(entity) if known else entity


def plain_column(column: pa.ChunkedArray, counts: Counter[str]) -> pa.Array:
    """`plain` for a column of text; blank text becomes null. Only values that need cleaning become Python objects."""
    column = pc.utf8_trim_whitespace(column.combine_chunks())
    suspect = pc.fill_null(pc.match_substring_regex(column, SUSPECT), False)
    if suspect.true_count:
        cleaned = [plain(text, counts) for text in column.filter(suspect).to_pylist()]
        column = pc.replace_with_mask(column, suspect, pa.array(cleaned, column.type))
    return without_empty(column)


def without_empty(column: pa.StringArray) -> pa.StringArray:
    """`column` with null for empty text."""
    return pc.if_else(pc.equal(column, ""), None, column)


def title(text: str | None, counts: Counter[str]) -> str | None:
    r"""A title on one line without tags, None where it is missing, blank or part of a web page.

    >>> title("  Maggiano&#39;s\n Gift <b>Card</b> ", Counter()), title(" ", Counter())
    ("Maggiano's Gift Card", None)
    >>> counts = Counter()
    >>> title('<span id="productTitle" class="a-size', counts), dict(counts)
    (None, {'markup_title': 1})
    """
    if not text or not text.strip():
        return None
    rest = _without_tags(text)
    if not rest.strip() or TRUNCATED.search(rest) or SCRIPT.search(rest):
        counts["markup_title"] += 1
        return None
    return " ".join(plain(text, counts).split()) or None


def price(text: str | None, counts: Counter[str]) -> float | None:
    """A price in USD: the lower end of a range, None where the text is not a price.

    >>> counts = Counter()
    >>> [price(text, counts) for text in ("$9.99", "$1,250.00 - $2,000.00", "19.5", ".a-box-inner{color:#fff}")]
    [9.99, 1250.0, 19.5, None]
    >>> dict(counts)
    {'price_range': 1, 'unreadable_price': 1}
    """
    if not text or text.strip() in NULL_WORDS:
        return None
    match = PRICE.fullmatch(text.strip()) if len(text) < 100 else None
    if not match:
        counts["unreadable_price"] += 1
        return None
    amounts = [float(amount.replace(",", "")) for amount in match.groups() if amount]
    if len(amounts) > 1:
        counts["price_range"] += 1
    return min(amounts)


def category(text: str | None, counts: Counter[str]) -> str | None:
    """The path of categories as the official release writes it: one string, joined by " - ".

    Names equal to the previous one and markup are omitted; of several paths (2014) only the first is used.

    >>> category('["Gift Cards", "Gift Cards", "Restaurants &amp; Food", "</span></span>"]', Counter())
    'Gift Cards - Restaurants & Food'
    >>> counts = Counter()
    >>> category('[["Office", "Pens"], ["School"]]', counts), dict(counts)
    ('Office - Pens', {'further_categories': 1, 'category_list': 1})
    """
    names: list[str] = []
    for name in _path(text, counts):
        if MARKUP.search(name) or SCRIPT.search(name):
            counts["markup_category"] += 1
            continue
        clean = " ".join(plain(name, counts).split())
        if clean and clean not in names[-1:]:
            names.append(clean)
    return " - ".join(names) or None


def description(text: str | None, counts: Counter[str]) -> str | None:
    """The paragraphs of a description as one text, joined by a space.

    >>> counts = Counter()
    >>> description('["<p>Fine pens.</p>", "", "Set of 3."]', counts), dict(counts)
    ('Fine pens. Set of 3.', {'description_list': 1, 'markup': 1})
    """
    parts = _strings(text, _list(text), "description_list", counts)
    return " ".join(part for part in (plain(part, counts) for part in parts) if part) or None


def _path(text: str | None, counts: Counter[str]) -> list[str]:
    names = _list(text)
    if names and isinstance(names[0], list):
        if len(names) > 1:
            counts["further_categories"] += 1
        names = names[0]
    return _strings(text, names, "category_list", counts)


def _strings(text: str | None, values: list[Any] | None, rule: str, counts: Counter[str]) -> list[str]:
    """The strings among `values`, or the text itself where it is not a list."""
    if values is None:
        return [text] if text else []
    strings = [encodable(value) for value in values if isinstance(value, str)]
    if strings:
        counts[rule] += 1
    return strings


def _list(text: str | None) -> list[Any] | None:
    r"""The list in a text, as JSON or as pandas writes it to CSV; None where there is none.

    >>> _list('["a", "b"]'), _list("['a', 'b']"), _list("['a' \"b's\"]"), _list("[sic] a")
    (['a', 'b'], ['a', 'b'], ['a', "b's"], None)
    """
    if not text or not text.startswith("["):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, list) else None
    # numpy writes arrays without commas, and Python would concatenate their strings.
    value = python_literal(re.sub(r"""(['"])\s+(['"])""", r"\1, \2", text))
    return value if isinstance(value, list) else None


def _counted(before: str, after: str, rule: str, counts: Counter[str]) -> str:
    if before != after:
        counts[rule] += 1
    return after
