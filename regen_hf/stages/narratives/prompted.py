"""Narratives by a language model: a request for each prompt, which withholds the last review where its tasks do.

An answer that fails checks is requested again, up to `fix` times, with a list of the failed checks. The answer with the
fewest failed checks is kept; ties go to the last one. Of an answer that lacks texts, also after its repetition, the
other texts are used. Of several critiques in one answer, those with the fewest failed checks are candidates, and a hash
of the user id chooses one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ... import llm, outputs, prompts
from ...errors import RunError
from ...llm.request import CORRECTION
from ...model.interactions import without_last_review
from ...schema import CRITIQUE, NARRATIVES, in_row, narrative_prompts
from ...user_rows import UserRows
from . import checks, critiques, examples
from .answers import answer_of, candidates, partial_answer, versions
from .names import NO_NAMES, Names
from .settings import NarrativesConfig
from .shared_words import joined, words

CHOSEN = 3
"""Number of few-shot examples from the users of a run."""
CANDIDATES = 32
"""Users among whom they are chosen."""
MOST_ITEMS, MOST_USERS = 200_000, 1000
"""Items and users whose titles and reviews are read for the names of the catalogue."""


@dataclass(frozen=True)
class UserRequest:
    """A request about one user."""

    prompt: str
    request: llm.Request
    left_out: int
    """Reviews left out of the prompt, to fit the window of the model."""
    cut: bool
    """Whether anything of the history is left out."""


class Prompter:
    """Creates the requests of a run; stores the messages that are the same for all users.

    Args:
        config: the settings.
        files: the files of the few-shot examples.
        catalogue: the names of the catalogue, which answers are checked against.
        window: the window of the model; by default that of the settings.

    Raises:
        InputError: the few-shot examples are invalid.
        ConfigError: the window has no room for a history.
    """

    def __init__(
        self,
        config: NarrativesConfig,
        files: Sequence[Path] = (),
        catalogue: Names = NO_NAMES,
        window: llm.Window | None = None,
    ) -> None:
        self.config, self.files, self.window = config, files, window or llm.Window(config)
        given = examples.load(files, config.language)
        loaded = len(given)
        while given and not examples.fit(given, self.window):
            given.pop()
        self.examples, self.examples_left_out = len(given), loaded - len(given)
        self.example_users = {example["reviewer_id"] for example in given if config.examples == ("run",)}
        shots = tuple(message for example in given for message in examples.messages(example))
        values = {"language": config.language, "critiques": config.critiques}
        self.system = {prompt: prompts.system(prompt, **values) for prompt in prompts_of(config)}
        self.fixed = {
            prompt: (system, *(shots if prompt == examples.PROMPT else ())) for prompt, system in self.system.items()
        }
        texts = [prompts.user(prompt, history=dict.fromkeys(("data", "begin", "end"), "")) for prompt in self.system]
        contents = [message["content"] for message in (*self.system.values(), *texts)]
        instructions = joined(map(words, (*contents, CORRECTION.format(reason=""))))
        self._without_examples = checks.Shown(instructions, catalogue=catalogue)
        self._with_examples = checks.Shown(instructions, *examples.shown(given), catalogue)
        for prompt in self.fixed:
            tokens = self.window.count(self._messages(self.fixed[prompt], prompt, ()), self.answer_of(prompt))
            if tokens >= self.window.room:
                raise self.window.too_small("examples" if self.examples else "the form of the answer", tokens)

    @functools.cached_property
    def identity(self) -> str:
        """The value of the column `narrator_prompt`."""
        files = {examples.PROMPT: self.files}
        return ", ".join(prompts.identity(prompt, files.get(prompt, ())) for prompt in self.fixed)

    def answer_of(self, prompt: str) -> type[BaseModel]:
        """The answer to a prompt."""
        return answer_of(prompt, self.config.critiques)

    def shown(self, user: dict[str, Any]) -> checks.Shown:
        """What the model is shown beside the history of `user`; a user who is an example keeps the first answer."""
        return self._without_examples if user["reviewer_id"] in self.example_users else self._with_examples

    def requests(self, user: dict[str, Any]) -> list[UserRequest]:
        """A request per prompt for one user, as far as its history has what the prompt needs."""
        return [self.request(user, prompt) for prompt in self.fixed if is_asked(user, prompt, self.config)]

    def request(self, user: dict[str, Any], prompt: str) -> UserRequest:
        """The request of `prompt` for a user with a history."""
        history, answer, keep = user["purchase_history"], self.answer_of(prompt), 1
        if prompt == CRITIQUE.written_by:
            history, keep = [{"item": item, "review": None} for item in critiques.pair(history)], 2
        elif any(text.metadata_only for text in narrative_prompts()[prompt]):
            history = without_last_review(history)
        fixed = (self.system[prompt],) if user["reviewer_id"] in self.example_users else self.fixed[prompt]
        messages = functools.partial(self._messages, fixed, prompt)
        fitted = prompts.fit(history, messages, answer, self.window, keep)
        request = llm.Request.of(self.config, fitted.messages, answer, window=self.window)
        return UserRequest(prompt, request, fitted.left_out, fitted.cut)

    @staticmethod
    def _messages(
        fixed: tuple[prompts.Message, ...], prompt: str, history: Sequence[dict[str, Any]]
    ) -> tuple[prompts.Message, ...]:
        return (*fixed, prompts.user(prompt, history=prompts.fence(prompts.history_lines(history))))


def prompts_of(config: NarrativesConfig) -> list[str]:
    """The prompts of a run, in the order of their requests."""
    return [prompt for prompt in narrative_prompts() if prompt != CRITIQUE.written_by or config.critiques]


def is_asked(user: dict[str, Any], prompt: str, config: NarrativesConfig) -> bool:
    """Whether there is a request of `prompt` about `user`: critiques need two similar purchases, the others one."""
    history = user["purchase_history"]
    return critiques.wanted(history or (), config) if prompt == CRITIQUE.written_by else bool(history)


@dataclass(frozen=True)
class Attempt:
    """A request, its result, and the checks that the answer failed."""

    request: llm.Request
    model: str
    """The model that answered: the one of the request, or of its retry."""
    result: BaseModel | llm.Failure | llm.Request
    failed: list[str]
    texts: dict[str, str | None] = field(default_factory=dict)
    """The texts of the answer by narrative: of several critiques the chosen one."""
    truncated: frozenset[str] = frozenset()
    """The tasks of the answer, if it reached the token limit."""
    is_partial: bool = False
    """Whether the answer lacks texts that it must have, also after its repetition."""


def attempts(
    first: UserRequest, user: dict[str, Any], store: llm.Store, prompter: Prompter, repeats: int
) -> Iterator[Attempt]:
    """The attempts at one answer in order: the first request, then at most `repeats` for failed checks."""
    request, language = first.request, prompter.config.language
    history, shown = user["purchase_history"] or [], prompter.shown(user)
    tasks = narrative_prompts()[first.prompt]
    for number in range(repeats + 1):
        sent, result = llm.last(request, store)
        is_partial = False
        if isinstance(result, llm.Failure):  # after a repetition; the texts that it has are kept
            partial = partial_answer(result.raw, first.prompt, prompter.config.critiques)
            result, is_partial = partial or result, partial is not None
        failed: list[str] = []
        texts: dict[str, str | None] = {}
        truncated: frozenset[str] = frozenset()
        if isinstance(result, BaseModel):
            reply = store.get(sent.key)
            if reply is not None and reply.cut_off:
                truncated = frozenset(task.name for task in tasks)
            checked = [
                (version, checks.check(in_row(version), history, language, tasks, shown, truncated)["failed"])
                for version in versions(result, first.prompt)
            ]
            fewest = min(len(wrong) for _, wrong in checked)
            best = [version for version in checked if len(version[1]) == fewest]
            texts, failed = critiques.choose(best, user["reviewer_id"])
        yield Attempt(request, sent.model, result, failed, texts, truncated, is_partial)
        if not failed or number == repeats or not isinstance(result, BaseModel):
            return
        reasons = "; ".join(checks.reason(name, language) for name in failed)
        # A new answer of the wrong shape may be repeated too.
        request = dataclasses.replace(request.again(reasons), repeated=False)


def requests(
    users: UserRows, prompter: Prompter, store: llm.Store | None = None, repeat: int = 0
) -> Iterator[llm.Request]:
    """The requests for `users`; with `repeat` above 0, the requests of that repetition for failed checks.

    All requests of one prompt come before those of the next one: a server that caches the prefix of a prompt then
    reads the instructions and the examples once, instead of once per user.
    """
    for prompt in prompter.fixed:
        for user in users.rows():
            if not is_asked(user, prompt, prompter.config):
                continue
            first = prompter.request(user, prompt)
            if store is None or repeat == 0:
                yield first.request
                continue
            tried = list(attempts(first, user, store, prompter, repeat))
            if len(tried) > repeat:
                yield tried[repeat].request


def estimated(run: Path, users: UserRows, config: NarrativesConfig) -> Iterator[llm.Request]:
    """The requests of `narrate`; the examples of this package stand for those that are not chosen from the run yet."""
    given = examples.files(run, config)
    if config.examples == ("run",) and not given[0].exists():
        given = prompts.example_files()[:CHOSEN]
    window = llm.stored_window(config, outputs.requests_path(run, "narratives"))
    yield from requests(users, Prompter(config, given, window=window))


def choose_examples(run: Path, users: UserRows, store: llm.Store, catalogue: Names, config: NarrativesConfig) -> None:
    """Write the first users whose answers pass all checks to the file of the examples, unless it exists.

    They are among the first CANDIDATES of `users`: of the first split, which is sorted by a hash.

    Raises:
        RunError: no answer passes all checks.
    """
    path = examples.chosen_path(run, config)
    if path.exists():
        return
    candidates = [user for user in itertools.islice(users.rows(), CANDIDATES) if user["purchase_history"]]

    def first(user: dict[str, Any]) -> UserRequest:
        return prompter.request(user, examples.PROMPT)

    for window in llm.passes(config, store):
        prompter = Prompter(config, (), catalogue, window)
        llm.ask(lambda: (first(user).request for user in candidates), config, store, len(candidates), "examples")
    chosen: list[dict[str, Any]] = []
    for user in candidates:
        (attempt,) = attempts(first(user), user, store, prompter, 0)
        if not isinstance(attempt.result, BaseModel) or attempt.failed:
            continue
        example = {**user, **in_row(attempt.texts)}
        if examples.fit([example] * CHOSEN, prompter.window):
            chosen.append(example)
        if len(chosen) == CHOSEN:
            break
    if not chosen:
        raise RunError(
            f"No answer of {config.model} about the first {len(candidates)} users passes all checks, expected one or "
            "more for examples=run. Set examples to none or to files, or use another model."
        )
    outputs.write_json(path, chosen)


def catalogue_names(run: Path, files: Sequence[Path]) -> Names:
    """The names of the catalogue of `run`, with the reviews of the first users as prose."""
    items = outputs.rows(outputs.item_files(outputs.folder(run, "sequences")), limit=MOST_ITEMS)
    users = outputs.rows(files, ["purchase_history"], limit=MOST_USERS)
    purchases = (purchase for user in users for purchase in user["purchase_history"] or ())
    return Names.of(items, ((purchase["review"] or {}).get("text") or "" for purchase in purchases))


def narrate(run: Path, users: UserRows, out: Path, config: NarrativesConfig) -> dict[str, Any]:
    """Request the missing answers about `users`; write `narratives.parquet`, and `failed.jsonl` for failed requests."""
    counts = {"users": 0, "failed": 0, "asked_again": 0, "partial": 0, "reviews_left_out": 0, "users_cut": 0}
    counts |= {"similar_pairs": 0, "critiques": 0}
    failed_checks: Counter[str] = Counter()
    warnings: Counter[str] = Counter()
    failures = llm.Failures(out, config)
    catalogue = catalogue_names(run, users.files)

    def answers(user: dict[str, Any]) -> tuple[dict[str, Any], list[str], dict[str, None], int, frozenset[str]]:
        """The texts of a user by narrative, critiques, models, reviews left out, and the truncated narratives."""
        texts: dict[str, Any] = {}
        given: list[str] = []
        models: dict[str, None] = {}
        truncated: frozenset[str] = frozenset()
        left_out, cut = 0, False
        for first in prompter.requests(user):
            left_out, cut = max(left_out, first.left_out), cut or first.cut
            tried = list(attempts(first, user, store, prompter, config.fix))
            counts["asked_again"] += len(tried) - 1
            failures.total += 1
            answered = [one for one in tried if isinstance(one.result, BaseModel)]
            if answered:
                best = min(reversed(answered), key=lambda one: len(one.failed))
                texts |= best.texts
                if first.prompt == CRITIQUE.written_by:
                    given = candidates(best.result)  # type: ignore[arg-type]
                truncated |= best.truncated
                counts["partial"] += best.is_partial
                models[best.model] = None
            elif isinstance(failure := tried[0].result, llm.Failure):
                failures.add(user["reviewer_id"], first.request.answer.__name__, failure)
        counts["users_cut"] += cut
        return texts, given, models or {config.model: None}, left_out, truncated

    with llm.Store(outputs.requests_path(run, "narratives")) as store:
        if config.examples == ("run",):
            choose_examples(run, users, store, catalogue, config)
        expected = sum(is_asked(user, prompt, config) for user in users.rows() for prompt in prompts_of(config))
        for window in llm.passes(config, store):
            prompter = Prompter(config, examples.files(run, config), catalogue, window)
            for repeat in range(config.fix + 1):
                part = functools.partial(requests, users, prompter, store, repeat)
                total = sum(1 for _ in part()) if repeat else expected
                llm.ask(part, config, store, total, desc=f"narratives, repetition {repeat}" if repeat else "narratives")
        with outputs.row_writer(out / outputs.NARRATIVES, NARRATIVES) as append:
            for user in users.rows():
                texts, given, models, left_out, truncated = answers(user)
                columns, history = in_row(texts), user["purchase_history"] or []
                results = checks.check(columns, history, config.language, None, prompter.shown(user), truncated)
                failed_checks.update(results["failed"])
                warnings.update(results["warnings"])
                counts["users"] += 1
                counts["similar_pairs"] += critiques.wanted(history, config)
                counts["critiques"] += bool(given)
                counts["reviews_left_out"] += left_out
                append(
                    {
                        "reviewer_id": user["reviewer_id"],
                        **columns,
                        "critiques": given or None,
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
            "check_warnings": dict(sorted(warnings.items())),
            "examples": prompter.examples,
            "examples_left_out": prompter.examples_left_out,
            "window": prompter.window.tokens,
            **store.counts(),
            "prompts": prompts.hashes("history", *prompter.fixed, "examples"),
        }
