"""Join histories, narratives and scores to a dataset repository."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import outputs
from ...errors import RunError
from ...schema import (
    INTERACTIONS,
    ITEMS,
    NARRATIVES,
    RATINGS,
    REVIEW,
    ROW,
    SEQUENCES,
    SPLITS,
    features,
    purchase_columns,
    written_narratives,
)
from . import filters, shards
from .settings import DatasetConfig

FLAT = 20_000
"""Most interactions in a row group."""
TABLES = {"rows": ROW, "sequences": SEQUENCES, "narratives": NARRATIVES, "ratings": RATINGS}
"""Schemas of the tables that DuckDB reads."""


def build(run: Path, out: Path, work: Path, config: DatasetConfig) -> dict[str, Any]:
    """Join the outputs of earlier stages to a dataset repository in `out`.

    The rows are the users who have a row in `narratives.parquet`, which may be a preview. Scores are null where the
    ratings have no row.

    Returns:
        Counts: users of each split, users of the sequences if it is a preview, items, interactions, users with missing
        narratives, rows that are too large for the viewer, bytes of the rows in memory.

    Raises:
        RunError: narratives are missing, and `partial` is off.
    """
    from ...cards.dataset_card import dataset_card

    name = config.config_name(run)
    source = outputs.source(run)
    released = source == "release"
    missing = {"users": 0} if released else _missing(run, work)
    if missing["users"] and not config.partial:
        by_task = ", ".join(f"{count:,} without {task}" for task, count in missing.items() if task != "users" and count)
        raise RunError(
            f"{missing['users']:,} users of {run} lack narratives: {by_task}. Send their requests again (`regen "
            f"narratives {run} --retry-failed 1`, then 2, …), or leave them null: regen dataset {run} --partial"
        )
    rules = filters.rules(config)
    counts: dict[str, Any] = {}
    sizes = {}
    large = 0
    for split in SPLITS:
        files = outputs.split_files(outputs.folder(run, source), split)
        rows = _batches(files, work, rules) if released else _joined(run, files, work, rules)
        written = shards.write(rows, features(ROW).arrow_schema, out / name, split)
        counts[split], sizes[split], large = written.rows, written.size, large + written.large
    if not released and sum(counts.values()) < (users := outputs.count(outputs.sequence_files(run))):
        counts["preview_of"] = users
    rows = _read(outputs.item_files(outputs.folder(run, source)))
    written = shards.write(rows, features(ITEMS).arrow_schema, out / f"{name}-items", "items")
    counts["items"], sizes["items"], large = written.rows, written.size, large + written.large
    flat = features(INTERACTIONS).arrow_schema
    written = shards.write(interactions(out / name), flat, out / f"{name}-interactions", "interactions", FLAT)
    counts["interactions"], sizes["interactions"] = written.rows, written.size
    counts["large_rows"] = large + written.large
    counts["users_without_narratives"] = missing["users"]
    counts["dropped"] = _dropped(run, source, work, rules)
    counts["texts_dropped"] = counts["dropped"].pop("texts", 0)
    counts["bytes"] = sizes
    outputs.write_text(out / outputs.CARD, dataset_card(run, out, name, counts))
    return counts


def _batches(files: list[Path], work: Path, rules: list[filters.Rule]) -> Iterator[pa.RecordBatch]:
    """The rows of files of the release, with nulls where one of `rules` applies."""
    for path in files:
        with _connect(work) as connection:
            yield from connection.sql(
                f"SELECT {_selected(rules)} FROM {_table('rows')}",  # noqa: S608 (names of schema)
                params={"rows": _files(work, "rows", path)},
            ).to_arrow_reader(shards.ROW_GROUP)


def interactions(folder: Path) -> Iterator[pa.RecordBatch]:
    """The purchases in the files of all splits in `folder`, as rows of INTERACTIONS in the order of the users."""
    columns = ["reviewer_id", *purchase_columns("item.asin", *(f"review.{field.name}" for field in REVIEW))]
    for split in SPLITS:
        for path in outputs.split_files(folder, split):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(shards.ROW_GROUP, columns=columns):
                    history = batch.column("purchase_history")
                    purchases = history.flatten()
                    item, review = pc.struct_field(purchases, "item"), pc.struct_field(purchases, "review")
                    users = batch.column("reviewer_id").take(pc.list_parent_indices(history))
                    values = {
                        "user": users,
                        "item": pc.struct_field(item, "asin"),
                        "time": pc.struct_field(review, "unix_time"),
                        **{name: pc.struct_field(review, name) for name in ("rating", "summary", "text")},
                        "split": pa.repeat(split, len(users)),
                    }
                    yield pa.RecordBatch.from_pydict(values, INTERACTIONS)


def _read(files: list[Path]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(shards.ROW_GROUP)


def _connect(work: Path) -> Any:
    import duckdb

    connection = duckdb.connect(config={"temp_directory": str(work / "spill")})
    connection.execute("SET memory_limit = '2GB'; SET enable_progress_bar = false")
    return connection


def _table(name: str) -> str:
    """SQL: the rows of the `_files` that the parameter `name` has."""
    return f"read_parquet(${name}, union_by_name => true)"


def _files(work: Path, table: str, *paths: Path) -> list[str]:
    """`paths` after an empty file with all columns of `table`: those that files of earlier versions lack are null."""
    work.mkdir(parents=True, exist_ok=True)
    empty = work / f"{table}.parquet"
    pq.write_table(TABLES[table].empty_table(), empty)
    # DuckDB treats every path as a pattern: unescaped, a run named "a[1]" would read the files of others.
    return [glob.escape(str(path)) for path in (empty, *paths)]


def _written(run: Path, work: Path) -> dict[str, list[str]]:
    """The files of narratives and ratings, for the tables of these names."""
    return {
        "narratives": _files(work, "narratives", outputs.path(run, "narratives", outputs.NARRATIVES)),
        "ratings": _files(work, "ratings", outputs.path(run, "ratings", outputs.RATINGS)),
    }


def _selected(rules: list[filters.Rule]) -> str:
    """SQL: all columns, with nulls where one of `rules` applies."""
    return f"* REPLACE ({filters.columns(rules)})" if rules else "*"


def _missing(run: Path, work: Path) -> dict[str, int]:
    """The number of rows of narratives without one that every user should have, in total (`users`) and by task."""
    null = {task.name: f"n.{task.sql} IS NULL" for task in written_narratives() if not task.may_be_null}
    columns = [
        f"count(*) FILTER ({' OR '.join(null.values())}) AS users",
        *(f"count(*) FILTER ({condition}) AS {task}" for task, condition in null.items()),
    ]
    with _connect(work) as connection:
        relation = connection.sql(
            f"SELECT {', '.join(columns)} FROM {_table('narratives')} n",  # noqa: S608 (names of schema.TASKS)
            params={"narratives": _written(run, work)["narratives"]},
        )
        return dict(zip(relation.columns, relation.fetchall()[0], strict=True))


def _dropped(run: Path, source: str, work: Path, rules: list[filters.Rule]) -> dict[str, int]:
    """The number of texts that become null, in total (`texts`) and by the setting that names the rule."""
    if not rules:
        return {}
    if source == "release":
        paths = [path for split in SPLITS for path in outputs.split_files(outputs.folder(run, source), split)]
        joined = _table("rows")
        files = {"rows": _files(work, "rows", *paths)}
    else:
        joined = f"{_table('narratives')} LEFT JOIN {_table('ratings')} USING (reviewer_id)"
        files = _written(run, work)
    with _connect(work) as connection:
        relation = connection.sql(
            f"SELECT {filters.counts(rules)} FROM {joined}",  # noqa: S608 (names of schema)
            params=files,
        )
        return dict(zip(relation.columns, relation.fetchall()[0], strict=True))


def _joined(run: Path, files: list[Path], work: Path, rules: list[filters.Rule]) -> Iterator[pa.RecordBatch]:
    """The rows of one split; missing texts and scores are null, as where a rule applies.

    The `files` of the sequences are consecutive ranges of the users' hashes, and each fits into memory: joined and
    sorted one by one, they are in the order of the hash.
    """
    for path in files:
        with _connect(work) as connection:
            yield from connection.sql(
                f"""
                SELECT {_selected(rules)} FROM (
                    SELECT s.reviewer_id, s.purchase_history, n.last_purchase, n.user, r.metadata,
                           n.narrator, n.narrator_prompt, n.narrator_left_out,
                           r.rater, r.rater_prompt, r.rater_left_out, n.checks
                    FROM {_table("sequences")} s
                    JOIN {_table("narratives")} n USING (reviewer_id)
                    LEFT JOIN {_table("ratings")} r USING (reviewer_id)
                )
                ORDER BY md5(reviewer_id)
                """,  # noqa: S608 (names of schema)
                params={"sequences": _files(work, "sequences", path), **_written(run, work)},
            ).to_arrow_reader(shards.ROW_GROUP)
