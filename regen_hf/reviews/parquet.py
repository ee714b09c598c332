"""Parquet files in batches of rows, every value as text. A row is numbered by its position in the file, from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import InputError
from .lines import check_unchanged
from .records import Records, as_json, is_text, python_values
from .times import END, FIRST

PARQUET = b"PAR1"
LARGEST = 2**29
"""Bytes of a batch: Arrow has functions that fail above 2 GiB of text."""
ROWS = 1024
"""Rows decoded at a time: the footer does not contain the size of decoded rows."""
BUFFER = 2**20
"""Bytes of a column that are read at a time, instead of a complete row group."""
UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Digits of a fraction of a second, by unit of time."""


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
    """The rows of the parquet file at `path`, about `size` decoded bytes at a time.

    `fields` is as in `delimited`; the columns `flat` of the result may not be nested.

    Raises:
        InputError: the file is damaged, or changed while it was read.
    """
    before = path.stat()
    done = 0
    for count, table in _tables(path, min(size, LARGEST), set(fields.values())):
        text = {"number": pa.array(range(done + 1, done + len(table) + 1), pa.int64())}
        reject = pa.nulls(len(table), pa.string())
        nested = pa.repeat(pa.scalar(False), len(table))
        for name, column in fields.items():
            if column not in table.column_names:
                text[name] = pa.nulls(len(table), pa.string())
                continue
            values = _decoded(table[column])
            text[name], broken = _text(values)
            if broken is not None:
                reject = pc.if_else(broken, "not_utf8", reject)
            if name in flat and pa.types.is_nested(values.type):
                nested = pc.or_(nested, pc.is_valid(values))
        done += len(table)
        position = before.st_size * done // count
        yield Records(path, pa.table({**text, "reject": reject, "nested": nested}), table, [], position)
    check_unchanged(path, before, path.stat())


def _tables(path: Path, size: int, wanted: set[str]) -> Iterator[tuple[int, pa.Table]]:
    """The number of rows in the file, with consecutive tables of about `size` decoded bytes."""
    done = 0
    try:
        # As nanoseconds, the INT96 times of Spark overflow before 1677 and after 2262; they have microseconds.
        with pq.ParquetFile(
            path,
            page_checksum_verification=True,
            pre_buffer=False,
            buffer_size=BUFFER,
            coerce_int96_timestamp_unit="us",
        ) as file:
            meta = file.metadata
            encoded = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            rows = min(ROWS, max(1, int(size * meta.num_rows / max(1, encoded))))
            columns = sorted(wanted.intersection(file.schema_arrow.names))
            waiting: list[pa.RecordBatch] = []
            waiting_size = 0
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                batch_size = _decoded_size(batch)
                step = max(1, len(batch) * size // max(size, batch_size))
                for start in range(0, len(batch), step):
                    waiting.append(batch.slice(start, step))
                    waiting_size += batch_size * len(waiting[-1]) // len(batch)
                    if waiting_size >= size:
                        done += sum(map(len, waiting))
                        yield meta.num_rows, pa.Table.from_batches(waiting)
                        waiting, waiting_size = [], 0
            if waiting:
                yield meta.num_rows, pa.Table.from_batches(waiting)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be used: after row {done}, its data is damaged ({_first_line(error)}). Download it again."
        ) from None


def _decoded_size(batch: pa.RecordBatch) -> int:
    """Bytes of the rows without dictionaries."""
    size = 0
    for values in batch.columns:
        size += values.nbytes
        if pa.types.is_dictionary(values.type) and is_text(_large(values.type.value_type)):
            lengths = pc.binary_length(values.dictionary.cast(_large(values.type.value_type)))
            size += pc.sum(lengths.take(values.indices)).as_py() or 0
    return size


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column without dictionaries and extension types; text and bytes with 64-bit offsets."""
    chunks = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            values, indices = chunk.dictionary, chunk.indices
            chunk = values.cast(_large(values.type)).take(indices)
        if chunk.type == pa.uuid():
            texts = [None if value is None else str(value) for value in chunk.to_pylist()]
            chunk = pa.array(texts, pa.large_string())
        if isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        chunks.append(chunk.cast(_large(chunk.type)))
    return pa.chunked_array(chunks).combine_chunks()


def _large(kind: pa.DataType) -> pa.DataType:
    """The type of text or bytes with 64-bit offsets, for which Arrow has all functions; other types unchanged."""
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.large_binary()
    return kind


def _text(values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Values as text: times as unix seconds, lists and structs as JSON; and which of them are not UTF-8."""
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moments(values), None
    if pa.types.is_duration(kind):  # the number without its unit could be read as a moment
        return pc.binary_join_element_wise(values.cast(pa.int64()).cast(pa.string()), kind.unit, " "), None
    if pa.types.is_floating(kind):
        return _numbers(values), None
    if pa.types.is_decimal(kind):
        return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", ""), None
    texts: list[str | None] | None = None
    if pa.types.is_nested(kind):
        texts = [None if value is None else as_json(value) for value in python_values(values)]
    elif is_text(kind) and not _is_utf8(values):
        texts = python_values(values)
    if texts is None:
        return values.cast(pa.string()), None
    text = pa.array(texts, pa.string())
    return text, pc.and_(pc.is_valid(values), pc.is_null(text))


def _moments(values: pa.Array) -> pa.Array:
    """Times and dates as unix seconds with all digits of their fraction; moments that are not valid as ISO dates."""
    unit = "s" if pa.types.is_date32(values.type) else "ms" if pa.types.is_date64(values.type) else values.type.unit
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())  # a cast to text would need the time zone
    moments = values.cast(pa.timestamp(unit))
    ticks, digits = moments.cast(pa.int64()), UNITS[unit]
    seconds = pc.divide(ticks, 10**digits)
    text = seconds.cast(pa.string())
    if digits:
        rest = pc.subtract(ticks, pc.multiply(seconds, 10**digits))
        fraction = pc.utf8_lpad(rest.cast(pa.string()), digits, "0")
        text = pc.if_else(pc.equal(rest, 0), text, pc.binary_join_element_wise(text, fraction, "."))
    is_numeric = pc.and_(pc.greater_equal(seconds, FIRST), pc.less(seconds, END))
    return text if pc.all(is_numeric).as_py() else pc.if_else(is_numeric, text, moments.cast(pa.string()))


def _numbers(values: pa.Array) -> pa.Array:
    """Floating-point numbers as text: null for NaN, and integers without a point."""
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    # pandas converts integers to floats where one is missing: an id must stay an integer.
    values = pc.if_else(pc.is_nan(values), None, values)
    numbers = values.cast(pa.float64())
    is_integer = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**63))
    integers = pc.if_else(is_integer, numbers, None).cast(pa.int64())
    # A float32 of 9.99 is 9.989999771118164 as a float64.
    return pc.if_else(is_integer, integers.cast(pa.string()), values.cast(pa.string()))


def _is_utf8(values: pa.Array) -> bool:
    """Whether all values (text or bytes) are valid UTF-8."""
    try:
        values.cast(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
