"""Latency and tokens of the answers of a run, in constant memory."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .request import Reply

STEP = 1.02
"""Ratio of the bounds of a bucket of latencies, so a quantile is exact to 1 %."""


class Statistics:
    """Counts of the answers of one server."""

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self._latencies: Counter[int] = Counter()

    def add(self, seconds: float, reply: Reply) -> None:
        """Count an answer that took `seconds`."""
        self.requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self._latencies[math.floor(math.log(max(seconds, 1e-4), STEP))] += 1

    def include(self, other: Statistics) -> None:
        """Add the counts of `other`."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self._latencies.update(other._latencies)

    def quantile(self, share: float) -> float | None:
        """The latency that `share` of the answers do not exceed, in seconds; None without answers."""
        reached = 0
        for bucket in sorted(self._latencies):
            reached += self._latencies[bucket]
            if reached >= share * self.requests:
                return float(f"{STEP ** (bucket + 0.5):.3g}")
        return None

    def summary(self, seconds: float) -> dict[str, Any]:
        """The statistics as plain data, of answers that were received in `seconds`."""
        tokens = self.prompt_tokens + self.completion_tokens
        return {
            "requests": self.requests,
            "median_seconds": self.quantile(0.5),
            "p95_seconds": self.quantile(0.95),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        }


class RunStatistics:
    """The statistics of all servers of a run, from the time at which requests were sent to them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._servers: dict[str, Statistics] = {}

    def of(self, server: str) -> Statistics:
        """The statistics of one server."""
        return self._servers.setdefault(server, Statistics())

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started

    def summary(self) -> dict[str, Any]:
        """The statistics as plain data, by server where there are several; empty if nothing was answered."""
        total = Statistics()
        for statistics in self._servers.values():
            total.include(statistics)
        if not total.requests:
            return {}
        summary = total.summary(self.seconds)
        if len(self._servers) > 1:
            summary["servers"] = {name: one.summary(self.seconds) for name, one in self._servers.items()}
        return summary
