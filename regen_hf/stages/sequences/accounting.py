"""What became of every line, and the files of the stage that tell of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import InputError
from ...reviews.reading import REJECTS, Log
from ...schema import SEQUENCES, SPLITS
from .catalogue import write_items
from .histories import DROPS


def account(items: Log, reviews: Log, catalogue: pa.Table, core: pa.Array, done: list[Path]) -> dict[str, Any]:
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
    item_drops["k_core"] += titled - core.true_count
    review_drops = Counter(reviews.dropped)
    for name in DROPS:
        review_drops[name] += counts[name]
    splits = {name: counts[name] for name in SPLITS}
    lost_users = {name: counts[f"users_{name}"] for name in ("k_core", "short_history") if counts[f"users_{name}"]}
    accounting = {
        "reviews": _entry(reviews.read, counts["read"] - sum(counts[name] for name in DROPS), review_drops),
        "items": _entry(items.read, core.true_count, item_drops),
        "users": {"kept": sum(splits.values()), "dropped": lost_users},
        "splits": splits,
        # Values that a rule changed in records that were read and not refused; some of those were dropped later.
        "cleaned": {"reviews": dict(sorted(reviews.cleaned.items())), "items": dict(sorted(items.cleaned.items()))},
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


def write(
    out: Path,
    items: Log,
    reviews: Log,
    catalogue: Path,
    core: pa.Array,
    done: list[Path],
    accounting: dict[str, Any],
) -> None:
    """Write the output of the stage from what its parts left, and tell the counts on standard error."""
    for name in SPLITS:
        shards = [path / f"{name}.parquet" for path in done if (path / f"{name}.parquet").exists()]
        for number, shard in enumerate(shards):
            _link(shard, out / f"{name}-{number:05d}-of-{len(shards):05d}.parquet")
        if not shards:
            pq.write_table(SEQUENCES.empty_table(), out / f"{name}-00000-of-00001.parquet")
    (out / "items").mkdir()
    write_items(catalogue, core, out / "items" / "items.parquet")
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
