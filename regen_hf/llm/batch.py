"""The backend `openai-batch`: the Batch API of an OpenAI-compatible server, at half the price and within a day.

    prepare ──► a JSONL file ── submit ──► a batch on the server ── poll ──► its output ── collect ──► the store

The store holds the state of each batch, so another process can do the next step: a prepared batch is submitted once, a
submitted batch is polled and collected, and requests without a reply (the batch expired, or some lines failed) go into
the next batch.
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

from ..errors import ConfigError, RunError, require
from ..progress import Bar
from .completions import parse_reply
from .connection import NO_SUCH_MODEL, is_rejection, stated_window
from .dialects import Dialect, names_dialect
from .headers import api_key, headers, redact
from .request import Reply, Request, Sent
from .settings import LLMConfig
from .spending import Spending
from .store import Store, dialect_of, unsent

if TYPE_CHECKING:
    import openai

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
"""Limits of one file in the Batch API."""
IDLE_ROUNDS = 5
"""Rounds of batches without any answer before the run stops; a rejected form takes up to four."""
ENDED = ("completed", "expired", "cancelled", "failed")


@dataclass(frozen=True)
class Batch:
    """One batch, as a row of the store."""

    number: int
    model: str
    file_id: str | None
    batch_id: str | None
    requests: int
    worst_case: float
    """The most USD that it can cost, where there is a budget."""
    dialect: Dialect


class Batches:
    """The batches of one store on one server."""

    def __init__(self, config: LLMConfig, store: Store, bar: Bar) -> None:
        self.config, self.store, self.bar = config, store, bar
        require("openai")
        key, sent = api_key(config), headers(config)
        import openai

        (self.url,) = config.base_url
        options: Any = {"api_key": key, "base_url": self.url, "default_headers": sent}
        options |= {"max_retries": config.retries, "timeout": config.timeout}
        # A redirect could send the prompts and the secrets in the headers to another host.
        options["http_client"] = openai.DefaultHttpxClient(follow_redirects=False)
        if config.api_version:
            self.client: openai.OpenAI = openai.AzureOpenAI(**options, api_version=config.api_version)
        else:
            self.client = openai.OpenAI(**options)
        self.folder = store.path.with_suffix(".batches")
        self.spending = Spending(config, store)
        self.most = MOST_REQUESTS
        self.last_message = ""
        """Of a request without an answer."""
        self.spending.reserved = sum(batch.worst_case for batch in self.open())

    def close(self) -> None:
        """Close the connections to the server."""
        self.client.close()

    def open(self) -> list[Batch]:
        """The batches that are prepared or submitted, and not collected."""
        rows = self.store.execute(
            "SELECT number, model, file_id, batch_id, requests, worst, form, max_tokens, seed, temperature, system "
            "FROM batches WHERE server = ? ORDER BY number",
            (self.url,),
        )
        return [
            Batch(number, model, file_id, batch_id, count, worst_case, dialect_of(*dialect))
            for number, model, file_id, batch_id, count, worst_case, *dialect in rows
        ]

    def prepare(self, requests: Iterable[Request]) -> int:
        """Write the missing requests to files, one model per file; returns the number of requests.

        Raises:
            RunError: not even one of them fits the budget.
        """
        self._leave_other_servers()
        dialects = self.store.dialects(self.url)
        files: dict[str, _File] = {}
        prepared, stored, full = 0, 0, False
        for request in requests:
            missing = unsent(request, self.store)
            stored += missing is None
            if missing is None or self.store.execute("SELECT 1 FROM in_batches WHERE key = ?", (missing.key,)):
                continue
            worst_case = self.spending.worst_case(missing)
            if not self.spending.fits(worst_case):
                full = True
                break
            dialect = dialects.get(missing.model, Dialect())
            line = {"custom_id": missing.key, "method": "POST", "url": "/v1/chat/completions"}
            data = json.dumps(line | {"body": dialect.body(missing)}).encode() + b"\n"
            file = files.get(missing.model)
            if file is not None and missing.key in file.samplings:
                continue
            if file is not None and (len(file.samplings) >= self.most or file.bytes + len(data) > MOST_BYTES):
                self._register(file)
                file = None
            if file is None:
                name = hashlib.sha256(missing.model.encode()).hexdigest()[:16]
                file = files[missing.model] = _File(self.folder / f"{name}.new", missing.model, dialect)
            file.add(missing, data, worst_case)
            self.spending.reserved += worst_case
            prepared += 1
        for file in files.values():
            self._register(file)
        self.bar.initial = self.bar.n = stored
        if full and not prepared and not self.open():
            raise self.spending.exhausted()
        return prepared

    def _leave_other_servers(self) -> None:
        """Delete the batches that were prepared for another server; raises RunError if one was submitted there."""
        other = self.store.execute("SELECT number, server, file_id FROM batches WHERE server != ?", (self.url,))
        for number, server, file_id in other:
            if file_id is not None:
                raise RunError(
                    f"A batch of these requests was submitted to {server}, so they would be paid for twice. Set "
                    "base_url to that server to collect it."
                )
            with self.store.transaction():
                self._delete(number)

    def _register(self, file: _File) -> None:
        """Number a complete file and store its batch and requests in one transaction."""
        file.close()
        with self.store.transaction():
            number = self.store.execute("SELECT coalesce(max(number), 0) + 1 FROM batches")[0][0]
            os.replace(file.path, self._path(number))
            values = (
                number,
                self.url,
                file.model,
                file.dialect.form,
                file.dialect.max_tokens,
                len(file.samplings),
                file.worst_case,
                file.dialect.seed,
                file.dialect.temperature,
                file.dialect.system,
            )
            self.store.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?, ?, ?)", values)
            for key, sampling in file.samplings.items():
                self.store.execute("INSERT INTO in_batches VALUES (?, ?, ?)", (key, number, sampling))

    def submit(self) -> None:
        """Upload the prepared files and create their batches. A batch that was created before a kill is looked up."""
        for batch in self.open():
            if batch.file_id is None:
                with self._path(batch.number).open("rb") as file, _errors(self.config):
                    uploaded = self.client.files.create(file=file, purpose="batch")
                self._update(batch, "file_id", uploaded.id)
            elif batch.batch_id is None:
                with _errors(self.config):
                    for listed in self.client.batches.list(limit=100):
                        if listed.input_file_id == batch.file_id and listed.status != "failed":
                            self._update(batch, "batch_id", listed.id)
                            break
        for batch in self.open():
            if batch.file_id is not None and batch.batch_id is None:
                # Without retries: the lookup above shows whether a broken connection created a batch.
                with _errors(self.config):
                    created = self.client.with_options(max_retries=0).batches.create(
                        input_file_id=batch.file_id, endpoint="/v1/chat/completions", completion_window="24h"
                    )
                self._update(batch, "batch_id", created.id)

    def poll(self) -> bool:
        """Collect every batch that has ended; returns whether one had."""
        ended = False
        completed = 0
        for batch in self.open():
            if batch.batch_id is None:
                continue
            with _errors(self.config):
                state = self.client.batches.retrieve(batch.batch_id)
            if state.status in ENDED:
                self.collect(batch, state)
                ended = True
            elif state.request_counts:
                completed += state.request_counts.completed
        self.bar.set_postfix_str(f"{completed:,} done in {len(self.open())} batches, {self.spending}")
        return ended

    def collect(self, batch: Batch, state: Any) -> None:
        """Store the replies of an ended batch, and free the requests without a reply, all in one transaction.

        Raises:
            RunError: the batch failed or was cancelled (with the server's message), or its output is damaged.
        """
        problems = (state.errors.data or []) if state.errors else []
        if state.status == "failed" and any(problem.code == "token_limit_exceeded" for problem in problems):
            self._over_limit(batch, "; ".join(str(problem.message) for problem in problems))
            return
        outputs = [self._download(file_id, batch) for file_id in (state.output_file_id, state.error_file_id) if file_id]
        known = bool(self.store.execute("SELECT 1 FROM replies WHERE model = ? AND state = 'answered'", (batch.model,)))
        lines, answered, rejection = 0, 0, ""
        for _, reply in self._replies(outputs, batch):
            lines += 1
            answered += reply.state == "answered"
            window = stated_window(reply.text) if reply.state == "rejected" else None
            if window is not None:
                self.store.limit_window(self.url, batch.model, window)
                continue
            refused = reply.state == "rejected" or (reply.state == "unanswered" and names_dialect(reply.text))
            rejection = rejection or (reply.text if refused else "")
            self.last_message = reply.text if reply.state == "unanswered" else self.last_message
        if state.request_counts and lines < state.request_counts.completed:
            raise RunError(
                f"The output of batch {batch.batch_id} has {lines} results, expected "
                f"{state.request_counts.completed}: it is cut off. Run the same command again to download it again."
            )
        # Rejections and no answer so far: the form or the model may be the reason.
        doubtful = bool(rejection) and not answered and not known
        further = batch.dialect.after(rejection) if doubtful else None
        if doubtful and not further and NO_SUCH_MODEL.search(rejection):
            self._free(batch)
            raise ConfigError(
                f"The server {self.url} rejects requests to model {batch.model!r}: {rejection}. Check "
                "base_url and model."
            )
        with self.store.transaction():
            for key, reply in self._replies(outputs, batch):
                sampling = self.store.execute("SELECT sampling FROM in_batches WHERE key = ?", (key,))
                if sampling and reply.state != "unanswered" and (further is None or reply.state != "rejected"):
                    self.store.put(Sent(key, batch.model, json.loads(sampling[0][0])), reply)
            if further or answered:
                self.store.remember(self.url, batch.model, further or batch.dialect)
            self._delete(batch.number)
        self.spending.reserved -= batch.worst_case
        for _, reply in self._replies(outputs, batch):
            self.spending.pay(batch.model, reply)
            self.bar.update(reply.state == "answered")
        for path in (self._path(batch.number), *outputs):
            path.unlink(missing_ok=True)
        if state.status in ("failed", "cancelled"):
            reason = "; ".join(f"{problem.code}: {problem.message}" for problem in problems) or "without a reason"
            raise RunError(
                f"Batch {batch.batch_id} of {self.url} is {state.status}: {redact(reason)}. Its answers "
                "are kept. Run the same command again to resume."
            )

    def _over_limit(self, batch: Batch, message: str) -> None:
        """More tokens are enqueued than the server allows: wait for the other batches, or create smaller ones."""
        self._update(batch, "batch_id", None)
        if any(other.batch_id for other in self.open()):
            return
        if batch.requests == 1:
            raise RunError(f"The server {self.url} does not accept a batch of one request: {message}.")
        self.most = batch.requests // 2
        self._free(batch)

    def _free(self, batch: Batch) -> None:
        """Delete `batch`, so that its requests go into the next batches."""
        with self.store.transaction():
            self._delete(batch.number)
        self.spending.reserved -= batch.worst_case
        self._path(batch.number).unlink(missing_ok=True)

    def _delete(self, number: int) -> None:
        self.store.execute("DELETE FROM in_batches WHERE batch = ?", (number,))
        self.store.execute("DELETE FROM batches WHERE number = ?", (number,))

    def _download(self, file_id: str, batch: Batch) -> Path:
        path = self.folder / f"{batch.number}.{file_id}.output"
        with _errors(self.config), self.client.files.with_streaming_response.content(file_id) as response:
            response.stream_to_file(path)
        return path

    def _replies(self, outputs: list[Path], batch: Batch) -> Iterator[tuple[str, Reply]]:
        """Key and reply of every line of the outputs, except of expired and cancelled requests.

        The state of a reply is also unanswered here: its request goes into the next batch.
        """
        for path in outputs:
            with path.open("rb") as file:
                for line in file:
                    try:
                        result = json.loads(line)
                        key, error = result["custom_id"], result.get("error") or {}
                        response = result.get("response") or {}
                        status, body = response.get("status_code") or 0, response.get("body")
                        message = body["error"] if isinstance(body, dict) and "error" in body else body or error
                    except (ValueError, KeyError, TypeError, AttributeError):
                        raise RunError(
                            f"The output of batch {batch.batch_id} has an invalid line: {line[:200]!r}. Run "
                            "the same command again to download it again."
                        ) from None
                    reply = parse_reply(body, batch.dialect.form, batched=True) if status == 200 else None
                    if reply is None and error.get("code") in ("batch_expired", "batch_cancelled"):
                        continue
                    no_model = 400 <= status < 500 and NO_SUCH_MODEL.search(str(message))
                    failed = "rejected" if no_model or is_rejection(status, str(message)) else "unanswered"
                    yield key, reply or Reply(redact(str(message)), failed, form=batch.dialect.form, batched=True)

    def _update(self, batch: Batch, column: str, value: str | None) -> None:
        self.store.execute(f"UPDATE batches SET {column} = ? WHERE number = ?", (value, batch.number))  # noqa: S608

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.jsonl"


class _File:
    """A file of requests that is being written."""

    def __init__(self, path: Path, model: str, dialect: Dialect) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.model, self.dialect = path, model, dialect
        self.samplings: dict[str, str] = {}
        """Sampling settings as JSON, by the key of each request."""
        self.bytes = 0
        self.worst_case = 0.0
        self._file = path.open("wb")

    def add(self, request: Request, data: bytes, worst_case: float) -> None:
        self._file.write(data)
        self.samplings[request.key] = json.dumps(request.sampling)
        self.bytes += len(data)
        self.worst_case += worst_case

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: Bar) -> None:
    """Store a reply to every request that `store` has none for; resumes the batches of an earlier process."""
    idle = 0
    with contextlib.closing(Batches(config, store, bar)) as batches:
        while batches.prepare(requests()) or batches.open():
            before = store.totals()["replies"]
            while batches.open():
                batches.submit()
                if not batches.poll() and batches.open():
                    time.sleep(config.poll)
            idle = 0 if store.totals()["replies"] > before else idle + 1
            if idle == IDLE_ROUNDS:
                missing = sum(unsent(request, store) is not None for request in requests())
                reason = batches.last_message or "they expired"
                raise RunError(
                    f"{IDLE_ROUNDS} batches on {config.base_url[0]} left {missing:,} requests without an answer: "
                    f"{reason}. All answers are kept. Run the same command again to resume."
                )


@contextlib.contextmanager
def _errors(config: LLMConfig) -> Iterator[None]:
    """Raise the errors of the official client as errors of this package."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if address := error.response.headers.get("location"):
            raise ConfigError(
                f"The Batch API of {config.base_url[0]} redirects to {redact(address)[:200]}; base_url should be the "
                "final address."
            ) from None
        kind = ConfigError if error.status_code in (401, 402, 403, 404) else RunError
        raise kind(
            f"The Batch API of {config.base_url[0]} returned an error: {_message_of(error)}. Check OPENAI_API_KEY and "
            "base_url. Submitted batches continue, and the same command collects them."
        ) from None
    except openai.APIError as error:
        cause = error.__cause__ or error
        raise RunError(
            f"The Batch API of {config.base_url[0]} does not answer: {redact(f'{type(cause).__name__}: {cause}')}. "
            "Submitted batches continue, and the same command collects them."
        ) from None


def _message_of(error: openai.APIStatusError) -> str:
    """The server's message in an error; the client omits bodies whose form is not OpenAI's."""
    message = redact(str(error))
    if error.body and " - " not in message:
        message += " - " + redact(error.body if isinstance(error.body, str) else json.dumps(error.body))[:500]
    return message
