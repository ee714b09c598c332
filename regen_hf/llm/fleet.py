"""The servers of a run: each request goes to the one with the lowest load, and a dead server is set aside."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable

from .connection import AttemptFailed, Connection
from .dialects import Dialects
from .pace import Pace
from .request import Reply, Request
from .settings import LLMConfig
from .store import Store

STREAK = 8
"""Requests without an answer, one after the other, that stop a run; more where more are in flight."""
ASIDE = 60.0
"""Seconds until one request is sent to a server again that was set aside."""


class Server:
    """One server: its connections, its pace, the fields that it accepts, and its failures since the last answer."""

    def __init__(self, url: str, config: LLMConfig, store: Store) -> None:
        self.url = url
        self.connection = Connection(config, url)
        self.dialects = Dialects(store.dialects(url), functools.partial(store.remember, url))
        self.pace = Pace(config.concurrency, config.timeout)
        self.statistics = store.statistics.of(url)
        self.aside = False
        self.streak = self.faults = 0
        """Requests, and attempts, without an answer since the last one."""
        self.doubtful: list[tuple[Request, Reply]] = []
        """Rejections since the last answer, at most as many as a streak."""

    @property
    def load(self) -> tuple[float, bool]:
        """The requests in flight relative to what the server is known to bear; a server that is set aside is last."""
        return self.pace.in_flight / self.pace.capacity, self.aside


class Fleet:
    """All servers, and the requests that wait for one of them.

    Args:
        config: Holds the addresses.
        store: Has the dialects that are known.
        warn: Shows a message.
    """

    def __init__(self, config: LLMConfig, store: Store, warn: Callable[[str], None]) -> None:
        self.servers = [Server(url, config, store) for url in config.base_url]
        self.warn = warn
        self.closed = False
        self._waiting: deque[asyncio.Future[Server | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Requests in flight on all servers."""
        return sum(server.pace.in_flight for server in self.servers)

    @property
    def names(self) -> str:
        """The addresses, for messages."""
        addresses = [server.url for server in self.servers]
        return f"server {addresses[0]}" if len(addresses) == 1 else f"servers {', '.join(addresses)}"

    async def enter(self) -> Server | None:
        """Wait for a server with room and count a request as in flight there; None once the fleet is closed."""
        if self.closed:
            return None
        server = None if self._waiting else self._free()
        if server is None:
            turn: asyncio.Future[Server | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self.wake()
            return await turn
        server.pace.in_flight += 1
        return server

    def leave(self, server: Server) -> None:
        """Count a request as no longer in flight."""
        server.pace.in_flight -= 1
        self.wake()

    def wake(self) -> None:
        """Give waiting requests to servers with room; again at the end of the next pause."""
        while self._waiting and (self.closed or self._free()):
            turn = self._waiting.popleft()
            if turn.done():  # cancelled
                continue
            server = None if self.closed else self._free()
            turn.set_result(server)
            if server is not None:
                server.pace.in_flight += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and (pauses := [pause for server in self.servers if (pause := server.pace.pause)]):
            self._timer = asyncio.get_running_loop().call_later(min(pauses) + 0.01, self.wake)

    def _free(self) -> Server | None:
        """The server with room that has the lowest load."""
        if len(self.servers) == 1:
            return self.servers[0] if self.servers[0].pace.has_room else None
        return min((one for one in self.servers if one.pace.has_room), key=lambda one: one.load, default=None)

    def halt(self) -> None:
        """Let no request in; those that wait are let go."""
        self.closed = True
        self.wake()

    async def close(self) -> None:
        """Close all connections."""
        for server in self.servers:
            await server.connection.close()

    def answered(self, server: Server, started: float) -> None:
        """Count an answer: the server works, and may get more requests."""
        if server.aside:
            server.aside = False
            server.pace.resume()
            self.warn(f"the server {server.url} answers again")
        server.streak = server.faults = 0
        server.pace.speed_up(started)
        self.wake()

    def set_aside(self, server: Server, failure: AttemptFailed) -> bool:
        """Set a dead server aside if another one is not; returns whether the request can go to the other one.

        The server is dead if there is no connection, or after several attempts without any answer. After ASIDE seconds
        it gets one request. If all servers are dead, all get requests until the run ends.
        """
        server.faults += not failure.overloaded
        if not (failure.unreachable or server.faults >= STREAK) or len(self.servers) == 1:
            return False
        return self.give_up(server, failure.message)

    def give_up(self, server: Server, message: str) -> bool:
        """Set `server` aside if another one is not; returns whether there is another one."""
        if all(other.aside for other in self.servers if other is not server):
            for other in self.servers:
                other.pace.resume()
            self.wake()
            return False
        if not server.aside:
            self.warn(f"warning: the server {server.url} is set aside, and its requests go to others: {message}")
        server.aside = True
        server.pace.restart(time.monotonic() + ASIDE)
        self.wake()
        return True
