"""Join histories, narratives and scores to a dataset repository."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RunError
from ...outputs import item_files, split_files
from ...schema import ITEMS, ROW, SPLITS, TASKS, Task, features
from . import shards
from .settings import DatasetConfig

MAY_BE_NULL = ("purchase_reason", "purchase_reason_explanation")
"""A history may not tell why the last purchase was made (table 2): these are no sign of a missing narrative."""


def build(run: Path, out: Path, work: Path, config: DatasetConfig) -> dict[str, Any]:
    """Join the stages before to a dataset repository in `out`.

    Returns:
        Counts: users of each split, items, users without all of their narratives, bytes of the rows in memory.

    Raises:
        RunError: narratives are missing, and `partial` was not asked for.
    """
    from ...cards.dataset_card import dataset_card

    # A folder may be called anything; a config's name may not.
    name = config.name or re.sub(r"[^A-Za-z0-9_.-]", "_", run.resolve().name).lstrip(".-") or "regen"
    released = (run / "release").exists()  # a run has one source
    incomplete = {"users": 0} if released else _missing(run, work)
    if incomplete["users"] and not config.partial:
        lost = ", ".join(f"{count:,} without {task}" for task, count in incomplete.items() if task != "users" and count)
        raise RunError(
            f"{incomplete['users']:,} users of {run} lack narratives: {lost}. Run `regen narratives {run}` again to "
            f"ask for them once more, or leave them null: regen dataset {run} --partial"
        )
    counts: dict[str, Any] = {}
    sizes = {}
    for split in SPLITS:
        rows = _batches(split_files(run / "release", split)) if released else _joined(run, split, work)
        counts[split], sizes[split] = shards.write(rows, _schema(ROW), out / name, split)
    counts["items"], sizes["items"] = shards.write(
        _batches(item_files(run / ("release" if released else "sequences"))),
        _schema(ITEMS),
        out / f"{name}-items",
        "items",
    )
    counts["users_without_narratives"] = incomplete["users"]
    counts["bytes"] = sizes
    (out / "README.md").write_text(dataset_card(run, out, name, counts), encoding="utf-8")
    return counts


def _schema(schema: pa.Schema) -> pa.Schema:
    return features(schema).arrow_schema


def _batches(files: list[Path]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(shards.ROW_GROUP)


def _connect(work: Path) -> Any:
    import duckdb

    connection = duckdb.connect(config={"temp_directory": str(work / "spill")})
    connection.execute("SET memory_limit = '2GB'; SET enable_progress_bar = false")
    return connection


# DuckDB takes every path for a pattern: unescaped, a run named "a[1]" would read its neighbours.
def _files(*paths: Path) -> list[str]:
    return [glob.escape(str(path)) for path in paths]


def _missing(run: Path, work: Path) -> dict[str, int]:
    """How many users lack a narrative that every user should have, in all (`users`) and by task."""
    tasks = [task for task in TASKS.values() if task.name not in MAY_BE_NULL]

    def null(task: Task) -> str:
        return f"n.{task.field[0]}.{task.field[1]} IS NULL"

    columns = [
        f"count(*) FILTER ({' OR '.join(map(null, tasks))}) AS users",
        *(f"count(*) FILTER ({null(task)}) AS {task.name}" for task in tasks),
    ]
    with _connect(work) as connection:
        found = connection.sql(
            f"""
            SELECT {", ".join(columns)} FROM read_parquet($sequences) s
            LEFT JOIN read_parquet($narratives) n USING (reviewer_id)
            """,  # noqa: S608 (names of schema.TASKS)
            params={
                "sequences": _files(*(path for split in SPLITS for path in split_files(run / "sequences", split))),
                "narratives": _files(run / "narratives" / "narratives.parquet"),
            },
        )
        return dict(zip(found.columns, found.fetchall()[0], strict=True))


def _joined(run: Path, split: str, work: Path) -> Iterator[pa.RecordBatch]:
    """The rows of one split; a user whose narratives or scores are missing has nulls there.

    The files of the sequences are ranges of the users' hashes, one after the other, and each fits into memory: joined
    and sorted one by one, they come in the order of the hash.
    """
    for path in split_files(run / "sequences", split):
        with _connect(work) as connection:
            yield from connection.sql(
                """
                SELECT s.reviewer_id, s.purchase_history, n.last_purchase, n.user, r.metadata,
                       n.narrator, n.narrator_prompt, n.narrator_left_out,
                       r.rater, r.rater_prompt, r.rater_left_out, n.checks
                FROM read_parquet($sequences) s
                LEFT JOIN read_parquet($narratives) n USING (reviewer_id)
                LEFT JOIN read_parquet($ratings) r USING (reviewer_id)
                ORDER BY md5(s.reviewer_id)
                """,
                params={
                    "sequences": _files(path),
                    "narratives": _files(run / "narratives" / "narratives.parquet"),
                    "ratings": _files(run / "ratings" / "ratings.parquet"),
                },
            ).to_arrow_reader(shards.ROW_GROUP)
