"""The state of the requests of a stage with a language model, beside its bar."""

from __future__ import annotations

from ..progress import Bar


def progress_bar(total: int, about: str) -> Bar:
    """A bar of `total` answers. Its time left comes from the rate of the answers of this run.

    The number of an answer that was stored before is added to `initial` too.
    """
    # The mean rate: answers come in bursts.
    return Bar(about=about, total=total, unit="answers", stays=True, smoothing=0, miniters=1)


def state(in_flight: int, waiting: int, spending: object) -> str:
    """The requests that a model works on, those that wait for it or for a limit, and the tokens and USD so far."""
    return f"{in_flight:,} in flight, {waiting:,} waiting, {spending}"
