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

from ..engines import DuckDB
from ..schema import ITEMS
from .histories import best_items

SCHEMA = pa.schema([*ITEMS, ("records", pa.int64())])
BATCH = 2**15
"""Items in a batch of the file."""


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
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def items_at(catalogue: pa.Table, places: np.ndarray) -> pa.Table:
    """The items in these rows of the catalogue, which are sorted."""
    found, start = [ITEMS.empty_table()], 0
    for batch in catalogue.select(ITEMS.names).to_batches():
        here = places[np.searchsorted(places, start) : np.searchsorted(places, start + len(batch))]
        if len(here):
            found.append(pa.Table.from_batches([batch.take(pa.array(here - start))]))
        start += len(batch)
    return pa.concat_tables(found).combine_chunks()


def write_items(catalogue: pa.Table, kept: pa.Array, path: Path) -> None:
    """Write the items that are `kept` (a truth value for each row) as parquet of `schema.ITEMS`."""
    start = 0
    with pq.ParquetWriter(path, ITEMS, compression="zstd") as writer:
        for batch in catalogue.select(ITEMS.names).to_batches():
            rows = pa.Table.from_batches([batch]).filter(kept.slice(start, len(batch)))
            start += len(batch)
            if len(rows):
                writer.write_table(rows.cast(ITEMS))


def has_title(catalogue: pa.Table) -> pa.Array:
    """Whether each item has a title."""
    return pa.concat_arrays([pc.is_valid(chunk) for chunk in catalogue["title"].chunks] or [pa.array([], pa.bool_())])
