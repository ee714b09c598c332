"""CSV and TSV files split into records, parquet files into batches of rows: every value as text, bad records marked.

A record of CSV may have several lines; its number is that of the first. The header is not a record. A row of parquet is
numbered by its position in the file, from 1.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from .lines import Chunk, check_unchanged

PARQUET = b"PAR1"
DELIMITERS = ",\t;"
MOST_LINES = 1000
"""Lines of one CSV record. With more, a quote was opened by mistake: only its first line is rejected."""
BATCH = 20_000
"""Records that are Python objects at the same time."""


@dataclass(frozen=True)
class Records:
    """Consecutive records of one file."""

    path: Path
    fields: pa.Table
    """Columns `number` (int64), `reject` (the reason why the record has no fields, or null), `nested` (true where a
    flat column contains a list or an object), and the wanted columns as text."""
    source: Sequence[str] | pa.Table
    """Lines of text, or rows."""
    bounds: list[tuple[int, int]]
    """For lines, the first line of each record and the line after its last."""
    position: int
    """Bytes of the file on disk that were read so far."""

    @property
    def numbers(self) -> pa.ChunkedArray:
        """The number of each record."""
        return self.fields["number"]

    def raw(self, indices: pa.Array) -> list[str]:
        """The records at `indices` (from 0) as text: the text of the file, or a row as a JSON object."""
        if isinstance(self.source, pa.Table):
            rows = self.source.take(indices)
            columns = [_python(rows[name].combine_chunks(), "backslashreplace") for name in rows.column_names]
            return [_json(dict(zip(rows.column_names, row, strict=True))) for row in zip(*columns, strict=True)]
        bounds = (self.bounds[index] for index in indices.to_pylist())
        records = ("".join(self.source[start:end]).rstrip("\r\n") for start, end in bounds)
        return [record.encode(errors="surrogateescape").decode(errors="backslashreplace") for record in records]


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


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns of the parquet file at `path`.

    Raises:
        InputError: the file is damaged or truncated.
    """
    try:
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a complete parquet file: {_first_line(error)}. Download it again.") from None


def parquet(path: Path, size: int, fields: Mapping[str, str], flat: Sequence[str]) -> Iterator[Records]:
    """The rows of the parquet file at `path`, about `size` bytes (according to its footer) at a time.

    `fields` is as in `delimited`; the columns `flat` of the result may not be nested.

    Raises:
        InputError: the file is damaged, or changed while it was read.
    """
    before = path.stat()
    done = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            count = file.metadata.num_rows
            groups = (file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
            rows = max(1, int(size * count / max(1, sum(groups))))
            names = file.schema_arrow.names
            columns = sorted({column for column in fields.values() if column in names})
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                table = _without_views(pa.Table.from_batches([batch]))
                text = {"number": pa.array(range(done + 1, done + len(table) + 1), pa.int64())}
                reject = pa.nulls(len(table), pa.string())
                nested = pa.repeat(pa.scalar(False), len(table))
                for name, column in fields.items():
                    values, broken = _text(table[column]) if column in columns else (pa.nulls(len(table)), None)
                    text[name] = values.cast(pa.string())
                    if broken is not None:
                        reject = pc.if_else(broken, "not_utf8", reject)
                    if name in flat and column in columns and pa.types.is_nested(table.schema.field(column).type):
                        nested = pc.or_(nested, pc.is_valid(table[column].combine_chunks()))
                done += len(table)
                position = before.st_size * done // count
                yield Records(path, pa.table({**text, "reject": reject, "nested": nested}), table, [], position)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be used: after row {done}, its data is damaged ({_first_line(error)}). Download it again."
        ) from None
    check_unchanged(path, before, path.stat())


def _without_views(table: pa.Table) -> pa.Table:
    """`table` with views of text and bytes as plain text and bytes, for which Arrow has all functions."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return table.cast(pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema]))


def _text(column: pa.ChunkedArray) -> tuple[pa.Array, pa.Array | None]:
    """The values of a column as text: times as unix seconds, lists and structs as JSON; and which are not UTF-8."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        seconds = pc.floor(pc.divide(moments.cast(pa.float64()), 1e6)).cast(pa.int64())
        return seconds.cast(pa.string()), None
    if pa.types.is_floating(kind):
        # pandas converts integers to floats where one is missing: an id must stay an integer.
        values = pc.if_else(pc.is_nan(values), None, values)
        numbers = values.cast(pa.float64())
        is_integer = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
        integers = pc.if_else(is_integer, numbers, None).cast(pa.int64())
        # A float32 of 9.99 is 9.989999771118164 as a float64.
        return pc.if_else(is_integer, integers.cast(pa.string()), values.cast(pa.string())), None
    texts: list[str | None] | None = None
    if pa.types.is_nested(kind):
        texts = [None if value is None else _json(value) for value in _python(values)]
    elif _is_text(kind):
        texts = None if _is_utf8(values) else _python(values)
    if texts is None:
        return values.cast(pa.string()), None
    text = pa.array(texts, pa.string())
    return text, pc.and_(pc.is_valid(values), pc.is_null(text))


def _is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text or bytes."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return is_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_utf8(values: pa.Array) -> bool:
    """Whether all values (text or bytes) are valid UTF-8."""
    try:
        values.cast(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _python(values: pa.Array, errors: str = "strict") -> list[Any]:
    """Values as Python objects, text decoded with `errors`; if strict, None for a value that is not UTF-8."""
    if _is_text(values.type):
        return [_decoded_or_none(value, errors) for value in values.cast(pa.large_binary()).to_pylist()]
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        return [_value(value) for value in values]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return None


def _decoded_or_none(value: bytes | None, errors: str) -> str | None:
    try:
        return None if value is None else value.decode(errors=errors)
    except UnicodeDecodeError:
        return None


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
