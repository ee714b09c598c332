"""Fields as text -> canonical rows: types, reasons to reject a record, and cleaning with counts."""

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
"""Rules with a column of the same name, which is true where the rule applied."""
MILLISECONDS = 10**11
"""Times at or above this are milliseconds: as seconds this is the year 5138, as milliseconds the year 1973."""
LATEST = 1000.0 * MILLISECONDS
DATE = (
    r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?)"
    r"(?: ?(?:Z|UTC|([+-])([0-9]{2}):?([0-9]{2})?))?\s*$"
)
"""ISO 8601: a day, or a moment with or without an offset; without one it is UTC."""
COMPACT_DATE = r"^\s*(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:\.0)?\s*$"
"""YYYYMMDD. As seconds these numbers are in August and September 1970, before the first reviews."""


def reject_emails(rows: pa.Table) -> pa.Table:
    """Reject the reviews whose user is an e-mail address; a marker would merge all such users into one."""
    suspect = pc.fill_null(pc.match_substring(rows["reviewer_id"], "@"), False)
    emails = [text for text in rows["reviewer_id"].filter(suspect).to_pylist() if EMAIL.search(text)]
    is_email = pc.is_in(rows["reviewer_id"], pa.array(emails, pa.string()))
    reasons = pc.if_else(pc.and_(is_email, pc.is_null(rows["reject"])), "email_as_user", rows["reject"])
    return _replaced(rows, "reject", reasons)


def clean_reviews(rows: pa.Table, counts: Counter[str], *, scrub: bool) -> pa.Table:
    """Clean the texts of `typed_reviews`, none of them rejected, and add the column `empty_review`.

    The number of values that each rule changed is added to `counts`. `scrub` replaces personal data by markers.
    """
    for name in ("summary", "text"):
        column = cleaning.plain_column(rows[name], counts)
        rows = _replaced(rows, name, scrub_column(column, counts) if scrub else column)
    return rows.append_column("empty_review", pc.and_(pc.is_null(rows["summary"]), pc.is_null(rows["text"])))


def clean_items(rows: pa.Table, counts: Counter[str]) -> pa.Table:
    """Clean `typed_items`; arguments as in `clean_reviews`. They are not scrubbed: no customer wrote these texts."""
    rules: dict[str, Callable[[str | None, Counter[str]], object]] = {
        "title": cleaning.title,
        "category": cleaning.category,
        "description": cleaning.description,
        "price": cleaning.price,
    }
    for name, rule in rules.items():
        texts = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        values = []  # for each distinct text: categories and prices recur
        for text, times in zip(texts.dictionary.to_pylist(), np.bincount(texts.indices).tolist(), strict=True):
            changes = Counter[str]()
            values.append(rule(text, changes))
            for cleaned, count in changes.items():
                counts[cleaned] += times * count
        rows = _replaced(rows, name, pa.array(values, ITEMS.field(name).type).take(texts.indices))
    return rows


def flagged(rows: pa.Table) -> dict[str, int]:
    """The number of rows to which each rule of `FLAGS` applied."""
    return {name: pc.sum(rows[name]).as_py() or 0 for name in FLAGS if name in rows.column_names}


def typed_reviews(fields: ir.Table) -> ir.Table:
    """Reviews with types and the reasons to reject them; their texts are not yet clean.

    Args:
        fields: `number`, `reject` (a known reason, or null), `nested` (a field contains a list or an object), and
            columns of `REVIEWS` as text; a missing column is null.
    """
    import ibis

    # In steps with a column each: ibis repeats an expression wherever it is used, and every chunk plans the query.
    table = _complete(fields, REVIEWS.names[1:])
    null = ibis.null("float64")
    table = table.mutate(
        reviewer_id=_stripped(table.reviewer_id),
        asin=_stripped(table.asin),
        value=table.unix_time.try_cast("float64"),
        stars=table.rating.nullif("").try_cast("float64"),
    )
    table = table.mutate(is_day=table.unix_time.re_search(COMPACT_DATE).fill_null(False))
    table = table.mutate(
        seconds=ibis.ifelse(table.is_day, null, table.value),
        day=ibis.ifelse(table.is_day, _midnight(table.unix_time), null),
    )
    table = table.mutate(date=ibis.ifelse(table.seconds.isnull() & table.day.isnull(), _seconds(table.unix_time), null))
    table = table.mutate(
        time=ibis.coalesce(table.seconds, table.day, table.date),
        invalid_rating=table.stars.isnull() & table.rating.nullif("").notnull(),
        stars=ibis.ifelse(table.stars.isnan(), null, table.stars),  # pandas writes NaN for a missing number
        milliseconds=(table.seconds >= MILLISECONDS).fill_null(False),
    )
    good_time, good_stars = table.time.between(0, LATEST), table.stars.between(1, 5)
    reject = ibis.cases(
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
    # Only valid values are rounded: an infinite one is no integer.
    time = ibis.ifelse(good_time, table.time, null)
    stars = ibis.ifelse(good_stars, table.stars, null)
    return table.select(
        "number",
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
    """Items with the reasons to reject them; all values are still text. Argument as in `typed_reviews`."""
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
    return fields.select("number", reject=reject, asin=asin, **{name: fields[name] for name in texts})


def _midnight(text: ir.StringValue) -> ir.FloatingValue:
    """Unix seconds of a day as YYYYMMDD, null where there is no such day."""
    digits = text.strip()
    return (digits[:4] + "-" + digits[4:6] + "-" + digits[6:8]).try_cast("timestamp").epoch_seconds().cast("float64")


def _seconds(text: ir.StringValue) -> ir.FloatingValue:
    """Unix seconds of an ISO date, null where the text is none."""
    import ibis

    # A cast accepts "infinity" and named zones too, and ignores the offset.
    is_date = text.re_search(DATE)
    moment = ibis.ifelse(is_date, text.re_extract(DATE, 1), ibis.null("string")).try_cast("timestamp")
    hours, minutes = (text.re_extract(DATE, group).nullif("").try_cast("int64").fill_null(0) for group in (3, 4))
    sign = ibis.ifelse(text.re_extract(DATE, 2) == "-", -1, 1)
    return moment.epoch_seconds().cast("float64") - sign * (hours * 3600 + minutes * 60)


def _stripped(text: ir.StringValue) -> ir.StringValue:
    """`text` without leading and trailing whitespace; `strip` of DuckDB takes twice as long."""
    return text.re_replace(r"^[\s\x0b]+|[\s\x0b]+$", "")


def _complete(fields: ir.Table, names: list[str]) -> ir.Table:
    """`fields` with null for each of the columns `names` that is missing."""
    import ibis

    return fields.mutate(**{name: ibis.null("string") for name in names if name not in fields.columns})


def _replaced(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)
