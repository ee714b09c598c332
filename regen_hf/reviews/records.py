"""Records of a table: every value as text, bad records marked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa


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
            columns = [python_values(rows[name].combine_chunks(), "backslashreplace") for name in rows.column_names]
            return [as_json(dict(zip(rows.column_names, row, strict=True))) for row in zip(*columns, strict=True)]
        bounds = (self.bounds[index] for index in indices.to_pylist())
        records = ("".join(self.source[start:end]).rstrip("\r\n") for start, end in bounds)
        return [record.encode(errors="surrogateescape").decode(errors="backslashreplace") for record in records]


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text or bytes."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return is_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def python_values(values: pa.Array, errors: str = "strict") -> list[Any]:
    """Values as Python objects, text decoded with `errors`; if strict, None for a value that is not UTF-8."""
    if is_text(values.type):
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


def as_json(value: Any) -> str:
    """`value` as JSON; dates and other types as text."""
    return json.dumps(value, default=str, ensure_ascii=False)
