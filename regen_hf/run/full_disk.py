"""Errors of a full disk, which each library raises in its own way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

FULL = ("no space left on device", "disk quota exceeded", "disk is full", "file write failed", "failed to write")
"""Words in the messages of libraries whose errors have no number (safetensors, torch, DuckDB, SQLite)."""
LITTLE = 2**20
"""Bytes. With less space left, an error of any kind is taken for one of a full disk: numpy's message has no word."""


def full_disk(error: BaseException, folder: Path | None) -> str | None:
    """The error message where `error` was raised because a disk is full, else None.

    `folder` is that of the run. The disks of the temporary files and of the cache of the Hub are examined as well.
    """
    errors = list(_chain(error))
    named = [Path(each.filename) for each in errors if isinstance(each, OSError) and isinstance(each.filename, str)]
    caches = [Path(tempfile.gettempdir()), Path(os.environ.get("HF_HOME") or Path.home() / ".cache")]
    own = named[:1] or ([folder] if folder else [])
    spaces = {path: shutil.disk_usage(_existing(path)).free for path in (*own, *caches)}
    numbers = any(isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT) for each in errors)
    words = any(word in str(each).lower() for each in errors for word in FULL)
    if not (numbers or words or any(spaces[path] < LITTLE for path in own)):
        return None
    path = named[0] if named else min(spaces, key=spaces.__getitem__)
    return (
        f"The disk of {path} is full: {spaces[path]:,} bytes are left. Free space and run the same command again to "
        "resume."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _existing(path: Path) -> Path:
    """The path, or its closest parent that exists."""
    return next((part for part in (path, *path.absolute().parents) if part.exists()), Path("/"))
