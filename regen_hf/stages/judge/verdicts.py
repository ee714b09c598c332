"""What the judges' answers add up to: win rates, what place and length did to them, and how far votes agree.

For each task, and for all of them together:

- `win_rate`: of the run's text, votes won and half of the ties; 95 % bootstrap interval over users
- `won`, `tied`, `lost`: shares of the votes
- `position_bias`: `first_wins`, of the answers that name a winner, those that name the text shown first (0.5 = no
  bias), with its interval; `turned`, the share of votes that named the same place in both orders, and so contradict
  themselves
- `length_bias`: `longer_wins`, of the votes with a winner, those that the longer text won, with its interval;
  `length_ratio`, words of the run's texts over words of the other's. A longer text may be better: compare the two
- `alpha`: Krippendorff's alpha, ordinal over lost, tied, won, of the votes on one pair; null of one vote, and where all
  votes are the same
- `judges`: the win rate by each judge

A figure over nothing is null.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ... import llm
from ...intervals import Interval
from ...metrics.agreement import POINTS, alpha
from ...metrics.bootstrap import share_interval
from .pairs import Pair, _public, _same, request

if TYPE_CHECKING:
    from .settings import JudgeConfig

VOTES = pa.schema(
    [
        *((name, pa.string()) for name in ("reviewer_id", "task")),
        ("vote", pa.int64()),
        ("judge", pa.string()),  # null for texts that are the same: nobody was asked
        ("ours_first", pa.string()),  # the answer with the run's text first: first, second, tie; null = it failed
        ("theirs_first", pa.string()),
        ("won", pa.float64()),  # by the run's text: 1 won, 0.5 tied, 0 lost; null = a request failed
        ("ours_words", pa.int64()),
        ("theirs_words", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Vote:
    """One vote on one pair: the answers in both orders, and what follows from them."""

    pair: Pair
    number: int
    judge: str | None
    ours_first: str | None
    theirs_first: str | None

    @property
    def won(self) -> float | None:
        """1 if the run's text won, 0 if it lost, 0.5 for a tie; None where a request failed."""
        if self.ours_first is None or self.theirs_first is None:
            return None
        points = {"first": 1, "tie": 0, "second": -1}
        total = points[self.ours_first] - points[self.theirs_first]
        return 1.0 if total > 0 else 0.0 if total < 0 else 0.5

    @property
    def turned(self) -> bool:
        """Both orders named the same place."""
        return self.ours_first == self.theirs_first != "tie"


