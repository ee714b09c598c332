"""Asking an OpenAI-compatible server, many requests at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..errors import ConfigError, RegenError, RunError, missing_extra
from .pace import LONGEST_WAIT, Pace, backoff, retry_after
from .request import Dialect, Failure, Reply, Request, outcome_of, writable
from .settings import OPENAI, LLMConfig
from .spending import Spending, counted
from .store import Store, unsent

if TYPE_CHECKING:
    import openai

TOO_MUCH = (429, 503, 529)
"""Statuses by which a server says that it has too many requests, not that this one is bad."""
NO_SUCH_MODEL = re.compile(
    r"model.*(not (exist|found|supported|available|a valid)|\binvalid\b|\bunknown\b)|(unknown|invalid|no such) model",
    re.I | re.S,
)


class Trouble(Exception):
    """One try of a request that gave no reply."""

    def __init__(self, words: str, status: int = 0, wait: float | None = None, code: str | None = None) -> None:
        super().__init__(words)
        self.words, self.status, self.wait, self.code = words, status, wait, code

    @property
    def too_much(self) -> bool:
        """The server has too many requests."""
        return self.status in TOO_MUCH

    @property
    def refused(self) -> bool:
        """The server does not take this request as it is."""
        return is_refusal(self.status)


def client_of(config: LLMConfig) -> openai.AsyncOpenAI:
    """The official client for the server of `config`; it tries nothing twice.

    Raises:
        ConfigError: the official server is asked without a key.
        RegenError: the client is not installed.
    """
    key = key_of(config)
    import openai

    try:
        transport = openai.DefaultAioHttpClient()  # half the CPU of the default one
    except RuntimeError:
        raise missing_extra("aiohttp", "llm") from None
    client = openai.AsyncOpenAI(
        api_key=key,
        base_url=config.base_url,
        max_retries=0,
        timeout=openai.Timeout(config.timeout, connect=min(30.0, config.timeout)),
        http_client=transport,
    )
    # It tells of this machine with every request (system, Python, versions): nobody asks for it, and it takes time.
    told = [name for name in client.default_headers if name.lower().startswith("x-stainless-")]
    return client.copy(default_headers=dict.fromkeys(told, openai.Omit()))  # type: ignore[arg-type]  # its own way


def key_of(config: LLMConfig) -> str:
    """The key from the environment; `none` where there is none and the server may need none.

    Raises:
        ConfigError: the official server is asked without a key, or the key holds what no request can carry.
        RegenError: the client is not installed.
    """
    try:
        import openai  # noqa: F401
    except ImportError:
        raise missing_extra("openai", "llm") from None
    key = _key()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "The environment variable OPENAI_API_KEY holds a line break or a letter outside of ASCII, which no key "
            "has. Set it to the key alone."
        )
    if not key and config.base_url.rstrip("/") == OPENAI:
        raise ConfigError(
            f"The server {OPENAI} needs a key: set the environment variable OPENAI_API_KEY, or set base_url to a "
            "server that needs none."
        )
    return key or "none"


def is_refusal(status: int) -> bool:
    """Whether a status says that the server does not take this request as it is.

    >>> [is_refusal(status) for status in (200, 400, 408, 422, 429, 500)]
    [False, True, False, True, False, False]
    """
    return 400 <= status < 500 and status not in (408, 409, 425, 429)


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "").strip()  # a key read from a file brings its line break


def words_of(error: openai.APIStatusError) -> str:
    """What a server said with an error status; of a body in another form than OpenAI's the client tells nothing."""
    words = without_key(str(error))
    if error.body and " - " not in words:
        words += " - " + without_key(error.body if isinstance(error.body, str) else json.dumps(error.body))[:500]
    return words


def without_key(words: str) -> str:
    """`words` of a server or a library, with the key blotted out."""
    key = _key()
    return writable(words.replace(key, "***") if len(key) > 4 else words)


