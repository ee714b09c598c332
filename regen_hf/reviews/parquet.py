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

PARQUET = b"PAR1"


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
        texts = [None if value is None else as_json(value) for value in python_values(values)]
    elif is_text(kind):
        texts = None if _is_utf8(values) else python_values(values)
    if texts is None:
        return values.cast(pa.string()), None
    text = pa.array(texts, pa.string())
    return text, pc.and_(pc.is_valid(values), pc.is_null(text))


def _is_utf8(values: pa.Array) -> bool:
    """Whether all values (text or bytes) are valid UTF-8."""
    try:
        values.cast(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
