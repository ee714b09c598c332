"""Write the narratives of every user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ... import llm, outputs, schema
from ...llm.spending import Estimate
from . import checks
from .files import sequence_files, write
from .settings import NarrativesConfig


def build(run: Path, out: Path, work: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Write `out/narratives.parquet` for every user of `run/sequences`.

    Args:
        run: The run folder; `sequences/` must be there. Simulated shoppers have theirs in `sample/truth.parquet`.
        out: An empty folder.
        work: Not used: what must survive a crash lies in `run/requests`, where other settings find it too.
        config: Who writes, and how.

    Returns:
        Counts: users, failed requests, failed checks by name, reviews not shown; for the rules, how many users were
        written by which rule; for a model, replies and tokens, and hashes of the prompts.

    Raises:
        RunError: there are no sequences, or the server cannot be used.
        InputError: the few-shot examples cannot be used.
    """
    files = sequence_files(run)
    if config.backend == "reference":
        return _reference(run, files, out, config)
    from . import prompted

    return prompted.narrate(files, out, run / "requests" / "narratives.sqlite", config)


def estimate(run: Path, config: NarrativesConfig) -> Estimate:
    """What `build` would still ask a model for, and its cost; sends nothing.

    Raises:
        RunError: there are no sequences.
    """
    files = sequence_files(run)
    if config.backend == "reference":
        return Estimate()
    from . import prompted

    return llm.estimate(lambda: prompted.requests(files, config), config, run / "requests" / "narratives.sqlite")


def _reference(run: Path, files: list[Path], out: Path, config: NarrativesConfig) -> dict[str, Any]:
    from . import reference

    truth = _truth(run / "sample" / "truth.parquet")
    counts: dict[str, Any] = {"users": 0, "from_truth": 0, "from_rules": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for user in tqdm(outputs.rows(files), total=outputs.count(files), desc="narratives", unit=" users"):
            reviewer_id, history = user["reviewer_id"], user["purchase_history"] or []
            known = truth(reviewer_id)
            counts["users"] += 1
            counts["from_truth" if known else "from_rules"] += 1
            written = known or reference.write(reviewer_id, history, config.seed)
            yield {
                "reviewer_id": reviewer_id,
                **written,
                "narrator": "reference",
                "narrator_left_out": 0,
                "checks": checks.check(written, history),  # the rules write English
            }

    failed = write(rows(), out / "narratives.parquet")
    return {**counts, "failed_checks": dict(sorted(failed.items()))}


def _truth(path: Path) -> Any:
    """A function from a simulated shopper's id to their true narratives, None for anybody else."""
    if not path.exists():
        return lambda reviewer_id: None
    columns = pa.schema([schema.NARRATIVES.field(name) for name in ("reviewer_id", "last_purchase", "user")])
    table = pq.read_table(path, columns=columns.names).cast(columns).combine_chunks()
    position = {reviewer_id: index for index, reviewer_id in enumerate(table["reviewer_id"].to_pylist())}

    def lookup(reviewer_id: str) -> dict[str, Any] | None:
        index = position.get(reviewer_id)
        if index is None:
            return None
        return {name: table[name][index].as_py() for name in ("last_purchase", "user")}

    return lookup
