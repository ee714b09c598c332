"""Asking through the Batch API of an OpenAI-compatible server: half the price, within a day.

    prepare ──► a JSONL file ── submit ──► a batch on the server ── poll ──► its output ── collect ──► the store

Where each batch stands is in the store, so every step can be taken by another process: what was prepared is submitted
once, what was submitted is polled and collected, and what a batch left out (it expired, or some lines failed) goes into
the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import ConfigError, RunError
from .request import Dialect, Reply, Request, Sent
from .server import NO_SUCH_MODEL, is_refusal, key_of, reply_in, without_key, words_of
from .settings import LLMConfig
from .spending import Spending
from .store import Store, unsent

if TYPE_CHECKING:
    import openai

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""Of one file, as the Batch API allows."""
IDLE_ROUNDS = 4
"""Rounds of batches that answer nothing, until it is given up; a refused form takes up to three."""
ENDED = ("completed", "expired", "cancelled", "failed")


@dataclass(frozen=True)
class Batch:
    """One batch, as the store has it."""

    number: int
    model: str
    form: str
    max_tokens: str
    file_id: str | None
    batch_id: str | None
    requests: int
    worst: float
    """USD that it can cost at most, where there is a budget."""
    seed: str
    temperature: int


class Batches:
    """The batches of one store on one server."""

    def __init__(self, config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
        self.config, self.store, self.bar = config, store, bar
        self.client = _client(config)
        self.folder = store.path.with_suffix(".batches")
        self.spending = Spending(config, store)
        self.most = MOST_REQUESTS
        self.spending.reserved = sum(batch.worst for batch in self.open())

    def open(self) -> list[Batch]:
        """The batches that are prepared or on the server, and not collected."""
        rows = self.store.execute(
            "SELECT number, model, form, max_tokens, file_id, batch_id, requests, worst, seed, temperature "
            "FROM batches WHERE server = ? ORDER BY number",
            (self.config.base_url,),
        )
        return [Batch(*row) for row in rows]

    def prepare(self, requests: Iterable[Request]) -> int:
        """Write what is missing, and in no batch yet, to files of one model each; returns the number of requests.

        Raises:
            RunError: the budget does not hold a single one of them.
        """
        self._leave_other_servers()
        dialects = self.store.dialects(self.config.base_url)
        files: dict[str, _File] = {}
        prepared, stored, full = 0, 0, False
        for request in requests:
            missing = unsent(request, self.store)
            stored += missing is None
            if missing is None or self.store.execute("SELECT 1 FROM in_batches WHERE key = ?", (missing.key,)):
                continue
            worst = self.spending.worst(missing)
            if not self.spending.fits(worst):
                full = True
                break
            dialect = dialects.get(missing.model, Dialect())
            line = {"custom_id": missing.key, "method": "POST", "url": "/v1/chat/completions"}
            data = json.dumps(line | {"body": dialect.body(missing)}).encode() + b"\n"
            file = files.get(missing.model)
            if file is not None and missing.key in file.keys:
                continue
            if file is not None and (len(file.keys) >= self.most or file.bytes + len(data) > MOST_BYTES):
                self._enter(file)
                file = None
            if file is None:
                name = hashlib.sha256(missing.model.encode()).hexdigest()[:16]
                file = files[missing.model] = _File(self.folder / f"{name}.new", missing.model, dialect)
            file.add(missing, data, worst)
            self.spending.reserved += worst
            prepared += 1
        for file in files.values():
            self._enter(file)
        self.bar.initial = self.bar.n = stored
        if full and not prepared and not self.open():
            raise self.spending.exhausted()
        return prepared

    def _leave_other_servers(self) -> None:
        """Take back what was prepared for another server, and refuse to ask again for what is at work there."""
        other = self.store.execute(
            "SELECT number, server, file_id FROM batches WHERE server != ?", (self.config.base_url,)
        )
        for number, server, file_id in other:
            if file_id is not None:
                raise RunError(
                    f"A batch of these requests is at work on {server}: it would be paid for twice. Set base_url to "
                    "that server to collect it."
                )
            with self.store.transaction():
                self._forget(number)

    def _enter(self, file: _File) -> None:
        """Give a written file its number, in the same transaction as its requests."""
        file.close()
        with self.store.transaction():
            number = self.store.execute("SELECT coalesce(max(number), 0) + 1 FROM batches")[0][0]
            os.replace(file.path, self._path(number))
            values = (
                number,
                self.config.base_url,
                file.model,
                file.dialect.form,
                file.dialect.max_tokens,
                len(file.keys),
                file.worst,
                file.dialect.seed,
                file.dialect.temperature,
            )
            self.store.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?, ?)", values)
            for key, sampling in file.keys.items():
                self.store.execute("INSERT INTO in_batches VALUES (?, ?, ?)", (key, number, sampling))

    def submit(self) -> None:
        """Upload and create what is prepared. A batch that was created right before a kill is found again."""
        for batch in self.open():
            if batch.file_id is None:
                with self._path(batch.number).open("rb") as file, _told(self.config):
                    uploaded = self.client.files.create(file=file, purpose="batch")
                self._note(batch, "file_id", uploaded.id)
            elif batch.batch_id is None:
                with _told(self.config):
                    found = next(
                        (
                            one
                            for one in self.client.batches.list(limit=100)
                            if one.input_file_id == batch.file_id and one.status != "failed"
                        ),
                        None,
                    )
                if found is not None:
                    self._note(batch, "batch_id", found.id)
        for batch in self.open():
            if batch.file_id is not None and batch.batch_id is None:
                # Never tried twice here: whether a broken connection made a batch is looked up above.
                with _told(self.config):
                    created = self.client.with_options(max_retries=0).batches.create(
                        input_file_id=batch.file_id, endpoint="/v1/chat/completions", completion_window="24h"
                    )
                self._note(batch, "batch_id", created.id)

    def poll(self) -> bool:
        """Collect every batch that has ended; True if one had."""
        ended = False
        flying = 0
        for batch in self.open():
            if batch.batch_id is None:
                continue
            with _told(self.config):
                state = self.client.batches.retrieve(batch.batch_id)
            if state.status in ENDED:
                self.collect(batch, state)
                ended = True
            elif state.request_counts:
                flying += state.request_counts.completed
        self.bar.set_postfix_str(f"{flying:,} done in {len(self.open())} batches, {self.spending}")
        return ended

    def collect(self, batch: Batch, state: Any) -> None:
        """Store what an ended batch gave, and let go of the requests that it left out, all in one transaction.

        Raises:
            RunError: the batch failed as a whole or was cancelled; told in the server's words.
        """
        problems = (state.errors.data or []) if state.errors else []
        if state.status == "failed" and any(problem.code == "token_limit_exceeded" for problem in problems):
            self._too_much(batch, "; ".join(str(problem.message) for problem in problems))
            return
        outputs = [self._download(file_id, batch) for file_id in (state.output_file_id, state.error_file_id) if file_id]
        dialect = Dialect(batch.form, batch.max_tokens, batch.seed, bool(batch.temperature))
        known = bool(self.store.execute("SELECT 1 FROM replies WHERE model = ? AND state = 'answered'", (batch.model,)))
        lines, answered, words = 0, 0, ""
        for _, reply in self._lines(outputs, batch):
            lines += 1
            answered += reply.state == "answered"
            words = words or (reply.text if reply.state == "rejected" else "")
        if state.request_counts and lines < state.request_counts.completed:
            raise RunError(
                f"The output of batch {batch.batch_id} holds {lines} results, {state.request_counts.completed} were "
                "expected: it is cut off. Run the same command again: it fetches the output anew."
            )
        # Rejected to the last line, before anything was answered: it may be the form, or the model.
        doubtful = bool(words) and not answered and not known
        further = dialect.after(words) if doubtful else None
        if doubtful and not further and NO_SUCH_MODEL.search(words):
            self._let_go(batch)
            raise ConfigError(
                f"The server {self.config.base_url} refuses model {batch.model!r}: {words}. Check base_url and model."
            )
        with self.store.transaction():
            for key, reply in self._lines(outputs, batch):
                sampling = self.store.execute("SELECT sampling FROM in_batches WHERE key = ?", (key,))
                if sampling and (further is None or reply.state != "rejected"):
                    self.store.put(Sent(key, batch.model, json.loads(sampling[0][0])), reply)
            if further or answered:
                self.store.remember(self.config.base_url, batch.model, further or dialect)
            self._forget(batch.number)
        self.spending.reserved -= batch.worst
        for _, reply in self._lines(outputs, batch):
            self.spending.pay(batch.model, reply)
            self.bar.update(reply.state == "answered")
        for path in (self._path(batch.number), *outputs):
            path.unlink(missing_ok=True)
        if state.status in ("failed", "cancelled"):
            told = "; ".join(f"{problem.code}: {problem.message}" for problem in problems) or "it says no more"
            raise RunError(
                f"Batch {batch.batch_id} of {self.config.base_url} is {state.status}: {without_key(told)}. What it "
                "answered is kept; the same command asks for the rest."
            )

    def _too_much(self, batch: Batch, words: str) -> None:
        """More is enqueued than the server allows: wait for the others, or make smaller batches."""
        self._note(batch, "batch_id", None)
        if any(other.batch_id for other in self.open()):
            return
        if batch.requests == 1:
            raise RunError(f"The server {self.config.base_url} takes not even one request of batch: {words}.")
        self.most = batch.requests // 2
        self._let_go(batch)

    def _let_go(self, batch: Batch) -> None:
        """Give the requests of `batch` to the next ones."""
        with self.store.transaction():
            self._forget(batch.number)
        self.spending.reserved -= batch.worst
        self._path(batch.number).unlink(missing_ok=True)

    def _forget(self, number: int) -> None:
        self.store.execute("DELETE FROM in_batches WHERE batch = ?", (number,))
        self.store.execute("DELETE FROM batches WHERE number = ?", (number,))

    def _download(self, file_id: str, batch: Batch) -> Path:
        path = self.folder / f"{batch.number}.{file_id}.output"
        with _told(self.config), self.client.files.with_streaming_response.content(file_id) as response:
            response.stream_to_file(path)
        return path

    def _lines(self, paths: list[Path], batch: Batch) -> Iterator[tuple[str, Reply]]:
        """Key and reply of every line of the outputs that is one; what expired has none."""
        for path in paths:
            with path.open("rb") as file:
                for line in file:
                    try:
                        said = json.loads(line)
                        key, response, error = said["custom_id"], said.get("response") or {}, said.get("error") or {}
                        status, body = response.get("status_code") or 0, response.get("body")
                        told = body["error"] if isinstance(body, dict) and "error" in body else body or error
                    except (ValueError, KeyError, TypeError, AttributeError):
                        raise RunError(
                            f"The output of batch {batch.batch_id} holds a line that is no result: {line[:200]!r}. Run "
                            "the same command again: it fetches the output anew."
                        ) from None
                    reply = reply_in(body, batch.form, batched=True) if status == 200 else None
                    if reply is not None:
                        yield key, reply
                    elif is_refusal(status):
                        yield key, Reply(without_key(str(told)), "rejected", form=batch.form, batched=True)
                    elif error.get("code") not in ("batch_expired", "batch_cancelled"):
                        yield key, Reply(without_key(str(told)), "unanswered", form=batch.form, batched=True)

    def _note(self, batch: Batch, column: str, value: str | None) -> None:
        self.store.execute(f"UPDATE batches SET {column} = ? WHERE number = ?", (value, batch.number))  # noqa: S608

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.jsonl"


