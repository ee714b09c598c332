"""The line of progress of a stage with a language model: on a terminal, or as lines of a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 30.0
"""Seconds between two lines of a log."""
LOG_LINE = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
TERMINAL_SECONDS = 0.5
"""Seconds between two updates on a terminal."""


class _Log:
    """Writes each state of a bar as a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(total: int, desc: str) -> tqdm[Any]:
    """A bar of `total` answers. Its time left comes from the rate of the answers of this run.

    The number of an answer that was stored before is added to `initial` too.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=desc,
        unit=" answers",
        smoothing=0,  # the mean rate; answers come in bursts
        miniters=1,
        mininterval=TERMINAL_SECONDS if terminal else LOG_SECONDS,
        file=None if terminal else _Log(),
        bar_format=None if terminal else LOG_LINE,
    )


def state(in_flight: int, waiting: int, spending: object) -> str:
    """The requests that a model works on, those that wait for it or for a limit, and the tokens and USD so far."""
    return f"{in_flight:,} in flight, {waiting:,} waiting, {spending}"
