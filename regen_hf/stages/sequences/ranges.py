"""Ranges of user hashes, worked on one after the other: each a query, and parquet that is not made again."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ...engines import DuckDB, Spark, memory_bytes
from ...reviews.reading import REVIEWS, Log, keep_if_same
from .catalogue import has_title, read_catalogue
from .core import core_items, save_baskets
from .cutting import write_part
from .histories import ORDER, baskets, purchases

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np

    from .settings import SequencesConfig

ROW_GROUP = 2**15
"""Purchases in a row group, about."""
REVIEW_COPIES = 8
"""A range of hashes is so small that this many copies of its reviews fit into the memory set: they are joined,
sorted and cut before they leave, each time as a copy."""


def build_ranges(
    engine: DuckDB | Spark,
    reviews: Log,
    items: Log,
    file: Path,
    work: Path,
    config: SequencesConfig,
) -> tuple[list[Path], pa.Array]:
    """Folders of finished parquet and counts in the order of the hashes, and which items of the catalogue count.

    A range of hashes has one folder, or several where the engine works on parts of it at once.

    An item counts that has a title, and is in the k-core where one is asked for. `file` is the catalogue.
    """
    ranges = max(1, -(-REVIEW_COPIES * reviews.size // memory_bytes(config.memory)))
    bounds = [f"{place * 2**32 // ranges:08x}" for place in range(ranges)] + ["g"]  # "g" is after every hex digit
    settings = {name: value for name, value in asdict(config).items() if name not in ("memory", "engine", "master")}
    tables = [[str(path.relative_to(work)), path.stat().st_mtime_ns] for path in (*reviews.tables, *items.tables)]
    folder = work / f"histories-{ranges}"
    keep_if_same(folder, [settings, tables])
    catalogue = read_catalogue(file)
    core = titled = has_title(catalogue)
    place = pc.if_else(titled, pa.arange(0, len(titled)), None)
    parts = [
        partial(engine.read_range, reviews.tables, REVIEWS, "reviews", *pair) for pair in itertools.pairwise(bounds)
    ]
    table = pa.table({"asin": catalogue["asin"], "place": place, "core": titled})
    known = engine.read_arrow(table, "known")
    if config.k_core:
        core = pa.array(_core(engine, parts, known, len(titled), folder, config))
        known = engine.read_arrow(table.set_column(2, "core", core), "known")
    done = []
    for number in tqdm(range(ranges), desc="histories", unit="range"):
        path = folder / f"{number:05d}"
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            rows = purchases(parts[number](), known, config)
            engine.write(rows, ORDER, ROW_GROUP, part, partial(write_part, file.resolve(), config))
            os.replace(part, path)
        done += sorted(path.iterdir())
    return done, core


def _core(
    engine: DuckDB | Spark,
    parts: Sequence[Callable[[], ir.Table]],
    items: ir.Table,
    count: int,
    folder: Path,
    config: SequencesConfig,
) -> np.ndarray:
    """Which of the `count` items are in the k-core; purchases that an interrupted run took out are kept."""
    files = []
    for number, part in enumerate(tqdm(parts, desc="k-core", unit="range")):
        path = folder / f"baskets-{number:05d}.npy"
        if not path.exists():
            new = path.with_suffix(".part")
            save_baskets(engine.to_arrow(baskets(part(), items, config)), new)
            os.replace(new, path)
        files.append(path)
    return core_items(files, config.k_core, count)
