"""The number of requests in flight: it starts low, grows with the answers, and shrinks with an overload."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping

FIRST_WAIT = 0.5
"""Seconds before the first retry of a request, doubled for each further retry."""
LONGEST_WAIT = 60.0
"""Maximum seconds between two attempts, where the server sends no retry-after."""


START = 4
"""Requests in flight before the first answer."""


class Pace:
    """The limit of the requests in flight on a server; it follows the server, as a TCP sender's does.

    The limit doubles per round of answers until the server is overloaded for the first time. Then it halves, and grows
    by one per round. An answer that took more than a third of the time-out, and more than twice as long as the fastest
    one, waited in the server's queue: it does not raise the limit, since a longer queue leads to time-outs.

    Args:
        most: Maximum number of requests in flight.
        timeout: Seconds until a request times out.
    """

    def __init__(self, most: int, timeout: float = math.inf) -> None:
        self.most, self.timeout = most, timeout
        self.limit = float(min(most, START))
        self.in_flight = 0
        self._steep_until = float(most)  # below this limit it doubles per round
        self._fastest = math.inf
        self._halved_at = self._paused_until = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the end of the pause that the server requested."""
        return max(0.0, self._paused_until - time.monotonic()) if self._paused_until else 0.0

    @property
    def capacity(self) -> float:
        """The limit, or the one up to which it grows without an overload."""
        return max(self.limit, self._steep_until)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return self.in_flight < int(self.limit) and not self.pause

    def restart(self, at: float) -> None:
        """Pause until the time `at`, then start with one request at a time."""
        self._paused_until = max(self._paused_until, at)
        self.limit = 1.0

    def resume(self) -> None:
        """End the pause."""
        self._paused_until = 0.0

    def speed_up(self, started: float) -> None:
        """Raise the limit after the answer to a request that was sent at `started`."""
        seconds = time.monotonic() - started
        self._fastest = min(self._fastest, seconds)
        if self.limit < self.most and not (seconds > self.timeout / 3 and seconds > 2 * self._fastest):
            self.limit = min(self.most, self.limit + (1 if self.limit < self._steep_until else 1 / self.limit))

    def slow_down(self, started: float, wait: float | None) -> bool:
        """Halve the limit, once for all requests that were in flight together, and pause for `wait` seconds.

        Args:
            started: Start time of the request for which the server was overloaded, or which timed out.
            wait: The server's retry-after, in seconds.

        Returns:
            Whether the limit was halved.
        """
        now = time.monotonic()
        if wait:
            self._paused_until = max(self._paused_until, now + wait)
        if started < self._halved_at:
            return False
        self.limit = self._steep_until = max(1.0, self.limit / 2)
        self._halved_at = now
        return True


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
