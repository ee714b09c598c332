"""Raw files of reviews and items -> canonical tables, with an account of every record.

The content of a file decides its format (JSON lines, CSV, TSV or parquet; a release or own columns). A file is read in
chunks of complete records. Each chunk becomes one parquet file of canonical rows, sorted by the hash of the user so
that a range of hashes is cheap to read. A record without a canonical row becomes a reject, with its file, number and
reason. After an interruption, finished chunks are reused.

    reviews   user_hash, reviewer_id, asin, time, rating, summary, text
    items     asin, title, category, description, price
    rejects   file, line, reason, raw

`line` is the number of the line in a text file, of the first line where a record of CSV has several, and of the row in
parquet; `raw` is the line, the record, or the row's mapped columns as JSON.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB
from ..errors import InputError
from ..outputs import replacing
from . import canonical
from .delimited import Quoting, StrayQuote
from .files import find
from .formats import IDS, Dialect, Format
from .lines import Chunk, from_python_literal, progress
from .rating_scale import Ratings, check_scale
from .records import Records
from .scrubbing import scrub
from .sources import LITERALS, Source, check_mapped, open_source

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
    files: dict[str, Any]
    """The number of files `read`, read without quoting (`unquoted`), and by column those that lack it (`missing`)."""


@dataclass(frozen=True)
class IngestOptions:
    """How files are read."""

    chunk_size: int = 2**26
    """Bytes of text parsed at a time."""
    form: Format | None = None
    """The format of every file; None to recognise each."""
    dialect: Dialect = field(default_factory=Dialect)
    """Encoding of text files, delimiter and column names of CSV files."""
    rating_scale: tuple[float, ...] = ()
    """Lowest and highest rating of the log, which are mapped to 1 and 5; empty for 1 to 5."""
    rating_missing: tuple[float, ...] = ()
    """Ratings that mean that there is none."""
    scrub: bool = False
    """Replace e-mail addresses, phone numbers, URLs and card numbers by markers."""
    strict: bool = False
    """Raise an error for a reject."""


def read_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, options: IngestOptions) -> IngestResult:
    """Read the files of `patterns` (paths or globs) into tables of the schema `REVIEWS` in `work`.

    Finished chunks of an interrupted run in `work` are reused.

    Raises:
        InputError: a file is missing, damaged, or no file of reviews; a mapped column is in no file; the ratings
            have another scale; or `options.strict` and a record is rejected.
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


@dataclass
class _Totals:
    """Sums over chunks."""

    tables: list[Path] = field(default_factory=list)
    rejects: list[Path] = field(default_factory=list)
    read: int = 0
    size: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    """Records with a value, by canonical column."""
    ratings: Ratings = field(default_factory=Ratings)

    def add(self, other: _Totals) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


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
    sources = [open_source(path, option, options.form, options.dialect) for path in paths]
    check_mapped(sources, option, [source.missing for source in sources if not source.is_json])
    totals, unquoted, missing = _Totals(), 0, []
    for number, (_, advance) in enumerate(progress(paths, f"read {kind}")):
        source = sources[number]
        convert = partial(_convert_file, engine, source, f"{number:05d}", kind, work, options, distinct, advance)
        stray = work / f"{number:05d}.stray"  # exists after a quote swallowed records, also in an interrupted run
        quoting: Quoting = source.quoting() if stray.exists() else "strict"
        try:
            one = convert(quoting)
        except StrayQuote:
            stray.touch()
            quoting = source.quoting()
            one = convert(quoting)
        unquoted += quoting == "none"
        # Of a JSON file only the keys of the first lines were known.
        missing.append([name for name in source.missing if not (source.is_json and one.values[name])])
        if kind == "reviews" and not options.rating_scale:
            check_scale(source.path, one.ratings)
        totals.add(one)
    check_mapped(sources, option, missing)
    if not totals.read:
        contain = "contain" if len(paths) > 1 else "contains"
        raise InputError(f"{', '.join(map(str, paths))}, given as {option}, {contain} no record. Check the files.")
    files = {"read": len(paths), "unquoted": unquoted, "missing": dict(sorted(Counter(chain(*missing)).items()))}
    return IngestResult(
        totals.tables, totals.rejects, totals.read, dict(totals.dropped), dict(totals.cleaned), totals.size, files
    )


def _convert_file(
    engine: DuckDB,
    source: Source,
    stem: str,
    kind: str,
    work: Path,
    options: IngestOptions,
    distinct: bool,
    advance: Callable[[int], object],
    quoting: Quoting,
) -> _Totals:
    """Write the tables and rejects of a file, except those that an interrupted run has written."""
    totals = _Totals()
    for number, chunk in enumerate(source.records(options.chunk_size, quoting)):
        name = f"{stem}-{quoting}-{number:06d}.parquet"
        table, reject = work / name, work / f"rejects-{name}"
        if not table.exists():
            _convert(engine, chunk, source, kind, options, distinct, table, reject)
        counts = json.loads(pq.read_schema(table).metadata[b"counts"])
        if options.strict and counts["rejects"]:
            raise InputError(_strict(pq.read_table(reject).slice(0, 1).to_pylist()[0]))
        totals.add(
            _Totals(
                [table],
                [reject],
                counts["read"],
                counts["size"],
                Counter(counts["dropped"]),
                Counter(counts["cleaned"]),
                Counter(counts["values"]),
                Ratings(**counts["ratings"]),
            )
        )
        advance(chunk.position)
    return totals


def _convert(
    engine: DuckDB,
    chunk: Chunk | Records,
    source: Source,
    kind: str,
    options: IngestOptions,
    distinct: bool,
    table: Path,
    reject: Path,
) -> None:
    """Write the canonical rows of a chunk to `table`, and its rejects to `reject`."""
    cleaned = Counter[str]()
    fields = _fields(engine, chunk, source)
    if kind == "reviews":
        rows = engine.apply(canonical.typed_reviews, fields, options.rating_scale, options.rating_missing)
    else:
        rows = engine.apply(canonical.typed_items, fields)
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
        "values": canonical.values(rows, source.form.fields),
        "ratings": asdict(canonical.ratings(rows) if kind == "reviews" else Ratings()),
    }
    _write(rejects_table([chunk.path] * len(bad), bad["number"], bad["reject"], raw), REJECTS, reject)
    _write(kept, schema.with_metadata({"counts": json.dumps(counts)}), table)


def rejects_table(
    files: Sequence[Path], numbers: pa.ChunkedArray, reasons: Sequence[str] | pa.ChunkedArray, raw: Sequence[str]
) -> pa.Table:
    """Rejects as a table of the schema `REJECTS`."""
    return pa.table([list(map(str, files)), numbers, reasons, raw], schema=REJECTS)


def _fields(engine: DuckDB, chunk: Chunk | Records, source: Source) -> ir.Table:
    """The fields of the records of a chunk as text, by canonical column."""
    if isinstance(chunk, Records):
        return engine.read_arrow(chunk.fields, "records")
    lines = chunk.lines
    if source.kind == LITERALS:
        texts = [(line and from_python_literal(line)) or line for line in lines["line"].to_pylist()]
        lines = lines.set_column(1, "line", pa.array(texts, pa.large_string()))
    return engine.read_json(lines, source.form.fields, source.form.flat, ids=IDS)


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
