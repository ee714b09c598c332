"""Rate the narratives of every user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ... import llm, outputs, schema
from ...errors import RunError
from ...llm.spending import Estimate
from .ballots import Ballot, User, aggregate, users
from .settings import RatingsConfig


def build(run: Path, out: Path, work: Path, config: RatingsConfig) -> dict[str, Any]:
    """Write `votes.parquet`, `ratings.parquet` and `agreement.json` for every user of `run/narratives`.

    Args:
        run: The run folder; `sequences/` and `narratives/` must be there.
        out: An empty folder.
        work: Not used: what must survive a crash lies in `run/requests`, where other settings find it too.
        config: Who rates, how often, and how.

    Returns:
        Counts: users, votes, failed votes; for a model, failed requests, replies and tokens, and hashes of the prompts.

    Raises:
        RunError: sequences or narratives are missing or do not fit together, or the server cannot be used.
    """
    files, narratives = _inputs(run)
    if config.backend == "reference":
        from . import reference

        def ballot(user: User) -> Ballot:
            narratives = (user.reviewer_id, user.history, user.narratives)
            return Ballot([reference.rate(*narratives, vote=vote, seed=config.seed) for vote in range(config.votes)])

        return aggregate(users(files, narratives), ballot, outputs.count(files), out, config)
    from . import prompted

    return prompted.rate(files, narratives, out, run / "requests" / "ratings.sqlite", config)


def estimate(run: Path, config: RatingsConfig) -> Estimate:
    """What `build` would still ask a model for, and its cost; sends nothing.

    Raises:
        RunError: sequences or narratives are missing or do not fit together.
    """
    files, narratives = _inputs(run)
    if config.backend == "reference":
        return Estimate()
    from . import prompted

    return llm.estimate(
        lambda: prompted.requests(files, narratives, config), config, run / "requests" / "ratings.sqlite"
    )


def _inputs(run: Path) -> tuple[list[Path], Path]:
    """The files of the histories, and that of their narratives."""
    files = [path for split in schema.SPLITS for path in outputs.split_files(run / "sequences", split)]
    narratives = run / "narratives" / "narratives.parquet"
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    if not narratives.exists():
        raise RunError(f"There are no narratives in {run}. Run first: regen narratives {run}")
    written, expected = outputs.count([narratives]), outputs.count(files)
    if written != expected:
        raise RunError(
            f"{narratives} holds {written} users, the sequences hold {expected}. Run again: regen narratives {run}"
        )
    return files, narratives
