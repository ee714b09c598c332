"""Records of a table: every value as text, bad records marked."""

from __future__ import annotations

import ast
import contextlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

UNREADABLE = (ValueError, OverflowError, KeyError)
"""Errors of Arrow for text that is not UTF-8, years above 9999 and unknown time zones."""


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
            # `take` is missing for views of text in lists.
            columns = [[self.source[name][index] for index in indices.to_pylist()] for name in self.source.column_names]
            rows = zip(
                *([python_value(scalar, "backslashreplace") for scalar in column] for column in columns), strict=True
            )
            return [as_json(dict(zip(self.source.column_names, row, strict=True))) for row in rows]
        bounds = (self.bounds[index] for index in indices.to_pylist())
        records = ("".join(self.source[start:end]).rstrip("\r\n") for start, end in bounds)
        return [record.encode(errors="surrogateescape").decode(errors="backslashreplace") for record in records]


def is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text or bytes."""
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return is_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def python_values(values: pa.Array) -> list[Any]:
    """Values as Python objects, bytes as text; None for a value that contains text that is not UTF-8."""
    if not is_text(values.type):
        with contextlib.suppress(*UNREADABLE):
            return list(values.to_pylist())
    return [_value_or_none(scalar) for scalar in values]


def _value_or_none(scalar: pa.Scalar) -> Any:
    try:
        return python_value(scalar, "strict")
    except UnicodeDecodeError:
        return None


def python_value(scalar: pa.Scalar, errors: str) -> Any:
    """A value as a Python object, text and bytes decoded with `errors`; times that Python lacks as text."""
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.BinaryScalar):
        return scalar.as_buffer().to_pybytes().decode(errors=errors)
    with contextlib.suppress(*UNREADABLE):
        return scalar.as_py()
    if isinstance(scalar, pa.StructScalar):
        return {name: python_value(scalar[name], errors) for name in scalar}
    if isinstance(scalar, pa.ListScalar):
        return [python_value(value, errors) for value in scalar.values]
    if isinstance(scalar, pa.DictionaryScalar | pa.ExtensionScalar):
        return python_value(scalar.value, errors)
    if pa.types.is_timestamp(scalar.type):
        scalar = scalar.cast(pa.timestamp(scalar.type.unit))
    return scalar.cast(pa.string()).as_py()


class _NanIsNone(ast.NodeTransformer):
    """Replaces `nan`, as Python prints a missing number, by None."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id == "nan" else node


def python_literal(text: str) -> Any:
    """The value of a Python literal with None for `nan`; None where `text` is no literal.

    >>> python_literal("{'rating': nan, 'text': 'nan'}")
    {'rating': None, 'text': 'nan'}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash before any letter is a warning of Python's
            tree = ast.parse(text, mode="eval")
            return ast.literal_eval(_NanIsNone().visit(tree) if "nan" in text else tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def as_json(value: Any) -> str:
    """`value` as JSON; bytes as text, dates and other types as their text."""
    return json.dumps(value, default=_as_text, ensure_ascii=False)


def _as_text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
