"""Loops in a text: small language models repeat the same words until the maximum length of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LETTERS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
UNSPACED = re.compile(f"[{_LETTERS}]")
"""A letter of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
WORDLESS = 16
"""Characters in a row, none of a word, that count as a word."""
_UNIT = re.compile(rf"([{_LETTERS}]|[^\W{_LETTERS}]+)|\W{{{WORDLESS}}}")
LONGEST = 40
"""Maximum words of the part that a loop repeats."""


def units(text: str) -> list[str]:
    """The words of a text in lower case; in scripts without spaces, its letters. Empty for WORDLESS other characters.

    >>> units("A red 赤いペン."), units("A pen" + 30 * "]}")
    (['a', 'red', '赤', 'い', 'ペ', 'ン'], ['a', 'pen', '', '', ''])
    """
    return _UNIT.findall(text.lower())


def has_loop(tokens: Sequence[str]) -> bool:
    """Whether the same 1 to LONGEST words follow each other three times; four times for one or two words.

    >>> has_loop(units("They like pens and pens and pens and pens and pens.")), has_loop(units("good good good good"))
    (True, True)
    >>> has_loop(units("They like very, very good pens."))
    False
    """
    sizes = range(1, min(LONGEST, len(tokens) // 3) + 1)
    return any(_longest_run(tokens, size) >= max(2 * size, 3 if size == 1 else 6) for size in sizes)


def ends_in_loop(answer: str) -> bool:
    """Whether the last text of an unfinished JSON object ends in a loop.

    >>> ends_in_loop('{"a": "They like pens and pens and pens and pens and pe')
    True
    >>> ends_in_loop('{"a": "pens pens pens pens pens", "b": "They'), ends_in_loop('{"a": "pens, pens, pens, pen')
    (False, False)
    """
    from pydantic_core import from_json

    texts = list(from_json(answer, allow_partial="trailing-strings").values())
    # Without the last word, which may continue.
    return bool(texts) and isinstance(texts[-1], str) and has_loop(units(texts[-1])[-3 * LONGEST - 1 : -1])


def _longest_run(tokens: Sequence[str], size: int) -> int:
    """The most tokens in a row that equal the token `size` before them."""
    longest = run = 0
    for before, after in zip(tokens, tokens[size:], strict=False):
        run = run + 1 if before == after else 0
        longest = max(longest, run)
    return longest
