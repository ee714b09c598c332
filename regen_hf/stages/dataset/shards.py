"""Parquet as the Hub wants it: shards below its limit, in row groups that its viewer can page through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHARD = 450 * 10**6
"""Bytes after which a shard is closed: with the row group that passes it, it stays below 500 MB."""
ROW_GROUP = 1000
"""Rows in a row group, at most."""
ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of a row group in memory after which it is closed: the viewer reads whole row groups."""


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, stem: str) -> tuple[int, int]:
    """Write `batches` to `folder/stem-00000-of-00001.parquet` and as many more shards as it takes.

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
            # Chunks are cut where the content says so: a push of a changed dataset sends what changed.
            pq.ParquetWriter(
                file, schema, compression="zstd", write_page_index=True, use_content_defined_chunking=True
            ) as writer,
        ):
            while group is not None and file.tell() < SHARD:
                writer.write_table(group, row_group_size=ROW_GROUP)
                rows, size = rows + len(group), size + group.nbytes
                group = next(groups, None)
    for number, shard in enumerate(shards):
        shard.rename(folder / f"{stem}-{number:05d}-of-{len(shards):05d}.parquet")
    return rows, size


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        step = min(max(ROW_GROUP_BYTES * len(batch) // max(batch.nbytes, 1), 1), ROW_GROUP)
        for start in range(0, len(batch), step):
            held.append(batch.slice(start, step).cast(schema))
            if sum(map(len, held)) >= ROW_GROUP or sum(part.nbytes for part in held) >= ROW_GROUP_BYTES:
                yield pa.Table.from_batches(held)
                held = []
    if held:
        yield pa.Table.from_batches(held)
