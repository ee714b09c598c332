"""Counts of a dataset, from its parquet files in batches: purchases, lengths of narratives, ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..schema import RATED, offered_narratives, text_columns

PURCHASE = "purchase_history.list.element."
"""Path of a purchase in parquet; only the counted fields are read, no texts."""


@dataclass
class Purchases:
    """Counts of purchases."""

    lengths: Counter[int] = field(default_factory=Counter)
    """Number of users by length of history."""
    items: Counter[str] = field(default_factory=Counter)
    """Number of purchases by asin."""
    months: Counter[tuple[datetime, int | None]] = field(default_factory=Counter)
    """Number of purchases by month (its first day, UTC) and rating."""

    @property
    def total(self) -> int:
        """Number of purchases."""
        return self.items.total()

    def __add__(self, other: Purchases) -> Purchases:
        return Purchases(self.lengths + other.lengths, self.items + other.items, self.months + other.months)


def purchases(files: Iterable[Path]) -> Purchases:
    """Counts of the column `purchase_history` of `files`."""
    counts = Purchases()
    leaves = [PURCHASE + leaf for leaf in ("item.asin", "review.rating", "review.unix_time")]
    for batch in _batches(files, leaves):
        histories = batch["purchase_history"]
        counts.lengths.update(pc.fill_null(pc.list_value_length(histories), 0).to_pylist())
        flat = pc.list_flatten(histories)
        for entry in pc.value_counts(pc.struct_field(flat, ["item", "asin"])).to_pylist():
            counts.items[entry["values"]] += entry["counts"]
        times = pc.cast(pc.struct_field(flat, ["review", "unix_time"]), pa.timestamp("s"))
        table = pa.table(
            {"month": pc.floor_temporal(times, unit="month"), "rating": pc.struct_field(flat, ["review", "rating"])}
        ).filter(pc.is_valid(times))
        for entry in table.group_by(["month", "rating"]).aggregate([([], "count_all")]).to_pylist():
            counts.months[entry["month"], entry["rating"]] += entry["count_all"]
    return counts


def narrative_lengths(files: Iterable[Path]) -> dict[str, Counter[int | None]]:
    """By narrative, the number of users by words of their text, None for users without one."""
    texts = offered_narratives()
    counts: dict[str, Counter[int | None]] = {name: Counter() for name in texts}
    for batch in _batches(files, text_columns(texts)):
        for name, text in texts.items():
            words = pc.count_substring_regex(text.column(batch), r"\S+")
            counts[name].update(words.to_pylist())
    return counts


def rating_counts(files: Iterable[Path]) -> dict[tuple[str, str], Counter[int | None]]:
    """By rated part and attribute, the number of users by score, None for users without one."""
    counts: dict[tuple[str, str], Counter[int | None]] = {
        (part, attribute): Counter() for part, attributes in RATED.items() for attribute in attributes
    }
    for batch in _batches(files, ["metadata"]):
        for (part, attribute), counter in counts.items():
            if batch["metadata"].type.get_field_index(part) < 0:  # a file of an earlier version
                counter[None] += len(batch)
                continue
            counter.update(pc.struct_field(batch["metadata"], [part, attribute]).to_pylist())
    return counts


def quantile(counts: Mapping[int, int], share: float) -> int:
    """The smallest value that at least `share` of the counted ones do not exceed.

    >>> quantile({5: 90, 6: 9, 50: 1}, 0.5), quantile({5: 90, 6: 9, 50: 1}, 1)
    (5, 50)
    """
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 1e-9:
            return value
    raise ValueError("A quantile of no values is not defined.")


def _batches(files: Iterable[Path], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=4096, columns=columns)
