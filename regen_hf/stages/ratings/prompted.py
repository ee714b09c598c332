"""Ratings by a language model: a request per user, stage and vote, so that stages do not influence each other."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from ... import llm, prompts
from ...schema import RATED, rated_tasks
from . import votes
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


def labels(attribute: str) -> tuple[str, ...]:
    """The seven labels of an attribute, for the scores 1 to 7.

    >>> labels("veracity")[0], labels("clarity")[6]
    ('Likely Very False', 'Very High')
    """
    return TRUTH_LABELS if attribute == "veracity" else LABELS


def scored(stage: str) -> tuple[str, ...]:
    """The attributes of a stage without confidence, which each of them has."""
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


def user_requests(user: dict[str, Any], config: RatingsConfig) -> Iterator[tuple[int, str, llm.Request, int]]:
    """The requests about one user: (vote, stage, request, reviews left out).

    A stage without texts has none. The requests of one vote are consecutive: a server that caches the prefix of a
    prompt reads the history once.
    """
    if not user["purchase_history"]:
        return
    texts = {
        stage: "\n".join(
            f"{task.label or task.title}: {' '.join(text.split())}"
            for task in rated_tasks(stage)
            if (text := task.text(user))
        )
        for stage in RATED
    }
    shown, left_out = prompts.fit(user["purchase_history"], room(max(texts.values(), key=len), config))
    history = prompts.fence(prompts.history_lines(shown))
    messages = {
        stage: (
            prompts.system("ratings"),
            prompts.user(
                "ratings",
                stage=stage,
                attributes=scored(stage),
                labels={attribute: labels(attribute) for attribute in scored(stage)},
                confidence_labels=LABELS,
                history=history,
                texts=prompts.fence(text) if text else None,
            ),
        )
        for stage, text in texts.items()
        if text or not rated_tasks(stage)  # a stage without tasks rates the history
    }
    for vote in range(config.votes):
        model = config.models[vote % len(config.models)]
        for stage, pair in messages.items():
            yield vote, stage, llm.Request.of(config, pair, answer_of(stage), vote, model), left_out


def room(texts: str, config: RatingsConfig) -> int:
    """The tokens that a history may have, given the longest of the texts to rate.

    Raises:
        ConfigError: there is no room.
    """
    question = 1000  # the block `user` with the longest list of attributes, the marks, and the schema of the answer
    fixed = prompts.tokens([prompts.system("ratings"), {"role": "user", "content": texts}]) + question
    return prompts.room(config, fixed, "texts")


def requests(users: votes.Users, config: RatingsConfig) -> Iterator[llm.Request]:
    """The requests for all votes on `users`."""
    for user in users:
        yield from (request for _, _, request, _ in user_requests(user, config))


def rate(users: votes.Users, out: Path, cache: Path, config: RatingsConfig) -> dict[str, Any]:
    """Request the missing votes, then write all votes and scores, and `failed.jsonl` for failed requests."""
    failures = llm.Failures(out, config)
    identity = prompts.identity("ratings")

    def vote(user: dict[str, Any]) -> votes.UserVotes:
        given: list[votes.Vote] = [{} for _ in range(config.votes)]
        left_out = 0
        for number, stage, request, left_out in user_requests(user, config):  # noqa: B007 (the same for all requests)
            answer = llm.read(request, store)
            failures.total += 1
            given[number][stage] = {}
            if isinstance(answer, BaseModel):
                chosen = answer.model_dump()
                given[number][stage] = {
                    attribute: (
                        labels(attribute).index(chosen[attribute]) + 1,
                        LABELS.index(chosen[f"{attribute}_confidence"]) + 1,
                    )
                    for attribute in scored(stage)
                }
            elif isinstance(answer, llm.Failure):
                failures.add(user["reviewer_id"], f"{stage}, vote {number}", answer)
        return votes.UserVotes(given, identity, left_out)

    with llm.Store(cache) as store:
        part = functools.partial(requests, users, config)
        llm.ask(part, config, store, total=len(RATED) * config.votes * len(users), desc="ratings")
        counts = votes.write(users, vote, out, config)
        failures.check()
        return {**counts, "failed": failures.count, **store.totals(), "prompts": prompts.hashes("history", "ratings")}
