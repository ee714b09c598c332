"""Rate the narratives of every user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ... import llm, outputs
from ...errors import RunError
from ...llm.spending import Estimate
from . import votes
from .settings import RatingsConfig


def build(run: Path, out: Path, work: Path, config: RatingsConfig) -> dict[str, Any]:
    """Write `votes.parquet`, `ratings.parquet` and `agreement.json` for the users of `run/narratives`.

    `work` is not used: answers are cached in `run/requests`.

    Returns:
        Counts: users, votes, failed votes; for a model, failed requests, replies, tokens and hashes of the prompts.

    Raises:
        RunError: sequences or narratives are missing or of different users, or the server cannot be used.
    """
    users = _selected(run, config)
    if config.backend == "reference":
        from . import reference

        def vote(user: dict[str, Any]) -> votes.UserVotes:
            rated = (user["reviewer_id"], user["purchase_history"], user)
            return votes.UserVotes(
                [reference.rate(*rated, vote=number, seed=config.seed) for number in range(config.votes)]
            )

        return votes.write(users, vote, out, config)
    from . import prompted

    return prompted.rate(users, out, outputs.requests_path(run, "ratings"), config)


def estimate(run: Path, config: RatingsConfig) -> Estimate:
    """The requests that `build` would send to a model, and their cost; sends nothing.

    Raises:
        RunError: sequences or narratives are missing or of different users.
    """
    users = _selected(run, config)
    if config.backend == "reference":
        return Estimate()
    from . import prompted

    path = outputs.requests_path(run, "ratings")
    return llm.estimate(lambda: prompted.estimated(users, path, config), config, path)


def _selected(run: Path, config: RatingsConfig) -> votes.Users:
    """The users with narratives, or the first `config.users` of them."""
    files, narratives = outputs.sequence_files(run), outputs.path(run, "narratives", outputs.NARRATIVES)
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    if not narratives.exists():
        raise RunError(f"There are no narratives in {run}. Run first: regen narratives {run}")
    return votes.Users(files, narratives, config.users)