def reply_in(payload: Any, form: str, batched: bool = False) -> Reply | None:
    """The reply in a parsed chat completion, None where it is none."""
    if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
        return None
    choice = (payload["choices"] or [{}])[0]
    usage = payload.get("usage") or {}
    try:
        message = choice.get("message") or {}
        text = message.get("content") or message.get("refusal") or ""
        if isinstance(text, list):  # in parts, thoughts apart from the answer
            text = "".join(part.get("text") or "" for part in text)
        finish_reason = choice.get("finish_reason")
        return Reply(
            without_key(text if isinstance(text, str) else json.dumps(text)),
            finish_reason=None if finish_reason is None else str(finish_reason),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            form=form,
            batched=batched,
        )
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _count(told: Any) -> int:
    """A number of tokens that a server told; none in its place where it cannot be one."""
    tokens = int(told or 0)
    return tokens if 0 <= tokens < 2**31 else 0


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage cycles less often: a request leaves next to none, but makes many objects."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Asking:
    """One call of `ask`: workers that share the requests, and what they have seen of the server.

    A request that fails may be at fault itself, or the server may be. A later success tells the first, a run of
    failures without any success the second: then all stop, after the requests in flight have come back.
    """

    def __init__(self, config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
        self.config, self.store, self.bar = config, store, bar
        self.client = client_of(config)
        self.path = f"{self.client.base_url}chat/completions"  # joined once, not for each request
        self.halted = asyncio.Event()
        self.pace = Pace(config.concurrency, self.halted)
        self.spending = Spending(config, store)
        self.stop: BaseException | None = None
        self.answered = self.failed = self.streak = self.holding = 0
        self.last_words = ""
        self.dialects = store.dialects(config.base_url)
        # Failures that no later success has told apart from a failing server; at most as many as make a streak.
        self.doubtful: list[tuple[Request, Reply]] = []
        self.opened = asyncio.Event()
        self.in_flight: dict[str, asyncio.Event] = {}
        """Requests that are being sent, by their key; set when one is done."""

    async def run(self, requests: Iterator[Request]) -> None:
        """Ask for all of `requests`."""
        with self._interruptible(), _rare_collections():
            async with self.client:
                await asyncio.gather(*(self._work(requests, number) for number in range(self.config.concurrency)))
        if self.stop is None and self.doubtful:
            self.stop = self._verdict()
        if self.stop:
            raise self.stop

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C lets the requests in flight come back, which are paid for; the second one drops them."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        told = f"stopping when the {{}} requests in flight have come back (at most {self.config.timeout:.0f} s)"

        def interrupt() -> None:
            if self.stop is None:
                self.bar.write(told.format(self.pace.flying), file=sys.stderr)
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
        """Send nothing more. The first reason is the one that is told."""
        self.stop = self.stop or reason
        self.halted.set()

    async def _work(self, requests: Iterator[Request], number: int) -> None:
        """Take requests and see each through. The first worker goes alone until the server has said something."""
        if number:
            await self.opened.wait()
        try:
            for request in requests:
                missing = unsent(request, self.store)
                if missing is None:
                    self.bar.initial += 1  # not part of the rate
                while self.stop is None and missing is not None:
                    if twin := self.in_flight.get(missing.key):  # as where two users bought the same
                        await twin.wait()
                        missing = unsent(missing, self.store)
                        continue
                    twin = self.in_flight[missing.key] = asyncio.Event()
                    try:
                        reply = await self._send(missing)
                    finally:
                        del self.in_flight[missing.key]
                        twin.set()
                    outcome = None if reply is None else outcome_of(missing, reply)
                    self.failed += isinstance(outcome, Failure)
                    missing = unsent(outcome, self.store) if isinstance(outcome, Request) else None
                if self.stop:
                    return
                if self.bar.update():  # drawn, a few times a second
                    self.bar.set_postfix_str(f"{self.failed} failed, {self.spending}", refresh=False)
                await asyncio.sleep(0)  # a long row of stored answers must not starve the requests in flight
        except Exception as error:  # of the stage that makes the requests: those in flight come back first
            self._halt(error)
        finally:
            self.opened.set()

    async def _send(self, request: Request) -> Reply | None:
        """Try a request until there is a reply, and store it; None where there is none."""
        tries = answered = 0
        while (worst := await self._afford(request)) is not None:
            started = await self.pace.enter()
            trouble: Trouble | None = None
            try:
                reply = await self._adapt(request) if self.stop is None else None
            except Trouble as one:
                trouble = one
            finally:
                self.pace.leave()
                self.holding -= 1
                if trouble is None or trouble.status:  # else it may have been paid for without an answer
                    self.spending.reserved -= worst
            if trouble is None:
                return reply if reply is not None and self._keep(request, reply) else None
            self.opened.set()
            if trouble.too_much:
                if (trouble.wait or 0.0) > self.pace.pause + LONGEST_WAIT:
                    told = f"the server asks for {trouble.wait:.0f} s of silence: {trouble.words}"
                    self.bar.write(told, file=sys.stderr)
                self.pace.slow_down(started, trouble.wait)
            if self._hopeless(request, trouble):
                return None
            if trouble.refused:
                self._fail(request, Reply(trouble.words, "rejected"))
                return None
            # A busy server that answers others in the meantime is no reason to give up.
            tries = 1 if trouble.too_much and self.answered > answered else tries + 1
            answered = self.answered
            if tries > self.config.retries:
                self._fail(request, Reply(trouble.words, "unanswered"))
                return None
            wait = backoff(tries) if trouble.wait is None else trouble.wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.halted.wait(), wait)
        return None

    async def _adapt(self, request: Request) -> Reply:
        """One try, in the dialect that the server takes; it is found out with the first request."""
        known = self.dialects.get(request.model)
        dialect = known or Dialect()
        first: Trouble | None = None
        while True:
            try:
                reply = await self._try_once(request, dialect)
            except Trouble as trouble:
                further = dialect.after(trouble.words) if known is None and trouble.status in (400, 422) else None
                if further is None:
                    # Refused in every form: it is not the form, and the first words tell the reason best.
                    raise first if first and trouble.refused else trouble from None
                # A refusal of the name alone is done with, and not the reason of the next one.
                renamed = further.form == dialect.form
                first, dialect = None if renamed else first or trouble, further
            else:
                if known is None and request.model not in self.dialects:
                    if not dialect.temperature:
                        told = f"{request.model} takes no temperature: it is asked with its own, not"
                        self.bar.write(f"{told} {request.temperature}", file=sys.stderr)
                    self.dialects[request.model] = dialect
                    self.store.remember(self.config.base_url, request.model, dialect)
                return reply

    async def _try_once(self, request: Request, dialect: Dialect) -> Reply:
        import openai

        try:
            async with asyncio.timeout(self.config.timeout):
                # Bytes, because the client would copy the messages several times.
                content = json.dumps(dialect.body(request)).encode()
                text = await self.client.post(self.path, cast_to=str, content=content)
        except openai.APIStatusError as error:
            headers = error.response.headers
            raise Trouble(words_of(error), error.status_code, retry_after(headers), error.code) from None
        except TimeoutError:
            raise Trouble(f"no answer within {self.config.timeout} seconds") from None
        except openai.APIError as error:
            cause = error.__cause__ or error  # the client says no more than "Connection error."
            raise Trouble(without_key(f"{type(cause).__name__}: {cause}")) from None
        except ValueError as error:  # bytes that are not of the encoding that the header tells
            raise Trouble(without_key(f"the reply is no text: {error}")) from None
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            raise Trouble(f"the reply is no JSON but {without_key(text)[:200]!r}; base_url should end in /v1") from None
        reply = reply_in(payload, dialect.form)
        if reply is None:
            words = payload.get("error") if isinstance(payload, dict) else None
            raise Trouble(f"the reply is no chat completion but {without_key(str(words or payload))[:500]}")
        return counted(reply, request)

    async def _afford(self, request: Request) -> float | None:
        """Reserve the most USD that one try can cost, as soon as the budget holds it; None where all has to stop."""
        while self.stop is None:
            worst = self.spending.worst(request)
            if self.spending.fits(worst):
                self.spending.reserved += worst
                self.holding += 1
                return worst
            if self.holding == 0:
                self._halt(self.spending.exhausted())
            else:
                await asyncio.sleep(0.02)  # what is in flight will cost less than the worst
        return None

    def _keep(self, request: Request, reply: Reply) -> bool:
        try:
            self.store.put(request, reply)
            self.spending.pay(request.model, reply, request)
            self.answered += 1
            self.streak = 0
            self.pace.speed_up()
            for doubtful in self.doubtful:
                self.store.put(*doubtful)
            self.doubtful.clear()
        except RunError as error:  # the disk is full: those in flight try to be kept, no other is sent
            self._halt(error)
            return False
        finally:
            self.opened.set()
        return True

    def _fail(self, request: Request, reply: Reply) -> None:
        self.failed += 1
        self.last_words = reply.text
        self.doubtful.append((request, reply))
        self.streak += 1
        if self.streak >= max(8, self.config.concurrency):
            self._halt(self._gives_up())

    def _hopeless(self, request: Request, trouble: Trouble) -> bool:
        """Stop everything where no request can succeed: a wrong key, no credit, an unknown model."""
        known = request.model in self.dialects
        if not (
            trouble.status in (401, 402, 404)
            or (trouble.status == 403 and not known)
            or trouble.code == "insufficient_quota"
            or (trouble.status in (400, 422) and not known and NO_SUCH_MODEL.search(trouble.words))
        ):
            return False
        self._halt(
            ConfigError(
                f"The server {self.config.base_url} refuses model {request.model!r}: {trouble.words}. Check the key in "
                "OPENAI_API_KEY, base_url and model."
            )
        )
        return True

    def _verdict(self) -> RegenError | None:
        """At the end: are the last failures the requests' own, or the server's?

        The server has worked in this run, or it failed the same requests in an earlier one: then they are recorded.
        """
        again = all(self.store.get(request.key) for request, _ in self.doubtful)
        for doubtful in self.doubtful:
            self.store.put(*doubtful)
        return None if self.answered or again else self._gives_up()

    def _gives_up(self) -> RunError:
        return RunError(
            f"The server {self.config.base_url} left {len(self.doubtful)} requests without an "
            f"answer: {self.last_words}. The {self.answered} answers of this run are kept; the same command asks only "
            "for the rest."
        )
