"""Spreads the work on answers that arrive together."""

from __future__ import annotations

import asyncio
import time
from collections import deque

BURST = 16
"""Answers that are processed at once."""
TICK = 0.004
"""Minimum seconds between two bursts."""
EXCESS = 1.3
"""Answers that are processed per second, relative to those that arrive on average."""


class Turns:
    """Lets tasks continue in order, at most EXCESS times as fast as answers arrive on average, in bursts.

    Requests that are sent together are answered together. If all these answers were processed before the next requests
    are sent, the requests would stay together, and the server would be idle in the meantime. A burst continues at
    once, because each wake-up of the process costs CPU time.
    """

    def __init__(self) -> None:
        self._free = float(BURST)
        self._refilled = time.monotonic()
        self._latency = 0.0
        self._rate = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self, in_flight: int, seconds: float) -> None:
        """Wait for a turn, after an answer that took `seconds` while `in_flight` requests were in flight."""
        self._latency += (0.05 if self._latency else 1.0) * (seconds - self._latency)
        self._rate = EXCESS * in_flight / max(self._latency, TICK)
        self._refill()
        if self._free >= 1 and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._schedule()
        await turn

    def _refill(self) -> None:
        now = time.monotonic()
        self._free = min(BURST, self._free + (now - self._refilled) * self._rate)
        self._refilled = now

    @property
    def _group(self) -> int:
        """The number of answers in the next burst."""
        return min(BURST, len(self._waiting))

    def _schedule(self) -> None:
        wait = max(TICK, (self._group - self._free) / self._rate)
        asyncio.get_running_loop().call_later(wait, self._release)

    def _release(self) -> None:
        self._refill()
        while self._waiting and self._free >= self._group:
            for _ in range(self._group):
                turn = self._waiting.popleft()
                if not turn.done():  # not cancelled
                    turn.set_result(None)
                    self._free -= 1
        if self._waiting:
            self._schedule()
