"""Splits by user: which rows belong to which split, and the files of each split."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..outputs import shard_name
from ..schema import hash_bound


def split_rows(hashes: pa.ChunkedArray, validation: float, test: float) -> dict[str, slice]:
    """The rows of each split, from the sorted `hashes` of the users and the shares of the splits."""
    ends = [pc.sum(pc.less(hashes, hash_bound(share))).as_py() or 0 for share in (test, test + validation)]
    return {
        "test": slice(0, ends[0]),
        "validation": slice(ends[0], ends[1]),
        "train": slice(ends[1], len(hashes)),
    }


def write_shards(out: Path, shards: Mapping[str, Sequence[Path]], schema: pa.Schema) -> None:
    """Link the parquet files of each split into `out` under their final names; a split without files is empty."""
    for split, files in shards.items():
        for number, file in enumerate(files):
            _link(file, out / shard_name(split, number, len(files)))
        if not files:
            pq.write_table(schema.empty_table(), out / shard_name(split))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the source stays for a resumed run until the stage is complete
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
