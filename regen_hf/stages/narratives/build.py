"""Write the narratives of every user."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ... import llm, outputs, schema
from ...errors import RunError
from ...llm.spending import Estimate
from ...progress import Bar
from ...schema import CRITIQUE
from ...user_rows import UserRows
from . import checks, critiques
from .settings import NarrativesConfig


def build(run: Path, out: Path, work: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Write `out/narratives.parquet` for the users of `run/sequences`, or the first `config.users` of them.

    Simulated shoppers get their narratives from `run/sample/truth.parquet`. `work` is not used: answers are cached in
    `run/requests`.

    Returns:
        Counts: users, those whose last two purchases are similar (`similar_pairs`) and those with a critique, failed
        requests, failed checks by name, reviews left out; for the rules, the users with the narratives of the sample
        world and of the rules; for a model, replies, tokens and hashes of the prompts.

    Raises:
        RunError: there are no sequences, or the server cannot be used.
        InputError: the few-shot examples are invalid.
    """
    users = _selected(run, config)
    if config.backend == "reference":
        return _write_reference(run, users, out, config)
    from . import prompted

    return prompted.narrate(run, users, out, config)


def estimate(run: Path, config: NarrativesConfig) -> Estimate:
    """The requests that `build` would send to a model, and their cost; sends nothing.

    Raises:
        RunError: there are no sequences.
    """
    users = _selected(run, config)
    if config.backend == "reference":
        return Estimate()
    from . import prompted

    path = outputs.requests_path(run, "narratives")
    return llm.estimate(lambda: prompted.estimated(run, users, config), config, path)


def _selected(run: Path, config: NarrativesConfig) -> UserRows:
    files = outputs.sequence_files(run)
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    return UserRows.first(files, config.users)


def _write_reference(run: Path, users: UserRows, out: Path, config: NarrativesConfig) -> dict[str, Any]:
    from . import reference

    truth = _truth(outputs.path(run, "sample", outputs.TRUTH))
    counts = {"users": 0, "from_truth": 0, "from_rules": 0, "similar_pairs": 0, "critiques": 0}
    failed: Counter[str] = Counter()
    warnings: Counter[str] = Counter()
    with outputs.row_writer(out / outputs.NARRATIVES, schema.NARRATIVES) as append:
        for user in Bar(users.rows(), "writing", total=len(users), unit="users"):
            reviewer_id, history = user["reviewer_id"], user["purchase_history"] or []
            true_texts = truth.get(reviewer_id)
            counts["users"] += 1
            counts["from_truth" if true_texts else "from_rules"] += 1
            texts = true_texts or reference.write(reviewer_id, history, config.seed)
            given: list[str] = []
            if critiques.wanted(history, config):
                counts["similar_pairs"] += 1
                if true_texts:
                    given = [critique["text"] for critique in texts.get("critiques") or ()][: config.critiques]
                else:
                    given = critiques.by_rules(reviewer_id, history, config.critiques, config.seed)
            if given:
                counts["critiques"] += 1
                texts["last_purchase"][CRITIQUE.field[-1]] = critiques.choose(given, reviewer_id)
            results = checks.check(texts, history)  # the rules write English
            failed.update(results["failed"])
            warnings.update(results["warnings"])
            append(
                {
                    "reviewer_id": reviewer_id,
                    **texts,
                    "critiques": given or None,
                    "narrator": "reference",
                    "narrator_left_out": 0,
                    "checks": results,
                }
            )
    return {**counts, "failed_checks": dict(sorted(failed.items())), "check_warnings": dict(sorted(warnings.items()))}


def _truth(path: Path) -> dict[str, dict[str, Any]]:
    """The true narratives of simulated shoppers by their ids; empty without a sample world."""
    rows = outputs.rows([path] if path.exists() else [], ["reviewer_id", "last_purchase", "user", "critiques"])
    return {row.pop("reviewer_id"): row for row in rows}
