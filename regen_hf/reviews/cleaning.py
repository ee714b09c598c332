"""Rules that turn the raw text of a release into values: markup, entities, prices, categories."""

from __future__ import annotations

import contextlib
import html
import json
import re

import pyarrow as pa
import pyarrow.compute as pc

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
SUSPECT = r"[<\x00\x{a0}]|&[#\w]+;"
"""Text without this needs no cleaning."""
AMOUNT = r"\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
PRICE = re.compile(rf"(?:from\s+)?{AMOUNT}(?:\s*(?:-|–|to)\s*{AMOUNT})?")


def plain(text: str) -> str:
    r"""Text as a reader sees it: no markup, line breaks and entities as characters.

    >>> plain("Tom &amp; I<br />love it &#34;a lot&#34; <3 <b>really</b>")
    'Tom & I\nlove it "a lot" <3 really'
    """
    if "<" in text:
        text = TAG.sub("", BREAK.sub("\n", HIDDEN.sub(" ", text)))
    return html.unescape(text).replace("\x00", "").replace("\xa0", " ").strip()


def plain_column(column: pa.ChunkedArray) -> pa.Array:
    """`plain` over a column of text; blank text becomes null. Values that need no cleaning never become Python."""
    column = pc.utf8_trim_whitespace(column.combine_chunks())
    suspect = pc.fill_null(pc.match_substring_regex(column, SUSPECT), False)
    if pc.any(suspect).as_py():
        cleaned = pa.array([plain(text) for text in column.filter(suspect).to_pylist()], column.type)
        column = pc.replace_with_mask(column, suspect, cleaned)
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)


def title(text: str | None) -> str | None:
    r"""A title on one line, None where it is missing, blank or a piece of a web page.

    >>> title("  Maggiano&#39;s\n Gift Card "), title('<span id="productTitle" class="a-size'), title(" ")
    ("Maggiano's Gift Card", None, None)
    """
    if not text or MARKUP.search(text):
        return None
    return " ".join(plain(text).split()) or None


def price(text: str | None) -> float | None:
    """USD. Of a range the lower end; None where the text is no price.

    >>> price("$9.99"), price("$1,250.00 - $2,000.00"), price("19.5"), price(".a-box-inner{color:#fff}")
    (9.99, 1250.0, 19.5, None)
    """
    match = PRICE.fullmatch(text.strip()) if text and len(text) < 100 else None
    return min(float(amount.replace(",", "")) for amount in match.groups() if amount) if match else None


def category(text: str | None) -> str | None:
    """The path of categories as the official release writes it: one string, joined by " - ".

    Names that repeat their neighbour and pieces of markup are left out; of several paths (2014) the first counts.

    >>> category('["Gift Cards", "Gift Cards", "Restaurants &amp; Food", "</span></span>"]')
    'Gift Cards - Restaurants & Food'
    >>> category('[["Office", "Pens"], ["School"]]')
    'Office - Pens'
    """
    names: list[str] = []
    for name in _path(text):
        clean = title(name)
        if clean and clean not in names[-1:]:
            names.append(clean)
    return " - ".join(names) or None


def description(text: str | None) -> str | None:
    """The paragraphs of a description as one text, joined by a space.

    >>> description('["<p>Fine pens.</p>", "", "Set of 3."]')
    'Fine pens. Set of 3.'
    """
    return " ".join(part for part in map(plain, _texts(text)) if part) or None


def _texts(text: str | None) -> list[str]:
    """The strings in a JSON list, or the text itself where it is none."""
    if text and text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return [part for part in json.loads(text) if isinstance(part, str)]
    return [text] if text else []


def _path(text: str | None) -> list[str]:
    if text and text.startswith("[["):
        with contextlib.suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text)[0])
    return _texts(text)
