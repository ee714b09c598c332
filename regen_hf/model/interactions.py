"""What one interaction is to the model: t_i of section 4.2, item metadata and the customer's review, and its features.

The sentence embedding of the text is the content vector s_i. The embedding stage, the collator and the processor call
these functions, so what the model saw in training is what it sees afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def interaction_features(
    history: Sequence[Mapping[str, Any]], names: Sequence[str], withheld: bool = False
) -> list[list[float]]:
    """The features `names` of each purchase, NaN where unknown.

    `rating` is the customer's, 1 to 5; `age` counts the days from the purchase to the latest one of the history.

    Args:
        history: purchases, oldest first.
        names: some of "rating", "age".
        withheld: leave out the last review (section 3.2), and with it its rating.

    >>> day = 24 * 3600
    >>> history = [{"review": {"rating": 5, "unix_time": day}}, {"review": {"rating": 2, "unix_time": 8 * day}}]
    >>> interaction_features(history, ["rating", "age"], withheld=True)
    [[5.0, 7.0], [nan, 0.0]]
    """
    reviews = [purchase.get("review") or {} for purchase in history]
    times = [review["unix_time"] for review in reviews if review.get("unix_time") is not None]
    latest = max(times, default=0)
    table = []
    for place, review in enumerate(reviews):
        hidden = withheld and place == len(reviews) - 1
        rating, time = (None if hidden else review.get("rating")), review.get("unix_time")
        values = {
            "rating": float("nan") if rating is None else float(rating),
            "age": float("nan") if time is None else (latest - time) / 86_400,
        }
        table.append([values[name] for name in names])
    return table


def _cut(text: str | None, limit: int) -> str | None:
    """At most `limit` characters, ending at a space where there is one."""
    if text is None or len(text) <= limit:
        return text
    head = text[: limit + 1]
    return head.rsplit(None, 1)[0][:limit] if any(character.isspace() for character in head) else head[:limit]
