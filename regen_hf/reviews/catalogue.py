"""The catalogue: the best record of each item by asin, in a memory-mapped file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB
from ..schema import ITEMS

if TYPE_CHECKING:
    import ibis.expr.types as ir

SCHEMA = pa.schema([*ITEMS, ("records", pa.int64())])
BATCH = 2**15
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
    folder.mkdir(parents=True)
    best = best_items(engine.read_parquet(tables, ITEMS, "items"))
    path = folder / "items.arrow"
    engine.write(best, ("asin",), BATCH, folder, partial(_save, path))
    return path


def _save(path: Path, batches: Iterator[pa.RecordBatch], _: Path) -> None:
    with pa.ipc.new_file(str(path), SCHEMA) as file:
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
