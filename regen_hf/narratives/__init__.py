"""Narratives: six texts per user, written from the purchase history (section 3.2, tables 2 and 5).

    run/sequences/{train,validation,test}*.parquet  ─►  narratives.parquet   (schema.NARRATIVES, in the same order)

A language model writes the reason, its explanation, both summaries and the profile in one answer, from the whole
history with all reviews; it is told to keep what was experienced after the purchase out of the reason. The endorsement
is asked for apart, with the last review withheld. The fixed rules of `reference` withhold it from the reason too.

Who wrote stands in the column `narrator`: the name of the model, or `reference`, which is no language model. The column
`checks` says what was found in the texts. Answers that were paid for lie in `run/requests/narratives.sqlite`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from .. import llm, schema
from ..errors import RunError
from ..llm import Estimate, LLMConfig
from . import checks


@dataclass(frozen=True)
class NarrativesConfig(LLMConfig):
    """Who writes the narratives, and how."""

    language: str = "en"
    """Language of the narratives, as ISO 639-1 (en, de, ja, …)."""
    examples: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """JSON files of few-shot examples, as paths or globs: one or a list of them in each, shaped as a row of a dataset.
    Those of this package if not given."""
    zero_shot: bool = False
    """Ask without examples, for a model with a small window."""
    fix: int = 0
    """How often a model is asked again whose answer fails a check, such as the profile's length, with the check named.
    A dry run cannot know of these requests; a budget holds them too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.language) != 2 or not self.language.islower():
            raise ValueError(f"language is {self.language!r}, expected two small letters of ISO 639-1, such as en")
        if self.fix < 0:
            raise ValueError(f"fix is {self.fix}, expected 0 or more times")


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


def sequence_files(run: Path) -> list[Path]:
    """The parquet files of all histories of a run, in order.

    Raises:
        RunError: there are none.
    """
    files = [path for split in schema.SPLITS for path in schema.split_files(run / "sequences", split)]
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    return files


def write(rows: Iterator[dict[str, Any]], path: Path) -> Counter[str]:
    """Write rows of schema.NARRATIVES to `path`, a part at a time; returns how often each check failed."""
    failed: Counter[str] = Counter()

    def part() -> pa.Table:
        taken = list(islice(rows, 1024))
        failed.update(check for row in taken for check in row["checks"]["failed"])
        return pa.Table.from_pylist(taken, schema=schema.NARRATIVES)

    with pq.ParquetWriter(path, schema.NARRATIVES, compression="zstd") as writer:
        table = part()
        writer.write_table(table)  # an empty part still makes a readable file
        while table.num_rows:
            table = part()
            if table.num_rows:
                writer.write_table(table)
    return failed


def _reference(run: Path, files: list[Path], out: Path, config: NarrativesConfig) -> dict[str, Any]:
    from . import reference

    truth = _truth(run / "sample" / "truth.parquet")
    counts: dict[str, Any] = {"users": 0, "from_truth": 0, "from_rules": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for user in tqdm(schema.rows(files), total=schema.count(files), desc="narratives", unit=" users"):
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
