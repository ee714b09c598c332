"""Sorted purchases -> one row per user: the latest purchases, with their items, and counts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...reviews.catalogue import items_at
from ...reviews.cleaning import without_empty
from ...reviews.splits import split_rows
from ...reviews.times import SECOND
from ...schema import PURCHASE_HISTORY
from .purchases import DROPS, KEPT

if TYPE_CHECKING:
    from .settings import SequencesConfig

ITEM, REVIEW = (PURCHASE_HISTORY.value_type.field(name).type for name in ("item", "review"))
ITEM_COLUMNS = [f"purchase_history.list.element.item.{field.name}" for field in ITEM]
"""Columns with recurring values, which are stored once per row group."""
DICTIONARY = 2**24
"""Bytes of a column's distinct values that are stored so."""


def write_histories(catalogue: Path, config: SequencesConfig, purchases: Iterator[pa.RecordBatch], part: Path) -> None:
    """Write the histories of some users of one range into `part`, as `SPLIT.parquet`, and `counts.json`.

    `purchases` are all rows of `purchases.purchases` of these users, sorted by `ORDER`. `item` is a row of `catalogue`.
    """
    counts: Counter[str] = Counter()
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for table in _complete_users(purchases):
            users, history, offsets = _latest(table, config, counts)
            for name, rows in split_rows(users["user_hash"], config.validation, config.test).items():
                if rows.start == rows.stop:
                    continue
                histories = _rows(users["reviewer_id"][rows], history, offsets[rows.start : rows.stop + 1], catalogue)
                if name not in writers:
                    writers[name] = pq.ParquetWriter(
                        part / f"{name}.parquet",
                        histories.schema,
                        compression="zstd",
                        use_dictionary=ITEM_COLUMNS,
                        dictionary_pagesize_limit=DICTIONARY,
                        write_statistics=["reviewer_id"],  # no reader filters rows by a value in a list
                        store_schema=False,  # it would declare the items as dictionaries
                    )
                writers[name].write_table(histories)
                counts[name] += len(histories)
    finally:
        for writer in writers.values():
            writer.close()
    (part / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _complete_users(purchases: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables, each user in only one of them."""
    rest = None
    for batch in purchases:
        table = pa.Table.from_batches([batch])
        rest = table if rest is None else pa.concat_tables([rest, table])
        users = rest["reviewer_id"]
        last = pc.index(pc.equal(users, users[-1]), True).as_py() if len(rest) else 0
        if last:
            yield rest.slice(0, last)
            rest = rest.slice(last)
    if rest is not None and len(rest):
        yield rest


def _latest(table: pa.Table, config: SequencesConfig, counts: Counter[str]) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """The kept users (`user_hash`, `reviewer_id`), their latest purchases, and the offsets of each user in them.

    Dropped purchases and users are counted.
    """
    ids = table["reviewer_id"].combine_chunks()
    change = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    first_rows = np.flatnonzero(np.concatenate([[True], change]))
    owner = np.cumsum(np.concatenate([[False], change]))
    order, copies = _in_order(table)
    drop = table["drop"].to_numpy()[order]
    drop[copies] = DROPS.index("duplicate")
    counts["read"] += len(drop)
    counts.update(dict(zip(DROPS, np.bincount(drop[drop != KEPT], minlength=len(DROPS)).tolist(), strict=True)))
    rows = np.flatnonzero(drop == KEPT)
    in_core = np.bincount(owner[rows], minlength=len(first_rows))
    # A user with k purchases of items of the core is in the core.
    usable = np.where(in_core >= config.k_core, in_core, 0)
    kept = np.minimum(usable, config.max_history)
    stays = usable >= config.min_history
    outside = np.bincount(owner[drop == DROPS.index("k_core")], minlength=len(first_rows)) + in_core - usable
    counts["k_core"] += int((in_core - usable).sum())
    counts["beyond_max_history"] += int((usable - kept).sum())
    counts["short_history"] += int(kept[~stays].sum())
    lost_to_core = ~stays & (outside > 0) & (kept == 0)
    counts["users_k_core"] += int(lost_to_core.sum())
    counts["users_short_history"] += int((~stays & ~lost_to_core).sum())
    from_end = np.cumsum(in_core)[owner[rows]] - np.arange(len(rows))  # 1 for a user's latest purchase
    chosen = rows[(from_end <= config.max_history) & stays[owner[rows]]]
    users = table.select(["user_hash", "reviewer_id"]).take(first_rows[stays])
    history = table.select(["time", "item", "rating", "summary", "text"]).take(order[chosen])
    times = history["time"].to_numpy()
    counts["tied"] += int(((times[1:] == times[:-1]) & (owner[chosen[1:]] == owner[chosen[:-1]])).sum())
    return users, history.combine_chunks(), np.concatenate([[0], np.cumsum(kept[stays])])


def _in_order(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The row numbers in their final order, and the positions in it of duplicates of the review before.

    Some releases state only the day, so equal times are common. A hash of user and item orders a user's purchases of
    one time: a model could learn an order by item id. Texts order a user's reviews of one item at one time.
    """
    order = np.arange(len(table))
    tied = order[1:]
    for name in ("time", "reviewer_id"):  # few rows remain after the first
        tied = tied[_equal(table[name], tied, tied - 1)]
    copies = tied
    for name in ("asin", "rating"):
        copies = copies[_equal(table[name], copies, copies - 1)]
    rows, groups = _groups(copies)
    by = [(name, "ascending") for name in ("group", "summary", "text")]
    texts = table.select(["summary", "text"]).take(rows).append_column("group", pa.array(groups))
    order[rows] = rows[pc.sort_indices(texts, by)]
    for name in ("summary", "text"):
        copies = copies[_equal(table[name], order[copies], order[copies - 1])]
    is_copy = np.zeros(len(order), bool)
    is_copy[copies] = True
    rows, groups = _groups(tied)
    ids = table.select(["reviewer_id", "asin"]).take(rows)
    pairs = zip(ids["reviewer_id"].to_pylist(), ids["asin"].to_pylist(), strict=True)
    hashes = [_hash(f"{user}\t{asin}") for user, asin in pairs]
    by_hash = rows[np.lexsort((np.frombuffer(b"".join(hashes), ">u8"), groups))]  # stable: copies stay adjacent
    order[rows], is_copy[rows] = order[by_hash], is_copy[by_hash]
    return order, np.flatnonzero(is_copy)


def _groups(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`rows`, each equal to the row before it, with the rows before them; and the number of the group of each."""
    members = np.union1d(rows, rows - 1)
    return members, np.cumsum(~np.isin(members, rows))


def _hash(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8]


def _equal(column: pa.ChunkedArray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the values at `rows` equal those at `others`; null equals null."""
    left, right = column.take(rows), column.take(others)
    same = pc.if_else(pc.is_null(left), pc.is_null(right), pc.fill_null(pc.equal(left, right), False))
    return np.asarray(same.to_numpy(), bool)


def _rows(users: pa.ChunkedArray, history: pa.Table, offsets: np.ndarray, catalogue: Path) -> pa.Table:
    """Rows of `schema.SEQUENCES`, the texts of items as dictionaries."""
    history = history.slice(offsets[0], offsets[-1] - offsets[0])
    distinct, inverse = np.unique(history["item"].to_numpy(), return_inverse=True)
    items = items_at(catalogue, distinct)
    indices = pa.array(inverse, pa.int32())
    item = {field.name: _recurring(items[field.name].chunk(0), indices) for field in ITEM}
    rating = history["rating"]
    review = {
        "summary": without_empty(history["summary"].combine_chunks()),
        "rating": pc.if_else(pc.equal(rating, 0), None, rating).combine_chunks(),
        "text": without_empty(history["text"].combine_chunks()),
        "unix_time": pc.divide(history["time"], SECOND).combine_chunks(),  # rounded down: no time is negative
    }
    pairs = _struct({"item": _struct(item), "review": _struct({field.name: review[field.name] for field in REVIEW})})
    lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), pairs)
    return pa.table({"reviewer_id": users, "purchase_history": lists})


def _recurring(values: pa.Array, indices: pa.Array) -> pa.Array:
    """`values` at `indices`, as a dictionary where they are text."""
    if not pa.types.is_string(values.type):
        return values.take(indices)
    encoded = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(indices), encoded.dictionary)


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))
