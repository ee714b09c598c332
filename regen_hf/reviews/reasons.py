"""Reasons to drop a record, and what was expected instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TIME = (
    "unix seconds, milliseconds, microseconds or nanoseconds, an ISO 8601 date (2023-05-11 or "
    "2023-05-11T18:02:11+02:00), 20230511, 20230511180211 or a day of a spreadsheet"
)
EXPECTED = {
    "not_json": "one JSON object per line",
    "not_an_object": "one JSON object per line",
    "repeated_key": "each mapped key once per object",
    "wrong_field_count": "as many fields in each line as in the header; --delimiter names another delimiter",
    "trailing_delimiter": "lines without a delimiter at their end, or a header with one",
    "unbalanced_quotes": "quotes in pairs, a quote inside a quoted text doubled",
    "nul_byte": "text without zero bytes",
    "not_utf8": "text in UTF-8; --encoding NAME (such as latin-1) reads another encoding",
    "blank_line": "one record per line",
    "wrong_type": "a single value in ids, time, rating, price and title, and a text in a review",
    "missing_user": "a user id in each review",
    "missing_item": "an item id in each review",
    "missing_time": "a time in each review",
    "missing_asin": "an id of each item",
    "invalid_time": TIME,
    "year_only": f"{TIME}; a year is not precise enough to order purchases",
    "time_in_1970": f"{TIME}, in 1971 or later; is another column mapped to time?",
    "invalid_rating": "a number as rating",
    "rating_out_of_scale": "a rating of 1 to 5; --rating-scale LOW HIGH maps another scale",
    "email_as_user": "user ids that are no e-mail addresses, because --scrub was given",
    "duplicate": "records that differ",
    "before_since": "reviews on or after --since",
    "after_until": "reviews on or before --until",
    "unknown_item": "reviews of items in the item files; check that reviews and items belong together",
    "untitled_item": "items with a title",
    "untitled": "items with a title",
    "k_core": "enough purchases of each user and item; choose a lower --k-core",
    "short_history": "enough purchases of each user; choose a lower --min-history",
    "beyond_max_history": "at most --max-history purchases per user",
}
"""What was expected, by reason."""


def explained(dropped: Mapping[str, int], example: Mapping[str, Any] | None = None) -> str:
    """The counts of `dropped` records, what the most frequent reason expects, and an example (a row of the rejects).

    >>> explained({"missing_user": 2, "not_json": 1})
    '2 missing_user, 1 not_json. Expected: a user id in each review.'
    """
    ordered = sorted(((count, reason) for reason, count in dropped.items() if count), reverse=True)
    counts = ", ".join(f"{count:,} {reason}" for count, reason in ordered)
    first = f" Example: line {example['line']} of {example['file']}: {example['raw'][:200]!r}." if example else ""
    return f"{counts}. Expected: {EXPECTED[ordered[0][1]]}.{first}"