def read_votes(pairs: Iterable[Pair], store: llm.Store, out: Path, config: JudgeConfig) -> list[Vote]:
    """The votes on all pairs from the store of replies; `failed.jsonl` in `out` tells what failed."""
    votes = []
    for pair in pairs:
        for number in range(config.votes):
            if _same(pair):
                votes.append(Vote(pair, number, None, "tie", "tie"))
                continue
            answers: list[str | None] = []
            for ours_first in (True, False):
                found = llm.read(request(pair, number, ours_first, config), store)
                if isinstance(found, llm.Request | llm.Failure):
                    answers.append(None)
                    row = {"reviewer_id": pair.reviewer_id, "request": f"{pair.task}, vote {number}"}
                    with (out / "failed.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row | (vars(found) if isinstance(found, llm.Failure) else {})) + "\n")
                else:
                    answers.append(found.model_dump()["better"])
            judge = _public(config.models[number % len(config.models)])
            votes.append(Vote(pair, number, judge, *answers))
    return votes


def table(votes: Iterable[Vote]) -> pa.Table:
    """The votes as rows of VOTES."""
    return pa.Table.from_pylist(
        [
            {
                "reviewer_id": vote.pair.reviewer_id,
                "task": vote.pair.task,
                "vote": vote.number,
                "judge": vote.judge,
                "ours_first": vote.ours_first,
                "theirs_first": vote.theirs_first,
                "won": vote.won,
                "ours_words": len(vote.pair.ours.split()),
                "theirs_words": len(vote.pair.theirs.split()),
            }
            for vote in votes
        ],
        VOTES,
    )


def by_task(pairs: Sequence[Pair], votes: Sequence[Vote], config: JudgeConfig) -> dict[str, Any]:
    """The figures told at the top of this module, by task and under `all`."""
    tasks = dict.fromkeys(pair.task for pair in pairs)
    return {
        task: figures(
            [pair for pair in pairs if task in ("all", pair.task)],
            [vote for vote in votes if task in ("all", vote.pair.task)],
            config.seed,
        )
        for task in (*tasks, "all")
    }


def figures(pairs: Sequence[Pair], votes: Sequence[Vote], seed: int) -> dict[str, Any]:
    """The figures of some pairs and the votes on them."""
    cast = [vote for vote in votes if vote.won is not None]
    asked = [vote for vote in cast if vote.judge is not None]
    judges = dict.fromkeys(vote.judge for vote in asked)
    words = [(len(pair.ours.split()), len(pair.theirs.split())) for pair in pairs]
    theirs = sum(second for _, second in words)
    patterns: dict[tuple[str, str], Counter[float]] = {}
    for vote in asked:
        patterns.setdefault((vote.pair.reviewer_id, vote.pair.task), Counter())[vote.won or 0.0] += 1

    def share(part: Callable[[Vote], float], whole: Callable[[Vote], float], of: Sequence[Vote]) -> Interval:
        users: dict[str, list[float]] = {}
        for vote in of:
            sums = users.setdefault(vote.pair.reviewer_id, [0.0, 0.0])
            sums[0] += part(vote)
            sums[1] += whole(vote)
        return share_interval(np.array(list(users.values())).reshape(-1, 2), seed)

    def part_of(holds: Callable[[Vote], bool], of: Sequence[Vote]) -> float | None:
        return sum(map(holds, of)) / len(of) if of else None

    return {
        "n": len(pairs),
        "same_text": sum(map(_same, pairs)),
        "failed_votes": len(votes) - len(cast),
        "win_rate": share(lambda vote: vote.won or 0.0, lambda vote: 1.0, cast),
        "won": part_of(lambda vote: vote.won == 1, cast),
        "tied": part_of(lambda vote: vote.won == 0.5, cast),
        "lost": part_of(lambda vote: vote.won == 0, cast),
        "position_bias": {
            "first_wins": share(
                lambda vote: [vote.ours_first, vote.theirs_first].count("first"),
                lambda vote: 2 - [vote.ours_first, vote.theirs_first].count("tie"),
                asked,
            ),
            "turned": part_of(lambda vote: vote.turned, asked),
        },
        "length_bias": {
            "longer_wins": share(
                lambda vote: float(_longer(vote.pair) * ((vote.won or 0.0) - 0.5) > 0),
                lambda vote: float(_longer(vote.pair) != 0 and vote.won != 0.5),
                asked,
            ),
            "length_ratio": sum(first for first, _ in words) / theirs if theirs else None,
        },
        "alpha": alpha(_patterns(patterns.values())),
        "judges": {
            judge: share(
                lambda vote: vote.won or 0.0, lambda vote: 1.0, [vote for vote in asked if vote.judge == judge]
            )
            for judge in judges
        },
    }


def _longer(pair: Pair) -> int:
    """1 if the run's text has more words, -1 if the other's has, 0 if they have as many."""
    return int(np.sign(len(pair.ours.split()) - len(pair.theirs.split())))


def _patterns(counts: Iterable[Counter[float]]) -> dict[tuple[int, ...], int]:
    """How many pairs have so many votes lost, tied and won, of those with several; the other points stay empty."""
    found = Counter((each[0.0], each[0.5], each[1.0], *[0] * (POINTS - 3)) for each in counts if each.total() > 1)
    return dict(found)
