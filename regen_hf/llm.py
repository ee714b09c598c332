"""Asking a language model on an OpenAI-compatible server: structured answers, a store of what was paid for.

    Request  ── ask ──►  server  ──►  Store (SQLite)  ── read ──►  validated answer, or Failure

The store holds the raw replies by the hash of all that the request says. `ask` sends what the store lacks and `read`
validates what it holds, so a crash, a stricter check or another order of users never pays for a reply twice. The key
comes from the environment variable OPENAI_API_KEY; it is never stored and never printed.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .errors import ConfigError, RegenError, RunError, missing_extra

if TYPE_CHECKING:
    import openai
    from pydantic import BaseModel

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Server:
    """Where requests go. Nothing here changes what an answer says."""

    base_url: str
    concurrency: int = 16
    """Requests in flight."""
    retries: int = 5
    """Further tries after 408, 409, 429, 5xx, a timeout or a broken connection, with exponential backoff."""
    timeout: float = 600.0
    """Seconds until a request counts as unanswered."""


@dataclass(frozen=True)
class Request:
    """One question to a model, and the shape of its answer."""

    model: str
    messages: tuple[dict[str, str], ...]
    answer: type[BaseModel]
    temperature: float
    seed: int
    """Sent with the request; tells the votes of an ensemble apart."""
    repeated: bool = False
    """The question was asked before and its answer refused."""

    @functools.cached_property
    def body(self) -> dict[str, Any]:
        """What is sent, apart from the key."""
        return {
            "model": self.model,
            "messages": list(self.messages),
            "temperature": self.temperature,
            "seed": self.seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": self.answer.__name__, "schema": _schema(self.answer), "strict": True},
            },
        }

    @functools.cached_property
    def key(self) -> str:
        """The hash of `body`, under which the reply is stored."""
        return hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()

    def again(self, reply: str, reason: str) -> Request:
        """The same question with the refused answer and the reason why it was refused."""
        return Request(
            self.model,
            (
                *self.messages,
                {"role": "assistant", "content": reply or "(no text)"},
                {
                    "role": "user",
                    "content": f"That answer cannot be used: {reason}. Answer again, with one JSON object of the "
                    "required form and nothing else.",
                },
            ),
            self.answer,
            self.temperature,
            self.seed,
            repeated=True,
        )


@dataclass(frozen=True)
class Reply:
    """What the store holds for a request."""

    text: str
    """The model's raw text, or the server's words where it rejected the request."""
    rejected: bool = False
    """The server will not take this request, whenever it is sent (such as one past the model's window)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """A request that will get no usable answer."""

    reason: str
    raw: str
    """The last text that the model gave."""


class Store:
    """Replies by the hash of their request, in an SQLite file that survives `kill -9`.

    Args:
        path: The file; it is made where it does not exist, and its folder too.

    Raises:
        RunError: the file is no store, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        # With WAL a committed reply survives a kill; only a loss of power can cost the latest ones.
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=NORMAL")
        self._execute(
            "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT NOT NULL, rejected INTEGER NOT NULL, "
            "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL)"
        )

    def get(self, key: str) -> Reply | None:
        """The reply under `key`, None where the request was not answered yet."""
        rows = self._execute(
            "SELECT text, rejected, prompt_tokens, completion_tokens FROM replies WHERE key = ?", (key,)
        )
        return Reply(rows[0][0], bool(rows[0][1]), *rows[0][2:]) if rows else None

    def put(self, key: str, reply: Reply) -> None:
        """Keep `reply`; on disk when this returns."""
        values = (key, reply.text, reply.rejected, reply.prompt_tokens, reply.completion_tokens)
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", values)

    def totals(self) -> dict[str, int]:
        """Replies and tokens of this store, over all runs."""
        names = ("replies", "prompt_tokens", "completion_tokens")
        rows = self._execute("SELECT count(*), total(prompt_tokens), total(completion_tokens) FROM replies")
        return {name: int(value) for name, value in zip(names, rows[0], strict=True)}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise RunError(
                f"The store of paid answers {self.path} cannot be used: {error}. Make room on the disk if it is full; "
                "if the file is damaged, delete it and its answers are asked for again."
            ) from None


def read(request: Request, store: Store) -> BaseModel | Failure | Request:
    """What the store says of `request`: its validated answer, its failure, or the request still to be sent."""
    reply = store.get(request.key)
    if reply is None:
        return request
    if reply.rejected:
        return Failure(f"the server rejected the request: {reply.text}", "")
    from pydantic import ValidationError

    try:
        return request.answer.model_validate_json(reply.text)
    except ValidationError as error:
        places = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
        reason = "; ".join(f"{place}: {message}" if place else message for place, message in places)
    return Failure(reason, reply.text) if request.repeated else read(request.again(reply.text, reason), store)


def ask(requests: Iterable[Request], server: Server, store: Store, total: int, desc: str) -> None:
    """Send every request that the store has no reply to; a refused answer is asked for once more.

    Requests are drawn as they are sent, so memory does not grow with their number. When this returns, `read` gives an
    answer or a failure for each.

    Args:
        requests: Any number of requests.
        server: Where to send them.
        store: Where the replies go, each as it comes.
        total: The number of requests, for the progress bar.
        desc: What the progress bar is called.

    Raises:
        ConfigError: the server refuses the key or does not know the model; told in its own words.
        RunError: the server does not answer. What it answered is stored; the next call sends the rest.
    """
    client = _client(server)
    with tqdm(total=total, desc=desc, unit=" requests") as bar:
        asyncio.run(_Asking(client, server, store, bar).run(iter(requests)))


def _client(server: Server) -> openai.AsyncOpenAI:
    try:
        import openai
    except ImportError:
        raise missing_extra("openai", "llm") from None
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and server.base_url.rstrip("/") == OPENAI:
        raise ConfigError(
            f"The server {OPENAI} needs a key: set the environment variable OPENAI_API_KEY, or set base_url to a "
            "server that needs none."
        )
    return openai.AsyncOpenAI(
        api_key=key or "none", base_url=server.base_url, max_retries=server.retries, timeout=server.timeout
    )


class _Asking:
    """One call of `ask`: workers that share the requests, and what they have seen of the server.

    A request that fails may be at fault itself, or the server may be. A later success tells the first, a run of
    failures without any success the second: then all stop, after the requests in flight have come back.
    """

    def __init__(self, client: openai.AsyncOpenAI, server: Server, store: Store, bar: tqdm[Any]) -> None:
        self.client, self.server, self.store, self.bar = client, server, store, bar
        self.stop: RegenError | None = None
        self.answered = self.unanswered = 0
        self.streak = 0
        self.rejections: dict[str, Reply] = {}
        self.last_error = ""

    async def run(self, requests: Iterator[Request]) -> None:
        async with self.client:
            await asyncio.gather(*(self.work(requests) for _ in range(self.server.concurrency)))
        if self.stop is None and (self.unanswered or (self.rejections and not self.answered)):
            self.stop = self.trouble()
        if self.stop:
            raise self.stop
        self.keep_rejections()

    async def work(self, requests: Iterator[Request]) -> None:
        for request in requests:
            while self.stop is None and isinstance(missing := read(request, self.store), Request):
                if not await self.send(missing):
                    break
            if self.stop:
                return
            self.bar.update()
            await asyncio.sleep(0)  # a long row of stored answers must not starve the requests in flight

    async def send(self, request: Request) -> bool:
        """Send one request and store its reply; False where there is none."""
        import openai
        from openai.types.chat import ChatCompletion

        try:
            completion = await self.client.chat.completions.create(**request.body)
        except openai.APIStatusError as error:
            words = self.words(error)
            if error.status_code in (401, 403, 404):
                self.stop = ConfigError(
                    f"The server {self.server.base_url} refuses model {request.model!r}: {words}. Check the key in "
                    "OPENAI_API_KEY, base_url and model."
                )
                return False
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                self.rejections[request.key] = Reply(words, rejected=True)
                return self.fail(words)
            self.unanswered += 1
            return self.fail(words)
        except (openai.APIError, ValueError) as error:  # no connection, a timeout, a body that is no JSON
            self.unanswered += 1
            return self.fail(self.words(error))
        if not isinstance(completion, ChatCompletion):
            self.unanswered += 1
            return self.fail("the reply is no chat completion; base_url should end in /v1")
        message = completion.choices[0].message if completion.choices else None
        usage = completion.usage
        self.store.put(
            request.key,
            Reply(
                (message.content or message.refusal or "") if message else "",
                prompt_tokens=usage.prompt_tokens if usage else 0,
                completion_tokens=usage.completion_tokens if usage else 0,
            ),
        )
        self.answered += 1
        self.streak = 0
        self.keep_rejections()
        return True

    def fail(self, words: str) -> bool:
        self.last_error = words
        self.streak += 1
        if self.streak >= max(8, self.server.concurrency):
            self.stop = self.trouble()
        return False

    def trouble(self) -> RunError:
        return RunError(
            f"The server {self.server.base_url} left {self.unanswered + len(self.rejections)} requests without an "
            f"answer: {self.last_error}. The {self.answered} answers of this run are kept; the same command asks only "
            "for the rest."
        )

    def keep_rejections(self) -> None:
        for key, reply in self.rejections.items():
            self.store.put(key, reply)
        self.rejections.clear()

    def words(self, error: Exception) -> str:
        """The error's own words without the key."""
        words = f"{type(error).__name__}: {error}"
        return words.replace(self.client.api_key, "***") if len(self.client.api_key) > 4 else words


@functools.cache
def _schema(answer: type[BaseModel]) -> dict[str, Any]:
    schema = answer.model_json_schema()
    schema.pop("description", None)  # the docstring, which is for programmers
    return schema
