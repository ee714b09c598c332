"""Errors of a full disk, which each library raises in its own way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

FULL = ("no space left on device", "disk quota exceeded", "disk is full", "file write failed", "failed to write")
"""Words in the messages of libraries whose errors have no number (safetensors, torch, DuckDB, SQLite)."""
LITTLE = 2**20
"""Bytes. With less space left, an OSError of any kind is taken for one of a full disk: numpy's message has no word."""


def full_disk(error: BaseException, paths: Sequence[str | Path]) -> str | None:
    """The error message where `error` was raised because a disk is full, else None.

    `paths` are those that the command writes to. The disks of the temporary files and of the cache of the Hub are
    examined as well. The message names the path of the error, else that on the disk with the least space.
    """
    errors = list(_chain(error))
    numbered = [each for each in errors if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT)]
    named = [each.filename for each in numbered if isinstance(each.filename, str)]
    own = [*map(Path, paths), _temporary()]
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache")
    spaces = {path: _space(path) for path in (map(Path, named[:1]) if named else (*own, cache))}
    path = min(spaces, key=spaces.__getitem__)
    if numbered or any(word in str(each).lower() for each in errors for word in FULL):
        reason = ""
    elif spaces[path] < LITTLE and path in own and isinstance(error, OSError):
        reason = f", and the command stopped with: {error}"  # which may have another cause
    else:
        return None
    return (
        f"The disk of {path} is full: {spaces[path]:,} bytes are left{reason}. Free space and run the same command "
        "again to resume."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _temporary() -> Path:
    """The folder of temporary files, or the current one where Python can write into none."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # it tries the usual ones, then the current one
        return Path.cwd()


def _space(path: Path) -> int:
    """The free bytes on the disk of the path, or of its closest parent that exists."""
    existing = next((part for part in (path, *path.absolute().parents) if os.path.exists(part)), "/")
    return shutil.disk_usage(existing).free
