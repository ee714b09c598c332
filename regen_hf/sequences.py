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

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .engines import DuckDB, memory_bytes
from .errors import ConfigError, InputError
from .reviews.reading import REJECTS, REVIEWS, Log, Reading, read_items, read_reviews
from .schema import ITEMS, MAX_HISTORY, PURCHASE_HISTORY, SEQUENCES, SPLITS

if TYPE_CHECKING:
    import ibis.expr.types as ir

DROPS = ("duplicate", "unknown_item", "untitled_item", "beyond_max_history", "short_history")
"""Reasons for which a good review is dropped, in the order in which they are looked at."""
ROW_GROUP = 1000
"""Users in a row group."""
REVIEW_COPIES = 8
"""A range of hashes is so small that this many copies of its reviews fit into the memory set: they are grouped,
collected and sorted before they leave, each time as a copy."""


@dataclass(frozen=True)
class SequencesConfig:
    """Where the raw files are, and which users and purchases are kept."""

    # Where the files lie says nothing: their content is in the fingerprint of the stage.
    reviews: tuple[str, ...] = field(default=(), metadata={"affects_output": False})
    """Raw review files: paths or globs of JSON lines, plain, gzip or zstd."""
    items: tuple[str, ...] = field(default=(), metadata={"affects_output": False})
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
        done = _histories(engine, review_log, item_log, catalogue, work, config)
    accounting = _account(item_log, review_log, catalogue, done)
    _write(out, item_log, review_log, catalogue, done, accounting)
    shutil.rmtree(work / "spill", ignore_errors=True)
    return {
        "reviews_read": accounting["reviews"]["read"],
        "reviews": accounting["reviews"]["kept"],
        "items": accounting["items"]["kept"],
        "users": accounting["users"]["kept"],
        **accounting["splits"],
    }


def best_items(items: ir.Table) -> ir.Table:
    """One record for each asin, in the order of asin, with `records`, how many there were of it.

    A record with a title is kept before one without, then that with most fields, then that with most text; ties are
    decided by the text itself.
    """
    import ibis

    columns = [items[name] for name in ("title", "category", "description", "price")]
    texts = columns[:3]
    place = ibis.row_number().over(
        group_by=items.asin,
        order_by=[
            items.title.isnull(),
            ibis.desc(sum(column.notnull().cast("int64") for column in columns)),
            ibis.desc(sum(column.length().fill_null(0) for column in texts)),
            *(column.fill_null("") for column in texts),
            items.price.fill_null(-1),
        ],
    )
    numbered = items.mutate(place=place, records=items.count().over(group_by=items.asin))
    return numbered.filter(numbered.place == 0).drop("place").order_by("asin")


def histories(reviews: ir.Table, items: ir.Table, config: SequencesConfig) -> ir.Table:
    """THE expression: canonical reviews -> one row for each user who wrote any.

    Args:
        reviews: columns of `reviews.REVIEWS`.
        items: `asin` of every known item, unique, and `place`, its row in the catalogue, null if it has no title.
        config: gives `max_history` and `min_history` and the shares of the splits.

    Returns:
        `user_hash`, `reviewer_id`, `split`; `history`, a list of (unix_time, asin, rating, summary, text, place),
        oldest first, null if the user is dropped; `read` and a column for each of `DROPS`: that many reviews of this
        user. In the order of `user_hash`, then `reviewer_id`.
    """
    import ibis

    distinct = reviews.group_by(list(REVIEWS.names)).agg(copies=reviews.count())
    known = items.mutate(known=True)
    joined = distinct.left_join(known, "asin").drop("asin_right")
    purchase = ibis.struct(
        # Sorted by the first field, then by the next: some releases know only the day, so ties are common, and every
        # field takes part so that no two purchases compare as equal.
        {name: joined[name] for name in ("unix_time", "asin", "rating", "summary", "text", "place")}
    )
    users = joined.group_by("user_hash", "reviewer_id").agg(
        read=joined.copies.sum(),
        duplicate=(joined.copies - 1).sum(),
        unknown_item=joined.known.isnull().sum(),
        untitled_item=(joined.known.notnull() & joined.place.isnull()).sum(),
        titled=joined.place.notnull().sum(),
        history=purchase.collect(where=joined.place.notnull()),
    )
    kept = ibis.least(users.titled, config.max_history)
    long_enough = users.titled >= config.min_history
    return users.select(
        "user_hash",
        "reviewer_id",
        "read",
        "duplicate",
        "unknown_item",
        "untitled_item",
        split=split(users.user_hash, config),
        beyond_max_history=users.titled - kept,
        short_history=ibis.ifelse(long_enough, 0, kept),
        history=ibis.ifelse(long_enough, users.history.sort()[-config.max_history :], ibis.null(users.history.type())),
    ).order_by("user_hash", "reviewer_id")


