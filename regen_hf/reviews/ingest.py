"""Raw files of reviews and items -> canonical tables, with an account of every record.

The content of a file decides its format (JSON lines, CSV, TSV or parquet; a release or own columns). A file is read in
chunks of complete records. Each chunk becomes one parquet file of canonical rows, sorted by the hash of the user so
that a range of hashes is cheap to read. A record without a canonical row becomes a reject, with its file, number and
reason. After an interruption, finished chunks are reused.

    reviews   user_hash, reviewer_id, asin, unix_time, rating, summary, text
    items     asin, title, category, description, price
    rejects   file, line, reason, raw

`line` is the number of the line in a text file, of the first line where a record of CSV has several, and of the row in
parquet; `raw` is the line, the record, or the row's mapped columns as JSON.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB
from ..errors import InputError
from ..outputs import replacing
from . import canonical
from .delimited import check_names, delimited, header
from .files import find
from .formats import SAMPLED, Format, recognise
from .lines import Chunk, chunks, from_python_literal, json_keys, progress
from .parquet import PARQUET, parquet, parquet_columns
from .records import Records
from .scrubbing import scrub

if TYPE_CHECKING:
    import ibis.expr.types as ir

REVIEWS = canonical.REVIEWS
REJECTS = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])
ROW_GROUP = 8192
"""Rows in a row group: few, so that reading one range of hashes reads few rows of its neighbours."""


@dataclass(frozen=True)
class IngestResult:
    """The canonical tables of some files, and the counts of their records."""

    tables: list[Path]
    """Files of canonical rows."""
    rejects: list[Path]
    """Parquet files of rejects, in the order of the records."""
    read: int
    dropped: dict[str, int]
    """Dropped records by reason; `read` = rows in `tables` + the sum of these."""
    cleaned: dict[str, int]
    """Values of the rows in `tables` that a rule changed, by rule."""
    size: int
    """Bytes of the canonical rows in memory."""


@dataclass(frozen=True)
class IngestOptions:
    """How files are read."""

    chunk_size: int = 2**26
    """Bytes of text parsed at a time."""
    form: Format | None = None
    """The format of every file; None to recognise each."""
    scrub: bool = False
    """Replace e-mail addresses, phone numbers, URLs and card numbers by markers."""
    strict: bool = False
    """Raise an error for a reject."""


def read_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, options: IngestOptions) -> IngestResult:
    """Read the files of `patterns` (paths or globs) into tables of the schema `REVIEWS` in `work`.

    Finished chunks of an interrupted run in `work` are reused.

    Raises:
        InputError: a file is missing, damaged, or no file of reviews; or `options.strict` and a record is rejected.
    """
    return _read(engine, patterns, "reviews", "--reviews", work, options)


def read_items(engine: DuckDB, patterns: Sequence[str], work: Path, options: IngestOptions) -> IngestResult:
    """Read items into tables of `schema.ITEMS`: one row per record, titles null if missing.

    Arguments and errors as in `read_reviews`.
    """
    return _read(engine, patterns, "items", "--items", work, options)


def read_items_of_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, options: IngestOptions) -> IngestResult:
    """Read the items that review files describe, in the columns of `options.form`.

    Arguments and errors as in `read_reviews`. Each chunk contributes distinct records; the others count as duplicates.
    """
    return _read(engine, patterns, "items", "--reviews", work, options, distinct=True)


def _read(
    engine: DuckDB,
    patterns: Sequence[str],
    kind: str,
    option: str,
    work: Path,
    options: IngestOptions,
    distinct: bool = False,
) -> IngestResult:
    paths = find(patterns, option)
    keep_if_same(work, {"files": [_state(path) for path in paths], "options": asdict(options), "distinct": distinct})
    written: list[Path] = []
    rejects: list[Path] = []
    read, size, dropped, cleaned = 0, 0, Counter[str](), Counter[str]()
    for path, advance in progress(paths, f"read {kind}"):
        for chunk, form, literals in _chunks(path, option, options):
            number = f"{len(written):06d}"
            table, reject = work / f"{number}.parquet", work / f"rejects-{number}.parquet"
            if not table.exists():
                _convert(engine, chunk, form, literals, kind, options, distinct, table, reject)
            counts = json.loads(pq.read_schema(table).metadata[b"counts"])
            if options.strict and counts["rejects"]:
                raise InputError(_strict(pq.read_table(reject).slice(0, 1).to_pylist()[0]))
            read, size = read + counts["read"], size + counts["size"]
            dropped.update(counts["dropped"])
            cleaned.update(counts["cleaned"])
            written.append(table)
            rejects.append(reject)
            advance(chunk.position)
    if not read:
        raise InputError(f"{', '.join(map(str, paths))}, given as {option}, contain no record. Check the files.")
    return IngestResult(written, rejects, read, dict(dropped), dict(cleaned), size)


def _chunks(path: Path, option: str, options: IngestOptions) -> Iterator[tuple[Chunk | Records, Format, bool]]:
    """The chunks of a file, each with the format of the file and whether its lines are Python literals."""
    with path.open("rb") as file:
        start = file.read(len(PARQUET))
    if start == PARQUET:
        names = parquet_columns(path)
        form = recognise(path, names, option, options.form)
        check_names(path, names, form.fields.values())
        for records in parquet(path, options.chunk_size, form.fields, form.flat):
            yield records, form, False
        return
    stream = iter(chunks(path, options.chunk_size))
    first = next(stream, None)
    sample = (
        [line for line in first.lines["line"].slice(0, SAMPLED).to_pylist() if line and line.strip()] if first else []
    )
    if first is None or not sample:
        raise InputError(
            f"{path}, given as {option}, contains no line of text, expected JSON lines, CSV, TSV or parquet. "
            "Check the file."
        )
    keys, literals = json_keys(sample)
    all_chunks = chain([first], stream)
    if keys:
        form = recognise(path, keys, option, options.form)
        yield from ((chunk, form, literals) for chunk in all_chunks)
        return
    found = header(first.lines["line"][0].as_py() or "")
    if not found:
        raise InputError(_no_records(path, option, sample[0]))
    names, delimiter = found
    form = recognise(path, names, option, options.form)
    check_names(path, names, form.fields.values())
    for records in delimited(all_chunks, names, delimiter, form.fields):
        yield records, form, False


def _no_records(path: Path, option: str, line: str) -> str:
    start = line.strip()[:60]
    if start.startswith("["):
        hint = "Convert a JSON array to JSON lines with: jq -c '.[]'."
    elif start.startswith("<"):
        hint = "Is it a saved error page?"
    else:
        hint = "Expected one JSON object per line, or a first line that names the columns."
    return (
        f"{path}, given as {option}, is neither JSON lines nor CSV or TSV: its first lines contain no JSON object and "
        f"no names of columns. It begins with {start!r}. {hint}"
    )


def _convert(
    engine: DuckDB,
    chunk: Chunk | Records,
    form: Format,
    literals: bool,
    kind: str,
    options: IngestOptions,
    distinct: bool,
    table: Path,
    reject: Path,
) -> None:
    """Write the canonical rows of a chunk to `table`, and its rejects to `reject`."""
    cleaned = Counter[str]()
    fields = _fields(engine, chunk, form, literals)
    rows = engine.apply(canonical.typed_reviews if kind == "reviews" else canonical.typed_items, fields)
    if len(rows) != len(chunk.numbers):
        raise RuntimeError(f"{chunk.path}: {len(chunk.numbers)} records came back as {len(rows)} rows.")
    if options.scrub and kind == "reviews":
        rows = canonical.reject_emails(rows)
    bad = rows.filter(pc.is_valid(rows["reject"])).sort_by("number")
    kept = rows.filter(pc.is_null(rows["reject"])) if len(bad) else rows
    if kind == "reviews":
        kept = canonical.clean_reviews(kept, cleaned, scrub=options.scrub)
    else:
        kept = canonical.clean_items(kept, cleaned)
    cleaned.update(canonical.flagged(kept))
    schema = canonical.SCHEMAS[kind]
    kept = kept.select(schema.names)
    if kind == "reviews":
        kept = kept.sort_by("user_hash")
    dropped = Counter(bad["reject"].to_pylist())
    if distinct:
        records, kept = len(kept), kept.group_by(schema.names, use_threads=False).aggregate([])
        dropped.update({"duplicate": records - len(kept)} if records > len(kept) else {})
    raw = chunk.raw(pc.index_in(bad["number"], chunk.numbers).combine_chunks())
    if options.scrub:
        raw = [scrub(text, Counter()) for text in raw]
    counts = {
        "read": len(rows),
        "size": kept.nbytes,
        "rejects": len(bad),
        "dropped": dropped,
        "cleaned": {rule: count for rule, count in cleaned.items() if count},
    }
    _write(rejects_table([chunk.path] * len(bad), bad["number"], bad["reject"], raw), REJECTS, reject)
    _write(kept, schema.with_metadata({"counts": json.dumps(counts)}), table)


def rejects_table(
    files: Sequence[Path], numbers: pa.ChunkedArray, reasons: Sequence[str] | pa.ChunkedArray, raw: Sequence[str]
) -> pa.Table:
    """Rejects as a table of the schema `REJECTS`."""
    return pa.table([list(map(str, files)), numbers, reasons, raw], schema=REJECTS)


def _fields(engine: DuckDB, chunk: Chunk | Records, form: Format, literals: bool) -> ir.Table:
    """The fields of the records of a chunk as text, by canonical column."""
    if isinstance(chunk, Records):
        return engine.read_arrow(chunk.fields, "records")
    lines = chunk.lines
    if literals:
        texts = [(line and from_python_literal(line)) or line for line in lines["line"].to_pylist()]
        lines = lines.set_column(1, "line", pa.array(texts, pa.large_string()))
    return engine.read_json(lines, form.fields, form.flat)


def _strict(reject: dict[str, str]) -> str:
    return (
        f"{reject['file']}, line {reject['line']}: {reject['reason']}. It begins with {reject['raw'][:80]!r}. "
        "Correct the record, or omit --strict to count such records and continue."
    )


def _state(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def keep_if_same(work: Path, inputs: object) -> None:
    """Empty the folder `work` unless its content was computed from the same `inputs` (plain data)."""
    stamp = work / "made_from.json"
    text = json.dumps(inputs)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        stamp.write_text(text, encoding="utf-8")


def _write(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    with replacing(path) as new:
        pq.write_table(
            table.select(schema.names).cast(schema),
            new,
            row_group_size=ROW_GROUP,
            compression="none",  # read once and then deleted; lz4 costs 4 % of the CPU of a run
            use_dictionary=False,
            write_statistics=schema.names[:1],  # the user hash of reviews, by which they are read
        )
