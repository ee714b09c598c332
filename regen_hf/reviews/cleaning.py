"""Rules that turn the raw text of a release into values: markup, entities, prices, categories."""

from __future__ import annotations

import ast
import contextlib
import html
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .lines import places_of

# Only names of HTML elements: "<3" and "<Black>" are text.
ELEMENTS = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|center|cite|code|dd|del|div|dl|dt|em|font|footer|form|h[1-6]|"
    "head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|noscript|object|ol|option|p|pre|q|s|script|"
    "section|select|small|span|strike|strong|style|sub|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
HIDDEN = re.compile(r"(?is)<(script|style)\b[^>]*>.*?(?:</\1\s*>|$)|<!--.*?(?:-->|$)")
BREAK = re.compile(r"(?i)<br\s*/?>|</(?:p|div|li|tr|h[1-6])\s*>")
TAG = re.compile(rf"(?i)</?(?:{ELEMENTS})(?:\s[^<>]*)?/?>")
MARKUP = re.compile(rf"(?i)</?(?:{ELEMENTS})(?:[\s/>]|$)|<!--|<!doctype|getTime\(\)|\bfunction\s*\(")
"""Also cut-off tags, and the script that stands in place of many titles of the 2018 release."""
SUSPECT = re.compile(r"[<\x00\xa0]|&[#\w]+;")
"""Text without this needs no cleaning."""
SUSPECT_BYTES = b"<&\x00\xc2"
"""Bytes of which any such text has one; the last begins a no-break space."""
AMOUNT = r"\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
PRICE = re.compile(rf"(?:from\s+)?{AMOUNT}(?:\s*(?:-|–|to)\s*{AMOUNT})?")


def plain(text: str, counts: Counter[str]) -> str:
    r"""Text as a reader sees it: no markup, line breaks and entities as characters.

    Args:
        text: the text.
        counts: each rule that changed the text is counted here by its name.

    >>> counts = Counter()
    >>> plain("Tom &amp; I<br />love it &#34;a lot&#34; <3 <b>really</b>", counts), dict(counts)
    ('Tom & I\nlove it "a lot" <3 really', {'markup': 1, 'entities': 1})
    """
    if "<" in text:
        text = _counted(text, TAG.sub("", BREAK.sub("\n", HIDDEN.sub(" ", text))), "markup", counts)
    text = _counted(text, html.unescape(text), "entities", counts)
    return _counted(text, text.replace("\x00", ""), "nul_characters", counts).replace("\xa0", " ").strip()


def plain_column(column: pa.ChunkedArray, counts: Counter[str]) -> pa.Array:
    """`plain` over a column of text; blank text becomes null. Values that need no cleaning never become Python."""
    column = pc.utf8_trim_whitespace(column.combine_chunks())
    suspect = _suspect(column)
    if suspect.any():
        texts = column.filter(suspect).to_pylist()
        cleaned = [plain(text, counts) if SUSPECT.search(text) else text for text in texts]
        column = pc.replace_with_mask(column, suspect, pa.array(cleaned, column.type))
    return without_empty(column)


def without_empty(column: pa.StringArray) -> pa.StringArray:
    """`column` with null for empty text; the text is not copied."""
    offsets, _ = _bytes_of(column)
    given = pa.array(offsets[1:] > offsets[:-1])
    buffers = [given.buffers()[1], pa.py_buffer(offsets), column.buffers()[2]]
    return pa.Array.from_buffers(column.type, len(column), buffers)


def _suspect(column: pa.StringArray) -> np.ndarray:
    """Where text may need to be cleaned."""
    offsets, text = _bytes_of(column)
    start, end = int(offsets[0]), int(offsets[-1])
    rows = np.searchsorted(offsets, places_of(text[start:end], SUSPECT_BYTES) + start, side="right") - 1
    suspect = np.zeros(len(column), bool)
    suspect[rows] = True
    return suspect


def _bytes_of(column: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Where each text begins in the bytes of all of them, then where the last one ends; and these bytes."""
    _, places, text = column.buffers()
    offsets = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1]
    return offsets, np.frombuffer(text or b"", np.uint8)


def title(text: str | None, counts: Counter[str]) -> str | None:
    r"""A title on one line, None where it is missing, blank or a piece of a web page.

    >>> title("  Maggiano&#39;s\n Gift Card ", Counter()), title(" ", Counter())
    ("Maggiano's Gift Card", None)
    >>> counts = Counter()
    >>> title('<span id="productTitle" class="a-size', counts), dict(counts)
    (None, {'markup_title': 1})
    """
    if not text:
        return None
    if MARKUP.search(text):
        counts["markup_title"] += 1
        return None
    return " ".join(plain(text, counts).split()) or None


def price(text: str | None, counts: Counter[str]) -> float | None:
    """USD. Of a range the lower end; None where the text is no price.

    >>> counts = Counter()
    >>> [price(text, counts) for text in ("$9.99", "$1,250.00 - $2,000.00", "19.5", ".a-box-inner{color:#fff}")]
    [9.99, 1250.0, 19.5, None]
    >>> dict(counts)
    {'price_range': 1, 'unreadable_price': 1}
    """
    if not text or not text.strip():
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

    Names that repeat their neighbour and pieces of markup are left out; of several paths (2014) the first counts.

    >>> category('["Gift Cards", "Gift Cards", "Restaurants &amp; Food", "</span></span>"]', Counter())
    'Gift Cards - Restaurants & Food'
    >>> counts = Counter()
    >>> category('[["Office", "Pens"], ["School"]]', counts), dict(counts)
    ('Office - Pens', {'further_categories': 1, 'category_list': 1})
    """
    names: list[str] = []
    for name in _path(text, counts):
        if MARKUP.search(name):
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
    parts = _texts(text, "description_list", counts)
    return " ".join(part for part in (plain(part, counts) for part in parts) if part) or None


def _texts(text: str | None, rule: str, counts: Counter[str]) -> list[str]:
    """The strings in a list, or the text itself where it is none."""
    return _strings(text, _list(text), rule, counts)


def _path(text: str | None, counts: Counter[str]) -> list[str]:
    found = _list(text)
    if found and isinstance(found[0], list):
        if len(found) > 1:
            counts["further_categories"] += 1
        found = found[0]
    return _strings(text, found, "category_list", counts)


def _strings(text: str | None, found: list[Any] | None, rule: str, counts: Counter[str]) -> list[str]:
    if found is None:
        return [text] if text else []
    strings = [part for part in found if isinstance(part, str)]
    if strings:
        counts[rule] += 1
    return strings


def _list(text: str | None) -> list[Any] | None:
    r"""The list that a text holds, as JSON or as pandas leaves it in a CSV; None where it holds none.

    >>> _list('["a", "b"]'), _list("['a', 'b']"), _list("['a' \"b's\"]"), _list("[sic] a")
    (['a', 'b'], ['a', 'b'], ['a', "b's"], None)
    """
    if not text or not text.startswith("["):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, list) else None
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        # An array of numpy is written without commas, and Python would make one text of its texts.
        found = ast.literal_eval(re.sub(r"""(['"])\s+(['"])""", r"\1, \2", text))
        return found if isinstance(found, list) else None
    return None


def _counted(before: str, after: str, rule: str, counts: Counter[str]) -> str:
    if before != after:
        counts[rule] += 1
    return after
