"""Ratings by a language model: a request per user, stage and vote, so that stages do not influence each other."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from ... import llm, prompts
from ...schema import RATED, rated_narratives
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


@dataclass(frozen=True)
class VoteRequest:
    """The request for one vote on one stage of a user."""

    number: int
    stage: str
    request: llm.Request


def rated_texts(user: dict[str, Any]) -> dict[str, str]:
    """The text that each stage rates; stages without one are left out, those without narratives rate the history."""
    if not user["purchase_history"]:
        return {}
    texts = {
        stage: "\n".join(
            f"{narrative.label or narrative.title}: {' '.join(text.split())}"
            for narrative in rated_narratives(stage)
            if (text := narrative.text(user))
        )
        for stage in RATED
    }
    return {stage: text for stage, text in texts.items() if text or not rated_narratives(stage)}


def user_requests(
    user: dict[str, Any], config: RatingsConfig, window: llm.Window
) -> tuple[list[VoteRequest], prompts.Fitted]:
    """The requests about one user, and the history that they show.

    A stage without texts has none. All votes on a stage are consecutive, and all stages of a user: a server that caches
    the prefix of a prompt then reads the history once per user, and the rest once per stage, as votes have one prompt.
    """
    prompt_of = {stage: functools.partial(messages, stage, text) for stage, text in rated_texts(user).items()}
    if not prompt_of:
        return [], prompts.Fitted(())
    sizes = {stage: window.count(prompt(()), answer_of(stage)) for stage, prompt in prompt_of.items()}
    # All stages have the same history. A stage that has no room for one does not shorten it.
    longest = max(prompt_of, key=lambda stage: (sizes[stage] < window.room, sizes[stage]))
    fitted = prompts.fit(user["purchase_history"], prompt_of[longest], answer_of(longest), window)
    models = config.models
    asked = [
        VoteRequest(
            number, stage, llm.Request.of(config, pair, answer_of(stage), number, models[number % len(models)], window)
        )
        for stage, prompt in prompt_of.items()
        for pair in (prompt(fitted.history),)
        for number in range(config.votes)
    ]
    return asked, fitted


def messages(stage: str, text: str, history: Sequence[dict[str, Any]]) -> tuple[prompts.Message, ...]:
    """The prompt that rates `text`, in a stage, by `history`."""
    return (
        prompts.system("ratings"),
        prompts.user(
            "ratings",
            stage=stage,
            attributes=scored(stage),
            labels={attribute: labels(attribute) for attribute in scored(stage)},
            confidence_labels=LABELS,
            history=prompts.fence(prompts.history_lines(history)),
            texts=prompts.fence(text) if text else None,
        ),
    )


def requests(users: votes.Users, config: RatingsConfig, window: llm.Window) -> Iterator[llm.Request]:
    """The requests for all votes on `users`.

    Raises:
        ConfigError: the window has no room for a history.
    """
    for stage in RATED:
        tokens = window.count(messages(stage, "", ()), answer_of(stage))
        if tokens >= window.room:
            raise window.too_small("the form of the answer", tokens)
    for user in users:
        yield from (vote.request for vote in user_requests(user, config, window)[0])


def estimated(users: votes.Users, cache: Path, config: RatingsConfig) -> Iterator[llm.Request]:
    """The requests of `rate`, as far as the window of the model is known."""
    yield from requests(users, config, llm.stored_window(config, cache))


def rate(users: votes.Users, out: Path, cache: Path, config: RatingsConfig) -> dict[str, Any]:
    """Request the missing votes, then write all votes and scores, and `failed.jsonl` for failed requests."""
    failures = llm.Failures(out, config)
    identity = prompts.identity("ratings")

    def vote(user: dict[str, Any]) -> votes.UserVotes:
        given: list[votes.Vote] = [{} for _ in range(config.votes)]
        asked, fitted = user_requests(user, config, window)
        for one in asked:
            answer, stage = llm.read(one.request, store), one.stage
            failures.total += 1
            given[one.number][stage] = {}
            if isinstance(answer, BaseModel):
                chosen = answer.model_dump()
                given[one.number][stage] = {
                    attribute: (
                        labels(attribute).index(chosen[attribute]) + 1,
                        LABELS.index(chosen[f"{attribute}_confidence"]) + 1,
                    )
                    for attribute in scored(stage)
                }
            elif isinstance(answer, llm.Failure):
                failures.add(user["reviewer_id"], f"{stage}, vote {one.number}", answer)
        return votes.UserVotes(given, identity, fitted.left_out, fitted.cut)

    with llm.Store(cache) as store:
        total = config.votes * sum(len(rated_texts(user)) for user in users)
        for window in llm.passes(config, store):
            llm.ask(functools.partial(requests, users, config, window), config, store, total, desc="ratings")
        counts = votes.write(users, vote, out, config)
        failures.check()
        return {
            **counts,
            "failed": failures.count,
            "window": window.tokens,
            **store.counts(),
            "prompts": prompts.hashes("history", "ratings"),
        }
