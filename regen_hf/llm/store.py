"""The cache of paid replies: one SQLite file of a run for each stage, keyed by the hash of the request."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

from ..errors import RunError
from .dialects import Dialect
from .request import Failure, Reply, Request, Sent, reading_of
from .statistics import RunStatistics

LAYOUT = 6
"""Version of the tables. A file with another number is not read, except those of ADDED, which are extended."""

TABLES = (
    # One row per request that was answered or rejected. `sampling` and `form` record the
    # settings of the request.
    "CREATE TABLE replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, sampling TEXT NOT NULL, form TEXT NOT NULL, "
    "state TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT, prompt_tokens INTEGER NOT NULL, "
    "completion_tokens INTEGER NOT NULL, batched INTEGER NOT NULL, unix_time INTEGER NOT NULL)",
    # The fields that a server accepts for a model, once they are known.
    "CREATE TABLE dialects (server TEXT NOT NULL, model TEXT NOT NULL, form TEXT NOT NULL, max_tokens TEXT NOT NULL, "
    "seed TEXT NOT NULL, temperature INTEGER NOT NULL, PRIMARY KEY (server, model))",
    # Batches that are prepared or on the server, and their requests.
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, server TEXT NOT NULL, model TEXT NOT NULL, form TEXT NOT NULL, "
    "max_tokens TEXT NOT NULL, file_id TEXT, batch_id TEXT, requests INTEGER NOT NULL, worst REAL NOT NULL, "
    "seed TEXT NOT NULL, temperature INTEGER NOT NULL)",
    "CREATE TABLE in_batches (key TEXT PRIMARY KEY, batch INTEGER NOT NULL, sampling TEXT NOT NULL)",
)
"""The tables of layout 4."""
ADDED = {
    4: (
        "ALTER TABLE replies ADD COLUMN repaired INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dialects ADD COLUMN system INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE batches ADD COLUMN system INTEGER NOT NULL DEFAULT 1",
    ),
    # The context window of a model on a server: as the server states it, and the smallest one of its errors since.
    5: (
        "CREATE TABLE windows (server TEXT NOT NULL, model TEXT NOT NULL, stated INTEGER, tokens INTEGER NOT NULL, "
        "PRIMARY KEY (server, model))",
    ),
}
"""What the next layout adds, by the number of a layout."""


class Store:
    """Replies by the hash of their request, in an SQLite file that survives `kill -9`.

    Args:
        path: The file. It is created if it does not exist, with its folder.
        read_only: Open it for reading, also while another process writes: nothing is created or changed.

    Raises:
        RunError: the file is not a store or has another layout, or the disk is full.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self.statistics = RunStatistics()
        with self._errors():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _view(path) if read_only else _connect(path)
        if not read_only:
            # With WAL a committed reply survives a kill; only a power failure can lose the latest replies.
            self.execute("PRAGMA journal_mode=WAL")
            self.execute("PRAGMA synchronous=NORMAL")
        layout = self.execute("PRAGMA user_version")[0][0]
        if layout != LAYOUT:
            layout = self._extended()
        if layout != LAYOUT:
            self.close()
            raise RunError(
                f"The store of paid answers {self.path} has layout {layout}, expected layout {LAYOUT}. Use the version "
                "of regen-hf that wrote it; or delete the file, and its answers are requested and paid for again."
            )

    def _extended(self) -> int:
        """Create the tables, or extend those of an older layout; returns the layout."""
        with self.transaction():
            if not self.execute("SELECT 1 FROM sqlite_master"):
                for table in (*TABLES, "PRAGMA user_version=4"):
                    self.execute(table)
            layout = self.execute("PRAGMA user_version")[0][0]
            while layout in ADDED:
                for addition in (*ADDED[layout], f"PRAGMA user_version={layout + 1}"):
                    self.execute(addition)
                layout += 1
        return int(layout)

    def get(self, key: str) -> Reply | None:
        """The reply under `key`, None where the request was not sent yet."""
        rows = self.execute(
            "SELECT text, state, finish_reason, prompt_tokens, completion_tokens, form, batched, repaired "
            "FROM replies WHERE key = ? AND state != 'unanswered'",  # which older versions stored
            (key,),
        )
        return Reply(*rows[0]) if rows else None

    def put(self, request: Request | Sent, reply: Reply) -> None:
        """Store `reply`; it survives a kill once this returns."""
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
            reply.repaired,
        )
        self.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def dialects(self, server: str) -> dict[str, Dialect]:
        """The known dialects of `server`, by model."""
        rows = self.execute(
            "SELECT model, form, max_tokens, seed, temperature, system FROM dialects WHERE server = ?", (server,)
        )
        return {model: dialect_of(*dialect) for model, *dialect in rows}

    def remember(self, server: str, model: str, dialect: Dialect) -> None:
        """Store the dialect of `server` for `model`."""
        values = (server, model, *dataclasses.astuple(dialect))
        self.execute("INSERT OR REPLACE INTO dialects VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def window(self, server: str, model: str) -> int | None:
        """The known context window of `model` on `server`."""
        rows = self.execute("SELECT tokens FROM windows WHERE server = ? AND model = ?", (server, model))
        return rows[0][0] if rows else None

    def state_window(self, server: str, model: str, tokens: int) -> None:
        """Store the window that the server states. Errors since then count, as long as it states the same one."""
        self.execute(
            "INSERT INTO windows VALUES (?1, ?2, ?3, ?3) ON CONFLICT DO UPDATE SET stated = ?3, "
            "tokens = iif(stated IS ?3, tokens, ?3)",
            (server, model, tokens),
        )

    def limit_window(self, server: str, model: str, tokens: int) -> None:
        """Store the window in an error of the server, if it is the smallest one."""
        self.execute(
            "INSERT INTO windows VALUES (?1, ?2, NULL, ?3) ON CONFLICT DO UPDATE SET tokens = min(tokens, ?3)",
            (server, model, tokens),
        )

    def totals(self) -> dict[str, int]:
        """Answers and tokens of this store, over all runs, and how many answers had to be repaired."""
        names = ("replies", "repaired", "prompt_tokens", "completion_tokens")
        rows = self.execute(
            "SELECT count(*), total(repaired), total(prompt_tokens), total(completion_tokens) FROM replies "
            "WHERE state = 'answered'"
        )
        return {name: int(value) for name, value in zip(names, rows[0], strict=True)}

    def counts(self) -> dict[str, Any]:
        """The totals, and in `this_run` the latency and tokens of the answers of this run."""
        return {**self.totals(), "this_run": self.statistics.summary()}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all statements of the block, or none of them."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._connection.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store, so that two processes never pay for the same request; a killed process leaves no lock.

        Raises:
            RunError: another process has the lock.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self.path}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"Another process is asking a model for {self.path}, so answers would be paid for twice. Wait for it, "
                "or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of `statement`."""
        with self._errors():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RunError(
                f"The store of paid answers {self.path} cannot be used: {error}. If the disk is full, free space "
                "and run the same command again; no stored answer is lost. If the file is damaged, delete it, and its "
                "answers are requested and paid for again."
            ) from None


