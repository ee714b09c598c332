"""The text of one interaction, t_i of section 4.2: item metadata, then the customer's review of it.

Its sentence embedding is the content vector s_i. The embedding stage and the processor both call this function, so what
the model saw in training is what it sees afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DESCRIPTION = 500
"""Characters kept of a description: an encoder reads 256 to 512 tokens, and the review after it must fit too."""

MAX_REVIEW = 1000
"""Characters kept of a review's text."""


def interaction_text(item: Mapping[str, Any], review: Mapping[str, Any] | None) -> str:
    """The text whose embedding stands for this interaction; without a review, the item's metadata only.

    Missing, null and empty fields are left out, and so is a price of 0, which the official release uses for "unknown".

    Args:
        item: title, category, description, price (USD); `asin` is not part of the text.
        review: summary, rating (1..5), text; None withholds it (section 3.2).

    >>> print(interaction_text({"title": "Gel pen", "category": "Office - Pens", "price": 2.5}, {"rating": 5}))
    Gel pen
    Office - Pens
    Price: $2.50
    Rating: 5 of 5
    >>> interaction_text({"asin": "B01", "title": "Gel pen", "price": None}, None)
    'Gel pen'
    """
    review = review or {}
    price, rating = item.get("price"), review.get("rating")
    lines = [
        item.get("title"),
        item.get("category"),
        _cut(item.get("description"), MAX_DESCRIPTION),
        f"Price: ${price:.2f}" if price and price == price else None,  # a missing price may be null, 0 or NaN
        f"Rating: {rating:g} of 5" if rating and rating == rating else None,
        review.get("summary"),
        _cut(review.get("text"), MAX_REVIEW),
    ]
    return "\n".join(line.strip() for line in lines if line and line.strip())


def _cut(text: str | None, limit: int) -> str | None:
    """At most `limit` characters, ending at a space where there is one."""
    if text is None or len(text) <= limit:
        return text
    head = text[: limit + 1]
    return head.rsplit(None, 1)[0][:limit] if any(character.isspace() for character in head) else head[:limit]
