"""Limits of a run on requests and tokens per minute, over all servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from .request import Reply, Request
from .settings import LLMConfig
from .spending import BYTES_PER_TOKEN, size

LONG_DELAY = 60.0
"""Seconds of a delay that is worth a warning, the first time."""
SLACK = 0.05
"""Seconds of a late timer that the next request makes up for."""


class Limits:
    """Delays requests so that no minute has more of them, or of their tokens, than the settings allow.

    Requests are spaced evenly. The tokens of a request are estimated before it is sent, from its bytes and the mean
    length of the answers so far (max_tokens before the first one), and corrected by the usage in its answer.

    Args:
        config: Holds requests_per_minute and tokens_per_minute.
        halted: Set when nothing more is to be sent; then `wait` returns at once.
        warn: Shows a message.
    """

    def __init__(self, config: LLMConfig, halted: asyncio.Event, warn: Callable[[str], None]) -> None:
        self.halted, self.warn = halted, warn
        self._warned = False
        self._per_request = 60 / config.requests_per_minute if config.requests_per_minute else 0.0
        self._per_token = 60 / config.tokens_per_minute if config.tokens_per_minute else 0.0
        self._requests_from = self._tokens_from = 0.0
        """When the next request may be sent, by each of the limits."""
        self._answers = self._completion_tokens = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._changed = asyncio.Event()

    async def wait(self, request: Request) -> float:
        """Wait until `request` may be sent; returns its estimated tokens, for `correct`."""
        if not (self._per_request or self._per_token):
            return 0.0
        async with self._turn:
            tokens = self._estimate(request)
            while not self.halted.is_set():
                now = time.monotonic()
                delay = max(self._requests_from, self._tokens_from) - now
                if delay <= 0:
                    break
                if delay > LONG_DELAY and not self._warned:
                    self._warned = True
                    limit = "tokens" if self._tokens_from > self._requests_from else "requests"
                    self.warn(f"warning: {limit}_per_minute delays the next request by {delay:,.0f} s; raise it")
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), delay)
            now = time.monotonic() - SLACK
            self._requests_from = max(self._requests_from, now) + self._per_request
            self._tokens_from = max(self._tokens_from, now) + self._per_token * tokens
            return tokens

    def correct(self, estimated: float, reply: Reply) -> None:
        """Replace the estimated tokens of a request by those of its answer."""
        if self._per_token:
            self._answers += 1
            self._completion_tokens += reply.completion_tokens
            self._tokens_from += self._per_token * (reply.prompt_tokens + reply.completion_tokens - estimated)
            self.wake()

    def wake(self) -> None:
        """Check the delay of the request that waits again; call it once the run is halted."""
        self._changed.set()

    def _estimate(self, request: Request) -> float:
        if not self._per_token:
            return 0.0
        completion = self._completion_tokens / self._answers if self._answers else request.max_tokens
        return size(request) / BYTES_PER_TOKEN + completion
