"""The text t_i of an interaction (section 4.2), from item metadata and the customer's review, and its features.

The sentence embedding of the text is the content vector s_i. The embeddings stage, the collator and the processor use
these functions, so that the model reads the same in training and afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_DESCRIPTION = 500
"""Maximum characters of a description: an encoder reads 256 to 512 tokens, and the review follows the description."""
MAX_REVIEW = 1000
"""Maximum characters of a review's text."""


def interaction_text(item: Mapping[str, Any], review: Mapping[str, Any] | None) -> str:
    """The text t_i of an interaction; without a review, the item's metadata only.

    Missing, null and empty fields are left out, as is a price of 0, which the official release uses for "unknown".

    Args:
        item: title, category, description, price (USD); `asin` is not part of the text.
        review: summary, rating (1..5), text.

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


def without_last_review(history: Sequence[Mapping[str, Any]], number: int = 1) -> list[Any]:
    """The purchases of `history` with None as the last review: the view of metadata-only tasks (section 3.2).

    `number` is how many of the last reviews are None.

    >>> without_last_review([{"item": {"title": "Gel pen"}, "review": {"rating": 5}}])
    [{'item': {'title': 'Gel pen'}, 'review': None}]
    """
    shown = max(0, len(history) - number)
    return [*history[:shown], *({**purchase, "review": None} for purchase in history[shown:])]


def interaction_features(
    history: Sequence[Mapping[str, Any]], names: Sequence[str], withheld: int = 0
) -> list[list[float]]:
    """The features `names` of each purchase, NaN where unknown.

    `rating` is the customer's, 1 to 5; `age` is the number of days from the purchase to the latest of the history.

    Args:
        history: purchases, oldest first.
        names: some of "rating", "age".
        withheld: number of the last reviews to leave out with their ratings; the date of a purchase is known without.

    >>> day = 24 * 3600
    >>> history = [{"review": {"rating": 5, "unix_time": day}}, {"review": {"rating": 2, "unix_time": 8 * day}}]
    >>> interaction_features(history, ["rating", "age"], withheld=1)
    [[5.0, 7.0], [nan, 0.0]]
    """
    shown = without_last_review(history, withheld)
    ratings = [(purchase.get("review") or {}).get("rating") for purchase in shown]
    times = [(purchase.get("review") or {}).get("unix_time") for purchase in history]
    latest = max((time for time in times if time is not None), default=0)
    columns = {
        "rating": [math.nan if rating is None else float(rating) for rating in ratings],
        "age": [math.nan if time is None else (latest - time) / 86_400 for time in times],
    }
    return [[columns[name][row] for name in names] for row in range(len(history))]


def _cut(text: str | None, limit: int) -> str | None:
    """At most `limit` characters of `text`, cut at a space where there is one."""
    if text is None or len(text) <= limit:
        return text
    head = text[: limit + 1]
    return head.rsplit(None, 1)[0][:limit] if any(character.isspace() for character in head) else head[:limit]
