"""The store of paid replies: one SQLite file beside the run, by the hash of their request."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

from ..errors import RunError
from .request import Dialect, Failure, Reply, Request, Sent, outcome_of

LAYOUT = 4
"""Of the tables. A file of another number is refused, never guessed at."""

TABLES = (
    # One row per request that was answered, rejected, or tried in vain. `sampling` and `form` record how it was asked.
    "CREATE TABLE replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, sampling TEXT NOT NULL, form TEXT NOT NULL, "
    "state TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT, prompt_tokens INTEGER NOT NULL, "
    "completion_tokens INTEGER NOT NULL, batched INTEGER NOT NULL, unix_time INTEGER NOT NULL)",
    # How a server wants a model to be asked, once it is known.
    "CREATE TABLE dialects (server TEXT NOT NULL, model TEXT NOT NULL, form TEXT NOT NULL, max_tokens TEXT NOT NULL, "
    "seed TEXT NOT NULL, temperature INTEGER NOT NULL, PRIMARY KEY (server, model))",
    # Batches that are prepared or on the server, and the requests that lie in them.
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, server TEXT NOT NULL, model TEXT NOT NULL, form TEXT NOT NULL, "
    "max_tokens TEXT NOT NULL, file_id TEXT, batch_id TEXT, requests INTEGER NOT NULL, worst REAL NOT NULL, "
    "seed TEXT NOT NULL, temperature INTEGER NOT NULL)",
    "CREATE TABLE in_batches (key TEXT PRIMARY KEY, batch INTEGER NOT NULL, sampling TEXT NOT NULL)",
)


class Store:
    """Replies by the hash of their request, in an SQLite file that survives `kill -9`.

    Args:
        path: The file; it is made where it does not exist, and its folder too.

    Raises:
        RunError: the file is no store or one of another layout, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        # With WAL a committed reply survives a kill; only a loss of power can cost the latest ones.
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")
        # The log is moved into the file, for which all wait on the disk, every 40 MB in place of every 4 MB.
        self.execute("PRAGMA wal_autocheckpoint=10000")
        with self.transaction():
            layout = self.execute("PRAGMA user_version")[0][0]
            if layout == 0 and not self.execute("SELECT 1 FROM sqlite_master"):
                for table in TABLES:
                    self.execute(table)
                self.execute(f"PRAGMA user_version={LAYOUT}")
                layout = LAYOUT
            # The same without the name of the seed, and without the temperature.
            for before, column in (
                (2, "seed TEXT NOT NULL DEFAULT 'seed'"),
                (3, "temperature INTEGER NOT NULL DEFAULT 1"),
            ):
                if layout == before:
                    for name in ("dialects", "batches"):
                        self.execute(f"ALTER TABLE {name} ADD COLUMN {column}")
                    layout += 1
                    self.execute(f"PRAGMA user_version={layout}")
        if layout != LAYOUT:
            self.close()
            raise RunError(
                f"The store of paid answers {path} has layout {layout}, this version has layout {LAYOUT}. Use the "
                "version of regen-hf that made it; or delete the file, and its answers are asked and paid for again."
            )

    def get(self, key: str) -> Reply | None:
        """The reply under `key`, None where the request was not sent yet."""
        rows = self.execute(
            "SELECT text, state, finish_reason, prompt_tokens, completion_tokens, form, batched FROM replies "
            "WHERE key = ?",
            (key,),
        )
        return Reply(*rows[0]) if rows else None

    def put(self, request: Request | Sent, reply: Reply) -> None:
        """Keep `reply`; it survives a kill when this returns."""
        values = (
            request.key,
            request.model,
            json.dumps(request.sampling),
            reply.form,
            reply.state,
            reply.text,
            reply.finish_reason,
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.batched,
            int(time.time()),
        )
        self.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def dialects(self, server: str) -> dict[str, Dialect]:
        """How `server` wants its models to be asked, as far as that is known, by model."""
        rows = self.execute(
            "SELECT model, form, max_tokens, seed, temperature FROM dialects WHERE server = ?", (server,)
        )
        return {model: Dialect(form, limit, seed, bool(warmth)) for model, form, limit, seed, warmth in rows}

    def remember(self, server: str, model: str, dialect: Dialect) -> None:
        """Keep how `server` wants `model` to be asked."""
        values = (server, model, dialect.form, dialect.max_tokens, dialect.seed, dialect.temperature)
        self.execute("INSERT OR REPLACE INTO dialects VALUES (?, ?, ?, ?, ?, ?)", values)

    def totals(self) -> dict[str, int]:
        """Answers and tokens of this store, over all runs."""
        names = ("replies", "prompt_tokens", "completion_tokens")
        rows = self.execute(
            "SELECT count(*), total(prompt_tokens), total(completion_tokens) FROM replies WHERE state = 'answered'"
        )
        return {name: int(value) for name, value in zip(names, rows[0], strict=True)}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the block, or none of them."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._connection.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store for this process, so that two never ask and pay for the same; a dead process holds nothing.

        Raises:
            RunError: another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self.path}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"Another process is asking a model for {self.path}. Wait for it, or stop it: answers would be paid "
                "for twice."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that `statement` gives."""
        with self._told():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RunError(
                f"The store of paid answers {self.path} cannot be used: {error}. What it holds is kept. If the disk is "
                "full, make room and run the same command again; if the file is damaged, delete it, and its answers "
                "are asked and paid for again."
            ) from None


def read(request: Request, store: Store) -> BaseModel | Failure | Request:
    """What the store says of `request`: its validated answer, its failure, or the request still to be sent."""
    return _look(request, store)[1]


def unsent(request: Request, store: Store) -> Request | None:
    """What is still to be sent for `request`: itself, its repetition after a bad answer, or None.

    A request that every try of an earlier run left without an answer is to be sent once more.
    """
    last, outcome = _look(request, store)
    if isinstance(outcome, Request):
        return outcome
    return last if isinstance(outcome, Failure) and outcome.unanswered else None


def _look(request: Request, store: Store) -> tuple[Request, BaseModel | Failure | Request]:
    reply = store.get(request.key)
    if reply is None:
        return request, request
    outcome = outcome_of(request, reply)
    return _look(outcome, store) if isinstance(outcome, Request) else (request, outcome)
