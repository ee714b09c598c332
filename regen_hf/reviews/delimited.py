"""CSV and TSV files split into records.

A record may have several lines; its number is that of the first. The header is not a record.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from .formats import IDS
from .lines import Chunk
from .nulls import NULL_WORDS
from .records import Records

DELIMITERS = ",\t;"
MOST_LINES = 1000
"""Lines of one CSV record. With more, a quote was opened by mistake: only its first line is rejected."""
BATCH = 20_000
"""Records that are Python objects at the same time."""
FLOAT_ID = r"^(0|[1-9][0-9]*)\.0+$"
"""An integer id in a column that pandas converted to floats because a value is missing."""
TIME = re.compile(r"([0-9]{8,}|[3-7][0-9]{4})(\.[0-9]*)?$|[0-9](\.[0-9]*)?[eE]\+?[0-9]+$|[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""A time in 1971 or later: unix time, a date as 20230511 or 2023-05-11, or a day of a spreadsheet."""
Quoting = Literal["strict", "lenient", "none"]
UNQUOTED = 0.95
"""Share of lines with the right number of fields in a file without quoting; the others are damaged."""


class StrayQuote(Exception):
    """A record that contains other records, because a quote in its text does not enclose a field."""


def header(line: str, delimiter: str | None = None) -> tuple[list[str], str] | None:
    r"""The column names in the first line of a CSV or TSV file, and the delimiter; None where it is not a header.

    Without a `delimiter`, it is the most frequent of comma, tab and semicolon.

    >>> header('user,"item",time\n'), header('{"user": 1}'), header("<html>, a, b")
    ((['user', 'item', 'time'], ','), None, None)
    >>> header("user::item", "::")
    (['user', 'item'], '::')
    """
    if line.lstrip()[:1] in ("{", "[", "<", "") or "\x00" in line:
        return None
    delimiter = delimiter or max(DELIMITERS, key=line.count)
    try:
        names = _split(line, delimiter)
    except csv.Error:
        return None
    return ([name.strip() for name in names], delimiter) if len(names) > 1 else None


