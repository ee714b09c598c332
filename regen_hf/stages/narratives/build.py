"""Write the narratives of every user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ... import llm, outputs, schema
from ...errors import RunError
from ...llm.spending import Estimate
from . import checks
from .settings import NarrativesConfig


def build(run: Path, out: Path, work: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Write `out/narratives.parquet` for every user of `run/sequences`.

    Args:
        run: the run folder, with `sequences/`. Simulated shoppers have their narratives in `sample/truth.parquet`.
        out: an empty folder.
        work: not used; answers are cached in `run/requests`.
        config: the narrator and its settings.

    Returns:
        Counts: users, failed requests, failed checks by name, reviews left out; for the rules, the users with the
        narratives of the sample world and of the rules; for a model, replies, tokens and hashes of the prompts.

    Raises:
        RunError: there are no sequences, or the server cannot be used.
        InputError: the few-shot examples are invalid.
    """
    files = _sequence_files(run)
    if config.backend == "reference":
        return _write_reference(run, files, out, config)
    from . import prompted

    return prompted.narrate(files, out, outputs.requests_path(run, "narratives"), config)


def estimate(run: Path, config: NarrativesConfig) -> Estimate:
    """The requests that `build` would send to a model, and their cost; sends nothing.

    Raises:
        RunError: there are no sequences.
    """
    files = _sequence_files(run)
    if config.backend == "reference":
        return Estimate()
    from . import prompted

    path = outputs.requests_path(run, "narratives")
    return llm.estimate(lambda: prompted.requests(files, config), config, path)


def _sequence_files(run: Path) -> list[Path]:
    files = outputs.sequence_files(run)
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    return files


def _write_reference(run: Path, files: list[Path], out: Path, config: NarrativesConfig) -> dict[str, Any]:
    from . import reference

    truth = _truth(outputs.path(run, "sample", outputs.TRUTH))
    counts = {"users": 0, "from_truth": 0, "from_rules": 0}
    failed: Counter[str] = Counter()
    with outputs.row_writer(out / outputs.NARRATIVES, schema.NARRATIVES) as append:
        for user in tqdm(outputs.rows(files), total=outputs.count(files), desc="narratives", unit=" users"):
            reviewer_id, history = user["reviewer_id"], user["purchase_history"] or []
            true_texts = truth(reviewer_id)
            counts["users"] += 1
            counts["from_truth" if true_texts else "from_rules"] += 1
            texts = true_texts or reference.write(reviewer_id, history, config.seed)
            results = checks.check(texts, history)  # the rules write English
            failed.update(results["failed"])
            append(
                {
                    "reviewer_id": reviewer_id,
                    **texts,
                    "narrator": "reference",
                    "narrator_left_out": 0,
                    "checks": results,
                }
            )
    return {**counts, "failed_checks": dict(sorted(failed.items()))}


def _truth(path: Path) -> Callable[[str], dict[str, Any] | None]:
    """A function from the id of a simulated shopper to their true narratives, None for other users."""
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
