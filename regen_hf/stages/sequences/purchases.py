"""Canonical reviews -> purchases with their item or the reason to drop them: one ibis expression for any engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from .settings import SequencesConfig

DROPS = (
    "duplicate",
    "before_since",
    "after_until",
    "unknown_item",
    "untitled_item",
    "k_core",
    "beyond_max_history",
    "short_history",
)
"""Reasons to drop a valid review, in the order in which they are checked."""
KEPT = -1
"""The value of `drop` for a purchase that is kept."""
ORDER = ("user_hash", "reviewer_id", "time", "asin", "rating")
"""The order of purchases in which `histories` reads them. It sorts purchases with the same time by a hash, and by
summary and text where all else is equal: an engine would hash every row, and copy every text to sort by it. Engines
sort nulls differently: no kept purchase has one."""


def purchases(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """Reviews with the row of their item in the catalogue, or the reason why they are dropped.

    Args:
        reviews: columns of `reviews.canonical.REVIEWS`.
        items: `asin` of every known item, unique; `item`, its row in the catalogue, null if it has no title; and
            `core`, whether it is in the k-core.
        config: gives the dates.

    Returns:
        The columns of `ORDER`, `item`, `summary` and `text`; and `drop`, an index of `DROPS`, or `KEPT`. 0 and ""
        replace null in rating, summary and text. Duplicates are still included: in this order they are adjacent, which
        is cheaper to detect than grouping.
    """
    import ibis

    joined = reviews.left_join(items.mutate(known=True), "asin")
    first, after = config.nanoseconds
    reasons = {
        "before_since": joined.time < first,
        "after_until": joined.time >= after,
        "unknown_item": joined.known.isnull(),
        "untitled_item": joined.item.isnull(),
        "k_core": ~joined.core.fill_null(False),
    }
    drop = ibis.cases(*((condition, DROPS.index(name)) for name, condition in reasons.items()), else_=KEPT)
    return joined.select(
        "user_hash",
        "reviewer_id",
        "time",
        "asin",
        "item",
        rating=joined.rating.fill_null(0),
        summary=joined.summary.fill_null(""),
        text=joined.text.fill_null(""),
        drop=drop.cast("int8"),
    )


def baskets(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """The purchases from which the k-core is computed: `items`, a list of rows of the catalogue for each user."""
    joined = reviews.distinct().inner_join(items.filter(items.item.notnull()), "asin")
    first, after = config.nanoseconds
    in_period = joined.filter(joined.time >= first, joined.time < after)
    return in_period.group_by("user_hash", "reviewer_id").agg(items=in_period.item.collect()).select("items")
