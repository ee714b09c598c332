"""The command line `regen`. Each command imports what it needs when it runs."""

from __future__ import annotations

import errno
import gc
import os
import sys
import warnings
from collections.abc import Sequence

from ..errors import RegenError, optional_imports
from .parser import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 for an error that the user can fix."""
    if arguments is None:  # in a process of its own
        arguments = sys.argv[1:]
        _style_warnings()
    # Tokenizers warn when a process that used their threads forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # No usage statistics of runs on private reviews.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Idle threads sleep: spinning threads take the cores from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # With Python's default threshold, importing torch and transformers takes 5.9 s of CPU in place of 5.3 s.
    gc.set_threshold(100_000)
    options = None
    try:
        parser = make_parser(arguments)
        options = parser.parse_args(arguments)
        if "run" not in options:
            parser.print_help()
            return 0
        with optional_imports():
            options.run(options)
    except RegenError as error:
        print(f"regen: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `regen status RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # each library has its own for a full disk; others are raised again
        from ..run.full_disk import full_disk

        given = vars(options) if options else {}
        folders = [given.get("out"), given.get("folder"), *given.get("folders", ()), given.get("predictions")]
        if message := full_disk(error, [path for path in folders if path]):
            print(f"regen: {message}", file=sys.stderr)
            return 1
        if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        file = f": {error.filename}" if error.filename else ""
        print(f"regen: {error.strerror}{file}. Fix this and run the same command again to resume.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("regen: interrupted. Run the same command again to resume.", file=sys.stderr)
        return 130
    return 0


def _style_warnings() -> None:
    """Hide warnings for developers, and show others in the style of the stage; `python -W default` shows all."""
    if sys.warnoptions:
        return

    def show(message: Warning | str, *_: object, **__: object) -> None:
        from ..progress import say

        say(f"warning: {message}")

    warnings.showwarning = show
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    # torch looks at the gradients of all tensors of a function that it compiles.
    warnings.filterwarnings("ignore", "The .grad attribute", UserWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
