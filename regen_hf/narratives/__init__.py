"""Narratives: six texts per user, written from the purchase history (section 3.2, tables 2 and 5).

    run/sequences/{train,validation,test}*.parquet  ─►  narratives.parquet   (schema.NARRATIVES, in the same order)

The reason, its explanation, both summaries and the profile are written from the whole history; the endorsement is
written with the last review withheld. Who wrote them stands in the column `narrator`: the name of the model, or
`reference` for the deterministic rules, which are no LLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..errors import RunError
from ..llm import LLMConfig
from ..schema import LAST_PURCHASE, NARRATIVES, SPLITS, USER


@dataclass(frozen=True)
class NarrativesConfig(LLMConfig):
    """Who writes the narratives, and how."""


def build(run: Path, out: Path, work: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Write `out/narratives.parquet` for every user of `run/sequences`.

    Args:
        run: The run folder; `sequences/` must be there. Simulated shoppers have theirs in `sample/truth.parquet`.
        out: An empty folder.
        work: Survives a crash; holds the answers already paid for.
        config: Backend and sampling.

    Returns:
        Counts: users, how many were written by which rule, failed requests, hashes of the prompts.

    Raises:
        RunError: there are no sequences, or the server cannot be used.
    """
    files = [path for split in SPLITS for path in sorted((run / "sequences").glob(f"{split}*.parquet"))]
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    total = sum(pq.read_metadata(path).num_rows for path in files)
    if config.backend == "reference":
        return _reference(run, files, total, out, config.seed)
    from . import prompted

    return prompted.narrate(lambda: users(files), total, out, run / "requests" / "narratives.sqlite", config)


def users(files: Iterable[Path]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each user's id and purchase history, oldest purchase first, in the order of the files; memory stays bounded."""
    for path in files:
        with pq.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(batch_size=256, columns=["reviewer_id", "purchase_history"]):
                for row in batch.to_pylist():
                    yield row["reviewer_id"], row["purchase_history"] or []


def write(rows: Iterator[dict[str, Any]], path: Path) -> None:
    """Write rows of schema.NARRATIVES to `path`, a part at a time."""
    with pq.ParquetWriter(path, NARRATIVES, compression="zstd") as writer:
        part = pa.Table.from_pylist(list(islice(rows, 1024)), schema=NARRATIVES)
        while True:  # an empty first part still makes a readable file
            writer.write_table(part)
            part = pa.Table.from_pylist(list(islice(rows, 1024)), schema=NARRATIVES)
            if not part.num_rows:
                return


def _reference(run: Path, files: list[Path], total: int, out: Path, seed: int) -> dict[str, Any]:
    from . import reference

    truth = _truth(run / "sample" / "truth.parquet")
    counts = {"users": 0, "from_truth": 0, "from_rules": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for reviewer_id, history in tqdm(users(files), total=total, desc="narratives", unit=" users"):
            known = truth(reviewer_id)
            counts["users"] += 1
            counts["from_truth" if known else "from_rules"] += 1
            written = known or reference.write(reviewer_id, history, seed)
            yield {"reviewer_id": reviewer_id, **written, "narrator": "reference"}

    write(rows(), out / "narratives.parquet")
    return counts


def _truth(path: Path) -> Any:
    """A function from a simulated shopper's id to their true narratives, None for anybody else."""
    if not path.exists():
        return lambda reviewer_id: None
    table = pq.read_table(path, columns=["reviewer_id", "last_purchase", "user"])
    table = table.cast(pa.schema([("reviewer_id", pa.string()), ("last_purchase", LAST_PURCHASE), ("user", USER)]))
    table = table.combine_chunks()
    position = {reviewer_id: index for index, reviewer_id in enumerate(table["reviewer_id"].to_pylist())}

    def lookup(reviewer_id: str) -> dict[str, Any] | None:
        index = position.get(reviewer_id)
        if index is None:
            return None
        return {name: table[name][index].as_py() for name in ("last_purchase", "user")}

    return lookup
