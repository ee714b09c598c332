"""Stage 1, sequences: raw reviews and items -> one row per user, the latest purchases oldest first, and the catalogue.

Exact duplicates, reviews of unknown items and of items without a title are taken out and counted (section 3.2). The
split is decided by the hash of the user id alone, so it is the same on every engine, in any row order and whoever else
is in the log. Rows stand in the order of that hash. The reviews are worked on in ranges of it, one after the other, so
that memory stays under a set limit at any size, and a finished range is not done again after an interruption.

    out/train-00000-of-00001.parquet   validation-*, test-*: `schema.SEQUENCES`
    out/items/items.parquet            `schema.ITEMS`: every item with a title, bought or not, by asin
    out/rejects.parquet                file, line, reason, raw: every line that gave no review or item
    out/accounting.json                lines read = kept + dropped for each reason
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engines import DuckDB, memory_bytes
from ..errors import ConfigError, InputError
from ..reviews.reading import Reading, read_items, read_reviews
from ..schema import ITEMS, MAX_HISTORY
from .accounting import account, write
from .histories import best_items
from .ranges import build_ranges


@dataclass(frozen=True)
class SequencesConfig:
    """Where the raw files are, and which users and purchases are kept."""

    reviews: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """Raw review files: paths or globs of JSON lines, plain, gzip or zstd."""
    items: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """Raw item metadata files: paths or globs of JSON lines, plain, gzip or zstd."""
    sample: bool = False
    """Use the simulated sample world in place of raw files."""
    max_history: int = MAX_HISTORY
    """Purchases kept per user, the latest ones."""
    min_history: int = 1
    """Users with fewer purchases than this are dropped."""
    validation: float = 0.1
    """Share of the users in the validation split."""
    test: float = 0.1
    """Share of the users in the test split."""
    memory: str = field(default="2GB", metadata={"affects_output": False})
    """Memory to stay under, such as 2GB; the result is the same with any."""

    def __post_init__(self) -> None:
        if self.sample and (self.reviews or self.items):
            raise ConfigError("sample was given together with reviews or items: choose the sample world or raw files.")
        if self.min_history < 1:
            raise ConfigError(f"min_history is {self.min_history}, expected at least 1.")
        if self.max_history < self.min_history:
            raise ConfigError(
                f"max_history is {self.max_history}, expected at least min_history, which is {self.min_history}."
            )
        for name in ("validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a share of the users from 0 to below 1.")
        if self.validation + self.test >= 1:
            raise ConfigError(
                f"validation and test add up to {self.validation + self.test:g}, expected below 1: "
                "nothing would be left to train on."
            )
        memory_bytes(self.memory)


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
    reviews, items = _sources(run, config)
    reading = Reading(chunk_size=max(memory_bytes(config.memory) // 32, 2**20))
    with DuckDB(config.memory, work / "spill") as engine:
        item_log = read_items(engine, items, work / "items", reading)
        review_log = read_reviews(engine, reviews, work / "reviews", reading)
        catalogue = engine.to_arrow(best_items(engine.read_parquet(item_log.tables, ITEMS, "items")))
        done = build_ranges(engine, review_log, item_log, catalogue, work, config)
    accounting = account(item_log, review_log, catalogue, done)
    write(out, item_log, review_log, catalogue, done, accounting)
    shutil.rmtree(work / "spill", ignore_errors=True)
    return {
        "reviews_read": accounting["reviews"]["read"],
        "reviews": accounting["reviews"]["kept"],
        "items": accounting["items"]["kept"],
        "users": accounting["users"]["kept"],
        **accounting["splits"],
    }


def _sources(run: Path, config: SequencesConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if config.sample:
        return (str(run / "sample" / "reviews.jsonl.gz"),), (str(run / "sample" / "items.jsonl.gz"),)
    for name in ("reviews", "items"):
        if not getattr(config, name):
            raise InputError(
                f"No {name} were given. Give the raw files (--reviews FILE… --items FILE…), "
                "or --sample for the simulated sample world."
            )
    return config.reviews, config.items
