"""Raw files of reviews and items -> canonical tables, every record of them accounted for.

Each file is recognised by what is in it (JSON lines, CSV, TSV, parquet; a release or own columns) and cut into chunks
of whole records. Each chunk becomes one file of canonical rows, sorted by the hash of the user so that a range
of hashes is cheap to read back. A record that gives no canonical row is kept, with its file, its number and the reason,
as a reject. Chunks that an interrupted run finished are not made again.

    reviews   user_hash, reviewer_id, asin, unix_time, rating, summary, text
    items     asin, title, category, description, price
    rejects   file, line, reason, raw

`line` is the number of the line in a text file, of the first line where a record of CSV has several, and of the row in
parquet; `raw` is the line, the record, or the row's mapped columns as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB
from ..errors import InputError
from . import canonical, tables
from .files import find
from .formats import SAMPLED, Format, recognise
from .lines import Chunk, chunks, from_python_literal, json_keys
from .scrubbing import scrub
from .tables import Records

if TYPE_CHECKING:
    import ibis.expr.types as ir

REVIEWS = canonical.REVIEWS
REJECTS = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])
ROW_GROUP = 8192
"""Reviews in a row group: small, so that one range of hashes reads few rows of its neighbours."""
LAYOUTS = 2**16
"""Orders of keys that are remembered: a log has a handful, a broken one as many as lines."""


@dataclass(frozen=True)
class Log:
    """What became of the records of some files."""

    tables: list[Path]
    """Files of canonical rows."""
    rejects: list[Path]
    """Parquet files of rejects, in the order of the records."""
    read: int
    dropped: dict[str, int]
    """Rejected records by reason; `read` = rows in `tables` + the sum of these."""
    cleaned: dict[str, int]
    """Values of the rows in `tables` that a rule changed, by the rule."""
    size: int
    """Bytes that the canonical rows take up in memory."""


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    chunk_size: int = 2**26
    """Bytes of text taken apart at a time."""
    form: Format | None = None
    """The format of every file; None to recognise each."""
    scrub: bool = False
    """Put markers in the place of e-mail addresses, phone numbers, URLs and card numbers."""
    strict: bool = False
    """A reject is an error."""
    suffix: str = ".parquet"
    """Of the files that are written: parquet, or .arrow, which is not compressed and costs next to nothing to read."""


def read_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, reading: Reading) -> Log:
    """Reviews in the files that `patterns` name, as tables of the schema `REVIEWS` in the folder `work`.

    Args:
        engine: takes JSON apart and runs the cleaning.
        patterns: paths or globs.
        work: a folder that outlives an interrupted run; finished chunks in it are reused.
        reading: how.

    Raises:
        InputError: a file is missing, damaged, or no file of reviews; or `reading.strict` and a record is refused.
    """
    return _read(engine, patterns, "reviews", "--reviews", work, reading)


def read_items(engine: DuckDB, patterns: Sequence[str], work: Path, reading: Reading) -> Log:
    """Items in the files that `patterns` name, as tables of `schema.ITEMS`: one row a record, titles null if missing.

    Arguments and errors as in `read_reviews`.
    """
    return _read(engine, patterns, "items", "--items", work, reading)


def read_items_of_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, reading: Reading) -> Log:
    """Items that the review files themselves tell of, by the columns that `reading.form` names.

    Arguments and errors as in `read_reviews`. What recurs is taken once from each chunk; the rest counts as duplicate.
    """
    return _read(engine, patterns, "items", "--reviews", work, reading, distinct=True)


def _read(
    engine: DuckDB,
    patterns: Sequence[str],
    kind: str,
    option: str,
    work: Path,
    reading: Reading,
    distinct: bool = False,
) -> Log:
    from tqdm import tqdm

    paths = find(patterns, option)
    keep_if_same(work, {"files": [_state(path) for path in paths], "reading": asdict(reading), "distinct": distinct})
    read, size, dropped, cleaned = 0, 0, Counter[str](), Counter[str]()
    made: list[Path] = []
    rejects: list[Path] = []
    bar = tqdm(total=sum(path.stat().st_size for path in paths), unit="B", unit_scale=True, desc=f"read {kind}")
    with bar:
        done = 0
        for path in paths:
            for chunk, form, literals in _chunks(path, option, reading):
                number = f"{len(made):06d}"
                table, reject = work / f"{number}{reading.suffix}", work / f"rejects-{number}.parquet"
                if not table.exists():
                    _convert(engine, chunk, form, literals, kind, reading, distinct, table, reject)
                counts = json.loads(_schema(table).metadata[b"counts"])
                if reading.strict and counts["rejects"]:
                    raise InputError(_strict(pq.read_table(reject).slice(0, 1).to_pylist()[0]))
                read, size = read + counts["read"], size + counts["size"]
                dropped.update(counts["dropped"])
                cleaned.update(counts["cleaned"])
                made.append(table)
                rejects.append(reject)
                bar.update(done + chunk.position - bar.n)
            done += path.stat().st_size
    if not read:
        raise InputError(f"{', '.join(map(str, paths))}, given as {option}, hold no record.")
    return Log(made, rejects, read, dict(dropped), dict(cleaned), size)


def _chunks(path: Path, option: str, reading: Reading) -> Iterator[tuple[Chunk | Records, Format, bool]]:
    """The chunks of a file, with the format that its beginning tells and whether it holds Python literals."""
    with path.open("rb") as file:
        start = file.read(len(tables.PARQUET))
    if start == tables.PARQUET:
        names = tables.parquet_columns(path)
        form = recognise(path, names, option, reading.form)
        tables.check_names(path, names, form.fields.values())
        for records in tables.parquet(path, reading.chunk_size, form.fields, form.flat):
            yield records, form, False
        return
    stream = iter(chunks(path, reading.chunk_size))
    first = next(stream, None)
    sample = (
        [line for line in first.lines["line"].slice(0, SAMPLED).to_pylist() if line and line.strip()] if first else []
    )
    if first is None or not sample:
        raise InputError(
            f"{path}, given as {option}, holds no line of text, expected JSON lines, CSV or TSV, or parquet."
        )
    keys, literals = json_keys(sample)
    whole = chain([first], stream)
    if keys:
        form = recognise(path, keys, option, reading.form)
        yield from ((chunk, form, literals) for chunk in whole)
        return
    found = tables.header(first.lines["line"][0].as_py() or "")
    if not found:
        raise InputError(_no_records(path, option, sample[0]))
    names, delimiter = found
    form = recognise(path, names, option, reading.form)
    tables.check_names(path, names, form.fields.values())
    for records in tables.delimited(whole, names, delimiter, form.fields):
        yield records, form, False


def _no_records(path: Path, option: str, line: str) -> str:
    start = line.strip()[:60]
    if start.startswith("["):
        hint = "A whole JSON array becomes JSON lines with: jq -c '.[]'."
    elif start.startswith("<"):
        hint = "Is it a saved error page?"
    else:
        hint = "Expected one JSON object per line, or a first line that names the columns."
    return (
        f"{path}, given as {option}, is neither JSON lines nor CSV or TSV: of its first lines none is a JSON object, "
        f"and the first names no columns. It begins with {start!r}. {hint}"
    )


def _convert(
    engine: DuckDB,
    chunk: Chunk | Records,
    form: Format,
    literals: bool,
    kind: str,
    reading: Reading,
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
    if isinstance(chunk, Chunk):
        rows = _refuse_repeated_keys(engine, chunk, rows, form)
    if reading.scrub and kind == "reviews":
        rows = canonical.refuse_emails(rows)
    bad = rows.filter(pc.is_valid(rows["reject"])).sort_by("number")
    kept = rows.filter(pc.is_null(rows["reject"])) if len(bad) else rows
    if kind == "reviews":
        kept = canonical.clean_reviews(kept, cleaned, scrub=reading.scrub)
    else:
        kept = canonical.clean_items(kept, cleaned)
    cleaned.update(canonical.flagged(kept))
    schema = canonical.SCHEMAS[kind]
    kept = kept.select(schema.names)
    if kind == "reviews":
        kept = kept.take(_by_hash(kept["user_hash"]))
    dropped = Counter(bad["reject"].to_pylist())
    if distinct:
        whole, kept = len(kept), kept.group_by(schema.names, use_threads=False).aggregate([])
        dropped.update({"duplicate": whole - len(kept)} if whole > len(kept) else {})
    raw = chunk.raw(pc.index_in(bad["number"], chunk.numbers).combine_chunks())
    if reading.scrub:
        raw = [scrub(text, Counter()) for text in raw]
    refused = {"file": [str(chunk.path)] * len(bad), "line": bad["number"], "reason": bad["reject"], "raw": raw}
    counts = {
        "read": len(rows),
        "size": kept.nbytes,
        "rejects": len(bad),
        "dropped": dropped,
        "cleaned": {rule: count for rule, count in cleaned.items() if count},
    }
    _write(pa.table(refused, schema=REJECTS), REJECTS, reject)
    _write(kept, schema.with_metadata({"counts": json.dumps(counts)}), table)


def _by_hash(hashes: pa.ChunkedArray) -> np.ndarray:
    """The places of user hashes in their order; as numbers they sort in a third of the time that texts take."""
    texts = hashes.combine_chunks()
    if not len(texts):
        return np.empty(0, np.int64)
    start = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset]
    return np.argsort(np.frombuffer(texts.buffers()[2], ">u8", len(texts), start).astype(np.uint64))


def _fields(engine: DuckDB, chunk: Chunk | Records, form: Format, literals: bool) -> ir.Table:
    """The fields of the records of a chunk as text, by canonical column."""
    if isinstance(chunk, Records):
        return engine.read_arrow(chunk.fields, "records")
    lines = chunk.lines
    if literals:
        texts = [(line and from_python_literal(line)) or line for line in lines["line"].to_pylist()]
        lines = lines.set_column(1, "line", pa.array(texts, pa.large_string()))
    return engine.read_json(lines, form.fields, form.flat)


def _refuse_repeated_keys(engine: DuckDB, chunk: Chunk, rows: pa.Table, form: Format) -> pa.Table:
    """Reject the records that give one of the wanted keys twice: nothing says which value is meant."""
    wanted = set(form.fields.values())
    layout = rows["layout"].combine_chunks()
    layouts = layout.unique().drop_null()
    if len(engine.repeated) > LAYOUTS:
        engine.repeated.clear()
    new = layouts.filter(pa.array([of not in engine.repeated for of in layouts.to_pylist()], pa.bool_()))
    if len(new):
        numbers = rows["number"].take(pc.index_in(new, layout))
        samples = chunk.lines["line"].take(pc.index_in(numbers, chunk.numbers)).combine_chunks()
        for of, keys in zip(new.to_pylist(), engine.json_keys(samples), strict=True):
            engine.repeated[of] = frozenset(key for key, times in Counter(keys).items() if times > 1)
    repeated = [of for of in layouts.to_pylist() if engine.repeated[of] & wanted]
    if not repeated:
        return rows
    return canonical.refused(rows, pc.is_in(rows["layout"], pa.array(repeated, layouts.type)), "repeated_key")


def _strict(reject: dict[str, str]) -> str:
    return (
        f"{reject['file']}, line {reject['line']}: {reject['reason']}. It begins with {reject['raw'][:80]!r}. "
        "Mend it, or leave out --strict to count such records and go on."
    )


def _state(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def keep_if_same(work: Path, made_from: object) -> None:
    """Empty the folder unless what is in it was made from the same: plain data that tell files and settings."""
    stamp = work / "made_from.json"
    text = json.dumps(made_from)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        stamp.write_text(text, encoding="utf-8")


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).schema
    return pq.read_schema(path)


def _write(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """A file that is either there completely or not at all."""
    part = path.with_suffix(".part")
    table = table.select(schema.names).cast(schema)
    if path.suffix == ".arrow":
        with pa.ipc.new_file(str(part), schema) as writer:
            writer.write_table(table.combine_chunks())
    else:
        pq.write_table(
            table,
            part,
            row_group_size=ROW_GROUP,
            compression="lz4",  # read once and then deleted: worth no more time than this
            use_dictionary=False,
            write_statistics=schema.names[:1],  # the user hash of reviews, by which they are read
        )
    os.replace(part, path)
