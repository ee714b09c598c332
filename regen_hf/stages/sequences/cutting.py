"""Purchases in their order -> one row per user: the latest ones, counted, with their items put in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...reviews.cleaning import without_empty
from ...schema import PURCHASE_HISTORY, hash_bound
from .catalogue import items_at
from .histories import DROPS, KEPT

if TYPE_CHECKING:
    from .settings import SequencesConfig

ITEM, REVIEW = (PURCHASE_HISTORY.value_type.field(name).type for name in ("item", "review"))
ITEM_COLUMNS = [f"purchase_history.list.element.item.{field.name}" for field in ITEM]
"""What recurs, and is written once for each group of rows."""
DICTIONARY = 2**24
"""Bytes of a column's values that may be written so."""


def write_part(file: Path, config: SequencesConfig, purchases: Iterator[pa.RecordBatch], part: Path) -> None:
    """Write some users of one range as `SPLIT.parquet`, and `counts.json`.

    Args:
        file: the catalogue; the `place` of a purchase is a row of it.
        config: gives `k_core`, `max_history`, `min_history` and the shares of the splits.
        purchases: rows of `histories.purchases`, all of these users, sorted by `histories.ORDER`.
        part: an empty folder.
    """
    counts: Counter[str] = Counter()
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for table in _whole_users(purchases):
            users, history, offsets = _cut(table, config, counts)
            hashes = users["user_hash"]
            shares = (config.test, config.test + config.validation)
            bounds = [pc.sum(pc.less(hashes, hash_bound(share))).as_py() or 0 for share in shares]  # they are sorted
            for name, start, end in zip(
                ("test", "validation", "train"), [0, *bounds], [*bounds, len(users)], strict=True
            ):
                if start < end:
                    rows = _rows(users["reviewer_id"][start:end], history, offsets[start : end + 1], file)
                    if name not in writers:
                        writers[name] = pq.ParquetWriter(
                            part / f"{name}.parquet",
                            rows.schema,
                            compression="zstd",
                            use_dictionary=ITEM_COLUMNS,
                            dictionary_pagesize_limit=DICTIONARY,
                            store_schema=False,  # it would say that items come as dictionaries
                        )
                    writers[name].write_table(rows)
                    counts[name] += len(rows)
    finally:
        for writer in writers.values():
            writer.close()
    (part / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _whole_users(purchases: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows again, cut so that no user is in two tables."""
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


def _cut(table: pa.Table, config: SequencesConfig, counts: Counter[str]) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """The users who stay (`user_hash`, `reviewer_id`), their purchases, and where those of each user begin and end.

    What is dropped is counted.
    """
    ids = table["reviewer_id"].combine_chunks()
    change = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    firsts = np.flatnonzero(np.concatenate([[True], change]))
    owner = np.cumsum(np.concatenate([[False], change]))
    order, copies = _in_order(table)
    drop = table["drop"].to_numpy().copy()
    drop[copies] = DROPS.index("duplicate")
    counts["read"] += len(drop)
    for place, many in enumerate(np.bincount(drop[drop != KEPT], minlength=len(DROPS)).tolist()):
        counts[DROPS[place]] += many
    places = np.flatnonzero(drop == KEPT)
    in_core = np.bincount(owner[places], minlength=len(firsts))
    # A user with k purchases of items of the core is in the core.
    usable = np.where(in_core >= config.k_core, in_core, 0)
    kept = np.minimum(usable, config.max_history)
    stays = usable >= config.min_history
    outside = np.bincount(owner[drop == DROPS.index("k_core")], minlength=len(firsts)) + in_core - usable
    counts["k_core"] += int((in_core - usable).sum())
    counts["beyond_max_history"] += int((usable - kept).sum())
    counts["short_history"] += int(kept[~stays].sum())
    lost_to_core = ~stays & (outside > 0) & (kept == 0)
    counts["users_k_core"] += int(lost_to_core.sum())
    counts["users_short_history"] += int((~stays & ~lost_to_core).sum())
    to_the_end = np.cumsum(in_core)[owner[places]] - np.arange(len(places))  # 1 for a user's latest purchase
    chosen = places[(to_the_end <= config.max_history) & stays[owner[places]]]
    users = table.select(["user_hash", "reviewer_id"]).take(firsts[stays])
    history = table.select(["unix_time", "place", "rating", "summary", "text"]).take(order[chosen])
    return users, history.combine_chunks(), np.concatenate([[0], np.cumsum(kept[stays])])


def _in_order(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The places of the rows in their order, and where in it stands the same review as before.

    `ORDER` leaves open what comes first of two reviews that a user wrote of one item at one time: their texts decide.
    """
    places = np.arange(len(table))
    rows = places[1:]
    for name in ("unix_time", "place", "other", "rating", "reviewer_id"):  # few pass the first two
        rows = rows[_equal(table[name], rows, rows - 1)]
    tied = np.union1d(rows, rows - 1)
    texts = table.select(["summary", "text"]).take(tied)
    groups = pa.array(np.cumsum(~np.isin(tied, rows)))
    by = [(name, "ascending") for name in ("group", "summary", "text")]
    places[tied] = tied[pc.sort_indices(texts.append_column("group", groups), by)]
    for name in ("summary", "text"):
        rows = rows[_equal(table[name], places[rows], places[rows - 1])]
    return places, rows


def _equal(column: pa.ChunkedArray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the values in some rows are those in others; null is equal to null."""
    one, other = column.take(rows), column.take(others)
    same = pc.if_else(pc.is_null(one), pc.is_null(other), pc.fill_null(pc.equal(one, other), False))
    return np.asarray(same.to_numpy(), bool)


def _rows(users: pa.ChunkedArray, history: pa.Table, offsets: np.ndarray, file: Path) -> pa.Table:
    """`schema.SEQUENCES`, the texts of items as dictionaries."""
    history = history.slice(offsets[0], offsets[-1] - offsets[0])
    places, recurs = np.unique(history["place"].to_numpy(), return_inverse=True)
    items = items_at(file, places)
    indices = pa.array(recurs, pa.int32())
    item = {field.name: _recurring(items[field.name].chunk(0), indices) for field in ITEM}
    rating = history["rating"]
    review = {
        "summary": without_empty(history["summary"].combine_chunks()),
        "rating": pc.if_else(pc.equal(rating, 0), None, rating).combine_chunks(),
        "text": without_empty(history["text"].combine_chunks()),
        "unix_time": history["unix_time"].combine_chunks(),
    }
    pairs = _struct({"item": _struct(item), "review": _struct({field.name: review[field.name] for field in REVIEW})})
    lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), pairs)
    return pa.table({"reviewer_id": users, "purchase_history": lists})


def _recurring(values: pa.Array, indices: pa.Array) -> pa.Array:
    """`values` at `indices`, as a dictionary where they are text."""
    if not pa.types.is_string(values.type):
        return values.take(indices)
    once = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(once.indices.take(indices), once.dictionary)


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))
