"""Ranges of user hashes, processed one after the other; a finished range is reused after an interruption."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ...engines import DuckDB, Spark, hash_ranges, memory_bytes
from ...outputs import replacing
from ...progress import Bar
from ...reviews.catalogue import has_title, read_catalogue
from ...reviews.ingest import REVIEWS, IngestResult, keep_if_same
from .histories import write_histories
from .k_core import core_items, save_baskets
from .purchases import ORDER, baskets, purchases

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np

    from .settings import SequencesConfig

ROW_GROUP = 2**15
"""Most purchases in a row group, about."""
SHARE = 64
"""A row group takes at most this part of the memory limit: sorting and joining texts needs several copies."""


def build_ranges(
    engine: DuckDB | Spark,
    reviews: IngestResult,
    items: IngestResult,
    catalogue: Path,
    work: Path,
    config: SequencesConfig,
) -> tuple[list[Path], pa.Array]:
    """Write the histories of each range to folders in `work`, which is kept after an interruption.

    Returns:
        The folders of `write_histories` in the order of the hashes, one per range or per partition of the engine; and
        a boolean for each row of the catalogue: whether the item has a title and is in the k-core.
    """
    bounds = hash_ranges(reviews.size, config.memory)
    settings = {name: value for name, value in asdict(config).items() if name not in ("memory", "engine", "master")}
    tables = [[str(path.relative_to(work)), path.stat().st_mtime_ns] for path in (*reviews.tables, *items.tables)]
    folder = work / f"histories-{len(bounds)}"
    keep_if_same(folder, [settings, tables])
    table = engine.read_parquet(reviews.tables, REVIEWS, "reviews")
    ranges = [table.filter(table.user_hash >= low, table.user_hash < high) for low, high in bounds]
    best = read_catalogue(catalogue)
    core = titled = has_title(best)
    known = pa.table({"asin": best["asin"], "item": pc.if_else(titled, pa.arange(0, len(titled)), None), "core": core})
    if config.k_core:
        core = pa.array(_core(engine, ranges, engine.read_arrow(known, "known"), len(titled), folder, config))
        known = known.set_column(2, "core", core)
    known_items = engine.read_arrow(known, "known")
    kept = reviews.read - sum(reviews.dropped.values())
    rows = min(ROW_GROUP, max(memory_bytes(config.memory) // SHARE * kept // max(reviews.size, 1), 1))
    parts = []
    for number, in_range in enumerate(Bar(ranges, "histories", unit="ranges")):
        path = folder / f"{number:05d}"
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            writer = partial(write_histories, catalogue.resolve(), config)
            engine.write(purchases(in_range, known_items, config), ORDER, rows, part, writer)
            os.replace(part, path)
        parts += sorted(path.iterdir())
    return parts, core


def _core(
    engine: DuckDB | Spark,
    ranges: Sequence[ir.Table],
    items: ir.Table,
    count: int,
    folder: Path,
    config: SequencesConfig,
) -> np.ndarray:
    """Which of the `count` items are in the k-core; the baskets of an interrupted run are reused."""
    files = []
    for number, in_range in enumerate(Bar(ranges, "k-core", unit="ranges")):
        path = folder / f"baskets-{number:05d}.npy"
        if not path.exists():
            with replacing(path) as new:
                save_baskets(engine.to_arrow(baskets(in_range, items, config)), new)
        files.append(path)
    return core_items(files, config.k_core, count)
