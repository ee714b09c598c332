"""Text files: decompressed, checked and split into chunks of complete, numbered lines."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
from isal import igzip, igzip_lib

from ..errors import InputError
from ..model.histories import encodable
from ..progress import Bar
from .formats import is_utf8
from .records import python_literal

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
OTHER = (
    (b"PK\x03\x04", b"[Content_Types].xml", "an Excel workbook or Office document", "Save it as CSV."),
    (b"PK\x03\x04", b"", "a zip archive", "Unpack it first."),
    (b"BZh", b"", "bzip2", "Unpack it first."),
    (b"\xfd7zX", b"", "xz", "Unpack it first."),
    (b"PAR1", b"", "compressed parquet", "Unpack it first."),
    (GZIP, b"", "gzip within gzip", "Unpack it first."),
    (b"SQLite format 3\x00", b"", "an SQLite database", "Export its tables as CSV."),
    (b"\xd0\xcf\x11\xe0", b"", "an old Excel workbook or Office document", "Save it as CSV."),
)
"""Unsupported files: first bytes, bytes that the first block contains, the kind of file, what to do."""
TAR = slice(257, 262)
"""Position of the word `ustar` in a tar archive."""
LITERAL = re.compile(r"\{\s*[uU]?['\"]")
"""Start of a dict as a Python literal; Python 2 wrote u'…'."""
LONGEST_LINE = 2**30
"""Bytes. A longer line is not a record: the file has other line ends, or is not text."""
PIECE = 2**20
"""Bytes read or scanned at a time: few enough for the processor's cache."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive complete lines of one file."""

    path: Path
    lines: pa.Table
    """Columns `number` (int64, from 1) and `line` (large_string; null where the bytes are not UTF-8)."""
    content: pa.LargeBinaryArray
    """The bytes of each line, line end included."""
    position: int
    """Bytes of the file on disk that were read so far."""

    @property
    def numbers(self) -> pa.ChunkedArray:
        """The number of each record."""
        return self.lines["number"]

    def raw(self, rows: pa.Array) -> list[str]:
        """The lines at `rows` (from 0) as text."""
        lines = self.content.take(rows).to_pylist()
        return [line.rstrip(b"\r\n").decode(errors="backslashreplace") for line in lines]


