"""Ranges of user hashes, worked on one after the other: each a query, and parquet that is not made again."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from ..engines import DuckDB, Spark, memory_bytes
from ..reviews.reading import REVIEWS, Log, keep_if_same
from ..schema import PURCHASE_HISTORY, SEQUENCES, SPLITS
from .core import core_items, save_baskets
from .histories import DROPS, baskets, histories

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np

    from . import SequencesConfig

ROW_GROUP = 4000
"""Users in a row group."""
REVIEW_COPIES = 8
"""A range of hashes is so small that this many copies of its reviews fit into the memory set: they are grouped,
collected and sorted before they leave, each time as a copy."""


def build_ranges(
    engine: DuckDB | Spark,
    reviews: Log,
    items: Log,
    catalogue: pa.Table,
    work: Path,
    config: SequencesConfig,
) -> tuple[list[Path], pa.Array]:
    """Folders of finished parquet and counts in the order of the hashes, and which titled items count.

    A range of hashes has one folder, or several where the engine works on parts of it at once.

    An item counts unless it is outside of the k-core, where one is asked for.
    """
    ranges = max(1, -(-REVIEW_COPIES * reviews.size // memory_bytes(config.memory)))
    bounds = [f"{place * 2**32 // ranges:08x}" for place in range(ranges)] + ["g"]  # "g" is after every hex digit
    settings = {name: value for name, value in asdict(config).items() if name not in ("memory", "engine", "master")}
    tables = [[str(path.relative_to(work)), path.stat().st_mtime_ns] for path in (*reviews.tables, *items.tables)]
    folder = work / f"histories-{ranges}"
    keep_if_same(folder, [settings, tables])
    titled = catalogue.filter(pc.is_valid(catalogue["title"]))
    place = pc.index_in(catalogue["asin"], titled["asin"]).combine_chunks().cast(pa.int64())
    log = engine.read_parquet(reviews.tables, REVIEWS, "reviews")
    parts = [log.filter(log.user_hash >= low, log.user_hash < high) for low, high in itertools.pairwise(bounds)]
    table = pa.table({"asin": catalogue["asin"], "place": place, "core": pc.is_valid(place)})
    known = engine.read_arrow(table, "known")
    core = pa.repeat(pa.scalar(True), len(titled))
    if config.k_core:
        core = pa.array(_core(engine, parts, known, len(titled), folder, config))
        known = engine.read_arrow(table.set_column(2, "core", pc.fill_null(core.take(place), False)), "known")
    done = []
    for number in tqdm(range(ranges), desc="histories", unit="range"):
        path = folder / f"{number:05d}"
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            users = histories(parts[number], known, config)
            engine.write(users, ROW_GROUP, part, partial(_write_part, titled))
            os.replace(part, path)
        done += sorted(path.iterdir())
    return done, core


def _core(
    engine: DuckDB | Spark, parts: list[ir.Table], items: ir.Table, count: int, folder: Path, config: SequencesConfig
) -> np.ndarray:
    """Which of the `count` titled items are in the k-core; purchases that an interrupted run took out are kept."""
    files = []
    for number, part in enumerate(tqdm(parts, desc="k-core", unit="range")):
        path = folder / f"baskets-{number:05d}.npy"
        if not path.exists():
            new = path.with_suffix(".part")
            save_baskets(engine.to_arrow(baskets(part, items, config)), new)
            os.replace(new, path)
        files.append(path)
    return core_items(files, config.k_core, count)


def _write_part(titled: pa.Table, users: Iterator[pa.RecordBatch], part: Path) -> None:
    """Some users of one range as `SPLIT.parquet`, with their items put in, and `counts.json`."""
    counts: Counter[str] = Counter()
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for batch in users:
            table = pa.Table.from_batches([batch])
            for name in ("read", *DROPS):
                counts[name] += int(pc.sum(table[name]).as_py() or 0)  # DuckDB sums integers as decimals
            empty = pc.is_null(table["history"])
            outside = pc.and_(pc.greater(table["k_core"], 0), pc.equal(table["short_history"], 0))
            counts["users_k_core"] += pc.sum(pc.and_(empty, outside)).as_py() or 0
            counts["users_short_history"] += pc.sum(pc.and_(empty, pc.invert(outside))).as_py() or 0
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
