"""Parquet files for the Hub: shards below its limit, with row groups of a size that its viewer can read.

Files and sizes depend on the rows only, not on the batches in which they arrive, so that the same dataset is the same
push.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

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


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, stem: str) -> tuple[int, int]:
    """Write `batches` to `folder/stem-00000-of-00001.parquet` and further shards as needed.

    Returns:
        The number of rows, and their bytes in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    rows = size = 0
    groups = _row_groups(batches, schema)
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
                writer.write_table(group, row_group_size=ROW_GROUP)
                rows, size = rows + len(group), size + _table_bytes(group)
                group = next(groups, None)
    for number, shard in enumerate(shards):
        shard.rename(folder / shard_name(stem, number, len(shards)))
    return rows, size


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of `ROW_GROUP` rows, divided where they exceed `ROW_GROUP_BYTES`; the last one may be shorter."""
    for block in _blocks(batches, schema):
        step = max(len(block) * ROW_GROUP_BYTES // max(_table_bytes(block), ROW_GROUP_BYTES), 1)
        for start in range(0, len(block), step):
            yield block.slice(start, step)


def _blocks(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    parts: list[pa.RecordBatch] = []
    missing = ROW_GROUP
    for batch in batches:
        start = 0
        while start < len(batch):
            parts.append(batch.slice(start, missing).cast(schema))
            start, missing = start + len(parts[-1]), missing - len(parts[-1])
            if not missing:
                yield pa.Table.from_batches(parts).combine_chunks()
                parts, missing = [], ROW_GROUP
    if parts:
        yield pa.Table.from_batches(parts).combine_chunks()


def _table_bytes(table: pa.Table) -> int:
    return sum(_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _bytes(array: pa.Array) -> int:
    """The bytes of the values of `array`: numbers by their width, texts and lists with 4 bytes for their length.

    `nbytes` of Arrow also counts bitmaps of nulls and ends of buffers, which depend on how the rows are batched.
    """
    kind = array.type
    if pa.types.is_struct(kind):
        return sum(_bytes(field) for field in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return 4 * len(array) + _bytes(array.flatten())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return 4 * len(array) + (pc.sum(pc.binary_length(array)).as_py() or 0)
    return len(array) * max(int(kind.bit_width) // 8, 1)