class _Transcoded:
    """The text of `stream`, which is in another encoding, as UTF-8; undefined bytes stay as they are, not UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self.rest = b""
        self.ended = False

    def read(self, size: int) -> bytes:
        while not self.rest and not self.ended:
            piece = self.stream.read(PIECE)
            self.ended = not piece
            self.rest = self.decoder.decode(piece, self.ended).encode(errors="surrogateescape")
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece


def chunks(path: Path, size: int, encoding: str = "utf-8") -> Iterator[Chunk]:
    """The lines of the file at `path` in chunks of about `size` bytes; the text of another `encoding` as UTF-8.

    The first bytes of the file decide whether it is plain text, gzip or zstd. Chunks are the same every time. Reading
    to the end verifies the checksums of a compressed file.

    Raises:
        ConfigError: `encoding` is not the name of a Python codec.
        InputError: the file cannot be read, is damaged, is not text in this encoding, or changed while it was read.
    """
    number, rest = 1, np.empty(0, np.uint8)
    utf8 = is_utf8(encoding)
    try:
        before = path.stat()
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            plain = _decompressed(path, file, start)
            stream = plain if utf8 else _Transcoded(plain, encoding)
            first, ended = True, False
            while not ended:
                # The rest of the previous block is the beginning of the first line.
                data = np.empty(len(rest) + size, np.uint8)
                data[: len(rest)] = rest
                filled = len(rest)
                while filled < len(data) and not ended:
                    piece = stream.read(min(PIECE, len(data) - filled))
                    if file.tell() > before.st_size:  # with a fast writer this loop would not end
                        check_unchanged(path, before, path.stat())
                    data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                    filled += len(piece)
                    ended = not piece
                data = data[:filled]
                if first:
                    _check_text(path, data.tobytes())
                    data = data[len(codecs.BOM_UTF8) :] if data[:3].tobytes() == codecs.BOM_UTF8 else data
                    first = False
                ends = positions_of_newlines(data) + 1
                end = len(data) if ended else int(ends[-1]) if len(ends) else 0
                if end:
                    chunk = _chunk(path, data, ends, end, number, file.tell())
                    number += len(chunk.content)
                    yield chunk
                rest = data[end:]
                if len(rest) > LONGEST_LINE:
                    raise InputError(
                        f"{path}: line {number} is longer than 1 GiB, expected one record per line. "
                        "Check the line ends."
                    )
        after = path.stat()
    except UnicodeError:
        raise InputError(
            f"{path} is not text in {encoding}: after line {number - 1}, bytes are invalid. "
            "Check --encoding, or --item-encoding for items."
        ) from None
    except (EOFError, igzip_lib.IsalError, OSError) as error:  # type: ignore[misc]  # its stub has no class
        raise InputError(_damage(path, number, error)) from None
    check_unchanged(path, before, after)


def progress(paths: Sequence[Path], description: str) -> Iterator[tuple[Path, Callable[[int], object]]]:
    """Each of `paths`, with a function that moves a progress bar to a position (bytes) in it."""
    sizes = [path.stat().st_size for path in paths]
    with Bar(about=description, total=sum(sizes), unit="B", unit_scale=True) as bar:
        for number, path in enumerate(paths):
            start = sum(sizes[:number])
            yield path, lambda position, start=start: bar.update(start + position - bar.n)  # type: ignore[misc]


def check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    """Raise `InputError` if the size or time of the file at `path` changed."""
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise InputError(f"{path} changed while it was read. Run again when no program writes to it.")


def json_keys(lines: Iterable[str | None]) -> tuple[set[str], bool]:
    """The keys of the JSON objects in `lines`, and whether any line is a Python literal instead of JSON."""
    keys: set[str] = set()
    literals = False
    for line in lines:
        try:
            record = json.loads(line or "")
        except ValueError:
            converted = from_python_literal(line) if line and LITERAL.match(line) else None
            literals = literals or converted is not None
            record = json.loads(converted) if converted else None
        except RecursionError:
            record = None
        if isinstance(record, dict):
            keys.update(map(encodable, record))
    return keys, literals


def from_python_literal(line: str) -> str | None:
    r"""A line of the 2014 item files, a Python literal, as JSON; None where it is not a dict.

    >>> from_python_literal("{'asin': 'B1', 'title': \"Owner's pen\"}")
    '{"asin": "B1", "title": "Owner\'s pen"}'
    """
    record = python_literal(line.strip())
    if not isinstance(record, dict):
        return None
    try:
        return encodable(json.dumps(record, ensure_ascii=False))
    except (TypeError, RecursionError):  # a set, bytes, a number that is complex
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
        raise InputError(
            f"{path} is UTF-16, expected UTF-8. Read it with --encoding utf-16 (items: --item-encoding utf-16), "
            "or convert it: iconv -f UTF-16 -t UTF-8."
        )
    kinds = [(kind, remedy) for start, inside, kind, remedy in OTHER if block.startswith(start) and inside in block]
    if block[TAR] == b"ustar":
        kinds.append(("a tar archive", "Unpack it first."))
    for kind, remedy in kinds:
        raise InputError(
            f"{path} is {kind}, expected JSON lines, CSV or TSV (plain, gzip or zstd) or parquet. {remedy}"
        )
    if b"\n" not in block and b"\r" in block.rstrip(b"\r"):
        raise InputError(f"{path} has the line ends of old Macs (CR alone). Convert it: tr '\\r' '\\n'.")


def _damage(path: Path, number: int, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return f"{path} cannot be read: {error.strerror}."
    if isinstance(error, EOFError) or "Truncated" in str(error):
        problem = "its compressed data is incomplete (an interrupted download?)"
    else:
        problem = f"its compressed data is damaged ({error})"
    position = f"after line {number - 1}, " if number > 1 else ""  # lines are counted by chunks
    return f"{path} cannot be used: {position}{problem}. Download it again."


def positions_of_newlines(data: np.ndarray) -> np.ndarray:
    """The positions of line feeds in `data` (bytes)."""
    pieces = range(0, len(data), PIECE)
    positions = [np.flatnonzero(data[start : start + PIECE] == ord("\n")) + start for start in pieces]
    return np.concatenate(positions) if positions else np.empty(0, np.int64)


def _chunk(path: Path, data: np.ndarray, ends: np.ndarray, end: int, number: int, position: int) -> Chunk:
    """The complete lines in `data[:end]`, the first of which is line `number`; no byte is copied.

    `ends` are the positions after each line feed.
    """
    offsets = np.concatenate([[0], ends, [end] if not len(ends) or ends[-1] != end else []]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]  # Python lines cost 20 % of the CPU of a run
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
