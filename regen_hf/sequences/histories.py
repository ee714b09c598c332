"""THE expression: what one ibis expression says, any engine runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reviews.canonical import REVIEWS
from ..schema import hash_bound

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from . import SequencesConfig

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


def best_items(items: ir.Table) -> ir.Table:
    """One record for each asin, in the order of asin, with `records`, how many there were of it.

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
    return numbered.filter(numbered.place == 0).drop("place").order_by("asin")


def histories(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """THE expression: canonical reviews -> one row for each user who wrote any.

    Args:
        reviews: columns of `reviews.canonical.REVIEWS`.
        items: `asin` of every known item, unique; `place`, its row in the catalogue, null if it has no title; and
            `core`, whether it is in the k-core.
        config: gives the dates, `k_core`, `max_history`, `min_history` and the shares of the splits.

    Returns:
        `user_hash`, `reviewer_id`, `split`; `history`, a list of (unix_time, place, rating, summary, text), oldest
        first, null if the user is dropped, in which no rating is 0 and no text is ""; `read` and a column for each of
        `DROPS`: that many reviews of this user. In the order of `user_hash`, then `reviewer_id`.
    """
    import ibis

    joined = _joined(reviews, items, config)
    purchase = ibis.struct(
        # Sorted by the first field, then by the next: some releases know only the day, so ties are common, and every
        # field takes part so that no two purchases compare as equal. Places are in the order of asin. Engines differ
        # in where they sort a null, so there is none.
        {
            "unix_time": joined.unix_time,
            "place": joined.place,
            "rating": joined.rating.fill_null(0),
            "summary": joined.summary.fill_null(""),
            "text": joined.text.fill_null(""),
        }
    )
    users = joined.group_by("user_hash", "reviewer_id").agg(
        read=joined.copies.sum(),
        duplicate=(joined.copies - 1).sum(),
        before_since=joined.early.sum(),
        after_until=joined.late.sum(),
        unknown_item=(joined.dated & joined.known.isnull()).sum(),
        untitled_item=(joined.dated & joined.known.notnull() & joined.place.isnull()).sum(),
        titled=joined.titled.sum(),
        in_core=joined.in_core.sum(),
        history=purchase.collect(where=joined.in_core),
    )
    # A user with k purchases of items of the core is in the core.
    usable = ibis.ifelse(users.in_core >= config.k_core, users.in_core, 0)
    kept = ibis.least(usable, config.max_history)
    long_enough = usable >= config.min_history
    # Without the end of the slice, ibis has the list sorted a second time to know its length.
    newest = users.history.sort()[-config.max_history : users.history.length()]
    return users.select(
        "user_hash",
        "reviewer_id",
        "read",
        "duplicate",
        "before_since",
        "after_until",
        "unknown_item",
        "untitled_item",
        split=split(users.user_hash, config),
        k_core=users.titled - usable,
        beyond_max_history=usable - kept,
        short_history=ibis.ifelse(long_enough, 0, kept),
        history=ibis.ifelse(long_enough, newest, ibis.null(users.history.type())),
    ).order_by("user_hash", "reviewer_id")


def baskets(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """The purchases from which the k-core is taken: for each user `places`, a row of the catalogue for each of them."""
    joined = _joined(reviews, items, config)
    bought = joined.filter(joined.titled)
    return bought.group_by("user_hash", "reviewer_id").agg(places=bought.place.collect()).select("places")


def _joined(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """Each distinct review once, with what is known of its item and whether it counts."""
    distinct = reviews.group_by(list(REVIEWS.names)).agg(copies=reviews.count())
    joined = distinct.left_join(items.mutate(known=True), "asin").drop("asin_right")
    first, after = config.seconds
    early, late = joined.unix_time < first, joined.unix_time >= after
    dated = ~(early | late)
    titled = dated & joined.place.notnull()
    in_core = titled & joined.core.fill_null(False)
    return joined.mutate(early=early, late=late, dated=dated, titled=titled, in_core=in_core)


def split(user_hash: ir.StringValue, config: SequencesConfig) -> ir.StringValue:
    """The split of a user: the range into which the first 8 hex digits of md5(reviewer_id) fall, compared as text.

    Text of one length compares like the number, and alike on every engine.
    """
    import ibis

    return ibis.cases(
        (user_hash < hash_bound(config.test), "test"),
        (user_hash < hash_bound(config.test + config.validation), "validation"),
        else_="train",
    )
