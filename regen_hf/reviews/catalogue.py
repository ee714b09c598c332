"""The catalogue: the best record of each item by asin, in a memory-mapped file."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import COPIES, DuckDB
from ..schema import ITEMS

if TYPE_CHECKING:
    import ibis.expr.types as ir

SCHEMA = pa.schema([*ITEMS, ("records", pa.int64())])
RECORD = 50
"""Bytes of a record beside its texts, about."""
BATCH = 2**12
"""Items in a batch of the file."""
MAPPED = 8
"""Batches read through one memory map of the file."""


def best_items(items: ir.Table) -> ir.Table:
    """One record for each asin, with `records`, the number of records of it.

    A record with a title is preferred, then one with more fields, then one with more text, then the text itself.
    """
    import ibis

    columns = [items[name] for name in ("title", "category", "description", "price")]
    texts = columns[:3]
    rank = ibis.row_number().over(
        group_by=items.asin,
        order_by=[
            items.title.isnull(),
            ibis.desc(sum(column.notnull().cast("int64") for column in columns)),
            ibis.desc(sum(column.length().fill_null(0) for column in texts)),
            *(column.fill_null("") for column in texts),
            items.price.fill_null(-1),
        ],
    )
    ranked = items.mutate(rank=rank, records=items.count().over(group_by=items.asin))
    return ranked.filter(ranked["rank"] == 0).drop("rank")


def save_catalogue(engine: DuckDB, tables: list[Path], work: Path) -> Path:
    """Write the best record of each item in the parquet files `tables` to a file in `work`, in the order of asin.

    Returns:
        The file, which `read_catalogue` opens.
    """
    folder = work / "catalogue"
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / "items.arrow"
    items = engine.read_parquet(tables, ITEMS, "items")
    # DuckDB does not sort long texts within its memory limit: one range of items is sorted at a time.
    bounds: list[str] = engine.to_arrow(_starts(items, engine.memory // COPIES))["asin"].to_pylist()
    ranges = [items.filter(items.asin >= low, items.asin < high) for low, high in itertools.pairwise(bounds)]
    ranges.append(items.filter(items.asin >= bounds[-1]) if bounds else items)
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(path), SCHEMA) as file:
        for number, in_range in enumerate(ranges):
            part = folder / str(number)
            part.mkdir()
            engine.write(best_items(in_range), ("asin",), BATCH, part, partial(_save, file))
    return path


def _starts(items: ir.Table, size: int) -> ir.Table:
    """The first asin of each range of items, in order; the records of a range have about `size` bytes."""
    import ibis

    texts = (items[name].length().fill_null(0) for name in ("title", "category", "description"))
    sizes = items.select("asin", size=sum(texts, start=items.asin.length() + RECORD))
    total = sizes["size"].sum().over(ibis.cumulative_window(order_by=sizes.asin))
    ranges = sizes.mutate(range=(total / size).floor().cast("int64"))
    return ranges.group_by("range").aggregate(asin=ranges.asin.min()).select("asin").distinct().order_by("asin")


def _save(file: pa.ipc.RecordBatchFileWriter, batches: Iterator[pa.RecordBatch], _: Path) -> None:
    for batch in batches:
        file.write_table(pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA))


def read_catalogue(path: Path) -> pa.Table:
    """The items of the file with `records`, memory-mapped."""
    return _open(path).read_all()


def items_at(path: Path, rows: np.ndarray) -> pa.Table:
    """The items in the given `rows` of the catalogue, which are sorted."""
    items = [ITEMS.empty_table()]
    for start, batch in _batches(path):
        in_batch = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(batch))]
        if len(in_batch):
            items.append(pa.Table.from_batches([batch.take(pa.array(in_batch - start))]))
    return pa.concat_tables(items).combine_chunks()


def write_items(catalogue: Path, kept: pa.Array, path: Path) -> None:
    """Write the items that are `kept` (a boolean for each row of the catalogue) as parquet of `schema.ITEMS`."""
    path.parent.mkdir()
    with pq.ParquetWriter(path, ITEMS, compression="zstd") as writer:
        for start, batch in _batches(catalogue):
            rows = pa.Table.from_batches([batch]).filter(kept.slice(start, len(batch)))
            if len(rows):
                writer.write_table(rows.cast(ITEMS))


def _batches(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of the catalogue, columns as in `schema.ITEMS`, each with the number of its first row.

    The file is mapped again for every `MAPPED` batches: pages that were read count as memory while it is mapped.
    """
    start, file = 0, _open(path)
    for number in range(file.num_record_batches):
        if number % MAPPED == 0:
            file = _open(path)
        batch = file.get_batch(number).select(ITEMS.names)
        yield start, batch
        start += len(batch)


def _open(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def has_title(catalogue: pa.Table) -> pa.Array:
    """Whether each item has a title."""
    return pc.is_valid(catalogue["title"]).combine_chunks()
