"""Texts that mean a missing value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

NULL_WORDS = ("", "\\N", "NULL", "null", "NA", "NaN", "nan", "None")
"""In rating, time and price of every format, and in unquoted ids of CSV files."""


def is_null_word(text: ir.StringValue) -> ir.BooleanValue:
    """Whether `text` is null or one of `NULL_WORDS`, surrounded by whitespace or not."""
    words = "|".join(map(re.escape, NULL_WORDS))
    return text.fill_null("").re_search(rf"^\s*(?:{words})\s*$")  # DuckDB plans a list of words as a join for all rows
