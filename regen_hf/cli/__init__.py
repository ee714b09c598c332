"""The command line `regen`: thin, each command imports what it needs when it runs."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence

from ..errors import RegenError
from .parser import STAGE_COMMANDS as STAGE_COMMANDS
from .parser import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 for an error that the user can mend."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Tokenizers warn when a process that used their threads forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A run on private reviews tells nobody that it runs.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that sleep while they wait: spinning ones take the cores from whatever else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # As often as Python looks for garbage by itself, it goes through the objects of all imports again and again.
    gc.set_threshold(100_000)
    try:
        parser = make_parser(arguments)
        options = parser.parse_args(arguments)
        if "do" not in options:
            parser.print_help()
            return 0
        options.do(options)
    except RegenError as error:
        print(f"regen: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `regen status RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"regen: {error.strerror}{place}. Once that is mended, the same command goes on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("regen: stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0
