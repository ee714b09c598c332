"""Untrusted text on a terminal.

Characters that move the cursor, change colours or the reading direction are shown as escapes, never sent to the
terminal.
"""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator
from typing import Any

UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, and marks that change the reading direction."""


def clean(text: Any) -> str:
    r"""Text that is safe to print, with control characters and marks of direction as escapes.

    >>> print(clean("a\x1b[31mred\u202e"))
    a\x1b[31mred\u202e
    """
    return UNSAFE.sub(lambda match: ascii(match[0])[1:-1], str(text))


def one_line(text: Any) -> str:
    """`clean` text with single spaces in place of line breaks and other spaces."""
    return " ".join(clean(text).split())


def wrapped(text: str, width: int, indent: str = "") -> Iterator[str]:
    """Lines of `text` of at most `width` columns; line breaks of the text stay."""
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, width - len(indent)) or [""]:
            # Characters of two columns (Chinese, Japanese, Korean, emoji) count as two.
            while columns(line) > width - len(indent):
                head = cut(line, width - len(indent), mark="")
                yield indent + head
                line = line[len(head) :].lstrip()
            yield indent + line


def cut(text: str, most: int, mark: str = "…") -> str:
    """`text` cut to at most `most` columns, with a mark if it is cut."""
    if columns(text) <= most:
        return text
    kept = ""
    for letter in text:
        if columns(kept + letter) > most - len(mark):
            break
        kept += letter
    return kept.rstrip() + mark if mark else kept


def columns(text: str) -> int:
    """The width of a text on a terminal, in columns."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def usable_width(width: int | None) -> int:
    """The width of the output: `width`, or that of the terminal, within reason."""
    return max(min(width or shutil.get_terminal_size().columns, 110), 40)