class _File:
    """A file of requests that is being written."""

    def __init__(self, path: Path, model: str, dialect: Dialect) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.model, self.dialect = path, model, dialect
        self.keys: dict[str, str] = {}
        self.bytes = 0
        self.worst = 0.0
        self._file = path.open("wb")

    def add(self, request: Request, data: bytes, worst: float) -> None:
        self._file.write(data)
        self.keys[request.key] = json.dumps(request.sampling)
        self.bytes += len(data)
        self.worst += worst

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def ask_in_batches(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
    """Take all steps until the store has a reply to every request; picks up where another process was."""
    batches = Batches(config, store, bar)
    idle = 0
    while batches.prepare(requests()) or batches.open():
        before = store.totals()["replies"]
        while batches.open():
            batches.submit()
            if not batches.poll() and batches.open():
                time.sleep(config.poll)
        idle = 0 if store.totals()["replies"] > before else idle + 1
        if idle == IDLE_ROUNDS:
            left = [again for request in requests() if (again := unsent(request, store)) is not None]
            unknown = sum(store.get(again.key) is None for again in left)
            if unknown:
                raise RunError(
                    f"{unknown} requests came back without an answer from {IDLE_ROUNDS} batches on {config.base_url}. "
                    "What was answered is kept; the same command asks for the rest."
                )
            return  # every line that is left failed each time: those requests are at fault


def _client(config: LLMConfig) -> openai.OpenAI:
    import openai

    return openai.OpenAI(
        api_key=key_of(config), base_url=config.base_url, max_retries=config.retries, timeout=config.timeout
    )


@contextlib.contextmanager
def _told(config: LLMConfig) -> Iterator[None]:
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        kind = ConfigError if error.status_code in (401, 402, 403, 404) else RunError
        raise kind(
            f"The Batch API of {config.base_url} says: {words_of(error)}. Check OPENAI_API_KEY and base_url; "
            "batches that were submitted go on, and the same command collects them."
        ) from None
    except openai.APIError as error:
        cause = error.__cause__ or error
        raise RunError(
            f"The Batch API of {config.base_url} does not answer: {without_key(f'{type(cause).__name__}: {cause}')}. "
            "Batches that were submitted go on; the same command collects them."
        ) from None
