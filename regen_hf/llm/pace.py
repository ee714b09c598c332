"""The number of requests in flight: it halves when the server is overloaded, and grows again with each answer."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
import random
import time
from collections import deque
from collections.abc import Mapping

FIRST_WAIT = 0.5
"""Seconds before the first retry of a request, doubled for each further retry."""
LONGEST_WAIT = 60.0
"""Maximum seconds between two attempts, where the server sends no retry-after."""


class Pace:
    """A semaphore whose limit halves when the server is overloaded, and grows by one per round of answers.

    Args:
        most: Maximum number of requests in flight.
        halted: Set when nothing more is to be sent; then `enter` does not wait.
    """

    def __init__(self, most: int, halted: asyncio.Event) -> None:
        self.most, self.halted = most, halted
        self.limit = float(most)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._halved_at = self._paused_until = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the end of the pause that the server requested."""
        return max(0.0, self._paused_until - time.monotonic())

    async def enter(self) -> float:
        """Wait until another request may be sent; returns the start time, for `slow_down`."""
        while True:
            pause = self.pause
            if pause > 0 and not self.halted.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.halted.wait(), pause * random.uniform(1.0, 1.05))  # noqa: S311 (no secret)
            elif self.in_flight >= int(self.limit):
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn
            else:
                self.in_flight += 1
                return time.monotonic()

    def leave(self) -> None:
        """Count a request as no longer in flight."""
        self.in_flight -= 1
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def speed_up(self) -> None:
        """Raise the limit after an answer."""
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def slow_down(self, started: float, wait: float | None) -> None:
        """Halve the limit, once for all requests that were in flight together, and pause for `wait` seconds.

        Args:
            started: Start time of the request for which the server was overloaded.
            wait: The server's retry-after, in seconds.
        """
        now = time.monotonic()
        if started >= self._halved_at:
            self.limit = max(1.0, self.limit / 2)
            self._halved_at = now
        if wait:
            self._paused_until = max(self._paused_until, now + wait)


def backoff(attempts: int) -> float:
    """Seconds until the next attempt after `attempts` failed ones: exponential, with jitter."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempts - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a retry-after header, which is a number or a date; None if there is no valid one.

    >>> retry_after({"retry-after": "2"}), retry_after({"retry-after-ms": "150"}), retry_after({"retry-after": "soon"})
    (2.0, 0.15, None)
    >>> retry_after({"retry-after": "inf"}) is None
    True
    >>> retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    0.0
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