def check_names(path: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise `InputError` if a wanted column occurs twice among `names`."""
    repeated = [name for name in wanted if list(names).count(name) > 1]
    if repeated:
        raise InputError(f"{path} has the column {repeated[0]!r} twice, expected once. Rename one.")


def delimited(
    chunks: Iterable[Chunk],
    names: Sequence[str],
    delimiter: str,
    fields: Mapping[str, str],
    *,
    quoting: Quoting = "strict",
    has_header: bool = True,
) -> Iterator[Records]:
    r"""The records of the lines of a CSV or TSV file with the columns `names`.

    Blank lines before the header are no records. In a column of `IDS`, an unquoted `17.0` becomes `17`, counted
    in the column `float_ids` of the result, and an unquoted blank cell, `\N`, `NULL`, `NA`, `NaN` or `None` is null.

    Args:
        chunks: the lines of one file.
        names: the columns of the file.
        delimiter: one or several characters.
        fields: maps the columns of the result to columns of the file; a missing column is null.
        quoting: `strict` is that of RFC 4180. With `none`, and with a delimiter of several characters, each line is a
            record and its quotes are text. `lenient` is `strict`, but the first line of a record that contains other
            records is treated as one with unbalanced quotes, and reading continues with the next line.
        has_header: whether the first line contains the names of the columns; if not, it is a record.

    Raises:
        StrayQuote: with `strict`, a record contains other records. Read the file again from its beginning, with `none`
            if `fits_unquoted`, otherwise with `lenient`.
    """
    reader = _Reader(names, delimiter, fields, quoting if len(delimiter) == 1 else "none")
    lines: list[str] = []
    number = 1
    started = not has_header
    chunk = None
    for chunk in chunks:
        lines += _decoded(chunk)
        if not started:
            first = next((index for index, line in enumerate(lines) if line.strip()), None)
            started = first is not None
            used = len(lines) if first is None else first + 1
            lines, number = lines[used:], number + used
        records, used = reader.records(lines, number, last=False)
        if used:
            yield Records(chunk.path, *records, chunk.position)
        lines, number = lines[used:], number + used
    if chunk and lines:
        records, _ = reader.records(lines, number, last=True)
        yield Records(chunk.path, *records, chunk.position)


def fits_unquoted(chunks: Iterable[Chunk], delimiter: str, width: int) -> bool:
    """Whether the quotes in a file of `width` columns are text.

    They are if at least `UNQUOTED` of the lines that are not blank have `width` fields without quoting, and most lines
    with a quote are among these lines and have no field that is enclosed in quotes.
    """
    lines = fitting = text = enclosing = 0
    escaped = re.escape(delimiter)
    enclosed = rf'(?:^|{escaped})"(?:[^"]|"")*"(?:{escaped}|\r?\n?$)'
    for chunk in chunks:
        content = chunk.content.filter(pc.match_substring_regex(chunk.content, r"\S"))
        fits = pc.equal(pc.count_substring(content, delimiter), width - 1)
        lines, fitting = lines + len(content), fitting + (pc.sum(fits).as_py() or 0)
        has_quote = pc.match_substring(content, '"')
        content, fits = content.filter(has_quote), fits.filter(has_quote)
        is_text = pc.and_not(fits, pc.match_substring_regex(content, enclosed))
        text += pc.sum(is_text).as_py() or 0
        enclosing += pc.sum(pc.invert(is_text)).as_py() or 0
    return fitting >= UNQUOTED * lines and text > enclosing


def _decoded(chunk: Chunk) -> list[str]:
    """The lines of a chunk; bytes that are not UTF-8 become lone surrogates."""
    return [line.decode(errors="surrogateescape") for line in chunk.content.to_pylist()]


def _split(line: str, delimiter: str) -> list[str]:
    """The fields of a record of one line, which may be quoted if the delimiter has one character."""
    line = line.rstrip("\r\n")
    return line.split(delimiter) if len(delimiter) > 1 else next(csv.reader([line], delimiter=delimiter, strict=True))


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
class _Reader:
    """Splits lines into records; its fields are the arguments of `delimited`."""

    names: Sequence[str]
    delimiter: str
    fields: Mapping[str, str]
    quoting: Quoting

    def __post_init__(self) -> None:
        self.positions = {
            name: self.names.index(column) for name, column in self.fields.items() if column in self.names
        }
        self.ids = [self.positions[name] for name in IDS if name in self.positions]
        self.time = self.positions.get("unix_time")

    def records(
        self, lines: list[str], number: int, *, last: bool
    ) -> tuple[tuple[pa.Table, list[str], list[tuple[int, int]]], int]:
        """Records from `lines`, the first of which is line `number` of the file; and the number of lines they have.

        An unclosed record is left for the next lines, unless these are the `last`.
        """
        columns = _Columns(self, lines, number)
        used = len(lines)
        if self.quoting != "none":
            used = self._read(columns, last)
        else:
            for index, line in enumerate(lines):
                columns.add(index, index + 1, line.rstrip("\r\n").split(self.delimiter), None, quoted=False)
        columns.flush()
        return (pa.concat_tables(columns.tables), lines, columns.bounds), used

    def _read(self, columns: _Columns, last: bool) -> int:
        """Adds the records of quoted lines to `columns`; returns the number of their lines."""
        lines, width = columns.lines, len(self.names)
        feed = _Feed(lines)
        limit = csv.field_size_limit(2**31 - 1)  # a setting of the process, so it is restored
        try:
            reader = csv.reader(feed, delimiter=self.delimiter, strict=True)
            while True:
                row = None
                try:
                    row = next(reader)
                except StopIteration:
                    break
                except csv.Error:
                    if feed.ended and not last and len(lines) - feed.start < MOST_LINES:
                        break
                quoted, reject = True, None
                if row is not None and feed.position - feed.start > 1:
                    if len(row) != width:
                        row = None
                    elif self._contains_records(row, lines[feed.start : feed.position]):
                        if self.quoting == "strict":
                            raise StrayQuote(f"line {columns.number + feed.start}")
                        row = None
                if row is None:
                    # The quotes do not match: one line is a record, and the next line begins another.
                    line = lines[feed.start]
                    feed.position, feed.ended = feed.start + 1, False
                    reader = csv.reader(feed, delimiter=self.delimiter, strict=True)
                    # In many TSV files a quote is text.
                    row = line.rstrip("\r\n").split("\t") if self.delimiter == "\t" else [line]
                    quoted, reject = False, None if len(row) == width else "unbalanced_quotes"
                columns.add(feed.start, feed.position, row, reject, quoted=quoted)
                feed.start = feed.position
        finally:
            csv.field_size_limit(limit)
        return feed.start

    def _contains_records(self, row: Sequence[str], lines: Sequence[str]) -> bool:
        """Whether `row`, a record with these `lines`, contains several records.

        A text of several lines may begin in a line that looks like a record (as its last field) or end in one (as its
        first field); the first field may even end where the last one begins, so a line between counts inside one field
        only. Items have no time, so each of their lines must look like a record.
        """
        if self.time is None:
            return all(map(self._is_record, lines))
        # In a text, spaces follow commas; in a record, only where they do in the others.
        spaced = row[self.time][:1].isspace()
        first, last = self._is_record(lines[0], spaced), self._is_record(lines[-1], spaced)
        inside = (line for cell in row for line in cell.split("\n")[1:-1])
        return any(self._is_record(line, spaced) for line in inside) or (last and (first or "\n" in row[-1]))

    def _is_record(self, line: str, spaced: bool = False) -> bool:
        """Whether a line, split without quoting, has the fields of a record, ids, and the time of a review.

        `spaced` is whether a space precedes the time.
        """
        row = line.rstrip("\r\n").split(self.delimiter)
        if len(row) != len(self.names) or not all(row[position].strip() for position in self.ids):
            return False
        if self.time is not None:
            time = row[self.time]
            return time[:1].isspace() == spaced and TIME.match(time.strip().strip('"')) is not None
        # Unlike ids, a text has spaces, also after its commas.
        return not any(re.search(r"\s", row[position]) for position in self.ids) and not any(
            cell[:1].isspace() for cell in row
        )


@dataclass
class _Columns:
    """Wanted values of records, converted to Arrow in batches so that few of them are Python objects."""

    reader: _Reader
    lines: list[str]
    number: int
    """Number of the first of the lines in the file."""
    bounds: list[tuple[int, int]] = field(default_factory=list)
    """Indices of the first line of each record and the line after its last."""
    tables: list[pa.Table] = field(default_factory=list)
    rows: list[Sequence[str | None]] = field(default_factory=list)
    rejects: list[str | None] = field(default_factory=list)
    unquoted: set[int] = field(default_factory=set)
    """Indices of rows whose quotes are text."""

    def __post_init__(self) -> None:
        self.width = len(self.reader.names)
        self.empty: Sequence[None] = [None] * self.width

    def add(self, start: int, end: int, row: Sequence[str], reject: str | None, *, quoted: bool) -> None:
        """Add the record of the lines from `start` to before `end`; `reject` is a known reason."""
        reject = _problem(row, self.width, reject)
        if not quoted:
            self.unquoted.add(len(self.rows))
        self.rows.append(self.empty if reject else row)
        self.bounds.append((start, end))
        self.rejects.append(reject)
        if len(self.rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Convert the rows to a table."""
        count = len(self.rows)
        columns = list(zip(*self.rows, strict=True)) or [()] * self.width
        bounds = self.bounds[len(self.bounds) - count :]
        float_ids = np.zeros(count, np.int64)
        table = {
            "number": pa.array([self.number + start for start, _ in bounds], pa.int64()),
            "reject": pa.array(self.rejects, pa.string()),
            "nested": pa.repeat(pa.scalar(False), count),
        }
        for name in self.reader.fields:
            position = self.reader.positions.get(name)
            if position is None:
                table[name] = pa.nulls(count, pa.string())
            elif name in IDS:
                table[name] = self._ids(position, columns[position], bounds, float_ids)
            else:
                table[name] = pa.array(columns[position], pa.string())
        self.tables.append(pa.table({**table, "float_ids": float_ids}))
        self.rows, self.rejects, self.unquoted = [], [], set()

    def _ids(
        self, position: int, values: Sequence[str | None], bounds: Sequence[tuple[int, int]], float_ids: np.ndarray
    ) -> pa.Array:
        """The ids of a column; adds 1 to `float_ids` where an id was a float."""
        texts = pa.array(values, pa.string())
        trimmed = pc.ascii_trim_whitespace(texts)
        is_null = pc.is_in(trimmed, pa.array(NULL_WORDS))
        is_float = pc.fill_null(pc.match_substring_regex(trimmed, FLOAT_ID), False)
        indices = np.flatnonzero(pc.or_(is_null, is_float))
        if not len(indices):
            return texts
        # The csv module does not report which cells were quoted.
        quoted = _starts_with_quote(position, self.reader.delimiter)
        ids = list(values)
        for index in indices.tolist():
            start, end = bounds[index]
            record = self.lines[start] if end == start + 1 else "".join(self.lines[start:end])
            if index not in self.unquoted and '"' in record and quoted.match(record):
                continue
            whole, point, _ = (ids[index] or "").strip().partition(".")
            ids[index] = whole if point else None
            float_ids[index] += bool(point)
        return pa.array(ids, pa.string())


def _starts_with_quote(position: int, delimiter: str) -> re.Pattern[str]:
    """Matches a record that is properly quoted if its cell at `position` is quoted."""
    delimiter = re.escape(delimiter)
    return re.compile(rf'(?:(?:"[^"]*(?:""[^"]*)*"|(?:[^"{delimiter}][^{delimiter}]*)?){delimiter}){{{position}}}"')


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
    if len(row) < 2 and not text.strip():
        return "blank_line"
    return "trailing_delimiter" if len(row) == width + 1 and not row[-1].strip() else "wrong_field_count"