def _connect(database: Path | str, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=60, isolation_level=None, check_same_thread=False, **options)


def _view(path: Path) -> sqlite3.Connection:
    """A connection that cannot write to the file; a copy in memory if the file is missing or has an older layout."""
    if not path.exists():
        return _connect(":memory:")
    view = _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    if view.execute("PRAGMA user_version").fetchone()[0] == LAYOUT:
        return view
    memory = _connect(":memory:")
    with contextlib.closing(view):
        view.backup(memory)
    return memory


def dialect_of(form: str, max_tokens: str, seed: str, temperature: int, system: int) -> Dialect:
    """The dialect in a row of the tables."""
    return Dialect(form, max_tokens, seed, bool(temperature), bool(system))


def read(request: Request, store: Store) -> BaseModel | Failure | Request:
    """The validated answer to `request`, its failure, or the request that is still to be sent."""
    return last(request, store)[1]


def unsent(request: Request, store: Store) -> Request | None:
    """The request that is still to be sent for `request`: itself, its repetition after an invalid answer, or None."""
    outcome = read(request, store)
    return outcome if isinstance(outcome, Request) else None


def last(request: Request, store: Store) -> tuple[Request, BaseModel | Failure | Request]:
    """The last repetition of `request`, and its outcome as `read` returns it."""
    *_, (sent, _, outcome) = exchange(request, store)
    return sent, outcome


def exchange(request: Request, store: Store) -> Iterator[tuple[Request, Reply | None, BaseModel | Failure | Request]]:
    """`request` and its repetitions in turn, each with its reply and its outcome.

    The outcome of a request without a reply is the request itself, or the failure of one that is too long to be sent.
    """
    outcome: BaseModel | Failure | Request = request
    while isinstance(outcome, Request):
        sent, reply = outcome, None if outcome.too_long else store.get(outcome.key)
        if reply is None:
            yield sent, None, Failure(sent.too_long, "") if sent.too_long else sent
            return
        outcome, repaired = reading_of(sent, reply)
        if repaired and not (reply.repaired or store.read_only):
            store.execute("UPDATE replies SET repaired = 1 WHERE key = ?", (sent.key,))
        yield sent, reply, outcome
