"""Paths of raw files from paths and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .downloads import is_url, shown


def find(patterns: Sequence[str], option: str) -> list[Path]:
    """The files that match `patterns` (paths or globs, given as `option`), each once, globs in alphabetical order.

    Raises:
        InputError: a file is missing, empty or a folder, or a glob matches nothing.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        if is_url(pattern):
            raise InputError(
                f"{shown(pattern)}, given as {option}, is a URL, expected a file on this disk. Download it and give "
                "its path."
            )
        # The name of an existing file may contain a bracket.
        matches = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            problem = "No file matches" if glob.has_magic(pattern) else "There is no file"
            raise InputError(f"{problem} {pattern!r}, given as {option}. Check the path.")
        paths.update(dict.fromkeys(map(Path, matches)))
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path}, given as {option}, is a folder. Give its files, for example '{path}/*.gz'.")
        if not path.is_file():
            raise InputError(f"{path}, given as {option}, is not a regular file. Give a file of JSON lines.")
        if path.stat().st_size == 0:
            raise InputError(f"{path}, given as {option}, is empty (0 bytes). Download or write it again.")
    return list(paths)
