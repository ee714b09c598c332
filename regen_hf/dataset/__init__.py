"""The dataset repository: histories, narratives and scores joined to what `load_dataset` reads.

dataset/
  README.md                 the card, with the YAML that tells `load_dataset` which file is which split
  <name>/<split>.parquet    one row per user (schema.ROW)
  <name>-items/items.parquet    the catalogue (schema.ITEMS)
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ..schema import ITEMS, ROW, SPLITS, features, item_files, split_files

if TYPE_CHECKING:
    from .builder import RegenBuilder as RegenBuilder


def __getattr__(name: str) -> Any:
    # The builder subclasses one of `datasets`, whose import takes a second: only its users pay.
    if name == "RegenBuilder":
        from .builder import RegenBuilder

        return RegenBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class DatasetConfig:
    """Settings of `regen dataset`."""

    name: str = ""
    """Name of the dataset's config, as in load_dataset(…, "office"); the run folder's name if not given."""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name was given {self.name!r}, expected letters, digits, '_', '-' and '.' alone")


def build(run: Path, out: Path, work: Path, config: DatasetConfig) -> dict[str, Any]:
    """Join the stages before to a dataset repository in `out`."""
    from ..hub import dataset_card

    # A folder may be called anything; a config's name may not.
    name = config.name or re.sub(r"[^A-Za-z0-9_.-]", "_", run.resolve().name).lstrip(".-") or "regen"
    counts: dict[str, Any] = {}
    for split in SPLITS:
        counts[split] = _join(run, split, out / name / f"{split}.parquet")
    catalogue = item_files(run / "sequences")
    target = out / f"{name}-items" / "items.parquet"
    target.parent.mkdir(parents=True)
    counts["items"] = 0
    with pq.ParquetWriter(target, features(ITEMS).arrow_schema) as writer:
        for path in catalogue:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch.cast(writer.schema))
                    counts["items"] += batch.num_rows
    (out / "README.md").write_text(dataset_card(run, name, counts), encoding="utf-8")
    return counts


def _join(run: Path, split: str, target: Path) -> int:
    """Write the rows of one split; a user whose narratives or scores are missing has nulls there."""
    import duckdb

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = features(ROW).arrow_schema
    # DuckDB takes every path for a pattern: unescaped, a run named "a[1]" would read its neighbours.
    sequences = [glob.escape(str(path)) for path in split_files(run / "sequences", split)]
    connection = duckdb.connect(config={"temp_directory": str(target.parent / ".duckdb")})
    connection.execute(
        "SET memory_limit = '2GB'; SET preserve_insertion_order = false; SET enable_progress_bar = false"
    )
    reader = connection.sql(
        """
        SELECT s.reviewer_id, s.purchase_history, n.last_purchase, n.user, r.metadata, n.narrator, r.rater
        FROM read_parquet($sequences) s
        LEFT JOIN read_parquet($narratives) n USING (reviewer_id)
        LEFT JOIN read_parquet($ratings) r USING (reviewer_id)
        ORDER BY md5(s.reviewer_id)
        """,
        params={
            "sequences": sequences,
            "narratives": glob.escape(str(run / "narratives" / "narratives.parquet")),
            "ratings": glob.escape(str(run / "ratings" / "ratings.parquet")),
        },
    ).to_arrow_reader(2048)
    written = 0
    with pq.ParquetWriter(target, schema) as writer:
        for batch in reader:
            writer.write_batch(batch.cast(schema))
            written += batch.num_rows
    connection.close()
    return written
