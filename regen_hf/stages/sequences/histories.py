"""THE expression: what one ibis expression says, any engine runs. `cutting` makes users of its rows."""

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
"""Reasons for which a good review is dropped, in the order in which they are looked at."""
KEPT = -1
"""In the place of such a reason, for none."""
ORDER = ("user_hash", "reviewer_id", "unix_time", "place", "other", "rating")
"""The order of purchases. Some releases know only the day, so ties are common: every field takes part. Places are in
the order of asin. The last two, summary and text, `cutting` compares where all else is equal: an engine would copy
every text to sort by it. Engines differ in where they sort a null: no kept purchase has one."""


def best_items(items: ir.Table) -> ir.Table:
    """One record for each asin, with `records`, how many there were of it.

    A record with a title is kept before one without, then that with most fields, then that with most text; ties are
    decided by the text itself.
    """
    import ibis

    columns = [items[name] for name in ("title", "category", "description", "price")]
    texts = columns[:3]
    place = ibis.row_number().over(
        group_by=items.asin,
        order_by=[
            items.title.isnull(),
            ibis.desc(sum(column.notnull().cast("int64") for column in columns)),
            ibis.desc(sum(column.length().fill_null(0) for column in texts)),
            *(column.fill_null("") for column in texts),
            items.price.fill_null(-1),
        ],
    )
    numbered = items.mutate(place=place, records=items.count().over(group_by=items.asin))
    return numbered.filter(numbered.place == 0).drop("place")


def purchases(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """THE expression: canonical reviews -> the same with the row of their item, or why they are dropped.

    Args:
        reviews: columns of `reviews.canonical.REVIEWS`.
        items: `asin` of every known item, unique; `place`, its row in the catalogue, null if it has no title; and
            `core`, whether it is in the k-core.
        config: gives the dates.

    Returns:
        The columns of `ORDER`, `summary` and `text`, in which no rating, summary and text is null: 0 and "" stand for
        it, and `other` is the asin of an item without a place, else ""; and `drop`, the place of its reason in `DROPS`,
        or `KEPT`. Copies are still there: in this order they stand side by side, and are found for less than by
        grouping.
    """
    import ibis

    joined = reviews.left_join(items.mutate(known=True), "asin")
    first, after = config.seconds
    reasons = {
        "before_since": joined.unix_time < first,
        "after_until": joined.unix_time >= after,
        "unknown_item": joined.known.isnull(),
        "untitled_item": joined.place.isnull(),
        "k_core": ~joined.core.fill_null(False),
    }
    drop = ibis.cases(*((where, DROPS.index(name)) for name, where in reasons.items()), else_=KEPT)
    return joined.select(
        "user_hash",
        "reviewer_id",
        "unix_time",
        "place",
        other=ibis.ifelse(joined.place.isnull(), joined.asin, ""),
        rating=joined.rating.fill_null(0),
        summary=joined.summary.fill_null(""),
        text=joined.text.fill_null(""),
        drop=drop.cast("int8"),
    )


def baskets(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """The purchases from which the k-core is taken: for each user `places`, a row of the catalogue for each of them."""
    joined = reviews.distinct().inner_join(items.filter(items.place.notnull()), "asin")
    first, after = config.seconds
    bought = joined.filter(joined.unix_time >= first, joined.unix_time < after)
    return bought.group_by("user_hash", "reviewer_id").agg(places=bought.place.collect()).select("places")
