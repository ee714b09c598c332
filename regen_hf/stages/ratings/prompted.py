"""Ratings by a language model: one request per user, stage and vote, so that no stage's reasoning colours another's."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from ... import llm, outputs, prompts
from ...schema import RATED
from .ballots import Ballot, User, aggregate, users
from .settings import RatingsConfig

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


def user_requests(user: User, config: RatingsConfig) -> Iterator[tuple[int, str, llm.Request, int]]:
    """The requests about one user: (vote, stage, request, reviews not shown).

    A stage that has nothing to rate has none. Those of one vote follow each other: a server that keeps the beginning of
    a prompt reads the history once.
    """
    if not user.history:
        return
    written = {**(user.narratives["last_purchase"] or {}), **(user.narratives["user"] or {})}
    to_rate = {
        stage: [f"{title}: {' '.join(text.split())}" for title, name in texts.items() if (text := written.get(name))]
        for stage, texts in TEXTS.items()
    }
    longest = max(("\n".join(texts) for texts in to_rate.values()), key=len)
    shown, left_out = prompts.fit(user.history, room(longest, config))
    history = prompts.fence(prompts.history_lines(shown))
    asked = {
        stage: (
            prompts.system("ratings"),
            prompts.user(
                "ratings",
                stage=stage,
                attributes=scored(stage),
                labels={attribute: labels(attribute) for attribute in scored(stage)},
                confidence_labels=LABELS,
                history=history,
                texts=prompts.fence("\n".join(texts)) if texts else None,
            ),
        )
        for stage, texts in to_rate.items()
        if texts or not TEXTS[stage]
    }
    for vote in range(config.votes):
        model = config.models[vote % len(config.models)]
        for stage, messages in asked.items():
            yield vote, stage, llm.Request.of(config, messages, answer_of(stage), vote, model), left_out


def room(texts: str, config: RatingsConfig) -> int:
    """Tokens that a history may take beside the longest of the texts to rate.

    Raises:
        ConfigError: there is none.
    """
    question = 1000  # the block `user` with the longest list of attributes, the marks, and the schema of the answer
    fixed = prompts.tokens([prompts.system("ratings"), {"role": "user", "content": texts}]) + question
    return prompts.room(config, fixed, "texts")


def requests(files: list[Path], narratives: Path, config: RatingsConfig) -> Iterator[llm.Request]:
    """The requests for all votes on all users."""
    for user in users(files, narratives):
        yield from (request for _, _, request, _ in user_requests(user, config))


def rate(files: list[Path], narratives: Path, out: Path, paid: Path, config: RatingsConfig) -> dict[str, Any]:
    """Ask for the votes that are missing, then write and aggregate all, and `failed.jsonl` where requests failed."""
    failed = 0
    identity = prompts.identity("ratings")

    def ballot(user: User) -> Ballot:
        nonlocal failed
        votes: list[dict[str, dict[str, tuple[int, int]]]] = [{} for _ in range(config.votes)]
        not_shown = 0
        for vote, stage, request, left_out in user_requests(user, config):
            not_shown = left_out
            answer = llm.read(request, store)
            votes[vote][stage] = {}  # stays so where the request failed: a vote without scores
            if isinstance(answer, BaseModel):
                given = answer.model_dump()
                votes[vote][stage] = {
                    attribute: (
                        labels(attribute).index(given[attribute]) + 1,
                        LABELS.index(given[f"{attribute}_confidence"]) + 1,
                    )
                    for attribute in scored(stage)
                }
            elif isinstance(answer, llm.Failure):
                failed += 1
                row = {"reviewer_id": user.reviewer_id, "request": f"{stage}, vote {vote}"} | vars(answer)
                with (out / "failed.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return Ballot(votes, identity, not_shown)

    total = outputs.count(files)
    with llm.Store(paid) as store:
        llm.ask(
            functools.partial(requests, files, narratives, config),
            config,
            store,
            total=len(TEXTS) * config.votes * total,
            desc="ratings",
        )
        counts = aggregate(users(files, narratives), ballot, total, out, config)
        return {**counts, "failed": failed, **store.totals(), "prompts": prompts.hashes("history", "ratings")}
