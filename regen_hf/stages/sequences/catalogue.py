"""The catalogue on disk: the best record of each item by asin, mapped into memory, so that any number of items fits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...engines import DuckDB
from ...schema import ITEMS
from .histories import best_items

SCHEMA = pa.schema([*ITEMS, ("records", pa.int64())])
BATCH = 2**15
"""Items in a batch of the file."""
MAPPED = 8
"""Batches that are looked at through one map of the file."""


def save_catalogue(engine: DuckDB, tables: list[Path], work: Path) -> Path:
    """Write the best record of each item in `tables` to a file in `work`, in the order of asin, with `records`.

    Returns:
        The file, which `read_catalogue` opens.
    """
    folder = work / "catalogue"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = best_items(engine.read_parquet(tables, ITEMS, "items"))
    path = folder / "items.arrow"
    engine.write(found, ("asin",), BATCH, folder, partial(_save, path))
    return path


def _save(path: Path, batches: Iterator[pa.RecordBatch], _: Path) -> None:
    with pa.ipc.new_file(str(path), SCHEMA) as file:
        for batch in batches:
            file.write_table(pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA))


def read_catalogue(path: Path) -> pa.Table:
    """The items of the file, left on disk: the system reads what is looked at, and may drop it from memory again."""
    return _open(path).read_all()


def items_at(path: Path, places: np.ndarray) -> pa.Table:
    """The items in these rows of the catalogue, which are sorted."""
    found = [ITEMS.empty_table()]
    for start, batch in _batches(path):
        here = places[np.searchsorted(places, start) : np.searchsorted(places, start + len(batch))]
        if len(here):
            found.append(pa.Table.from_batches([batch.take(pa.array(here - start))]))
    return pa.concat_tables(found).combine_chunks()


def write_items(catalogue: Path, kept: pa.Array, path: Path) -> None:
    """Write the items that are `kept` (a truth value for each row of the catalogue) as parquet of `schema.ITEMS`."""
    with pq.ParquetWriter(path, ITEMS, compression="zstd") as writer:
        for start, batch in _batches(catalogue):
            rows = pa.Table.from_batches([batch]).filter(kept.slice(start, len(batch)))
            if len(rows):
                writer.write_table(rows.cast(ITEMS))


def _batches(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of the catalogue, columns as in `schema.ITEMS`, each with the number of its first row.

    The file is mapped anew for every few: what was looked at counts as memory of this process while it is mapped.
    """
    start, file = 0, _open(path)
    for place in range(file.num_record_batches):
        if place % MAPPED == 0:
            file = _open(path)
        batch = file.get_batch(place).select(ITEMS.names)
        yield start, batch
        start += len(batch)


def _open(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def has_title(catalogue: pa.Table) -> pa.Array:
    """Whether each item has a title."""
    return pa.concat_arrays([pc.is_valid(chunk) for chunk in catalogue["title"].chunks] or [pa.array([], pa.bool_())])