def split(user_hash: ir.StringValue, config: SequencesConfig) -> ir.StringValue:
    """The split of a user: the range into which the first 8 hex digits of md5(reviewer_id) fall, compared as text.

    Text of one length compares like the number, and alike on every engine.
    """
    import ibis

    return ibis.cases(
        (user_hash < _hex(config.test), "test"),
        (user_hash < _hex(config.test + config.validation), "validation"),
        else_="train",
    )


def _hex(share: float) -> str:
    """The hash below which a share of the users lies.

    >>> _hex(0.0), _hex(0.5)
    ('00000000', '80000000')
    """
    return f"{min(int(share * 2**32), 2**32 - 1):08x}"


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


def _histories(
    engine: DuckDB,
    reviews: Log,
    items: Log,
    catalogue: pa.Table,
    work: Path,
    config: SequencesConfig,
) -> list[Path]:
    """A folder of finished parquet and counts for each range of hashes, in the order of the ranges."""
    from tqdm import tqdm

    ranges = max(1, -(-REVIEW_COPIES * reviews.size // memory_bytes(config.memory)))
    bounds = [f"{place * 2**32 // ranges:08x}" for place in range(ranges)] + ["g"]  # "g" is after every hex digit
    settings = {name: value for name, value in asdict(config).items() if name != "memory"}
    tables = [[str(path.relative_to(work)), path.stat().st_mtime_ns] for path in (*reviews.tables, *items.tables)]
    made_from = json.dumps([settings, tables])
    folder = work / f"histories-{ranges}"
    stamp = folder / "made_from.json"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_from:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(made_from, encoding="utf-8")
    titled = catalogue.filter(pc.is_valid(catalogue["title"]))
    place = pc.index_in(catalogue["asin"], titled["asin"]).combine_chunks().cast(pa.int64())
    known = engine.read_arrow(pa.table({"asin": catalogue["asin"], "place": place}), "known")
    log = engine.read_parquet(reviews.tables, REVIEWS, "reviews")
    done = []
    for number in tqdm(range(ranges), desc="histories", unit="range"):
        path = folder / f"{number:05d}"
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            inside = log.filter(log.user_hash >= bounds[number], log.user_hash < bounds[number + 1])
            table = histories(inside, known, config)
            _write_range(engine.batches(table, ROW_GROUP), titled, part)
            os.replace(part, path)
        done.append(path)
    return done


def _write_range(users: Iterator[pa.RecordBatch], titled: pa.Table, part: Path) -> None:
    """The users of one range as `SPLIT.parquet`, with their items put in, and `counts.json`."""
    counts: Counter[str] = Counter()
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for batch in users:
            table = pa.Table.from_batches([batch])
            for name in ("read", *DROPS):
                counts[name] += int(pc.sum(table[name]).as_py() or 0)  # DuckDB sums integers as decimals
            empty = pc.is_null(table["history"])
            counts["short_users"] += pc.sum(empty).as_py() or 0
            table = table.filter(pc.invert(empty))
            for name in SPLITS:
                rows = table.filter(pc.equal(table["split"], name))
                if len(rows):
                    if name not in writers:
                        writers[name] = pq.ParquetWriter(part / f"{name}.parquet", SEQUENCES, compression="zstd")
                    writers[name].write_table(_rows(rows, titled))
                    counts[name] += len(rows)
    finally:
        for writer in writers.values():
            writer.close()
    (part / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _rows(users: pa.Table, titled: pa.Table) -> pa.Table:
    """`schema.SEQUENCES` from users with a `history` of reviews and places in the catalogue."""
    lists = users["history"].combine_chunks()
    purchase = lists.flatten()
    item_table = titled.take(purchase.field("place")).combine_chunks()
    item_kind, review_kind = (PURCHASE_HISTORY.value_type.field(name).type for name in ("item", "review"))

    def struct(columns: dict[str, pa.Array], kind: pa.StructType) -> pa.StructArray:
        return pa.StructArray.from_arrays([columns[f.name].cast(f.type) for f in kind], fields=list(kind))

    item = struct({f.name: _flat(item_table[f.name]) for f in item_kind}, item_kind)
    review = struct({f.name: purchase.field(f.name) for f in review_kind}, review_kind)
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    pairs = pa.StructArray.from_arrays([item, review], fields=list(PURCHASE_HISTORY.value_type))
    history = pa.ListArray.from_arrays(offsets.cast(pa.int32()), pairs, type=PURCHASE_HISTORY)
    return pa.table({"reviewer_id": users["reviewer_id"], "purchase_history": history}, schema=SEQUENCES)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _account(items: Log, reviews: Log, catalogue: pa.Table, done: list[Path]) -> dict[str, Any]:
    """The numbers of `accounting.json`.

    Raises:
        InputError: no user is left.
    """
    counts: Counter[str] = Counter()
    for path in done:
        counts.update(json.loads((path / "counts.json").read_text(encoding="utf-8")))
    titled = len(catalogue) - catalogue["title"].null_count
    item_drops = Counter(items.dropped)
    item_drops["duplicate"] += (pc.sum(catalogue["records"]).as_py() or 0) - len(catalogue)
    item_drops["untitled"] += len(catalogue) - titled
    review_drops = Counter(reviews.dropped)
    for name in DROPS:
        review_drops[name] += counts[name]
    splits = {name: counts[name] for name in SPLITS}
    short = {"short_history": counts["short_users"]} if counts["short_users"] else {}
    accounting = {
        "reviews": _entry(reviews.read, counts["read"] - sum(counts[name] for name in DROPS), review_drops),
        "items": _entry(items.read, titled, item_drops),
        "users": {"kept": sum(splits.values()), "dropped": short},
        "splits": splits,
    }
    if not accounting["users"]["kept"]:
        lost = ", ".join(f"{count} {reason}" for reason, count in accounting["reviews"]["dropped"].items())
        raise InputError(
            f"No user is left: of {reviews.read} lines of reviews and {titled} items with a title, the reviews were "
            f"dropped as: {lost}. Do the reviews and the items belong together?"
        )
    return accounting


def _entry(read: int, kept: int, dropped: Counter[str]) -> dict[str, Any]:
    reasons = {reason: count for reason, count in sorted(dropped.items()) if count}
    if read != kept + sum(reasons.values()):
        raise RuntimeError(f"The accounting does not add up: {read} read, {kept} kept, dropped {reasons}.")
    return {"read": read, "kept": kept, "dropped": reasons}


def _write(
    out: Path, items: Log, reviews: Log, catalogue: pa.Table, done: list[Path], accounting: dict[str, Any]
) -> None:
    for name in SPLITS:
        shards = [path / f"{name}.parquet" for path in done if (path / f"{name}.parquet").exists()]
        for number, shard in enumerate(shards):
            _link(shard, out / f"{name}-{number:05d}-of-{len(shards):05d}.parquet")
        if not shards:
            pq.write_table(SEQUENCES.empty_table(), out / f"{name}-00000-of-00001.parquet")
    (out / "items").mkdir()
    titled = catalogue.filter(pc.is_valid(catalogue["title"]))
    pq.write_table(titled.select(ITEMS.names).cast(ITEMS), out / "items" / "items.parquet", compression="zstd")
    with pq.ParquetWriter(out / "rejects.parquet", REJECTS, compression="zstd") as writer:
        for path in (*reviews.rejects, *items.rejects):
            table = pq.read_table(path)
            if len(table):
                writer.write_table(table)
    (out / "accounting.json").write_text(json.dumps(accounting, indent=2) + "\n", encoding="utf-8")
    for name in ("reviews", "items"):
        entry = accounting[name]
        lost = ", ".join(f"{count:,} {reason}" for reason, count in entry["dropped"].items()) or "none"
        print(f"{name}: {entry['read']:,} lines read, {entry['kept']:,} kept, dropped: {lost}", file=sys.stderr)  # noqa: T201


def _link(source: Path, target: Path) -> None:
    """A second name for the file: a finished range stays in the work folder until the stage is complete."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
