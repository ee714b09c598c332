"""The scores that follow from the judge's answers: win rates, biases of position and length, and agreement.

For each task, and for all tasks together:

- `win_rate`: of the run's text, votes won and half of the ties; 95 % bootstrap interval over users
- `won`, `tied`, `lost`: shares of the votes
- `position_bias`: `first_wins`, the share of answers for the first text among those with a winner (0.5 = no bias), with
  its interval; `turned`, the share of votes that chose the same position in both orders, and so contradict themselves
- `length_bias`: `longer_wins`, the share of votes for the longer text among those with a winner, with its interval;
  `length_ratio`, words of the run's texts over words of the other's. A longer text may be better: compare the two
- `alpha`: Krippendorff's alpha, ordinal over lost, tied, won, of the votes on one pair; null for one vote, and where
  all votes are equal
- `judges`: the win rate by judge

A share with the total 0 is null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ... import llm
from ...intervals import Interval
from ...metrics.agreement import POINTS, alpha
from ...metrics.bootstrap import share_interval
from ...outputs import public_name
from .pairs import Pair, request
from .settings import JudgeConfig

VOTES_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("reviewer_id", "task")),
        ("vote", pa.int64()),
        ("judge", pa.string()),  # null for equal texts, which need no request
        ("ours_first", pa.string()),  # the answer with the run's text first: first, second, tie; null = it failed
        ("theirs_first", pa.string()),
        ("won", pa.float64()),  # by the run's text: 1 won, 0.5 tied, 0 lost; null = a request failed
        ("ours_words", pa.int64()),
        ("theirs_words", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Vote:
    """One vote on one pair: the answers in both orders."""

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
        """Whether both orders chose the same position."""
        return self.ours_first == self.theirs_first != "tie"


def read_votes(
    pairs: Iterable[Pair], store: llm.Store, out: Path, config: JudgeConfig, window: llm.Window
) -> list[Vote]:
    """The votes on all pairs from the cached answers; failed requests are listed in `out`.

    Raises:
        RunError: too many failed.
    """
    votes = []
    failures = llm.Failures(out, config)
    for pair in pairs:
        for number in range(config.votes):
            if pair.same:
                votes.append(Vote(pair, number, None, "tie", "tie"))
                continue
            verdicts: list[str | None] = []
            for ours_first in (True, False):
                answer = llm.read(request(pair, number, ours_first, config, window), store)
                failures.total += 1
                if isinstance(answer, llm.Failure):
                    failures.add(pair.reviewer_id, f"{pair.task}, vote {number}", answer)
                if isinstance(answer, llm.Request | llm.Failure):
                    verdicts.append(None)
                else:
                    verdicts.append(answer.model_dump()["better"])
            votes.append(Vote(pair, number, public_name(config.models[number % len(config.models)]), *verdicts))
    failures.check()
    return votes


def votes_table(votes: Iterable[Vote]) -> pa.Table:
    """The votes as rows of VOTES_SCHEMA."""
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
        VOTES_SCHEMA,
    )


def by_task(pairs: Sequence[Pair], votes: Sequence[Vote], seed: int) -> dict[str, Any]:
    """The scores of each task, and under `all` those of all tasks."""
    tasks = dict.fromkeys(pair.task for pair in pairs)
    return {
        task: scores(
            [pair for pair in pairs if task in ("all", pair.task)],
            [vote for vote in votes if task in ("all", vote.pair.task)],
            seed,
        )
        for task in (*tasks, "all")
    }


def scores(pairs: Sequence[Pair], votes: Sequence[Vote], seed: int) -> dict[str, Any]:
    """The scores of some pairs and the votes on them, as listed in the docstring of this module."""
    valid = [vote for vote in votes if vote.won is not None]
    judged = [vote for vote in valid if vote.judge is not None]
    words = [(len(pair.ours.split()), len(pair.theirs.split())) for pair in pairs]
    theirs = sum(second for _, second in words)

    def interval(part: Callable[[Vote], float], total: Callable[[Vote], float], of: Sequence[Vote]) -> Interval:
        users: dict[str, list[float]] = {}
        for vote in of:
            sums = users.setdefault(vote.pair.reviewer_id, [0.0, 0.0])
            sums[0] += part(vote)
            sums[1] += total(vote)
        return share_interval(np.array(list(users.values())).reshape(-1, 2), seed)

    def win_rate(of: Sequence[Vote]) -> Interval:
        return interval(lambda vote: vote.won or 0.0, lambda vote: 1.0, of)

    def share(condition: Callable[[Vote], bool], of: Sequence[Vote]) -> float | None:
        return sum(map(condition, of)) / len(of) if of else None

    return {
        "n": len(pairs),
        "same_text": sum(pair.same for pair in pairs),
        "failed_votes": len(votes) - len(valid),
        "win_rate": win_rate(valid),
        "won": share(lambda vote: vote.won == 1, valid),
        "tied": share(lambda vote: vote.won == 0.5, valid),
        "lost": share(lambda vote: vote.won == 0, valid),
        "position_bias": {
            "first_wins": interval(
                lambda vote: [vote.ours_first, vote.theirs_first].count("first"),
                lambda vote: 2 - [vote.ours_first, vote.theirs_first].count("tie"),
                judged,
            ),
            "turned": share(lambda vote: vote.turned, judged),
        },
        "length_bias": {
            "longer_wins": interval(
                lambda vote: float(_longer(vote.pair) * ((vote.won or 0.0) - 0.5) > 0),
                lambda vote: float(_longer(vote.pair) != 0 and vote.won != 0.5),
                judged,
            ),
            "length_ratio": sum(first for first, _ in words) / theirs if theirs else None,
        },
        "alpha": alpha(_patterns(judged)),
        "judges": {
            judge: win_rate([vote for vote in judged if vote.judge == judge])
            for judge in dict.fromkeys(vote.judge for vote in judged)
        },
    }


def _longer(pair: Pair) -> int:
    """1 if the run's text has more words, -1 if the other's has, 0 for equal lengths."""
    return int(np.sign(len(pair.ours.split()) - len(pair.theirs.split())))


def _patterns(votes: Iterable[Vote]) -> dict[tuple[int, ...], int]:
    """Number of pairs by their votes lost, tied and won, for pairs with several votes; the other points are unused."""
    by_pair: dict[tuple[str, str], Counter[float | None]] = {}
    for vote in votes:
        by_pair.setdefault((vote.pair.reviewer_id, vote.pair.task), Counter())[vote.won] += 1
    return dict(
        Counter(
            (counts[0.0], counts[0.5], counts[1.0], *[0] * (POINTS - 3))
            for counts in by_pair.values()
            if counts.total() > 1
        )
    )
