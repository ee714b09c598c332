"""Progress on stderr: one style of bars, messages and summaries for all stages.

On a terminal, the line of the running stage and its bars are replaced, and each finished stage leaves one line.
Elsewhere, and where `NO_COLOR` or `CI` is set, all lines stay, and a bar writes its state at most every `LOG_SECONDS`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import wrapt
from tqdm import tqdm

LOG_SECONDS = 10.0
"""Seconds between two lines of a bar in a log, and before the first."""
LOG_LINE = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
TERMINAL_SECONDS = 0.2
"""Seconds between two updates on a terminal."""
LIBRARY_SECONDS = 5.0
"""Seconds before a bar of transformers is shown, such as that of a large model that is loaded or saved."""


class _Running:
    """The stage that runs: its title and what it does; empty strings without one."""

    title = ""
    about = ""
    bars: tuple[Bar, ...] = ()


class Bar(tqdm):
    """A bar of `tqdm` that disappears when it is closed.

    Args:
        values: are iterated over, if given.
        about: what is done, for its label.
        unit: of what is counted, in the plural.
        stays: whether its last state stays.
        options: further arguments of `tqdm`.
    """

    def __init__(
        self,
        values: Iterable[Any] | None = None,
        about: str = "",
        *,
        unit: str = "steps",
        stays: bool = False,
        **options: Any,
    ) -> None:
        terminal = on_terminal()
        if not options.get("unit_scale"):
            unit = f" {unit}"
        style: dict[str, Any] = {"mininterval": TERMINAL_SECONDS, "dynamic_ncols": True}
        if not terminal:
            # Position 0 for inner bars too: tqdm would move the cursor to the line of another position.
            style = {"mininterval": LOG_SECONDS, "file": _Log(), "bar_format": LOG_LINE, "position": 0}
            options["delay"] = max(options.get("delay", 0), LOG_SECONDS)
        self.is_open = not options.get("disable")
        if terminal and self.is_open:
            _over()
        _Running.bars = (*_Running.bars, self)
        # A stage that does one thing only has one name.
        label = _Running.title if _Running.title.endswith(about) else _titled(about)
        super().__init__(values, desc=label, unit=unit, leave=stays, **style | options)

    def close(self) -> None:
        """Remove the bar, and show the line of the stage again."""
        if getattr(self, "leave", False):
            self.delay = 0  # the last state is shown, however early
        super().close()
        _Running.bars = tuple(bar for bar in _Running.bars if bar is not self)
        if getattr(self, "is_open", False):
            self.is_open = False
            _show_stage()


class _Log:
    """Writes each state of a bar as a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            _write(text.strip() + "\n")

    def flush(self) -> None:
        """Each line was written at once."""


class _Warnings(logging.Handler):
    """Shows the warnings of this package in the style of the stage."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {self.format(record)}")


def on_terminal() -> bool:
    """Whether lines on stderr may be replaced: on a terminal, unless `NO_COLOR` or `CI` is set."""
    isatty = getattr(sys.stderr, "isatty", None)  # stderr may be None, or an object that only writes
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return isatty is not None and isatty() and not os.environ.get("NO_COLOR") and not in_ci


@contextlib.contextmanager
def stage(title: str, about: str) -> Iterator[Callable[[str], None]]:
    """Show a stage while it runs; after it, the stage around it is shown again.

    Yields:
        A function that ends the stage with the line `<title>: <summary>`.
    """
    outer = _Running.title, _Running.about
    outer_bars = len(_Running.bars)
    _Running.title, _Running.about = title, about
    finished = False

    def finish(summary: str) -> None:
        nonlocal finished
        finished = True
        _end(f"{title}: {summary}")

    handler = _Warnings(logging.WARNING)
    logger = logging.getLogger(__package__.partition(".")[0])
    if not outer[0]:  # the stage around it has one
        logger.addHandler(handler)
    _show_stage()
    if not on_terminal():
        say(about)
    try:
        yield finish
    finally:
        logger.removeHandler(handler)
        for bar in _Running.bars[outer_bars:]:  # an error keeps the loop around it alive
            bar.close()
        if not finished and on_terminal():
            _end(f"{title}: {about}")
        _Running.title, _Running.about = outer
        _show_stage()


def say(text: str) -> None:
    """Write the lines of `text` to stderr, above the bars; in a stage each begins with the title of the stage."""
    lines = "".join(f"{_titled(line)}\n" for line in text.splitlines())
    with contextlib.suppress(OSError), tqdm.external_write_mode(file=sys.stderr):  # the terminal may be gone
        if _Running.title and on_terminal():
            _over(lines)
            _show_stage()
        else:
            _write(lines)


def _titled(text: str) -> str:
    return f"{_Running.title}: {text}" if _Running.title else text


def _end(line: str) -> None:
    """Write the last line of a stage."""
    if on_terminal():
        _over(_fit(line) + "\n")
    else:
        _write(line + "\n")


def _show_stage() -> None:
    """Show the line of the running stage, unless a bar takes its place."""
    if _Running.title and not any(bar.is_open for bar in _Running.bars) and on_terminal():
        _over(_fit(f"{_Running.title}: {_Running.about}"))


def _over(text: str = "") -> None:
    """Write `text` over the line of the cursor."""
    _write(f"\r{' ' * (_columns() - 1)}\r{text}")


def _write(text: str) -> None:
    """Write `text` to stderr, if there is one; the terminal may be gone."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            if flush := getattr(sys.stderr, "flush", None):
                flush()


def _fit(line: str) -> str:
    """`line`, cut to the width of the terminal."""
    width = _columns() - 1
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


@wrapt.when_imported("transformers.utils.logging")
def _style_of_transformers(module: Any) -> None:
    """In a stage, the bars of transformers have the style of its bars, and short ones are not shown."""

    def styled(factory: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not (_Running.title and module.is_progress_bar_enabled()):
            return factory(*args, **options)
        style: dict[str, Any] = {"about": str(options.pop("desc", None) or "loading").lower(), "unit": "files"}
        return Bar(*args, **{"delay": LIBRARY_SECONDS} | options | style)

    module.set_tqdm_hook(styled)
