"""The requests about one user, as they are sent to a language model, and every stored answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import outputs
from ..errors import RunError
from .shopper import unknown_user, user_row
from .terminal import clean, one_line, usable_width, wrapped

if TYPE_CHECKING:
    from ..llm import LLMConfig, Reply, Request, Store
    from ..stages.narratives.settings import NarrativesConfig
    from ..stages.ratings.settings import RatingsConfig

FORMS = {
    "json_schema": "a JSON schema",
    "json_object_schema": "JSON mode with the schema, and an example at the end of the messages",
    "json_object": "JSON mode, with an example at the end of the messages",
    "instructions": "an example at the end of the messages",
}
"""How a request states the form of the answer, by the name of `llm.request.FORMS`."""


def inspect_requests(run: Path, user: str, width: int | None = None) -> Iterator[str]:
    """Lines with the requests about one user and the answers in the stores of `run`; sends and changes nothing.

    Requests are derived from the current settings, so answers to those of earlier settings are not shown.

    Args:
        run: the run folder, with at least its sequences.
        user: the `reviewer_id`.
        width: width in columns; by default that of the terminal.

    Raises:
        RunError: narratives and ratings are those of the fixed rules, there are no sequences, or no such user.
    """
    from ..run import Run
    from ..user_rows import UserRows

    config, files, width = Run(run).config, outputs.sequence_files(run), usable_width(width)
    narratives, ratings = config["narratives"], config["ratings"]
    if narratives.backend == ratings.backend == "reference":
        raise RunError(
            f"{run} has the backend reference for narratives and ratings: fixed rules, which send no requests. Name a "
            f"language model, as in: regen narratives {run} --backend openai --model NAME --users 20"
        )
    if not files:
        raise RunError(f"There are no sequences in {run}, from which requests are made. Run first: regen run {run} …")
    if user not in set(UserRows(files).ids()):
        raise unknown_user(run, user, list(UserRows(files).ids()))
    (row,) = UserRows.of(files, [user]).rows()
    yield from wrapped(f"Requests about {one_line(user)}", width)
    if not row["purchase_history"]:
        yield "The history is empty, so no request is sent."
        return
    if narratives.backend != "reference":
        yield from _narratives(run, files, row, narratives, width)
    if ratings.backend != "reference":
        yield from _ratings(run, row, ratings, width)


def _narratives(
    run: Path, files: list[Path], row: dict[str, Any], config: NarrativesConfig, width: int
) -> Iterator[str]:
    from .. import llm
    from ..stages.narratives import examples, prompted

    path = outputs.requests_path(run, "narratives")
    yield from _title("Narratives", config, path, width)
    yield from _outside(files, row["reviewer_id"], config.users, "narratives.users", width)
    window, catalogue = llm.stored_window(config, path), prompted.catalogue_names(run, files)
    given = examples.files(run, config)
    if config.examples == ("run",) and not given[0].exists():
        given = []
        yield from wrapped("The few-shot examples are not chosen yet: the requests are shown without.", width)
    prompter = prompted.Prompter(config, given, catalogue, window)
    with llm.Store(path, read_only=True) as store:
        page = _Page(store, config, width)
        if config.examples == ("run",) and given:
            without = prompted.Prompter(config, (), catalogue, window).request(row, examples.PROMPT).request
            if without != prompter.request(row, examples.PROMPT).request and store.get(without.key):
                yield from page.heading(f"{examples.PROMPT}, to choose the few-shot examples")
                yield from page.exchange(without)
        for first in prompter.requests(row):
            for number, attempt in enumerate(prompted.attempts(first, row, store, prompter, config.fix)):
                again = f", repetition {number} of {config.fix} for failed checks" if number else ""
                yield from page.heading(first.prompt + again)
                yield from page.exchange(attempt.request)
                if not isinstance(attempt.result, llm.Failure | llm.Request):
                    failed = ", ".join(attempt.failed)
                    yield from wrapped(
                        f"! failed checks: {failed}" if failed else "It passes every check.", width, "  "
                    )


def _ratings(run: Path, row: dict[str, Any], config: RatingsConfig, width: int) -> Iterator[str]:
    from .. import llm
    from ..stages.ratings import prompted

    path = outputs.requests_path(run, "ratings")
    yield from _title("Ratings", config, path, width)
    narratives = outputs.path(run, "narratives", outputs.NARRATIVES)
    written = user_row([narratives], row["reviewer_id"])
    if not written:
        yield "There are no narratives of this user to rate."
        return
    yield from _outside([narratives], row["reviewer_id"], config.users, "ratings.users", width)
    rated = row | {name: written[name] for name in ("last_purchase", "user")}
    with llm.Store(path, read_only=True) as store:
        page = _Page(store, config, width)
        for vote in prompted.user_requests(rated, config, llm.stored_window(config, path))[0]:
            yield from page.heading(f"{vote.stage}, vote {vote.number}")
            yield from page.exchange(vote.request)


def _outside(files: list[Path], user: str, users: int, setting: str, width: int) -> Iterator[str]:
    from ..user_rows import UserRows

    if users and user not in set(UserRows.first(files, users).ids()):
        yield from wrapped(f"Not one of the {users:,} users of the preview ({setting}): nothing is sent.", width)


def _title(stage: str, config: LLMConfig, path: Path, width: int) -> Iterator[str]:
    yield ""
    yield from wrapped(f"{stage} by {clean(config.model)} ({config.backend}); answers in {path}", width)
    yield "═" * width


class _Page:
    """Prints requests and answers of one stage; messages that were printed before are not repeated."""

    def __init__(self, store: Store, config: LLMConfig, width: int) -> None:
        self.store, self.config, self.width = store, config, width
        self.dialects = {
            model: dialect for server in reversed(config.base_url) for model, dialect in store.dialects(server).items()
        }
        self._shown: list[dict[str, str]] = []

    def heading(self, text: str) -> Iterator[str]:
        yield ""
        yield from wrapped(text, self.width)
        yield "─" * self.width

    def exchange(self, request: Request) -> Iterator[str]:
        """A request, its answer, and its repetitions with theirs."""
        from .. import llm

        for number, (sent, reply, outcome) in enumerate(llm.exchange(request, self.store)):
            if number:
                change = "after the unusable answer" if sent.repeated else "with another seed (retry_failed)"
                yield from wrapped(f"The request is sent again {change}.", self.width)
            yield from self._request(sent, reply)
            if reply is not None:
                yield from self._answer(sent, reply)
            elif isinstance(outcome, llm.Failure):
                yield from wrapped(f"This request is never sent: {outcome.reason}", self.width)
            else:
                yield "No answer is stored: this is the request that would be sent."

    def _request(self, request: Request, reply: Reply | None) -> Iterator[str]:
        from ..llm.request import without_system
        from ..llm.settings import IN_PROCESS

        dialect = self.dialects.get(request.model)
        form = reply.form if reply is not None else dialect.form if dialect is not None else "json_schema"
        messages = request.body(form)["messages"]
        if self.config.backend in IN_PROCESS:
            messages = list(request.messages)
        elif dialect is not None and not dialect.system:
            messages = without_system(messages)
        unsent = {"vote"}
        if dialect is not None:
            unsent |= {"seed"} if not dialect.seed else set()
            unsent |= {"temperature"} if not dialect.temperature else set()
        sampling = [f"{name} {json.dumps(value)}" for name, value in request.sampling.items() if name not in unsent]
        yield from wrapped(" · ".join(["Request to " + clean(request.model), *map(clean, sampling)]), self.width)
        fields = ", ".join(request.answer.model_fields)
        yield from wrapped(f"Form of the answer: {FORMS[form]}; fields {fields}", self.width)
        before = 0
        while before < min(len(messages), len(self._shown)) and messages[before] == self._shown[before]:
            before += 1
        if before:
            yield f"  [{before} of {len(messages)} messages as above]"
        for message in messages[before:]:
            yield f"  {message['role']}:"
            yield from wrapped(clean(message["content"]), self.width, "    ")
        self._shown = messages

    def _answer(self, request: Request, reply: Reply) -> Iterator[str]:
        from ..llm import reason_of

        finish = f", finish reason {reply.finish_reason}" if reply.finish_reason else ""
        reason = reason_of(request, reply)
        state = f"unusable: {reason}" if reason else "usable after a repair" if reply.repaired else "usable"
        tokens = f"{reply.prompt_tokens:,} tokens in, {reply.completion_tokens:,} out"
        yield from wrapped(clean(f"Answer ({tokens}{finish}), {state}"), self.width)
        yield from wrapped(clean(reply.text) or "(no text)", self.width, "    ")
