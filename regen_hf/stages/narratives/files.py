"""TODO docstring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ... import outputs, schema
from ...errors import RunError


def sequence_files(run: Path) -> list[Path]:
    """The parquet files of all histories of a run, in order.

    Raises:
        RunError: there are none.
    """
    files = [path for split in schema.SPLITS for path in outputs.split_files(run / "sequences", split)]
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    return files


def write(rows: Iterator[dict[str, Any]], path: Path) -> Counter[str]:
    """Write rows of schema.NARRATIVES to `path`, a part at a time; returns how often each check failed."""
    failed: Counter[str] = Counter()

    def part() -> pa.Table:
        taken = list(islice(rows, 1024))
        failed.update(check for row in taken for check in row["checks"]["failed"])
        return pa.Table.from_pylist(taken, schema=schema.NARRATIVES)

    with pq.ParquetWriter(path, schema.NARRATIVES, compression="zstd") as writer:
        table = part()
        writer.write_table(table)  # an empty part still makes a readable file
        while table.num_rows:
            table = part()
            if table.num_rows:
                writer.write_table(table)
    return failed
