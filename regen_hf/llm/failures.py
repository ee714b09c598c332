"""The requests of a stage without a usable answer: they are listed, and too many of them fail the stage."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from .. import outputs
from ..errors import RunError
from .request import Failure
from .settings import LLMConfig


class Failures:
    """Lists the failed requests of a stage in its output folder, and counts all of them.

    Args:
        out: The output folder.
        config: Holds max_failed.
    """

    def __init__(self, out: Path, config: LLMConfig) -> None:
        self.out, self.config = out, config
        self.count = self.total = 0
        self._reasons: Counter[str] = Counter()

    def add(self, reviewer_id: str, request: str, failure: Failure) -> None:
        """List the failed request named `request` of a user."""
        outputs.append_failed(self.out, reviewer_id, request, dataclasses.asdict(failure))
        self.count += 1
        self._reasons[failure.reason[:100]] += 1

    def check(self) -> None:
        """Check the share of failed requests, after the last one.

        Raises:
            RunError: it is above max_failed.
        """
        if self.count <= self.config.max_failed * self.total:
            return
        ((reason, count),) = self._reasons.most_common(1)
        raise RunError(
            f"{self.count:,} of {self.total:,} requests have no usable answer ({count:,} of them: {reason}), expected "
            f"a share of at most max_failed={self.config.max_failed}; they are listed in "
            f"{self.out / outputs.FAILED}. Send them again with another seed (--retry-failed "
            f"{self.config.retry_failed + 1}), or raise --max-failed. All answers are kept."
        )
