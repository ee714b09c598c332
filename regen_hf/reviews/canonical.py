"""Fields as text -> canonical rows: types, reasons to reject a record, and cleaning with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..schema import ITEMS
from . import cleaning, times
from .nulls import is_null_word
from .rating_scale import HIGHEST, LOWEST, Ratings
from .scrubbing import EMAIL, scrub_column

if TYPE_CHECKING:
    import ibis.expr.types as ir

REVIEWS = pa.schema(
    [
        ("user_hash", pa.string()),  # first 8 hex digits of md5(reviewer_id)
        ("reviewer_id", pa.string()),
        ("asin", pa.string()),
        ("time", pa.int64()),  # nanoseconds since 1970
        ("rating", pa.int64()),
        ("summary", pa.string()),
        ("text", pa.string()),
    ]
)
SCHEMAS = {"reviews": REVIEWS, "items": ITEMS}
FIELDS = ("reviewer_id", "asin", "unix_time", "rating", "summary", "text")
"""Columns of a review as text."""
FLAGS = (*times.FLAGS, "rounded_rating", "scaled_rating", "float_ids", "empty_review")
"""Rules with a column of the same name: true where the rule applied, or the number of values that it changed."""


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
        for text, number in zip(texts.dictionary.to_pylist(), np.bincount(texts.indices).tolist(), strict=True):
            changes = Counter[str]()
            values.append(rule(text, changes))
            for cleaned, count in changes.items():
                counts[cleaned] += number * count
        rows = _replaced(rows, name, pa.array(values, ITEMS.field(name).type).take(texts.indices))
    return rows


def flagged(rows: pa.Table) -> dict[str, int]:
    """The number of values that each rule of `FLAGS` changed."""
    return {name: pc.sum(rows[name]).as_py() or 0 for name in FLAGS if name in rows.column_names}


def typed_reviews(fields: ir.Table, scale: Sequence[float] = (), missing: Sequence[float] = ()) -> ir.Table:
    """Reviews with types and the reasons to reject them; their texts are not yet clean.

    Args:
        fields: `number`, `reject` (a known reason, or null), `nested` (a field contains a list or an object), and
            `FIELDS` as text; a missing column is null. `float_ids`, the number of ids that the reader changed, may be
            missing.
        scale: the ratings that become 1 and 5, those between them linearly; empty for 1 and 5.
        missing: ratings that mean that there is none.

    Returns:
        `number`, `reject`, the columns of `REVIEWS` and `FLAGS` except `empty_review`; `stars`, the rating as a number
        before it is scaled and rounded; and `has_time` and `has_rating`, whether these fields are not null.
    """
    import ibis

    # In steps with a column each: ibis repeats an expression wherever it is used, and every chunk plans the query.
    table = times.typed_times(_complete(fields, FIELDS))
    null = ibis.null("float64")
    table = table.mutate(
        reviewer_id=_stripped(table.reviewer_id),
        asin=_stripped(table.asin),
        stars=table.rating.try_cast("float64"),
    )
    unrated = table.stars.isnan() | table.stars.isin(missing) if missing else table.stars.isnan()
    table = table.mutate(
        stars=ibis.ifelse(unrated, null, table.stars),
        invalid_rating=ibis.ifelse(table.stars.isnull(), ~is_null_word(table.rating), False),
    )
    low, high = (min(scale), max(scale)) if scale else (LOWEST, HIGHEST)
    table = table.mutate(in_scale=table.stars.between(low, high))
    # Only valid values are rounded: an infinite one is no integer.
    table = table.mutate(scaled=ibis.ifelse(table.in_scale, table.stars, null))
    if scale:
        table = table.mutate(scaled=(table.scaled - scale[0]) * 4 / (scale[1] - scale[0]) + 1)
    reject = ibis.cases(
        (table.reject.notnull(), table.reject),
        (table.nested, "wrong_type"),
        (table.reviewer_id.fill_null("") == "", "missing_user"),
        (table.asin.fill_null("") == "", "missing_item"),
        (table.time_reject.notnull(), table.time_reject),
        (table.invalid_rating, "invalid_rating"),
        (~table.in_scale.fill_null(True), "rating_out_of_scale"),
        else_=ibis.null("string"),
    )
    return table.select(
        "number",
        *("reviewer_id", "asin", "time", "summary", "text", "stars", "float_ids", *times.FLAGS),
        reject=reject,
        user_hash=table.reviewer_id.hexdigest("md5").left(8),
        rating=(table.scaled + 0.5).floor().cast("int64"),
        rounded_rating=(table.scaled != table.scaled.floor()).fill_null(False),
        scaled_rating=table.scaled.notnull() if scale else ibis.literal(False),
        has_time=table.unix_time.notnull(),
        has_rating=table.rating.notnull(),
    )


def ratings(rows: pa.Table) -> Ratings:
    """The finite ratings of `typed_reviews`, rejected or not."""
    stars = rows["stars"]
    stars = pc.if_else(pc.is_finite(stars), stars, None)
    limits = pc.min_max(stars).as_py()
    outside = pc.or_(pc.less(stars, LOWEST), pc.greater(stars, HIGHEST))
    binary = pc.or_(pc.equal(stars, 0), pc.equal(stars, 1))
    count = len(stars) - stars.null_count
    return Ratings(count, pc.sum(outside).as_py() or 0, pc.sum(binary).as_py() or 0, limits["min"], limits["max"])


def values(rows: pa.Table, names: Collection[str]) -> dict[str, int]:
    """The number of values that are not null in each of the fields `names` of `typed_reviews` or `typed_items`."""
    flags = {"unix_time": "has_time", "rating": "has_rating"}
    counts = {name: pc.sum(rows[flags[name]]).as_py() or 0 for name in names if name in flags}
    return counts | {name: len(rows) - rows[name].null_count for name in names if name not in flags}


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
    return fields.select("number", "float_ids", reject=reject, asin=asin, **{name: fields[name] for name in texts})


def _stripped(text: ir.StringValue) -> ir.StringValue:
    """`text` without leading and trailing whitespace; `strip` of DuckDB takes twice as long."""
    return text.re_replace(r"^[\s\x0b]+|[\s\x0b]+$", "")


def _complete(fields: ir.Table, names: Sequence[str]) -> ir.Table:
    """`fields` with null for each of the columns `names` that is missing, and 0 for missing `float_ids`."""
    import ibis

    missing = {name: ibis.null("string") for name in names if name not in fields.columns}
    if "float_ids" not in fields.columns:
        missing["float_ids"] = ibis.literal(0, "int64")
    return fields.mutate(**missing)


def _replaced(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)
