"""Build one purchase history per user, split by user."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import outputs
from ...engines import DuckDB, Spark, chunk_size
from ...errors import InputError
from ...reviews import accounting
from ...reviews.catalogue import read_catalogue, save_catalogue, write_items
from ...reviews.downloads import Downloads
from ...reviews.ingest import REJECTS, IngestOptions, IngestResult, read_items, read_items_of_reviews, read_reviews
from ...reviews.reasons import explained
from ...reviews.splits import write_shards
from ...schema import SEQUENCES, SPLITS
from .purchases import DROPS
from .ranges import build_ranges
from .settings import SequencesConfig, check_sources


def build(run: Path, out: Path, work: Path, config: SequencesConfig) -> dict[str, Any]:
    """Build the sequences, the catalogue and their accounting in `out`; `work` is kept after an interruption.

    Returns:
        Counts of reviews, items and users, read and kept, and of the users of each split.

    Raises:
        InputError: no files were given, or one is missing, damaged or of another kind, or no user is left.
        ConfigError: the settings contradict each other.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(DuckDB(config.memory, work / "spill"))
        engine: DuckDB | Spark = reader
        if config.engine == "spark":  # opened before the files are read, to fail early if it is missing
            engine = stack.enter_context(Spark(config.master, config.memory, work / "spill"))
        items, reviews = _read(run, work, reader, config)
        catalogue = save_catalogue(reader, items.tables, work)
        parts, core = build_ranges(engine, reviews, items, catalogue, work, config)
    account = _account(items, reviews, read_catalogue(catalogue), core, parts)
    shards = {name: [path for part in parts if (path := part / f"{name}.parquet").exists()] for name in SPLITS}
    write_shards(out, shards, SEQUENCES)
    write_items(catalogue, core, out / outputs.CATALOGUE)
    with pq.ParquetWriter(out / outputs.REJECTS, REJECTS, compression="zstd") as writer:
        for path in (*reviews.rejects, *items.rejects):
            rejects = pq.read_table(path)
            if len(rejects):
                writer.write_table(rejects)
    outputs.write_json(out / outputs.ACCOUNTING, account)
    for name in () if config.sample else ("reviews", "items"):
        accounting.show(name, account[name], account["files"][name])
    shutil.rmtree(work / "spill", ignore_errors=True)
    return {
        "reviews_read": account["reviews"]["read"],
        "reviews": account["reviews"]["kept"],
        "items": account["items"]["kept"],
        "users": account["users"]["kept"],
        **account["splits"],
    }


def _read(run: Path, work: Path, engine: DuckDB, config: SequencesConfig) -> tuple[IngestResult, IngestResult]:
    """The canonical items and reviews."""
    check_sources(config)
    downloads = Downloads(run / outputs.DOWNLOADS)
    reviews, items = downloads.paths(config.reviews), downloads.paths(config.items)
    if config.sample:
        reviews = [str(outputs.path(run, "sample", outputs.SAMPLE_REVIEWS))]
        items = [str(outputs.path(run, "sample", outputs.SAMPLE_ITEMS))]

    def options(kind: str, files: str) -> IngestOptions:
        return IngestOptions(
            chunk_size(config.memory),
            config.form(kind),
            config.dialect(files),
            config.rating_scale,
            config.rating_missing,
            config.scrub,
            config.strict,
        )

    if not items and "title" in config.review_columns:
        read = read_items_of_reviews(engine, reviews, work / "items", options("items of reviews", "reviews"))
    else:
        read = read_items(engine, items, work / "items", options("items", "items"))
    _check_kept("items", read)
    purchases = read_reviews(engine, reviews, work / "reviews", options("reviews", "reviews"))
    _check_kept("reviews", purchases)
    return read, purchases


def _check_kept(kind: str, read: IngestResult) -> None:
    """Check that some records are valid.

    Raises:
        InputError: all were rejected.
    """
    if read.read > sum(read.dropped.values()):
        return
    most = max(read.dropped, key=read.dropped.__getitem__)
    examples = (row for path in read.rejects for row in pq.read_table(path).to_pylist() if row["reason"] == most)
    raise InputError(
        f"No record of {kind} is valid, {read.read:,} were read. Dropped: {explained(read.dropped, next(examples))}"
    )


def _account(
    items: IngestResult, reviews: IngestResult, catalogue: pa.Table, core: pa.Array, parts: list[Path]
) -> dict[str, Any]:
    """The content of `accounting.json`.

    Raises:
        InputError: no user is left.
    """
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(json.loads((part / "counts.json").read_text(encoding="utf-8")))
    titled = len(catalogue) - catalogue["title"].null_count
    item_drops = Counter(items.dropped)
    item_drops["duplicate"] += (pc.sum(catalogue["records"]).as_py() or 0) - len(catalogue)
    item_drops["untitled"] += len(catalogue) - titled
    item_drops["k_core"] += titled - core.true_count
    review_drops = Counter(reviews.dropped)
    review_drops.update({name: counts[name] for name in DROPS})
    splits = {name: counts[name] for name in SPLITS}
    lost_users = {name: counts[f"users_{name}"] for name in ("k_core", "short_history") if counts[f"users_{name}"]}
    account = {
        "reviews": accounting.account(reviews.read, counts["read"] - sum(counts[name] for name in DROPS), review_drops),
        "items": accounting.account(items.read, core.true_count, item_drops),
        "users": {"kept": sum(splits.values()), "dropped": lost_users},
        "splits": splits,
        # Purchases in histories with the time of the purchase before: a hash orders them.
        "times": {"purchases": counts["read"] - sum(counts[name] for name in DROPS), "tied": counts["tied"]},
        "files": {"reviews": reviews.files, "items": items.files},
        # Values that a rule changed in valid records, some of which were dropped later.
        "cleaned": {"reviews": dict(sorted(reviews.cleaned.items())), "items": dict(sorted(items.cleaned.items()))},
    }
    if not account["users"]["kept"]:
        raise InputError(
            f"No user is left of {reviews.read:,} reviews and {titled:,} items with a title. Dropped reviews: "
            f"{explained(account['reviews']['dropped'])} Ids of the first review's item and the first item: "
            f"{_first(reviews.tables)!r} and {_first(items.tables)!r}."
        )
    return account


def _first(tables: list[Path]) -> str | None:
    """The id of the item in the first row of some tables."""
    batches = (batch for path in tables for batch in pq.ParquetFile(path).iter_batches(1, columns=["asin"]))
    return next((batch["asin"][0].as_py() for batch in batches), None)
