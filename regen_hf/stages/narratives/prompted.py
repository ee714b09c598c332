"""Narratives by a language model: one request for all that the last review may colour, one for the endorsement.

An answer that breaks a rule is asked for again, up to `fix` times, with the broken rules named; of all answers the one
that breaks the fewest is kept, the latest of equals.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ... import llm, outputs, prompts
from ...outputs import public_name
from . import checks, examples
from .examples import Text
from .files import write
from .settings import NarrativesConfig

PROMPTS = ("history", "narratives", "endorsement")


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


ANSWERS: dict[str, type[BaseModel]] = {"narratives": Narratives, "endorsement": Endorsement}


@dataclass(frozen=True)
class Asked:
    """A request about one user."""

    request: llm.Request
    left_out: int
    """Reviews that it does not show, for lack of room."""


class Prompter:
    """Makes the requests of a run; what they have in common is made once.

    Raises:
        InputError: the few-shot examples cannot be used.
        ConfigError: the window has no room for a history.
    """

    def __init__(self, config: NarrativesConfig) -> None:
        self.config = config
        shots = [message for one in examples.load(config) for message in one.messages()]
        self.fixed = {
            "narratives": (prompts.system("narratives", language=config.language), *shots),
            "endorsement": (prompts.system("endorsement", language=config.language),),
        }
        for name in self.fixed:
            self._room(name)  # told before anything is asked

    @functools.cached_property
    def identity(self) -> str:
        """What stands in the column `narrator_prompt`."""
        return f"{prompts.identity('narratives', examples.files(self.config))}, {prompts.identity('endorsement')}"

    def requests(self, history: Sequence[dict[str, Any]]) -> list[Asked]:
        """The two requests for one user, none for an empty history."""
        if not history:
            return []
        withheld = [*history[:-1], {"item": history[-1]["item"], "review": None}]
        return [self._request("narratives", history), self._request("endorsement", withheld)]

    def _request(self, name: str, history: Sequence[dict[str, Any]]) -> Asked:
        shown, left_out = prompts.fit(history, self._room(name))
        question = prompts.user(name, history=prompts.fence(prompts.history_lines(shown)))
        return Asked(llm.Request.of(self.config, (*self.fixed[name], question), ANSWERS[name]), left_out)

    def _room(self, name: str) -> int:
        question = 200  # the words of the block `user`, its two marks and the schema of the answer
        fixed = prompts.tokens(self.fixed[name]) + question
        return prompts.room(self.config, fixed, "examples", "or give fewer examples (zero_shot asks without)")


@dataclass(frozen=True)
class Attempt:
    """A request, what came of it, and the checks that the answer failed."""

    request: llm.Request
    outcome: BaseModel | llm.Failure | llm.Request
    failed: list[str]


def attempts(
    request: llm.Request, history: Sequence[dict[str, Any]], store: llm.Store, config: NarrativesConfig
) -> Iterator[Attempt]:
    """What was asked for one of a user's answers, one after the other: each but the first because of failed checks."""
    for number in range(config.fix + 1):
        outcome = llm.read(request, store)
        failed: list[str] = []
        if isinstance(outcome, BaseModel):
            written = in_row(outcome.model_dump())
            found = checks.check(written, history, config.language)["failed"] or []
            mine = {name for name, field in checks.ANSWER_FIELDS.items() if field in type(outcome).model_fields}
            failed = [str(one) for one in found if str(one).partition(".")[0] in mine]
        yield Attempt(request, outcome, failed)
        if not failed or number == config.fix or not isinstance(outcome, BaseModel):
            return
        reasons = "; ".join(checks.reason(one, config.language) for one in failed)
        # A bad shape of the new answer may be asked again in its turn.
        request = dataclasses.replace(request.again(outcome.model_dump_json(), reasons), repeated=False)


def requests(
    files: list[Path], config: NarrativesConfig, store: llm.Store | None = None, number: int = 0
) -> Iterator[llm.Request]:
    """The requests for all users; with `number` above 0, those of the repetition of that number."""
    prompter = Prompter(config)
    for user in outputs.rows(files):
        history = user["purchase_history"] or []
        for asked in prompter.requests(history):
            if store is None or number == 0:
                yield asked.request
                continue
            made = list(attempts(asked.request, history, store, dataclasses.replace(config, fix=number)))
            if len(made) > number:
                yield made[number].request


def narrate(files: list[Path], out: Path, paid: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Ask for what is missing, then write `narratives.parquet`, and `failed.jsonl` where a request failed for good."""
    prompter = Prompter(config)
    total = 2 * outputs.count(files)
    counts: dict[str, Any] = {"users": 0, "failed": 0, "asked_again": 0, "reviews_left_out": 0, "users_cut": 0}

    def rows(store: llm.Store) -> Iterator[dict[str, Any]]:
        for user in outputs.rows(files):
            history = user["purchase_history"] or []
            answers: dict[str, Any] = {}
            left_out = 0
            for asked in prompter.requests(history):
                left_out = max(left_out, asked.left_out)
                made = list(attempts(asked.request, history, store, config))
                counts["asked_again"] += len(made) - 1
                answered = [one for one in made if isinstance(one.outcome, BaseModel)]
                if answered:
                    best = min(reversed(answered), key=lambda one: len(one.failed)).outcome
                    answers |= best.model_dump() if isinstance(best, BaseModel) else {}
                elif isinstance(failure := made[0].outcome, llm.Failure):
                    counts["failed"] += 1
                    failed = {"reviewer_id": user["reviewer_id"], "request": asked.request.answer.__name__}
                    with (out / "failed.jsonl").open("a", encoding="utf-8") as file:
                        file.write(json.dumps(failed | vars(failure), ensure_ascii=False) + "\n")
            written = in_row(answers)
            counts["users"] += 1
            counts["reviews_left_out"] += left_out
            counts["users_cut"] += bool(left_out)
            yield {
                "reviewer_id": user["reviewer_id"],
                **written,
                "narrator": public_name(config.model),
                "narrator_prompt": prompter.identity,
                "narrator_left_out": left_out,
                "checks": checks.check(written, history, config.language),
            }

    with llm.Store(paid) as store:
        for number in range(config.fix + 1):
            again = functools.partial(requests, files, config, store, number)
            desc = f"narratives, asked again ({number})" if number else "narratives"
            llm.ask(again, config, store, total=total if not number else sum(1 for _ in again()), desc=desc)
        failed_checks = write(rows(store), out / "narratives.parquet")
        return {
            **counts,
            "failed_checks": dict(sorted(failed_checks.items())),
            **store.totals(),
            "prompts": prompts.hashes(*PROMPTS, "examples"),
        }


def in_row(answers: dict[str, Any]) -> dict[str, Any]:
    """Answers as the row has them: `{"last_purchase": {…}, "user": {…}}`, null where there is none."""
    return {
        part: {name: answers.get(checks.ANSWER_FIELDS[name]) for name in fields}
        for part, fields in checks.FIELDS.items()
    }
