"""Personal data in text -> typed markers: e-mail addresses, phone numbers, URLs, card numbers.

A log has millions of texts, few of which contain any of these, and the libraries that were tried are slow on each text
(datafog, which ignores URLs; phonenumbers, which needs the country). One Arrow expression selects the texts that may
contain any, and only those become Python objects.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

# Each expression starts at the start of a run of its characters, so that long texts need linear time.
TLD = "com|net|org|info|biz|edu|gov|io|co|ly|to|me|tv|us|uk|de|fr|ca|gl"
URL = re.compile(
    rf"(?i)(?<![\w@.])(?:(?:https?|ftp)://|www\.|[\w-]+(?:\.[\w-]+)*\.(?:{TLD})/)[^\s<>\"']*[^\s<>\"'.,;:!?()\[\]]"
)
# Repeated, because an address may end with a character that can start the next.
EMAIL = re.compile(r"(?<![\w.%+-])(?:[\w.%+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}(?![\w-]))+")
CARD = re.compile(
    r"(?<![\w-])(?:[2-6][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|3[47][0-9]{2}([ -]?)[0-9]{6}\2[0-9]{5}|[2-6][0-9]{12,18})(?![\w-])"
)
PHONE = re.compile(
    r"(?<![\w.+-])(?:\+[0-9]{1,3}(?:[ .()/-]{0,2}[0-9]){6,12}"  # international
    r"|(?:1[ .-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}"  # North America
    r"|0[0-9]{2,4}[ /-][0-9]{3,4}[ -]?[0-9]{3,4})(?![\w-])"  # with the trunk 0 of most other countries
)
CALL = re.compile(
    r"(?i)\b((?:call|phone|tel|telephone|cell|mobile|fax|text|whatsapp)\.?:?"
    r"(?: (?:me|us|at|on|number|no\.?|is)){0,3}:? )[0-9](?:[ .-]?[0-9]){6,11}(?![\w-])"
)
"""Digits after a word that marks a phone number; the word is kept."""
DIGITS = r"[0-9][0-9 ().+/-]{5,}[0-9]"
SUSPECT = rf"(?i)@|://|www\.|\.(?:{TLD})/|{DIGITS}"


def scrub(text: str, counts: Counter[str]) -> str:
    """`text` with a marker instead of each e-mail address, phone number, URL and card number.

    A number is a card number if its check digit is valid (Luhn).

    >>> counts = Counter()
    >>> scrub("Mail joe@example.com or call 5551234567; see www.example.com/a.", counts)
    'Mail [EMAIL] or call [PHONE]; see [URL].'
    >>> scrub("4111 1111 1111 1111 was charged, 4111 1111 1111 1112 is no card, (555) 123-4567", counts)
    '[CARD] was charged, 4111 1111 1111 1112 is no card, [PHONE]'
    >>> dict(counts)
    {'scrubbed_url': 1, 'scrubbed_email': 1, 'scrubbed_phone': 2, 'scrubbed_card': 1}
    """
    patterns: list[tuple[str, re.Pattern[str]]] = []
    if "/" in text or "www." in text.lower():
        patterns.append(("url", URL))
    if "@" in text:
        patterns.append(("email", EMAIL))
    if re.search(DIGITS, text):
        patterns += [("card", CARD), ("phone", PHONE), ("phone", CALL)]
    for name, pattern in patterns:
        text = pattern.sub(partial(_marker, name, counts), text)
    return text


def _marker(name: str, counts: Counter[str], match: re.Match[str]) -> str:
    if name == "card" and not _luhn(match[0]):
        return match[0]
    counts[f"scrubbed_{name}"] += 1
    word = match[1] if match.re is CALL else ""
    return f"{word}[{name.upper()}]"


def scrub_column(column: pa.Array, counts: Counter[str]) -> pa.Array:
    """`scrub` for a column of text; only texts that may contain personal data become Python objects."""
    suspect = pc.fill_null(pc.match_substring_regex(column, SUSPECT), False)
    if not pc.any(suspect).as_py():
        return column
    scrubbed = pa.array([scrub(text, counts) for text in column.filter(suspect).to_pylist()], column.type)
    return pc.replace_with_mask(column, suspect, scrubbed)


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
