"""Ratings by a language model: one request per user, stage and vote, so that no stage's reasoning colours another's."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from .. import llm, prompts
from ..schema import RATED
from . import RatingsConfig, User, Votes, aggregate

# Seven points, lowest first (table 7 gives those of veracity).
TRUTH_LABELS = (
    "Likely Very False",
    "Likely False",
    "Likely Somewhat False",
    "Uncertain",
    "Likely Somewhat True",
    "Likely True",
    "Likely Very True",
)
LABELS = ("Very Low", "Low", "Somewhat Low", "Medium", "Somewhat High", "High", "Very High")
TEXTS = {
    "example": {},
    "last_purchase": {"Purchase reason": "reason", "Explanation": "explanation"},
    "user": {"User profile": "profile", "Brief summary": "brief_summary", "Long summary": "long_summary"},
    "endorsement": {"Endorsement": "endorsement"},
}


def labels(attribute: str) -> tuple[str, ...]:
    """The seven labels of an attribute, for the scores 1 to 7.

    >>> labels("veracity")[0], labels("clarity")[6]
    ('Likely Very False', 'Very High')
    """
    return TRUTH_LABELS if attribute == "veracity" else LABELS


def scored(stage: str) -> tuple[str, ...]:
    """The attributes that a stage scores; confidence comes with each of them."""
    return tuple(attribute for attribute in RATED[stage] if attribute != "confidence")


@functools.cache
def answer_of(stage: str) -> type[BaseModel]:
    """The answer to `prompts/ratings.jinja` for a stage: the reasoning first, then a label for each attribute."""
    fields: dict[str, Any] = {"reasoning": (str, ...)}
    for attribute in scored(stage):
        fields[attribute] = (Literal[labels(attribute)], ...)
        fields[f"{attribute}_confidence"] = (Literal[LABELS], ...)
    answer: type[BaseModel] = create_model(f"{stage}_rating", __config__=ConfigDict(extra="forbid"), **fields)
    return answer


def requests(user: User, vote: int, config: RatingsConfig) -> Iterator[tuple[str, llm.Request]]:
    """The requests of one vote on one user, by stage; a stage that has nothing to rate has none."""
    _, history, narratives = user
    if not history:
        return
    written = {**(narratives["last_purchase"] or {}), **(narratives["user"] or {})}
    lines = prompts.history_lines(history)
    for stage, texts in TEXTS.items():
        to_rate = [f"{title}: {' '.join(written[name].split())}" for title, name in texts.items() if written.get(name)]
        if texts and not to_rate:
            continue
        messages = prompts.messages(
            "ratings",
            stage=stage,
            attributes=scored(stage),
            labels={attribute: labels(attribute) for attribute in scored(stage)},
            confidence_labels=LABELS,
            **prompts.fence("\n".join([lines, "", "Text to rate", *to_rate] if to_rate else [lines])),
        )
        yield stage, llm.Request.of(config, messages, answer_of(stage), vote)


def all_requests(users: Callable[[], Iterator[User]], config: RatingsConfig) -> Iterator[llm.Request]:
    """The requests for all votes on all users."""
    for user in users():
        for number in range(config.votes):
            yield from (request for _, request in requests(user, number, config))


def rate(
    users: Callable[[], Iterator[User]], total: int, out: Path, paid: Path, config: RatingsConfig
) -> dict[str, Any]:
    """Ask for the votes that are missing, then write and aggregate all, and `failed.jsonl` where requests failed."""
    failed = 0

    def vote(user: User) -> Votes:
        nonlocal failed
        votes: Votes = []
        for number in range(config.votes):
            cast: dict[str, dict[str, tuple[int, int]]] = {}
            for stage, request in requests(user, number, config):
                answer = llm.read(request, store)
                cast[stage] = {}  # stays so where the request failed: a vote without scores
                if isinstance(answer, BaseModel):
                    given = answer.model_dump()
                    cast[stage] = {
                        attribute: (
                            labels(attribute).index(given[attribute]) + 1,
                            LABELS.index(given[f"{attribute}_confidence"]) + 1,
                        )
                        for attribute in scored(stage)
                    }
                elif isinstance(answer, llm.Failure):
                    failed += 1
                    row = {"reviewer_id": user[0], "request": f"{stage}, vote {number}"} | vars(answer)
                    with (out / "failed.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
            votes.append(cast)
        return votes

    with llm.Store(paid) as store:
        total_requests = len(TEXTS) * config.votes * total
        llm.ask(lambda: all_requests(users, config), config, store, total=total_requests, desc="ratings")
        counts = aggregate(users(), vote, total, out, config.model)
        return {**counts, "failed": failed, **store.totals(), "prompts": prompts.hashes("history", "ratings")}
