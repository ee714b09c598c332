"""CSV and TSV files split into records.

A record may have several lines; its number is that of the first. The header is not a record.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ..errors import InputError
from .lines import Chunk
from .records import Records

DELIMITERS = ",\t;"
MOST_LINES = 1000
"""Lines of one CSV record. With more, a quote was opened by mistake: only its first line is rejected."""
BATCH = 20_000
"""Records that are Python objects at the same time."""


def header(line: str) -> tuple[list[str], str] | None:
    r"""The column names in the first line of a CSV or TSV file, and the delimiter; None where it is not a header.

    >>> header('user,"item",time\n'), header('{"user": 1}'), header("<html>, a, b")
    ((['user', 'item', 'time'], ','), None, None)
    """
    if line.lstrip()[:1] in ("{", "[", "<", ""):
        return None
    delimiter = max(DELIMITERS, key=line.count)
    try:
        names = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return ([name.strip() for name in names], delimiter) if len(names) > 1 else None


def check_names(path: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise `InputError` if a wanted column occurs twice among `names`."""
    repeated = [name for name in wanted if list(names).count(name) > 1]
    if repeated:
        raise InputError(f"{path} has the column {repeated[0]!r} twice, expected once. Rename one.")


def delimited(
    chunks: Iterable[Chunk], names: Sequence[str], delimiter: str, fields: Mapping[str, str]
) -> Iterator[Records]:
    """The records of the lines of a CSV or TSV file with the columns `names`, quoted as in RFC 4180.

    `fields` maps the columns of the result to columns of the file; a missing column is null.
    """
    lines: list[str] = []
    number = 1
    chunk = None
    for chunk in chunks:
        lines += _decoded(chunk)
        if number == 1:
            lines, number = lines[1:], 2
        records, used = _records(lines, number, delimiter, last=False, names=names, fields=fields)
        if used:
            yield Records(chunk.path, *records, chunk.position)
        lines, number = lines[used:], number + used
    if chunk and lines:
        records, _ = _records(lines, number, delimiter, last=True, names=names, fields=fields)
        yield Records(chunk.path, *records, chunk.position)


def _decoded(chunk: Chunk) -> list[str]:
    """The lines of a chunk; bytes that are not UTF-8 become lone surrogates."""
    return [line.decode(errors="surrogateescape") for line in chunk.content.to_pylist()]


@dataclass
class _Feed:
    """An iterator of lines for a CSV reader, which raises an error where a record has more than `MOST_LINES`."""

    lines: list[str]
    position: int = 0
    start: int = 0
    ended: bool = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self.position == len(self.lines):
            self.ended = True
            raise StopIteration
        if self.position - self.start == MOST_LINES:
            raise csv.Error
        self.position += 1
        return self.lines[self.position - 1]


@dataclass
class _Columns:
    """Wanted values of records, converted to Arrow in batches so that few of them are Python objects."""

    names: Sequence[str]
    fields: Mapping[str, str]
    tables: list[pa.Table] = field(default_factory=list)
    rows: list[Sequence[str | None]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    rejects: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.empty: Sequence[None] = [None] * len(self.names)

    def add(self, number: int, row: Sequence[str] | None, reject: str | None) -> None:
        self.rows.append(row if row is not None and not reject else self.empty)
        self.numbers.append(number)
        self.rejects.append(reject)
        if len(self.rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.names)
        table = {
            "number": pa.array(self.numbers, pa.int64()),
            "reject": pa.array(self.rejects, pa.string()),
            "nested": pa.repeat(pa.scalar(False), len(self.numbers)),
        }
        for name, column in self.fields.items():
            values = columns[self.names.index(column)] if column in self.names else [None] * len(self.numbers)
            table[name] = pa.array(values, pa.string())
        self.tables.append(pa.table(table))
        self.rows, self.numbers, self.rejects = [], [], []


def _records(
    lines: list[str], number: int, delimiter: str, *, last: bool, names: Sequence[str], fields: Mapping[str, str]
) -> tuple[tuple[pa.Table, list[str], list[tuple[int, int]]], int]:
    """Records from `lines`, the first of which is line `number` of the file; and the number of lines they have.

    An unclosed record is left for the next lines, unless these are the `last`.
    """
    limit = csv.field_size_limit(2**31 - 1)  # a setting of the process, so it is restored
    columns, bounds = _Columns(names, fields), []
    feed = _Feed(lines)
    try:
        reader = csv.reader(feed, delimiter=delimiter, strict=True)
        while True:
            row = None
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error:
                if feed.ended and not last and len(lines) - feed.start < MOST_LINES:
                    break
            reject = None
            if row is None or (len(row) != len(names) and feed.position - feed.start > 1):
                # The quotes do not match: one line is a record, and the next line begins another.
                line = lines[feed.start]
                feed.position, feed.ended = feed.start + 1, False
                reader = csv.reader(feed, delimiter=delimiter, strict=True)
                # In many TSV files a quote is text.
                row = line.rstrip("\r\n").split(delimiter) if delimiter == "\t" else [line]
                if len(row) != len(names):
                    reject = "unbalanced_quotes"
            columns.add(number + feed.start, row, _problem(row, len(names), reject))
            bounds.append((feed.start, feed.position))
            feed.start = feed.position
    finally:
        csv.field_size_limit(limit)
    columns.flush()
    return (pa.concat_tables(columns.tables), lines, bounds), feed.start


def _problem(row: Sequence[str], width: int, known: str | None) -> str | None:
    """The reason to reject the values of a record, None where they are valid; `known` is an earlier reason."""
    text = "".join(row)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "not_utf8"
    if "\x00" in text:
        return "nul_byte"
    if known or len(row) == width:
        return known
    return "blank_line" if not text.strip() and len(row) < 2 else "wrong_field_count"
