"""TODO docstring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ... import outputs
from ...errors import RunError
from ...schema import RATED, RATINGS
from . import aggregation
from .agreement import Agreement
from .settings import RatingsConfig

VOTES = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("stage", pa.string()),
        ("attribute", pa.string()),
        ("vote", pa.int64()),  # 0-based
        ("rater", pa.string()),  # the model that cast it
        ("score", pa.int64()),  # 1..7; null = the vote failed
        ("confidence", pa.int64()),  # 1..7, of the rater in this score; null = the vote failed
    ]
)


@dataclass(frozen=True)
class User:
    """A user and what is to be rated."""

    reviewer_id: str
    history: list[dict[str, Any]]
    narratives: dict[str, Any]
    """`{"last_purchase": {…}, "user": {…}}`, as in the row."""


@dataclass(frozen=True)
class Ballot:
    """The votes on one user."""

    votes: list[dict[str, dict[str, tuple[int, int]]]]
    """For each, (score, confidence) by stage and attribute; a stage whose vote failed is there and empty."""
    prompt: str | None = None
    """The prompts that asked for them; see schema.RATER."""
    left_out: int = 0
    """Reviews that were not shown to the rater, for lack of room."""


def users(files: list[Path], narratives: Path) -> Iterator[User]:
    """Histories and narratives side by side; both files are read in step, so memory stays bounded.

    Raises:
        RunError: the narratives are of other users, or in another order, than the sequences.
    """
    written = outputs.rows([narratives], ["reviewer_id", "last_purchase", "user"])
    for row in outputs.rows(files):
        texts = next(written)
        if texts["reviewer_id"] != row["reviewer_id"]:
            raise RunError(
                f"{narratives} does not follow the sequences: user {texts['reviewer_id']!r} stands where "
                f"{row['reviewer_id']!r} was expected. Write the narratives again."
            )
        yield User(row["reviewer_id"], row["purchase_history"] or [], texts)


def aggregate(
    users: Iterator[User], ballot: Callable[[User], Ballot], total: int, out: Path, config: RatingsConfig
) -> dict[str, Any]:
    """Write each user's votes and scores, and how far votes agree; returns counts of users, votes and failed votes.

    A vote is one score of one attribute. A stage that has nothing to rate has no votes, and nulls in the ratings.
    """
    counts = {"users": 0, "votes": 0, "failed_votes": 0, "reviews_left_out": 0, "users_cut": 0}
    agreement = Agreement(config.votes)
    with (
        tqdm(total=total, desc="ratings", unit=" users") as bar,
        pq.ParquetWriter(out / "votes.parquet", VOTES, compression="zstd") as votes_file,
        pq.ParquetWriter(out / "ratings.parquet", RATINGS, compression="zstd") as ratings_file,
    ):
        part = list(islice(users, 1024))
        while True:
            vote_rows: list[dict[str, Any]] = []
            rating_rows: list[dict[str, Any]] = []
            for user in part:
                cast = ballot(user)
                bar.update()
                metadata, raw = user_ratings(cast.votes, config.raters)
                agreement.add(metadata, raw)
                vote_rows += [{"reviewer_id": user.reviewer_id, **row} for row in raw]
                rating_rows.append(
                    {
                        "reviewer_id": user.reviewer_id,
                        "metadata": metadata,
                        "rater": ", ".join(config.raters),
                        "rater_prompt": cast.prompt,
                        "rater_left_out": cast.left_out,
                    }
                )
                counts["reviews_left_out"] += cast.left_out
                counts["users_cut"] += bool(cast.left_out)
            counts["users"] += len(part)
            counts["votes"] += len(vote_rows)
            counts["failed_votes"] += sum(row["score"] is None for row in vote_rows)
            # An empty first part still makes a readable file.
            votes_file.write_table(pa.Table.from_pylist(vote_rows, schema=VOTES))
            ratings_file.write_table(pa.Table.from_pylist(rating_rows, schema=RATINGS))
            part = list(islice(users, 1024))
            if not part:
                break
    report = json.dumps(agreement.report(config.raters), indent=1, ensure_ascii=False)
    (out / "agreement.json").write_text(report + "\n", encoding="utf-8")
    return counts


def user_ratings(
    votes: list[dict[str, dict[str, tuple[int, int]]]], raters: Sequence[str]
) -> tuple[dict[str, dict[str, int | None]], list[dict[str, Any]]]:
    """The scores of one user (`metadata` of schema.RATINGS) and the rows of VOTES that they come from.

    Args:
        votes: As in `Ballot`.
        raters: Who cast them, in turn.
    """
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
