"""Files of reviews or items: their kind and columns, recognised by content, and their records."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .delimited import Quoting, check_names, delimited, fits_unquoted, header
from .formats import SAMPLED, Dialect, Format, no_column, recognise
from .lines import Chunk, chunks, json_keys
from .no_records import json_array, missing_header, no_records
from .parquet import PARQUET as MAGIC
from .parquet import parquet, parquet_columns
from .records import Records

JSON, LITERALS, DELIMITED, PARQUET = "json", "literals", "delimited", "parquet"
"""Kinds of files; literals are those of Python, one dict per line."""
BLOCK = 2**20
"""Bytes of text from which the kind of a file is recognised."""
ARRAY = re.compile(r"\s*\[\s*(\{.*[^]\s]\s*)?$")
"""The first line of a JSON array of objects that has several lines."""


@dataclass(frozen=True)
class Source:
    """A file whose kind and columns are known."""

    path: Path
    kind: str
    """`json`, `literals` (of Python), `delimited` or `parquet`."""
    form: Format
    columns: tuple[str, ...]
    """Columns of the file, or keys in the first lines of a JSON file."""
    dialect: Dialect = field(default_factory=Dialect)
    delimiter: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Canonical columns that are not among `columns`."""
        return tuple(name for name, column in self.form.fields.items() if column not in self.columns)

    @property
    def is_json(self) -> bool:
        """Whether each line has its own keys."""
        return self.kind in (JSON, LITERALS)

    def records(self, size: int, quoting: Quoting) -> Iterator[Chunk | Records]:
        """The records in chunks of about `size` bytes; `quoting` is that of `delimited`.

        Raises:
            StrayQuote: a record of a CSV file contains other records, with the quoting `strict`.
        """
        if self.kind == PARQUET:
            return parquet(self.path, size, self.form.fields, self.form.flat)
        lines = chunks(self.path, size, self.dialect.encoding)
        if self.is_json:
            return lines
        has_header = not self.dialect.header
        return delimited(lines, self.columns, self.delimiter, self.form.fields, quoting=quoting, has_header=has_header)

    def quoting(self) -> Quoting:
        """The quoting of a CSV file in which a record contains other records."""
        lines = chunks(self.path, BLOCK, self.dialect.encoding)
        return "none" if fits_unquoted(lines, self.delimiter, len(self.columns)) else "lenient"


def open_source(path: Path, option: str, form: Format | None, dialect: Dialect) -> Source:
    """Recognise the file at `path`, given as `option`; with `form`, it must have that format.

    Raises:
        InputError: the file is damaged, of another kind, or lacks required columns.
    """
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start == MAGIC:
        names = parquet_columns(path)
        matched = recognise(path, names, option, form)
        check_names(path, names, matched.fields.values())
        return Source(path, PARQUET, matched, tuple(names))
    first = next(chunks(path, BLOCK, dialect.encoding), None)
    lines = first.lines["line"].slice(0, SAMPLED).to_pylist() if first else []
    keys, literals = json_keys(lines)
    line = next((line for line in lines if line is None or line.strip()), None) or ""  # None is not UTF-8
    if keys and ARRAY.match(line):  # one object per line of it
        raise InputError(json_array(path, option, line))
    if keys:
        matched = recognise(path, keys, option, form)
        return Source(path, LITERALS if literals else JSON, matched, tuple(keys), dialect)
    columns = header(line, dialect.delimiter or None)
    if dialect.header and line:
        delimiter = dialect.delimiter or (columns[1] if columns else ",")
        columns = [name.strip() for name in dialect.header.split(",")], delimiter
    if not columns:
        raise InputError(no_records(path, option, first, dialect.delimiter))
    names, delimiter = columns
    # A name of a column may be a number, such as a year.
    no_header = None if dialect.header else missing_header(path, option, line, names)
    try:
        matched = recognise(path, names, option, form)
    except InputError as error:
        raise InputError(no_header) if no_header else error from None
    check_names(path, names, matched.fields.values())
    return Source(path, DELIMITED, matched, tuple(names), dialect, delimiter)


def check_mapped(sources: Sequence[Source], option: str, missing: Sequence[Collection[str]]) -> None:
    """Check that each mapped column is in one of the files; `missing` has the columns that each file lacks.

    Raises:
        InputError: a column is in none.
    """
    if len(missing) < len(sources):
        return
    form = sources[0].form
    for name in form.mapped:
        if all(name in columns for columns in missing):
            files = ", ".join(str(source.path) for source in sources)
            raise InputError(no_column(files, option, [form.fields[name]], form, sources[0].columns))
