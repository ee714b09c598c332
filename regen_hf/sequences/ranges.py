"""Ranges of user hashes, worked on one after the other: each a query, and parquet that is not made again."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB, memory_bytes
from ..reviews.reading import REVIEWS, Log
from ..schema import PURCHASE_HISTORY, SEQUENCES, SPLITS
from .histories import DROPS, histories

if TYPE_CHECKING:
    from . import SequencesConfig

ROW_GROUP = 1000
"""Users in a row group."""
REVIEW_COPIES = 8
"""A range of hashes is so small that this many copies of its reviews fit into the memory set: they are grouped,
collected and sorted before they leave, each time as a copy."""


def build_ranges(
    engine: DuckDB,
    reviews: Log,
    items: Log,
    catalogue: pa.Table,
    work: Path,
    config: SequencesConfig,
) -> list[Path]:
    """A folder of finished parquet and counts for each range of hashes, in the order of the ranges."""
    from tqdm import tqdm

    ranges = max(1, -(-REVIEW_COPIES * reviews.size // memory_bytes(config.memory)))
    bounds = [f"{place * 2**32 // ranges:08x}" for place in range(ranges)] + ["g"]  # "g" is after every hex digit
    settings = {name: value for name, value in asdict(config).items() if name != "memory"}
    tables = [[str(path.relative_to(work)), path.stat().st_mtime_ns] for path in (*reviews.tables, *items.tables)]
    made_from = json.dumps([settings, tables])
    folder = work / f"histories-{ranges}"
    stamp = folder / "made_from.json"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_from:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(made_from, encoding="utf-8")
    titled = catalogue.filter(pc.is_valid(catalogue["title"]))
    place = pc.index_in(catalogue["asin"], titled["asin"]).combine_chunks().cast(pa.int64())
    known = engine.read_arrow(pa.table({"asin": catalogue["asin"], "place": place}), "known")
    log = engine.read_parquet(reviews.tables, REVIEWS, "reviews")
    done = []
    for number in tqdm(range(ranges), desc="histories", unit="range"):
        path = folder / f"{number:05d}"
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            inside = log.filter(log.user_hash >= bounds[number], log.user_hash < bounds[number + 1])
            table = histories(inside, known, config)
            _write_range(engine.batches(table, ROW_GROUP), titled, part)
            os.replace(part, path)
        done.append(path)
    return done


def _write_range(users: Iterator[pa.RecordBatch], titled: pa.Table, part: Path) -> None:
    """The users of one range as `SPLIT.parquet`, with their items put in, and `counts.json`."""
    counts: Counter[str] = Counter()
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for batch in users:
            table = pa.Table.from_batches([batch])
            for name in ("read", *DROPS):
                counts[name] += int(pc.sum(table[name]).as_py() or 0)  # DuckDB sums integers as decimals
            empty = pc.is_null(table["history"])
            counts["short_users"] += pc.sum(empty).as_py() or 0
            table = table.filter(pc.invert(empty))
            for name in SPLITS:
                rows = table.filter(pc.equal(table["split"], name))
                if len(rows):
                    if name not in writers:
                        writers[name] = pq.ParquetWriter(part / f"{name}.parquet", SEQUENCES, compression="zstd")
                    writers[name].write_table(_rows(rows, titled))
                    counts[name] += len(rows)
    finally:
        for writer in writers.values():
            writer.close()
    (part / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _rows(users: pa.Table, titled: pa.Table) -> pa.Table:
    """`schema.SEQUENCES` from users with a `history` of reviews and places in the catalogue."""
    lists = users["history"].combine_chunks()
    purchase = lists.flatten()
    item_table = titled.take(purchase.field("place")).combine_chunks()
    item_kind, review_kind = (PURCHASE_HISTORY.value_type.field(name).type for name in ("item", "review"))

    def struct(columns: dict[str, pa.Array], kind: pa.StructType) -> pa.StructArray:
        return pa.StructArray.from_arrays([columns[f.name].cast(f.type) for f in kind], fields=list(kind))

    item = struct({f.name: _flat(item_table[f.name]) for f in item_kind}, item_kind)
    # `histories` has no null in a purchase: 0 and "" stand for it.
    given = {f.name: purchase.field(f.name) for f in review_kind}
    blank = {"rating": 0, "summary": "", "text": ""}
    given |= {name: pc.if_else(pc.equal(given[name], nothing), None, given[name]) for name, nothing in blank.items()}
    review = struct(given, review_kind)
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    pairs = pa.StructArray.from_arrays([item, review], fields=list(PURCHASE_HISTORY.value_type))
    history = pa.ListArray.from_arrays(offsets.cast(pa.int32()), pairs, type=PURCHASE_HISTORY)
    return pa.table({"reviewer_id": users["reviewer_id"], "purchase_history": history}, schema=SEQUENCES)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
