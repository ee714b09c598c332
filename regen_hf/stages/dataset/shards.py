"""Parquet files for the Hub: shards below its limit, with row groups of a size that its viewer can read.

Files and sizes depend on the rows only, not on the batches in which they arrive, so that the same dataset is the same
push.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...outputs import shard_name

SHARD = 450 * 10**6
"""Bytes after which a shard is closed: with the row group that exceeds it, a shard stays below 500 MB."""
ROW_GROUP = 1000
"""Most rows in a row group."""
ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of a row group in memory after which it is divided: the viewer always reads complete row groups."""

LARGE_ROW = 2 * 10**6
"""Bytes of a row above which the viewer of the Hub cuts its texts."""


class Written(NamedTuple):
    """What was written."""

    rows: int
    size: int
    """Bytes in memory."""
    large: int
    """Rows of more than LARGE_ROW bytes."""


def write(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, stem: str, row_group: int | None = None
) -> Written:
    """Write `batches` to `folder/stem-00000-of-00001.parquet` and further shards as needed.

    A row group has at most `row_group` rows, by default ROW_GROUP.
    """
    row_group = row_group or ROW_GROUP
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    rows = size = large = 0
    groups = _row_groups(batches, schema, row_group)
    group = next(groups, schema.empty_table())
    while group is not None:
        shards.append(folder / f"{stem}-{len(shards):05d}.part")
        with (
            shards[-1].open("wb") as file,
            # Chunks depend on the content, so a push of a changed dataset uploads only the changes.
            pq.ParquetWriter(
                file, schema, compression="zstd", write_page_index=True, use_content_defined_chunking=True
            ) as writer,
        ):
            while group is not None and file.tell() < SHARD:
                writer.write_table(group, row_group_size=row_group)
                sizes = _row_bytes(group)
                rows, size = rows + len(group), size + int(sizes.sum())
                large += int((sizes > LARGE_ROW).sum())
                group = next(groups, None)
    for number, shard in enumerate(shards):
        shard.rename(folder / shard_name(stem, number, len(shards)))
    return Written(rows, size, large)


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, row_group: int) -> Iterator[pa.Table]:
    """Tables of `row_group` rows, divided where they exceed `ROW_GROUP_BYTES`; the last one may be shorter."""
    for block in _blocks(batches, schema, row_group):
        step = max(len(block) * ROW_GROUP_BYTES // max(int(_row_bytes(block).sum()), ROW_GROUP_BYTES), 1)
        for start in range(0, len(block), step):
            yield block.slice(start, step)


def _blocks(batches: Iterable[pa.RecordBatch], schema: pa.Schema, row_group: int) -> Iterator[pa.Table]:
    parts: list[pa.RecordBatch] = []
    missing = row_group
    for batch in batches:
        start = 0
        while start < len(batch):
            parts.append(batch.slice(start, missing).cast(schema))
            start, missing = start + len(parts[-1]), missing - len(parts[-1])
            if not missing:
                yield pa.Table.from_batches(parts).combine_chunks()
                parts, missing = [], row_group
    if parts:
        yield pa.Table.from_batches(parts).combine_chunks()


def _row_bytes(table: pa.Table) -> np.ndarray:
    """The bytes of each row of `table`, shape (rows,)."""
    total = np.zeros(len(table), np.int64)
    for column in table.columns:
        total += np.concatenate([np.zeros(0, np.int64), *map(_bytes, column.chunks)])
    return total


def _bytes(array: pa.Array) -> np.ndarray:
    """The bytes of each value of `array`: numbers by their width, texts and lists with 4 bytes for their length.

    `nbytes` of Arrow also counts bitmaps of nulls and ends of buffers, which depend on how the rows are batched.
    """
    kind = array.type
    if pa.types.is_struct(kind):
        return sum((_bytes(field) for field in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = np.cumsum(_lengths(pc.list_value_length(array)))
        values = np.concatenate([[0], np.cumsum(_bytes(array.flatten()))])
        return 4 + np.diff(values[ends], prepend=0)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return 4 + _lengths(pc.binary_length(array))
    return np.full(len(array), max(int(kind.bit_width) // 8, 1), np.int64)


def _lengths(array: pa.Array) -> np.ndarray:
    return pc.fill_null(array, 0).to_numpy(zero_copy_only=False).astype(np.int64)
