"""The backend `openai`: concurrent requests to an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import ConfigError, MissingPackageError, RegenError, RunError, require
from .pace import LONGEST_WAIT, Pace, backoff, retry_after
from .request import Dialect, Failure, Reply, Request, outcome_of, writable
from .settings import OPENAI, LLMConfig
from .spending import Spending, with_tokens
from .store import Store, unsent

if TYPE_CHECKING:
    import openai

OVERLOADED = (429, 503, 529)
"""Statuses of an overloaded server; the request itself may be fine."""
NO_SUCH_MODEL = re.compile(
    r"model.*(not (exist|found|supported|available|a valid)|\binvalid\b|\bunknown\b)|(unknown|invalid|no such) model",
    re.I | re.S,
)
"""Error messages about a model that the server does not have."""


class AttemptFailed(Exception):
    """One attempt of a request failed."""

    def __init__(self, message: str, status: int = 0, wait: float | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.wait, self.code = message, status, wait, code

    @property
    def overloaded(self) -> bool:
        """Whether the server has too many requests."""
        return self.status in OVERLOADED

    @property
    def rejected(self) -> bool:
        """Whether the server does not accept this request."""
        return is_rejection(self.status)


def make_client(config: LLMConfig) -> openai.AsyncOpenAI:
    """The official client for the server of `config`, with retries disabled; raises the errors of `api_key`."""
    key = api_key(config)
    import openai

    try:
        transport = openai.DefaultAioHttpClient()  # half the CPU of the default transport
    except RuntimeError:
        raise MissingPackageError("aiohttp") from None
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=config.base_url,
        max_retries=0,
        timeout=openai.Timeout(config.timeout, connect=min(30.0, config.timeout)),
        http_client=transport,
    )


def api_key(config: LLMConfig) -> str:
    """The key from the environment; `none` if there is none and the server may need none.

    Raises:
        ConfigError: there is no key for the official server, or the key has invalid characters.
        RegenError: the client is not installed.
    """
    require("openai")
    key = _environment_key()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "The environment variable OPENAI_API_KEY contains a line break or a character outside of ASCII, expected "
            "only the key. Set it again."
        )
    if not key and config.base_url.rstrip("/") == OPENAI:
        raise ConfigError(
            f"The server {OPENAI} needs a key. Set the environment variable OPENAI_API_KEY, or set base_url to a "
            "server that needs none."
        )
    return key or "none"


def _environment_key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()  # a key that was read from a file ends with a line break


def is_rejection(status: int) -> bool:
    """Whether a status means that the server does not accept the request, so that a retry is useless.

    >>> [is_rejection(status) for status in (200, 400, 408, 422, 429, 500)]
    [False, True, False, True, False, False]
    """
    return 400 <= status < 500 and status not in (408, 409, 425, 429)


def message_of(error: openai.APIStatusError) -> str:
    """The server's message in an error; the client omits bodies whose form is not OpenAI's."""
    message = redact(str(error))
    if error.body and " - " not in message:
        message += " - " + redact(error.body if isinstance(error.body, str) else json.dumps(error.body))[:500]
    return message


def redact(message: str) -> str:
    """`message` of a server or a library without the key."""
    key = _environment_key()
    return writable(message.replace(key, "***") if len(key) > 4 else message)


def parse_reply(payload: Any, form: str, batched: bool = False) -> Reply | None:
    """The reply in a parsed chat completion, None where it is not one."""
    if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
        return None
    choice = (payload["choices"] or [{}])[0]
    usage = payload.get("usage") or {}
    try:
        message = choice.get("message") or {}
        text = message.get("content") or message.get("refusal") or ""
        if isinstance(text, list):  # in parts, with the reasoning separate from the answer
            text = "".join(part.get("text") or "" for part in text)
        finish_reason = choice.get("finish_reason")
        return Reply(
            redact(text if isinstance(text, str) else json.dumps(text)),
            finish_reason=None if finish_reason is None else str(finish_reason),
            prompt_tokens=_token_count(usage.get("prompt_tokens")),
            completion_tokens=_token_count(usage.get("completion_tokens")),
            form=form,
            batched=batched,
        )
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _token_count(reported: Any) -> int:
    """A number of tokens that a server reports; 0 where it is impossible."""
    tokens = int(reported or 0)
    return tokens if 0 <= tokens < 2**31 else 0


class Workers:
    """One call of `ask`: concurrent workers that share the requests, and their statistics of the server.

    Either the request or the server can cause a failure. A later success shows that it was the request; a streak of
    failures without a success shows that it was the server: all workers stop after the requests in flight return.
    """

    def __init__(self, config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
        self.config, self.store, self.bar = config, store, bar
        self.client = make_client(config)
        self.halted = asyncio.Event()
        self.pace = Pace(config.concurrency, self.halted)
        self.spending = Spending(config, store)
        self.stop: BaseException | None = None
        self.answered = self.failed = self.streak = self.holding = 0
        self.last_message = ""
        self.dialects = store.dialects(config.base_url)
        self.doubtful: list[tuple[Request, Reply]] = []
        """Failures since the last success, at most as many as a streak that stops the run."""
        self.opened = asyncio.Event()
        self.in_flight: dict[str, asyncio.Event] = {}
        """Events by the key of a request that is being sent; set when it is done."""

    async def run(self, requests: Iterator[Request]) -> None:
        """Send all of `requests`."""
        with self._interruptible():
            async with self.client:
                await asyncio.gather(*(self._work(requests, number) for number in range(self.config.concurrency)))
        if self.stop is None and self.doubtful:
            self.stop = self._verdict()
        if self.stop:
            raise self.stop

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C waits for the requests in flight, which are paid for; the second one cancels them."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            if self.stop is None:
                waiting = f"stopping after the {self.pace.in_flight} requests in flight return"
                self.bar.write(f"{waiting} (at most {self.config.timeout:.0f} s)", file=sys.stderr)
                self._halt(KeyboardInterrupt())
            elif task is not None:
                task.cancel()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            yield
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _halt(self, reason: BaseException) -> None:
        """Send nothing more; the first reason is raised."""
        self.stop = self.stop or reason
        self.halted.set()

    async def _work(self, requests: Iterator[Request], number: int) -> None:
        """Take requests and complete each. One worker probes the server before the others start."""
        if number:
            await self.opened.wait()
        try:
            for request in requests:
                missing = unsent(request, self.store)
                if missing is None:
                    self.bar.initial += 1  # not part of the rate
                await self._complete(missing)
                if self.stop:
                    return
                if self.bar.update():  # True a few times a second, when the bar is drawn
                    self.bar.set_postfix_str(f"{self.failed} failed, {self.spending}", refresh=False)
                await asyncio.sleep(0)  # many stored answers in a row must not block the requests in flight
        except Exception as error:  # of the function that creates the requests: wait for those in flight
            self._halt(error)
        finally:
            self.opened.set()

    async def _complete(self, missing: Request | None) -> None:
        """Send a request, and its repetition after an invalid answer, unless an identical one is in flight."""
        while self.stop is None and missing is not None:
            if other := self.in_flight.get(missing.key):  # such as two users with the same history
                await other.wait()
                missing = unsent(missing, self.store)
                continue
            done = self.in_flight[missing.key] = asyncio.Event()
            try:
                reply = await self._send(missing)
            finally:
                del self.in_flight[missing.key]
                done.set()
            outcome = None if reply is None else outcome_of(missing, reply)
            self.failed += isinstance(outcome, Failure)
            missing = unsent(outcome, self.store) if isinstance(outcome, Request) else None

    async def _send(self, request: Request) -> Reply | None:
        """Send a request until there is a reply, and store it; None where there is none."""
        attempts = answered = 0
        while (reserved := await self._reserve(request)) is not None:
            started = await self.pace.enter()
            failure: AttemptFailed | None = None
            try:
                reply = await self._adapt(request) if self.stop is None else None
            except AttemptFailed as error:
                failure = error
            finally:
                self.pace.leave()
                self.holding -= 1
                if failure is None or failure.status:  # otherwise it may have been paid for without an answer
                    self.spending.reserved -= reserved
            if failure is None:
                return reply if reply is not None and self._keep(request, reply) else None
            self.opened.set()
            if failure.overloaded:
                if (failure.wait or 0.0) > self.pace.pause + LONGEST_WAIT:
                    notice = f"the server asks for a pause of {failure.wait:.0f} s: {failure.message}"
                    self.bar.write(notice, file=sys.stderr)
                self.pace.slow_down(started, failure.wait)
            if self._hopeless(request, failure):
                return None
            if failure.rejected:
                self._fail(request, Reply(failure.message, "rejected"))
                return None
            # An overloaded server that answers other requests in the meantime does not use up attempts.
            attempts = 1 if failure.overloaded and self.answered > answered else attempts + 1
            answered = self.answered
            if attempts > self.config.retries:
                self._fail(request, Reply(failure.message, "unanswered"))
                return None
            wait = backoff(attempts) if failure.wait is None else failure.wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.halted.wait(), wait)
        return None

    async def _adapt(self, request: Request) -> Reply:
        """One attempt, in the dialect of the server, which the first request determines."""
        known = self.dialects.get(request.model)
        dialect = known or Dialect()
        first: AttemptFailed | None = None
        while True:
            try:
                reply = await self._attempt(request, dialect)
            except AttemptFailed as failure:
                further = dialect.after(failure.message) if known is None and failure.status in (400, 422) else None
                if further is None:
                    # Rejected in every form, so the form is not the reason: the first message names it best.
                    raise first if first and failure.rejected else failure from None
                # After a change of a field name, the message is resolved and not the reason of the next error.
                renamed = further.form == dialect.form
                first, dialect = None if renamed else first or failure, further
            else:
                if known is None and request.model not in self.dialects:
                    if not dialect.temperature:
                        default = f"{request.model} accepts no temperature: its default is used instead of"
                        self.bar.write(f"{default} {request.temperature}", file=sys.stderr)
                    self.dialects[request.model] = dialect
                    self.store.remember(self.config.base_url, request.model, dialect)
                return reply

    async def _attempt(self, request: Request, dialect: Dialect) -> Reply:
        import openai

        try:
            async with asyncio.timeout(self.config.timeout):
                # `chat.completions.create` takes 1.98 ms of CPU per request of benchmarks/llm.py, this takes 1.03 ms.
                text = await self.client.post("/chat/completions", cast_to=str, body=dialect.body(request))
        except openai.APIStatusError as error:
            headers = error.response.headers
            raise AttemptFailed(message_of(error), error.status_code, retry_after(headers), error.code) from None
        except TimeoutError:
            raise AttemptFailed(f"no answer within {self.config.timeout} seconds") from None
        except openai.APIError as error:
            cause = error.__cause__ or error  # the client's own message is only "Connection error."
            raise AttemptFailed(redact(f"{type(cause).__name__}: {cause}")) from None
        except ValueError as error:  # bytes that do not match the encoding of the header
            raise AttemptFailed(redact(f"the reply is not text: {error}")) from None
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            raise AttemptFailed(
                f"the reply is not JSON but {redact(text)[:200]!r}; base_url should end in /v1"
            ) from None
        reply = parse_reply(payload, dialect.form)
        if reply is None:
            message = payload.get("error") if isinstance(payload, dict) else None
            raise AttemptFailed(f"the reply is not a chat completion but {redact(str(message or payload))[:500]}")
        return with_tokens(reply, request)

    async def _reserve(self, request: Request) -> float | None:
        """Reserve the worst case of one attempt, as soon as it fits the budget; None where the run has to stop."""
        while self.stop is None:
            worst_case = self.spending.worst_case(request)
            if self.spending.fits(worst_case):
                self.spending.reserved += worst_case
                self.holding += 1
                return worst_case
            if self.holding == 0:
                self._halt(self.spending.exhausted())
            else:
                await asyncio.sleep(0.02)  # the requests in flight will cost less than their worst case
        return None

    def _keep(self, request: Request, reply: Reply) -> bool:
        """Store a reply and the failures before it; False if the disk is full."""
        try:
            self.store.put(request, reply)
            self.spending.pay(request.model, reply, request)
            self.answered += 1
            self.streak = 0
            self.pace.speed_up()
            for doubtful in self.doubtful:
                self.store.put(*doubtful)
            self.doubtful.clear()
        except RunError as error:  # the disk is full: send no more, but try to store those in flight
            self._halt(error)
            return False
        finally:
            self.opened.set()
        return True

    def _fail(self, request: Request, reply: Reply) -> None:
        self.failed += 1
        self.last_message = reply.text
        self.doubtful.append((request, reply))
        self.streak += 1
        if self.streak >= max(8, self.config.concurrency):
            self._halt(self._no_answers())

    def _hopeless(self, request: Request, failure: AttemptFailed) -> bool:
        """Stop all workers where no request can succeed: a wrong key, no credit, an unknown model."""
        known = request.model in self.dialects
        if not (
            failure.status in (401, 402, 404)
            or (failure.status == 403 and not known)
            or failure.code == "insufficient_quota"
            or (failure.status in (400, 422) and not known and NO_SUCH_MODEL.search(failure.message))
        ):
            return False
        self._halt(
            ConfigError(
                f"The server {self.config.base_url} rejects requests to model {request.model!r}: {failure.message}. "
                "Check the key in OPENAI_API_KEY, base_url and model."
            )
        )
        return True

    def _verdict(self) -> RegenError | None:
        """The error of the run; None if the server has answered, or the same requests failed in an earlier run."""
        again = all(self.store.get(request.key) for request, _ in self.doubtful)
        for doubtful in self.doubtful:
            self.store.put(*doubtful)
        return None if self.answered or again else self._no_answers()

    def _no_answers(self) -> RunError:
        return RunError(
            f"The server {self.config.base_url} left {len(self.doubtful)} requests without an answer: "
            f"{self.last_message}. The {self.answered} answers of this run are kept. Run the same command again to "
            "resume."
        )


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
    """Store a reply to every request that `store` has none for."""
    if submitted := store.execute("SELECT server FROM batches WHERE file_id IS NOT NULL"):
        raise RunError(
            f"Batches of these requests were submitted to {submitted[0][0]}, so they would be paid for twice. Run the "
            "same command with backend openai-batch and that base_url to collect them."
        )

    async def run() -> None:
        await Workers(config, store, bar).run(iter(requests()))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:  # in a notebook, whose loop is running already
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(run())).result()
