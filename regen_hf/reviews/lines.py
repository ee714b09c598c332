"""Text files: decompressed, checked and cut into chunks of whole lines, each line with its number."""

from __future__ import annotations

import ast
import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
from isal import igzip, igzip_lib

from ..errors import InputError

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
OTHER = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zX": "xz",
    b"PAR1": "compressed parquet",
    GZIP: "gzip within gzip",
}
"""First bytes of files that hold no text as they are."""
LONGEST_LINE = 2**30
"""Bytes. A line past this is no record: the file has other line ends, or is no text."""
PIECE = 2**20
"""Bytes taken from the file, or looked at, at a time: so few that they stay in the processor's cache."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive whole lines of one file."""

    path: Path
    lines: pa.Table
    """Columns `number` (int64, from 1) and `line` (large_string; null where the bytes are not UTF-8)."""
    content: pa.LargeBinaryArray
    """Each line as it stands in the file, line end included."""
    position: int
    """Bytes of the file on disk read so far."""

    @property
    def numbers(self) -> pa.ChunkedArray:
        """The number of each record."""
        return self.lines["number"]

    def raw(self, places: pa.Array) -> list[str]:
        """The lines at `places` (from 0) as text."""
        lines = self.content.take(places).to_pylist()
        return [line.rstrip(b"\r\n").decode(errors="backslashreplace") for line in lines]


def chunks(path: Path, size: int) -> Iterator[Chunk]:
    """The lines of the file at `path` (plain, gzip or zstd, told by its first bytes) in chunks of about `size` bytes.

    A file is cut at the same places every time. Reading to the end checks the checksums of a compressed file.

    Raises:
        InputError: the file cannot be read, is damaged, is no text, or changed while it was read.
    """
    number, rest = 1, np.empty(0, np.uint8)
    try:
        before = path.stat()
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            stream = _decompressed(path, file, start)
            first, ended = True, False
            while not ended:
                # What is left of the block before stands in front: it is the beginning of the first line.
                data = np.empty(len(rest) + size, np.uint8)
                data[: len(rest)] = rest
                filled = len(rest)
                while filled < len(data) and not ended:
                    piece = stream.read(min(PIECE, len(data) - filled))
                    if file.tell() > before.st_size:  # a writer that is faster than this would keep it here for ever
                        check_unchanged(path, before, path.stat())
                    data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                    filled += len(piece)
                    ended = not piece
                data = data[:filled]
                if first:
                    _check_text(path, data.tobytes())
                    data = data[len(codecs.BOM_UTF8) :] if data[:3].tobytes() == codecs.BOM_UTF8 else data
                    first = False
                ends = places_of(data, b"\n") + 1
                end = len(data) if ended else int(ends[-1]) if len(ends) else 0
                if end:
                    chunk = _chunk(path, data, ends, end, number, file.tell())
                    number += len(chunk.content)
                    yield chunk
                rest = data[end:]
                if len(rest) > LONGEST_LINE:
                    raise InputError(f"{path}: line {number} is longer than 1 GiB, expected one record per line.")
        after = path.stat()
    except (EOFError, igzip_lib.IsalError, OSError) as error:  # type: ignore[misc]  # its stub has no class
        raise InputError(_damage(path, number, error)) from None
    check_unchanged(path, before, after)


def progress(paths: Sequence[Path], description: str) -> Iterator[tuple[Path, Callable[[int], object]]]:
    """Each of `paths`, with a function that moves a progress bar to a position (bytes) in it."""
    from tqdm import tqdm

    sizes = [path.stat().st_size for path in paths]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, desc=description) as bar:
        for number, path in enumerate(paths):
            start = sum(sizes[:number])
            yield path, lambda position, start=start: bar.update(start + position - bar.n)  # type: ignore[misc]


def check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    """Raises `InputError` if the file at `path` was written to between two looks at it."""
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise InputError(f"{path} changed while it was read. Run again when nothing writes to it any more.")


def json_keys(lines: Iterable[str | None]) -> tuple[set[str], bool]:
    """The keys of the objects on some lines, and whether some of the lines are Python literals rather than JSON."""
    keys: set[str] = set()
    literals = False
    for line in lines:
        try:
            record = json.loads(line or "")
        except ValueError:
            converted = from_python_literal(line) if line and line.startswith("{'") else None
            literals = literals or converted is not None
            record = json.loads(converted) if converted else None
        except RecursionError:
            record = None
        if isinstance(record, dict):
            keys.update(record)
    return keys, literals


def from_python_literal(line: str) -> str | None:
    r"""A line of the 2014 item files, which hold Python literals, as JSON; None where it is no dict.

    >>> from_python_literal("{'asin': 'B1', 'title': \"Owner's pen\"}")
    '{"asin": "B1", "title": "Owner\'s pen"}'
    """
    try:
        record = ast.literal_eval(line.strip())
        return json.dumps(record, ensure_ascii=False) if isinstance(record, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _decompressed(path: Path, file: IO[bytes], start: bytes) -> IO[bytes]:
    if start.startswith(GZIP):
        return cast(IO[bytes], igzip.IGzipFile(fileobj=file))
    if path.suffix == ".gz":
        raise InputError(f"{path} is named .gz but is not gzip: it begins with {start!r}. Is it a saved error page?")
    if start == ZSTD:
        return pa.CompressedInputStream(file, "zstd")
    if path.suffix in (".zst", ".zstd"):
        raise InputError(f"{path} is named {path.suffix} but is not zstd: it begins with {start!r}. Download it again.")
    return file


def _check_text(path: Path, block: bytes) -> None:
    if block.startswith(UTF16):
        raise InputError(f"{path} is UTF-16, expected UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
    for start, what in OTHER.items():
        if block.startswith(start):
            raise InputError(
                f"{path} is {what}, expected JSON lines, CSV or TSV (plain, gzip or zstd) or parquet. Unpack it first."
            )
    if b"\n" not in block and b"\r" in block.rstrip(b"\r"):
        raise InputError(f"{path} has the line ends of old Macs (CR alone). Convert it: tr '\\r' '\\n'.")


def _damage(path: Path, number: int, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return f"{path} cannot be read: {error.strerror}."
    if isinstance(error, EOFError) or "Truncated" in str(error):
        problem = "it ends in the middle of the compressed data (a download that was cut off?)"
    else:
        problem = f"its compressed data is damaged ({error})"
    place = f"after line {number - 1}, " if number > 1 else ""  # lines are counted by whole chunks
    return f"{path} cannot be used: {place}{problem}. Download it again."


def places_of(data: np.ndarray, characters: bytes) -> np.ndarray:
    """Where any of some characters stands in `data` (bytes), in order."""
    found = []
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        here = piece == characters[0]
        for character in characters[1:]:
            here |= piece == character
        found.append(np.flatnonzero(here) + start)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _chunk(path: Path, data: np.ndarray, ends: np.ndarray, end: int, number: int, position: int) -> Chunk:
    """The whole lines in `data[:end]`, the first of which is line `number`; no byte is copied.

    `ends` are the places after each line feed.
    """
    offsets = np.concatenate([[0], ends, [end] if not len(ends) or ends[-1] != end else []]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    raw = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
    text = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        text = pa.array([_utf8(line) for line in raw.to_pylist()], pa.large_string())
    numbers = pa.arange(number, number + len(raw))
    return Chunk(path, pa.table({"number": numbers, "line": text}), raw, position)


def _utf8(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
