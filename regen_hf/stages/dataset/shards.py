"""Parquet files for the Hub: shards below its limit, with row groups of a size that its viewer can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...outputs import shard_name

SHARD = 450 * 10**6
"""Bytes after which a shard is closed: with the row group that exceeds it, a shard stays below 500 MB."""
ROW_GROUP = 1000
"""Most rows in a row group."""
ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of a row group in memory after which it is closed: the viewer always reads complete row groups."""


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
                rows, size = rows + len(group), size + group.nbytes
                group = next(groups, None)
    for number, shard in enumerate(shards):
        shard.rename(folder / shard_name(stem, number, len(shards)))
    return rows, size


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    parts: list[pa.RecordBatch] = []
    for batch in batches:
        step = min(max(ROW_GROUP_BYTES * len(batch) // max(batch.nbytes, 1), 1), ROW_GROUP)
        for start in range(0, len(batch), step):
            parts.append(batch.slice(start, step).cast(schema))
            if sum(map(len, parts)) >= ROW_GROUP or sum(part.nbytes for part in parts) >= ROW_GROUP_BYTES:
                yield pa.Table.from_batches(parts)
                parts = []
    if parts:
        yield pa.Table.from_batches(parts)
