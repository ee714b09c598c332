"""Fields that are still text -> canonical rows: types, the reasons to refuse a record, and the cleaning, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..schema import ITEMS
from . import cleaning
from .scrubbing import EMAIL, scrub_column

if TYPE_CHECKING:
    import ibis.expr.types as ir

REVIEWS = pa.schema(
    [
        ("user_hash", pa.string()),  # first 8 hex digits of md5(reviewer_id)
        ("reviewer_id", pa.string()),
        ("asin", pa.string()),
        ("unix_time", pa.int64()),  # seconds
        ("rating", pa.int64()),
        ("summary", pa.string()),
        ("text", pa.string()),
    ]
)
SCHEMAS = {"reviews": REVIEWS, "items": ITEMS}
FLAGS = ("milliseconds", "iso_date", "compact_date", "rounded_rating", "empty_review")
"""Rules of which a column of the same name says where they applied."""
MILLISECONDS = 10**11
"""Times from here on are milliseconds: as seconds this is the year 5138, as milliseconds the year 1973."""
LATEST = 1000.0 * MILLISECONDS
DATE = (
    r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?)"
    r"(?: ?(?:Z|UTC|([+-])([0-9]{2}):?([0-9]{2})?))?\s*$"
)
"""ISO 8601: a day, or a moment with or without an offset; without one it is UTC."""


COMPACT_DATE = r"^\s*(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:\.0)?\s*$"
"""YYYYMMDD. As seconds these numbers are days of August and September 1970, before there were reviews to log."""


def refuse_emails(rows: pa.Table) -> pa.Table:
    """Refuse the reviews whose user is an e-mail address: it cannot become a marker, or all users would be one."""
    suspect = pc.fill_null(pc.match_substring(rows["reviewer_id"], "@"), False)
    emails = [text for text in rows["reviewer_id"].filter(suspect).to_pylist() if EMAIL.search(text)]
    return refused(rows, pc.is_in(rows["reviewer_id"], pa.array(emails, pa.string())), "email_as_user")


def clean_reviews(rows: pa.Table, counts: Counter[str], *, scrub: bool) -> pa.Table:
    """Clean the texts of `typed_reviews`, and add `empty_review`.

    Args:
        rows: typed reviews of which none is refused.
        counts: the values that a rule of cleaning changed are added here, by the rule.
        scrub: put markers in the place of e-mail addresses, phone numbers, URLs and card numbers.
    """
    for name in ("summary", "text"):
        column = cleaning.plain_column(rows[name], counts)
        rows = _replaced(rows, name, scrub_column(column, counts) if scrub else column)
    return rows.append_column("empty_review", pc.and_(pc.is_null(rows["summary"]), pc.is_null(rows["text"])))


def clean_items(rows: pa.Table, counts: Counter[str]) -> pa.Table:
    """Clean `typed_items`; arguments as in `clean_reviews`. Nothing is scrubbed: no customer wrote these texts."""
    rules: dict[str, Callable[[str | None, Counter[str]], object]] = {
        "title": cleaning.title,
        "category": cleaning.category,
        "description": cleaning.description,
        "price": cleaning.price,
    }
    for name, rule in rules.items():
        texts = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        values = []  # of each text once: categories and prices recur
        for text, times in zip(texts.dictionary.to_pylist(), np.bincount(texts.indices).tolist(), strict=True):
            found = Counter[str]()
            values.append(rule(text, found))
            for cleaned, many in found.items():
                counts[cleaned] += times * many
        rows = _replaced(rows, name, pa.array(values, ITEMS.field(name).type).take(texts.indices))
    return rows


def refused(rows: pa.Table, where: pa.ChunkedArray, reason: str) -> pa.Table:
    """`rows` with this reason to refuse those `where` it is true and no other reason is given."""
    return _replaced(rows, "reject", pc.if_else(pc.and_(where, pc.is_null(rows["reject"])), reason, rows["reject"]))


def flagged(rows: pa.Table) -> dict[str, int]:
    """How many of the rows each rule of `FLAGS` applied to."""
    return {name: pc.sum(rows[name]).as_py() or 0 for name in FLAGS if name in rows.column_names}


def typed_reviews(fields: ir.Table) -> ir.Table:
    """Reviews with types and the reasons to refuse them; the texts not yet clean."""
    import ibis

    # Step by step, each a column for the next: ibis writes out an expression wherever it is used, and every chunk pays
    # for the planning of the query.
    table = _complete(fields, REVIEWS.names[1:])
    nothing = ibis.null("float64")
    table = table.mutate(
        reviewer_id=_stripped(table.reviewer_id),
        asin=_stripped(table.asin),
        value=table.unix_time.try_cast("float64"),
        stars=table.rating.nullif("").try_cast("float64"),
    )
    # Few numbers are looked at as text.
    table = table.mutate(
        is_day=ibis.ifelse(table.value.between(19000101, 20991231), table.unix_time.re_search(COMPACT_DATE), False)
    )
    table = table.mutate(
        seconds=ibis.ifelse(table.is_day, nothing, table.value),
        day=ibis.ifelse(table.is_day, _midnight(table.unix_time), nothing),
    )
    table = table.mutate(
        date=ibis.ifelse(table.seconds.isnull() & table.day.isnull(), _seconds(table.unix_time), nothing)
    )
    table = table.mutate(
        time=ibis.coalesce(table.seconds, table.day, table.date),
        invalid_rating=table.stars.isnull() & table.rating.nullif("").notnull(),
        stars=ibis.ifelse(table.stars.isnan(), nothing, table.stars),  # how pandas writes a missing number
        milliseconds=(table.seconds >= MILLISECONDS).fill_null(False),
    )
    good_time, good_stars = table.time.between(0, LATEST), table.stars.between(1, 5)
    # A look at what is right with a record comes first: of nearly all of them nothing else is asked.
    good = table.reject.isnull() & ~table.nested & (table.reviewer_id > "") & (table.asin > "") & good_time & good_stars
    reasons = ibis.cases(
        (table.reject.notnull(), table.reject),
        (table.nested, "wrong_type"),
        (table.reviewer_id.fill_null("") == "", "missing_user"),
        (table.asin.fill_null("") == "", "missing_item"),
        (table.time.isnull() & (table.unix_time.fill_null("").strip() == ""), "missing_time"),
        (~good_time.fill_null(False), "invalid_time"),
        (table.invalid_rating, "invalid_rating"),
        (~good_stars.fill_null(True), "rating_out_of_scale"),
        else_=ibis.null("string"),
    )
    reject = ibis.ifelse(good, ibis.null("string"), reasons)
    # Only good values are rounded: an infinite one is no integer.
    time = ibis.ifelse(good_time, table.time, nothing)
    stars = ibis.ifelse(good_stars, table.stars, nothing)
    return table.select(
        "number",
        *_layout(table),
        reject=reject,
        user_hash=table.reviewer_id.hexdigest("md5").left(8),
        reviewer_id=table.reviewer_id,
        asin=table.asin,
        unix_time=ibis.ifelse(table.milliseconds, time / 1000, time).floor().cast("int64"),
        rating=(stars + 0.5).floor().cast("int64"),
        summary=table.summary,
        text=table.text,
        milliseconds=table.milliseconds,
        iso_date=table.date.notnull(),
        compact_date=table.day.notnull(),
        rounded_rating=(stars != stars.floor()).fill_null(False),
    )


def typed_items(fields: ir.Table) -> ir.Table:
    """Items with the reasons to refuse them, all still text."""
    import ibis

    fields = _complete(fields, ITEMS.names)
    asin = _stripped(fields.asin)
    reject = ibis.cases(
        (fields.reject.notnull(), fields.reject),
        (fields.nested, "wrong_type"),
        (asin.fill_null("") == "", "missing_asin"),
        else_=ibis.null("string"),
    )
    texts = (name for name in ITEMS.names if name != "asin")
    return fields.select("number", *_layout(fields), reject=reject, asin=asin, **{name: fields[name] for name in texts})


def _midnight(text: ir.StringValue) -> ir.FloatingValue:
    """Unix seconds of a day as YYYYMMDD, null where there is no such day."""
    digits = text.strip()
    return (digits[:4] + "-" + digits[4:6] + "-" + digits[6:8]).try_cast("timestamp").epoch_seconds().cast("float64")


def _seconds(text: ir.StringValue) -> ir.FloatingValue:
    """Unix seconds of an ISO date, null where the text is none."""
    import ibis

    # A cast alone takes "infinity" and named zones, and leaves out the offset.
    is_date = text.re_search(DATE)
    moment = ibis.ifelse(is_date, text.re_extract(DATE, 1), ibis.null("string")).try_cast("timestamp")
    hours, minutes = (text.re_extract(DATE, group).nullif("").try_cast("int64").fill_null(0) for group in (3, 4))
    sign = ibis.ifelse(text.re_extract(DATE, 2) == "-", -1, 1)
    return moment.epoch_seconds().cast("float64") - sign * (hours * 3600 + minutes * 60)


def _stripped(text: ir.StringValue) -> ir.StringValue:
    """`text` without blanks around it. To look if there are any takes a quarter of the time of stripping them."""
    import ibis

    blank = (text < "!") | (text.right(1) < "!")  # all blanks come before "!"
    return ibis.ifelse(blank, text.strip(), text)


def _complete(fields: ir.Table, names: list[str]) -> ir.Table:
    """`fields` with the columns that no column of the file holds, null."""
    import ibis

    return fields.mutate(**{name: ibis.null("string") for name in names if name not in fields.columns})


def _layout(fields: ir.Table) -> list[str]:
    return ["layout"] if "layout" in fields.columns else []


def _replaced(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)
