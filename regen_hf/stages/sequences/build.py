"""Build one purchase history per user, split by user."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...engines import DuckDB, Spark, memory_bytes
from ...reviews.formats import chosen
from ...reviews.reading import Log, Reading, read_items, read_items_of_reviews, read_reviews
from .accounting import account, write
from .catalogue import read_catalogue, save_catalogue
from .ranges import build_ranges
from .settings import SequencesConfig, check_sources


def build(run: Path, out: Path, work: Path, config: SequencesConfig) -> dict[str, Any]:
    """Build the sequences, the catalogue and their accounting in `out`.

    Args:
        run: the run folder; with `config.sample` it holds `sample/reviews.jsonl.gz` and `sample/items.jsonl.gz`.
        out: an empty folder.
        work: a folder that outlives an interrupted build.
        config: the settings.

    Returns:
        Counts of reviews, items and users, read and kept, and of the users of each split.

    Raises:
        InputError: no files were given, or one is missing, damaged or not what it should be, or no user is left.
        ConfigError: the settings contradict each other.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(DuckDB(config.memory, work / "spill"))
        engine: DuckDB | Spark = reader
        if config.engine == "spark":  # opened before the files are read: if it is missing, that is told at once
            engine = stack.enter_context(Spark(config.master, config.memory, work / "spill"))
        item_log, review_log = _read(run, work, reader, engine.chunk_suffix, config)
        file = save_catalogue(reader, item_log.tables, work)
        done, core = build_ranges(engine, review_log, item_log, file, work, config)
    accounting = account(item_log, review_log, read_catalogue(file), core, done)
    write(out, item_log, review_log, file, core, done, accounting)
    shutil.rmtree(work / "spill", ignore_errors=True)
    return {
        "reviews_read": accounting["reviews"]["read"],
        "reviews": accounting["reviews"]["kept"],
        "items": accounting["items"]["kept"],
        "users": accounting["users"]["kept"],
        **accounting["splits"],
    }


def _read(run: Path, work: Path, engine: DuckDB, suffix: str, config: SequencesConfig) -> tuple[Log, Log]:
    """The logs of the items and of the reviews; the reviews in files of this suffix."""
    check_sources(config)
    reviews, items = config.reviews, config.items
    if config.sample:
        reviews, items = (str(run / "sample" / "reviews.jsonl.gz"),), (str(run / "sample" / "items.jsonl.gz"),)
    inside = not items and "title" in config.columns
    chunk_size = max(memory_bytes(config.memory) // 64, 2**20)

    def reading(kind: str, suffix: str = Reading.suffix) -> Reading:
        form = chosen(kind, config.format, config.columns, config.item_columns)
        return Reading(chunk_size, form, config.scrub, config.strict, suffix)

    if inside:
        item_log = read_items_of_reviews(engine, reviews, work / "items", reading("items of reviews"))
    else:
        item_log = read_items(engine, items, work / "items", reading("items"))
    return item_log, read_reviews(engine, reviews, work / "reviews", reading("reviews", suffix))
