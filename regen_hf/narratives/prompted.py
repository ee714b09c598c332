"""Narratives by a language model: one request for all that the last review may colour, one for the endorsement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from .. import llm, prompts
from . import NarrativesConfig, write


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("this field must not be empty")
    return text.strip()


Text = Annotated[str, AfterValidator(_said)]


class Narratives(BaseModel):
    """The answer to `prompts/narratives.jinja`."""

    model_config = ConfigDict(extra="forbid")

    purchase_reason: Text | None
    purchase_reason_explanation: Text | None
    brief_user_summary: Text
    long_user_summary: Text
    user_profile: Text


class Endorsement(BaseModel):
    """The answer to `prompts/endorsement.jinja`."""

    model_config = ConfigDict(extra="forbid")

    product_endorsement: Text


Users = Callable[[], Iterator[tuple[str, list[dict[str, Any]]]]]


def requests(history: Sequence[dict[str, Any]], config: NarrativesConfig) -> tuple[llm.Request, llm.Request] | None:
    """The two requests for one user, None for an empty history."""
    if not history:
        return None
    withheld = [*history[:-1], {"item": history[-1]["item"], "review": None}]

    def request(name: str, shown: Sequence[dict[str, Any]], answer: type[BaseModel]) -> llm.Request:
        messages = prompts.messages(name, **prompts.fence(prompts.history_lines(shown)))
        return llm.Request.of(config, messages, answer)

    return request("narratives", history, Narratives), request("endorsement", withheld, Endorsement)


def all_requests(users: Users, config: NarrativesConfig) -> Iterator[llm.Request]:
    """The requests for all users."""
    return (request for _, history in users() for request in requests(history, config) or ())


def narrate(users: Users, total: int, out: Path, paid: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Ask for what is missing, then write `narratives.parquet`, and `failed.jsonl` where a request failed for good."""
    counts: dict[str, Any] = {"users": 0, "failed": 0}

    def rows(store: llm.Store) -> Iterator[dict[str, Any]]:
        for reviewer_id, history in users():
            counts["users"] += 1
            answers: dict[str, Any] = {}
            for request in requests(history, config) or ():
                answer = llm.read(request, store)
                if isinstance(answer, BaseModel):
                    answers |= answer.model_dump()
                elif isinstance(answer, llm.Failure):
                    counts["failed"] += 1
                    failed = {"reviewer_id": reviewer_id, "request": request.answer.__name__} | vars(answer)
                    with (out / "failed.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(failed, ensure_ascii=False) + "\n")
            yield {
                "reviewer_id": reviewer_id,
                "last_purchase": {
                    "reason": answers.get("purchase_reason"),
                    "explanation": answers.get("purchase_reason_explanation"),
                    "endorsement": answers.get("product_endorsement"),
                },
                "user": {
                    "profile": answers.get("user_profile"),
                    "brief_summary": answers.get("brief_user_summary"),
                    "long_summary": answers.get("long_user_summary"),
                },
                "narrator": config.model,
            }

    with llm.Store(paid) as store:
        llm.ask(lambda: all_requests(users, config), config, store, total=2 * total, desc="narratives")
        write(rows(store), out / "narratives.parquet")
        return {**counts, **store.totals(), "prompts": prompts.hashes("history", "narratives", "endorsement")}
