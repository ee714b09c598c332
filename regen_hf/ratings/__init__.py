"""Ratings: an ensemble of votes on history and narratives, aggregated to a score per attribute (section 3.3, table 3).

    run/sequences + run/narratives  ─►  votes.parquet    one row per vote: (user, stage, attribute) -> score, confidence
                                        ratings.parquet  schema.RATINGS, users in the order of the narratives

Four stages are rated apart: the history itself (`example`), reason with explanation (`last_purchase`), profile and
summaries (`user`), and the endorsement. Who rated stands in the column `rater`: the name of the model, or `reference`
for the deterministic rules, which are no LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..errors import RunError
from ..llm import LLMConfig
from ..schema import RATED, RATINGS, SPLITS
from . import aggregation

VOTES = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("stage", pa.string()),
        ("attribute", pa.string()),
        ("vote", pa.int64()),  # 0-based
        ("score", pa.int64()),  # 1..7; null = the vote failed
        ("confidence", pa.int64()),  # 1..7, of the rater in this score; null = the vote failed
    ]
)

Votes = list[dict[str, dict[str, tuple[int, int]]]]
"""The votes on one user: for each, (score, confidence) by stage and attribute; what failed is left out."""


@dataclass(frozen=True)
class RatingsConfig(LLMConfig):
    """Who rates the narratives, and how often."""

    temperature: float = 1.0
    """Sampling temperature, 0 to 2; above 0 the votes differ."""
    votes: int = 1
    """Votes on each user; the paper uses 10 to 15."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes < 1:
            raise ValueError(f"votes is {self.votes}, expected 1 or more")


def build(run: Path, out: Path, work: Path, config: RatingsConfig) -> dict[str, Any]:
    """Write `out/votes.parquet` and `out/ratings.parquet` for every user of `run/narratives`.

    Args:
        run: The run folder; `sequences/` and `narratives/` must be there.
        out: An empty folder.
        work: Survives a crash; holds the answers already paid for.
        config: Backend, votes and sampling.

    Returns:
        Counts: users, votes, failed votes, hashes of the prompts.

    Raises:
        RunError: sequences or narratives are missing or do not fit together, or the server cannot be used.
    """
    files = [path for split in SPLITS for path in sorted((run / "sequences").glob(f"{split}*.parquet"))]
    narratives = run / "narratives" / "narratives.parquet"
    if not files:
        raise RunError(f"There are no sequences in {run}. Run first: regen sequences {run} …")
    if not narratives.exists():
        raise RunError(f"There are no narratives in {run}. Run first: regen narratives {run}")
    total = pq.read_metadata(narratives).num_rows
    in_sequences = sum(pq.read_metadata(path).num_rows for path in files)
    if total != in_sequences:
        raise RunError(
            f"{narratives} holds {total} users, the sequences hold {in_sequences}. Run again: regen narratives {run}"
        )
    if config.backend == "reference":
        from . import reference

        def vote(user: User) -> Votes:
            return [reference.rate(*user, vote=number, seed=config.seed) for number in range(config.votes)]

        return aggregate(users(files, narratives), vote, total, out, "reference")
    from . import prompted

    return prompted.rate(lambda: users(files, narratives), total, out, run / "requests" / "ratings.sqlite", config)


User = tuple[str, list[dict[str, Any]], dict[str, Any]]
"""A user's id, purchase history, and row of narratives."""


def users(files: Iterable[Path], narratives: Path) -> Iterator[User]:
    """Histories and narratives side by side; both files are read in step, so memory stays bounded.

    Raises:
        RunError: the narratives are of other users, or in another order, than the sequences.
    """
    written = _rows(narratives, ["reviewer_id", "last_purchase", "user"])
    for path in files:
        for row in _rows(path, ["reviewer_id", "purchase_history"]):
            texts = next(written)
            if texts["reviewer_id"] != row["reviewer_id"]:
                raise RunError(
                    f"{narratives} does not follow the sequences: user {texts['reviewer_id']!r} stands where "
                    f"{row['reviewer_id']!r} was expected. Write the narratives again."
                )
            yield row["reviewer_id"], row["purchase_history"] or [], texts


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def aggregate(
    users: Iterator[User], vote: Callable[[User], Votes], total: int, out: Path, rater: str
) -> dict[str, Any]:
    """Write each user's votes and their aggregate; returns counts of users, votes and failed votes.

    A vote is one score of one attribute. A stage that has nothing to rate has no votes, and nulls in the ratings.
    """
    counts = {"users": 0, "votes": 0, "failed_votes": 0}
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
                cast = vote(user)
                bar.update()
                metadata, raw = user_ratings(cast)
                vote_rows += [{"reviewer_id": user[0], **row} for row in raw]
                rating_rows.append({"reviewer_id": user[0], "metadata": metadata, "rater": rater})
            counts["users"] += len(part)
            counts["votes"] += len(vote_rows)
            counts["failed_votes"] += sum(row["score"] is None for row in vote_rows)
            # An empty first part still makes a readable file.
            votes_file.write_table(pa.Table.from_pylist(vote_rows, schema=VOTES))
            ratings_file.write_table(pa.Table.from_pylist(rating_rows, schema=RATINGS))
            part = list(islice(users, 1024))
            if not part:
                return counts


def user_ratings(votes: Votes) -> tuple[dict[str, dict[str, int | None]], list[dict[str, Any]]]:
    """The scores of one user (`metadata` of schema.RATINGS) and the rows of VOTES that they come from."""
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
            {"stage": stage, "attribute": attribute, "vote": number, "score": pair[0], "confidence": pair[1]}
            for attribute, pairs in by_attribute.items()
            for number, pair in enumerate(pairs)
        ]
    return metadata, rows
