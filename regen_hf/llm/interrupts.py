"""Ctrl-C, SIGTERM and SIGHUP while requests are in flight."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptible(stop: Callable[[], bool]) -> Iterator[None]:
    """Call `stop` at the first signal, which ends the block early; the next signal cancels the current task.

    Signals are handled in the main thread only. A SIGHUP that is ignored, as `nohup` arranges, stays ignored.

    Args:
        stop: Returns False if the block was about to end already.

    Raises:
        KeyboardInterrupt: the task was cancelled.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        if not stop() and task is not None:
            task.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if handlers[signal.SIGHUP] == signal.SIG_IGN:
        del handlers[signal.SIGHUP]
    for number in handlers:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)
