"""The votes on users: what is rated, and the files that votes are written to with their scores and agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import outputs
from ...progress import Bar
from ...schema import RATED, RATINGS
from ...user_rows import UserRows
from . import aggregation
from .agreement import Agreement
from .settings import RatingsConfig

VOTES = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("stage", pa.string()),
        ("attribute", pa.string()),
        ("vote", pa.int64()),  # 0-based
        ("rater", pa.string()),  # the model of the vote
        ("score", pa.int64()),  # 1..7; null = the vote failed
        ("confidence", pa.int64()),  # 1..7, of the rater in this score; null = the vote failed
    ]
)

Vote = dict[str, dict[str, tuple[int, int]]]
"""(score, confidence) by stage and attribute; a stage whose vote failed is present and empty."""


@dataclass(frozen=True)
class UserVotes:
    """The votes on one user."""

    votes: list[Vote]
    prompt: str | None = None
    """The prompts of the rater; see schema.RATER."""
    left_out: int = 0
    """Reviews left out of the prompt, to fit the window of the model."""
    cut: bool = False
    """Whether anything of the history is left out."""


class Users:
    """Histories and narratives of the users to rate, the first `most` of those who have narratives; 0 for all.

    Raises:
        RunError: the narratives are of other users, or in another order, than the sequences.
    """

    def __init__(self, sequences: list[Path], narratives: Path, most: int = 0) -> None:
        self._texts = UserRows.first([narratives], most)
        self._histories = UserRows.of(sequences, self._texts.ids())

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows with a user's history and narratives; both files are read in parallel, so memory stays bounded."""
        texts = self._texts.rows(["reviewer_id", "last_purchase", "user"])
        for row, written in zip(self._histories.rows(), texts, strict=True):
            yield {**row, **written, "purchase_history": row["purchase_history"] or []}


def write(
    users: Users,
    vote: Callable[[dict[str, Any]], UserVotes],
    out: Path,
    config: RatingsConfig,
) -> dict[str, Any]:
    """Write the votes of `vote` on each user, the scores and the agreement; returns counts of users and votes.

    A vote is one score of one attribute. A stage without texts has no votes, and nulls in the ratings.
    """
    counts = {"users": 0, "votes": 0, "failed_votes": 0, "reviews_left_out": 0, "users_cut": 0}
    agreement = Agreement(config.votes)
    with (
        outputs.row_writer(out / outputs.VOTES, VOTES, batch_size=50_000) as append_vote,
        outputs.row_writer(out / outputs.RATINGS, RATINGS) as append_rating,
    ):
        for user in Bar(users, "rating", total=len(users), unit="users"):
            result = vote(user)
            metadata, rows = user_ratings(result.votes, config.raters)
            agreement.add(metadata, rows)
            for row in rows:
                append_vote({"reviewer_id": user["reviewer_id"], **row})
            append_rating(
                {
                    "reviewer_id": user["reviewer_id"],
                    "metadata": metadata,
                    "rater": ", ".join(config.raters),
                    "rater_prompt": result.prompt,
                    "rater_left_out": result.left_out,
                }
            )
            counts["users"] += 1
            counts["votes"] += len(rows)
            counts["failed_votes"] += sum(row["score"] is None for row in rows)
            counts["reviews_left_out"] += result.left_out
            counts["users_cut"] += result.cut
    report = agreement.report(config.raters)
    outputs.write_json(out / outputs.AGREEMENT, report, indent=1)
    return {**counts, "agreement_warnings": len(report["warnings"])}


def user_ratings(
    votes: list[Vote], raters: Sequence[str]
) -> tuple[dict[str, dict[str, int | None]], list[dict[str, Any]]]:
    """The scores of one user (`metadata` of schema.RATINGS) and the rows of VOTES; the `raters` vote in turn."""
    metadata: dict[str, dict[str, int | None]] = {}
    rows = []
    for stage, attributes in RATED.items():
        scored = [attribute for attribute in attributes if attribute != "confidence"]
        rated = any(stage in vote for vote in votes)
        by_attribute = {
            attribute: [vote.get(stage, {}).get(attribute, (None, None)) for vote in votes] if rated else []
            for attribute in scored
        }
        metadata[stage] = {
            **{attribute: aggregation.score([pair[0] for pair in pairs]) for attribute, pairs in by_attribute.items()},
            "confidence": aggregation.confidence(
                {attribute: [pair[1] for pair in pairs] for attribute, pairs in by_attribute.items()}
            ),
        }
        rows += [
            {
                "stage": stage,
                "attribute": attribute,
                "vote": number,
                "rater": raters[number % len(raters)],
                "score": pair[0],
                "confidence": pair[1],
            }
            for attribute, pairs in by_attribute.items()
            for number, pair in enumerate(pairs)
        ]
    return metadata, rows
