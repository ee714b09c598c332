"""How many requests may be in flight: fewer when the server says that it has too many, and soon more again."""

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
"""Seconds before the second try of a request, doubled for each further one."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, where the server names no time."""


class Pace:
    """A gate for requests: it halves when the server has too much, and widens by one for each round that is answered.

    Args:
        most: Requests in flight at the widest.
        halted: Set when nothing more is to be sent; then nobody waits.
    """

    def __init__(self, most: int, halted: asyncio.Event) -> None:
        self.most, self.halted = most, halted
        self.limit = float(most)
        self.flying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._narrowed = self._closed_until = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the end of the silence that the server asked for."""
        return max(0.0, self._closed_until - time.monotonic())

    async def enter(self) -> float:
        """Wait for a place in flight; returns the time of the start, for `slow_down`."""
        while True:
            pause = self.pause
            if pause > 0 and not self.halted.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.halted.wait(), pause * random.uniform(1.0, 1.05))  # noqa: S311 (no secret)
            elif self.flying >= int(self.limit):
                place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(place)
                await place
            else:
                self.flying += 1
                return time.monotonic()

    def leave(self) -> None:
        """Give the place back."""
        self.flying -= 1
        free = int(self.limit) - self.flying
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1

    def speed_up(self) -> None:
        """A request was answered."""
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def slow_down(self, started: float, wait: float | None) -> None:
        """The server had too much of a request sent at `started`; it asks for `wait` seconds of silence, if it says so.

        Requests that were in flight together narrow the gate once.
        """
        now = time.monotonic()
        if started >= self._narrowed:
            self.limit = max(1.0, self.limit / 2)
            self._narrowed = now
        if wait:
            self._closed_until = max(self._closed_until, now + wait)


def backoff(tries: int) -> float:
    """Seconds until the next try after `tries` failed ones: doubled each time, with jitter so that they spread."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, as a number or as a date; None if it says nothing that makes sense.

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
