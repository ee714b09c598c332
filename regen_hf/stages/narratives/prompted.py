"""Narratives by a language model: a request for each prompt, which withholds the last review where its tasks do.

An answer that fails checks is requested again, up to `fix` times, with a list of the failed checks. The answer with the
fewest failed checks is kept; ties go to the last one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from ... import llm, outputs, prompts
from ...model.interactions import without_last_review
from ...schema import NARRATIVES, in_row, narrative_prompts
from . import checks, examples
from .settings import NarrativesConfig


@functools.cache
def answer_of(prompt: str) -> type[BaseModel]:
    """The answer to `prompts/<prompt>.jinja`: the texts of its tasks."""
    fields: dict[str, Any] = {task.name: (examples.text_type(task), ...) for task in narrative_prompts()[prompt]}
    answer: type[BaseModel] = create_model(
        prompt.capitalize(),
        __config__=ConfigDict(extra="forbid"),
        __doc__=f"The answer to `prompts/{prompt}.jinja`.",
        **fields,
    )
    return answer


@dataclass(frozen=True)
class UserRequest:
    """A request about one user."""

    prompt: str
    request: llm.Request
    left_out: int
    """Reviews left out of the prompt, to fit the window of the model."""


class Prompter:
    """Creates the requests of a run; stores the messages that are the same for all users.

    Raises:
        InputError: the few-shot examples are invalid.
        ConfigError: the window has no room for a history.
    """

    def __init__(self, config: NarrativesConfig) -> None:
        self.config = config
        shots = [message for example in examples.load(config) for message in examples.messages(example)]
        self.fixed = {
            prompt: (prompts.system(prompt, language=config.language), *(shots if prompt == examples.PROMPT else ()))
            for prompt in narrative_prompts()
        }
        for prompt in self.fixed:
            self._room(prompt)  # raises before any request is sent

    @functools.cached_property
    def identity(self) -> str:
        """The value of the column `narrator_prompt`."""
        files = {examples.PROMPT: examples.files(self.config)}
        return ", ".join(prompts.identity(prompt, files.get(prompt, ())) for prompt in self.fixed)

    def requests(self, history: Sequence[dict[str, Any]]) -> list[UserRequest]:
        """A request per prompt for one user, none for an empty history."""
        if not history:
            return []
        withheld = without_last_review(history)
        return [
            self._request(prompt, withheld if any(task.metadata_only for task in tasks) else history)
            for prompt, tasks in narrative_prompts().items()
        ]

    def _request(self, prompt: str, history: Sequence[dict[str, Any]]) -> UserRequest:
        shown, left_out = prompts.fit(history, self._room(prompt))
        question = prompts.user(prompt, history=prompts.fence(prompts.history_lines(shown)))
        request = llm.Request.of(self.config, (*self.fixed[prompt], question), answer_of(prompt))
        return UserRequest(prompt, request, left_out)

    def _room(self, prompt: str) -> int:
        question = 200  # the words of the block `user`, its two marks and the schema of the answer
        fixed = prompts.tokens(self.fixed[prompt]) + question
        return prompts.room(self.config, fixed, "examples", "or give fewer examples, or none with zero_shot")


@dataclass(frozen=True)
class Attempt:
    """A request, its result, and the checks that the answer failed."""

    request: llm.Request
    model: str
    """The model that answered: the one of the request, or of its retry."""
    result: BaseModel | llm.Failure | llm.Request
    failed: list[str]


def attempts(
    first: UserRequest, history: Sequence[dict[str, Any]], store: llm.Store, language: str, repeats: int
) -> Iterator[Attempt]:
    """The attempts at one answer in order: the first request, then at most `repeats` for failed checks."""
    request = first.request
    for number in range(repeats + 1):
        sent, result = llm.last(request, store)
        failed: list[str] = []
        if isinstance(result, BaseModel):
            tasks = narrative_prompts()[first.prompt]
            failed = checks.check(in_row(result.model_dump()), history, language, tasks)["failed"]
        yield Attempt(request, sent.model, result, failed)
        if not failed or number == repeats or not isinstance(result, BaseModel):
            return
        reasons = "; ".join(checks.reason(name, language) for name in failed)
        # A new answer of the wrong shape may be repeated too.
        request = dataclasses.replace(request.again(result.model_dump_json(), reasons), repeated=False)


def requests(
    files: list[Path], config: NarrativesConfig, store: llm.Store | None = None, repeat: int = 0
) -> Iterator[llm.Request]:
    """The requests for all users; with `repeat` above 0, the requests of that repetition for failed checks."""
    prompter = Prompter(config)
    for user in outputs.rows(files):
        history = user["purchase_history"] or []
        for first in prompter.requests(history):
            if store is None or repeat == 0:
                yield first.request
                continue
            tried = list(attempts(first, history, store, config.language, repeat))
            if len(tried) > repeat:
                yield tried[repeat].request


def narrate(files: list[Path], out: Path, cache: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Request the missing answers, then write `narratives.parquet`, and `failed.jsonl` for failed requests."""
    prompter = Prompter(config)
    counts = {"users": 0, "failed": 0, "asked_again": 0, "reviews_left_out": 0, "users_cut": 0}
    failed_checks: Counter[str] = Counter()
    failures = llm.Failures(out, config)

    def answers(user: dict[str, Any], store: llm.Store) -> tuple[dict[str, Any], dict[str, None], int]:
        """The texts of a user by task, the models that wrote them, and the number of reviews left out."""
        texts: dict[str, Any] = {}
        models: dict[str, None] = {}
        left_out = 0
        history = user["purchase_history"] or []
        for first in prompter.requests(history):
            left_out = max(left_out, first.left_out)
            tried = list(attempts(first, history, store, config.language, config.fix))
            counts["asked_again"] += len(tried) - 1
            failures.total += 1
            answered = [(len(one.failed), one.model, one.result) for one in tried if isinstance(one.result, BaseModel)]
            if answered:
                _, model, answer = min(reversed(answered), key=lambda one: one[0])
                texts |= answer.model_dump()
                models[model] = None
            elif isinstance(failure := tried[0].result, llm.Failure):
                failures.add(user["reviewer_id"], first.request.answer.__name__, failure)
        return texts, models or {config.model: None}, left_out

    with llm.Store(cache) as store:
        for repeat in range(config.fix + 1):
            part = functools.partial(requests, files, config, store, repeat)
            total = sum(1 for _ in part()) if repeat else len(prompter.fixed) * outputs.count(files)
            llm.ask(part, config, store, total, desc=f"narratives, repetition {repeat}" if repeat else "narratives")
        with outputs.row_writer(out / outputs.NARRATIVES, NARRATIVES) as append:
            for user in outputs.rows(files):
                texts, models, left_out = answers(user, store)
                columns = in_row(texts)
                results = checks.check(columns, user["purchase_history"] or [], config.language)
                failed_checks.update(results["failed"])
                counts["users"] += 1
                counts["reviews_left_out"] += left_out
                counts["users_cut"] += bool(left_out)
                append(
                    {
                        "reviewer_id": user["reviewer_id"],
                        **columns,
                        "narrator": ", ".join(str(outputs.public_name(model)) for model in models),
                        "narrator_prompt": prompter.identity,
                        "narrator_left_out": left_out,
                        "checks": results,
                    }
                )
        failures.check()
        return {
            **counts,
            "failed": failures.count,
            "failed_checks": dict(sorted(failed_checks.items())),
            **store.totals(),
            "prompts": prompts.hashes("history", *prompter.fixed, "examples"),
        }
