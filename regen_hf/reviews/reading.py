"""Raw files of reviews and items -> canonical tables, every line of them accounted for.

Each file is recognised by its keys and cut into chunks of whole lines. Each chunk becomes one parquet file of canonical
rows, sorted by the hash of the user so that a range of hashes is cheap to read back. A line that gives no canonical row
is kept, with its file, its number and the reason, as a reject. Chunks that an interrupted run finished are not made
again.

    reviews   user_hash, reviewer_id, asin, unix_time, rating, summary, text
    items     asin, title, category, description, price
    rejects   file, line, reason, raw
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engines import DuckDB
from ..schema import ITEMS
from . import cleaning
from .files import find
from .formats import SAMPLED, Format, from_python_literal, recognise
from .lines import Chunk, chunks

if TYPE_CHECKING:
    import ibis.expr.types as ir

REVIEWS = pa.schema(
    [
        ("user_hash", pa.string()),  # first 8 hex digits of md5(reviewer_id)
        ("reviewer_id", pa.string()),
        ("asin", pa.string()),
        ("unix_time", pa.int64()),  # seconds
        ("rating", pa.int64()),
        ("summary", pa.string()),
        ("text", pa.string()),
    ]
)
REJECTS = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])
MILLISECONDS = 10**11
"""Times from here on are milliseconds: as seconds this is the year 5138, as milliseconds the year 1973."""
LATEST = 1000.0 * MILLISECONDS
ROW_GROUP = 8192
"""Reviews in a row group: small, so that one range of hashes reads few rows of its neighbours."""


@dataclass(frozen=True)
class Log:
    """What became of the lines of some files."""

    tables: list[Path]
    """Parquet files of canonical rows."""
    rejects: list[Path]
    """Parquet files of rejects, in the order of the lines."""
    read: int
    dropped: dict[str, int]
    """Rejected lines by reason; `read` = rows in `tables` + the sum of these."""
    size: int
    """Bytes that the canonical rows take up in memory."""


def read_reviews(engine: DuckDB, patterns: Sequence[str], work: Path, chunk_size: int) -> Log:
    """Reviews in the files that `patterns` name, as tables of the schema `REVIEWS` in the folder `work`.

    Args:
        engine: takes the JSON apart and runs the cleaning.
        patterns: paths or globs.
        work: a folder that outlives an interrupted run; finished chunks in it are reused.
        chunk_size: bytes of text taken apart at a time.

    Raises:
        InputError: a file is missing, damaged, or no file of reviews.
    """

    def rows(fields: ir.Table) -> pa.Table:
        table = engine.to_arrow(canonical_reviews(fields))
        for name in ("summary", "text"):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, cleaning.plain_column(table[name]))
        return table

    return _read(engine, patterns, "--reviews", work, chunk_size, rows, REVIEWS)


def read_items(engine: DuckDB, patterns: Sequence[str], work: Path, chunk_size: int) -> Log:
    """Items in the files that `patterns` name, as tables of `schema.ITEMS`: one row a record, titles null if missing.

    Arguments and errors as in `read_reviews`.
    """

    def rows(fields: ir.Table) -> pa.Table:
        table = engine.to_arrow(canonical_items(fields))
        rules: dict[str, Callable[[str | None], object]] = {
            "title": cleaning.title,
            "category": cleaning.category,
            "description": cleaning.description,
            "price": cleaning.price,
        }
        for name, rule in rules.items():
            place = table.schema.get_field_index(name)
            values = pa.array(map(rule, table[name].to_pylist()), ITEMS.field(name).type)
            table = table.set_column(place, name, values)
        return table

    return _read(engine, patterns, "--items", work, chunk_size, rows, ITEMS)


def canonical_reviews(fields: ir.Table) -> ir.Table:
    """The columns of `REVIEWS`, with `number` and `reject`, from fields that are still text."""
    import ibis

    time = fields.unix_time.try_cast("float64")
    rating = fields.rating.nullif("").try_cast("float64")
    table = fields.mutate(
        reviewer_id=fields.reviewer_id.strip(),
        asin=fields.asin.strip(),
        time=time,
        stars=ibis.ifelse(rating.isnan(), ibis.null("float64"), rating),  # pandas writes a missing number as NaN
        has_rating=fields.rating.nullif("").notnull(),
    )
    reject = ibis.cases(
        (table.reject.notnull(), table.reject),
        (table.nested, "wrong_type"),
        (table.reviewer_id.fill_null("") == "", "missing_user"),
        (table.asin.fill_null("") == "", "missing_item"),
        (table.unix_time.fill_null("") == "", "missing_time"),
        (~table.time.between(0, LATEST).fill_null(False), "invalid_time"),
        (table.has_rating & rating.isnull(), "invalid_rating"),
        (~table.stars.between(1, 5).fill_null(True), "rating_out_of_scale"),
        else_=ibis.null("string"),
    )
    seconds = ibis.ifelse(table.time >= MILLISECONDS, table.time / 1000, table.time).floor()
    return table.select(
        "number",
        reject=reject,
        user_hash=table.reviewer_id.hexdigest("md5")[:8],
        reviewer_id=table.reviewer_id,
        asin=table.asin,
        unix_time=ibis.ifelse(reject.isnull(), seconds, ibis.null("float64")).cast("int64"),
        rating=ibis.ifelse(reject.isnull(), (table.stars + 0.5).floor(), ibis.null("float64")).cast("int64"),
        summary=table.summary,
        text=table.text,
    )


def canonical_items(fields: ir.Table) -> ir.Table:
    """The columns of `schema.ITEMS`, with `number` and `reject`, all still text."""
    import ibis

    asin = fields.asin.strip()
    reject = ibis.cases(
        (fields.reject.notnull(), fields.reject),
        (asin.fill_null("") == "", "missing_asin"),
        (asin[0].isin(["[", "{"]), "wrong_type"),
        else_=ibis.null("string"),
    )
    return fields.select(
        "number",
        reject=reject,
        asin=asin,
        title=fields.title,
        category=fields.category,
        description=fields.description,
        price=fields.price,
    )


def _read(
    engine: DuckDB,
    patterns: Sequence[str],
    option: str,
    work: Path,
    chunk_size: int,
    rows: Callable[[ir.Table], pa.Table],
    schema: pa.Schema,
) -> Log:
    from tqdm import tqdm

    paths = find(patterns, option)
    _keep_if_same(work, {"files": [_state(path) for path in paths], "chunk_size": chunk_size})
    read, size, dropped = 0, 0, Counter[str]()
    tables: list[Path] = []
    rejects: list[Path] = []
    bar = tqdm(total=sum(path.stat().st_size for path in paths), unit="B", unit_scale=True, desc=f"read {option[2:]}")
    with bar:
        done = 0
        for path in paths:
            for chunk, form, literals in _recognised(path, option, chunk_size):
                name = f"{len(tables):06d}.parquet"
                table, reject = work / name, work / f"rejects-{name}"
                if not table.exists():
                    kept, refused = _canonical(engine, chunk, form, literals, rows)
                    counts = {
                        "read": len(chunk.raw),
                        "size": kept.nbytes,
                        "dropped": dict(Counter(refused["reason"].to_pylist())),
                    }
                    _write(refused, REJECTS, reject)
                    _write(kept, schema.with_metadata({"counts": json.dumps(counts)}), table)
                counts = json.loads(pq.read_schema(table).metadata[b"counts"])
                read, size = read + counts["read"], size + counts["size"]
                dropped.update(counts["dropped"])
                tables.append(table)
                rejects.append(reject)
                bar.update(done + chunk.position - bar.n)
            done += path.stat().st_size
    return Log(tables, rejects, read, dict(dropped), size)


def _recognised(path: Path, option: str, chunk_size: int) -> Iterable[tuple[Chunk, Format, bool]]:
    """The chunks of a file with the format that its first chunk tells."""
    stream = iter(chunks(path, chunk_size))
    first = next(stream, None)
    lines = first.lines["line"].slice(0, SAMPLED).to_pylist() if first else []
    form, literals = recognise(path, lines, option)
    return ((chunk, form, literals) for chunk in chain([first] if first else [], stream))


def _canonical(
    engine: DuckDB,
    chunk: Chunk,
    form: Format,
    literals: bool,
    rows: Callable[[ir.Table], pa.Table],
) -> tuple[pa.Table, pa.Table]:
    """The canonical rows of a chunk, and its rejects."""
    lines = chunk.lines
    if literals:
        texts = [(line and from_python_literal(line)) or line for line in lines["line"].to_pylist()]
        lines = lines.set_column(1, "line", pa.array(texts, pa.large_string()))
    table = rows(engine.read_json(lines, form.fields))
    if len(table) != len(lines):
        raise RuntimeError(f"{chunk.path}: {len(lines)} lines came back as {len(table)} rows.")
    good = pc.is_null(table["reject"])
    kept = table.filter(good).drop_columns(["number", "reject"])
    if "user_hash" in kept.column_names:
        kept = kept.sort_by("user_hash")
    bad = table.filter(pc.invert(good)).sort_by("number")
    places = pc.subtract(bad["number"], lines["number"][0])
    raw = [line.rstrip(b"\r\n").decode(errors="backslashreplace") for line in chunk.raw.take(places).to_pylist()]
    refused = {"file": [str(chunk.path)] * len(bad), "line": bad["number"], "reason": bad["reject"], "raw": raw}
    return kept, pa.table(refused, schema=REJECTS)


def _state(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def _keep_if_same(work: Path, made_from: dict[str, object]) -> None:
    """Empty the folder unless what is in it was made from the same files in the same way."""
    stamp = work / "made_from.json"
    text = json.dumps(made_from)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        stamp.write_text(text, encoding="utf-8")


def _write(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Parquet that is either there completely or not at all."""
    part = path.with_suffix(".part")
    pq.write_table(table.select(schema.names).cast(schema), part, row_group_size=ROW_GROUP, compression="zstd")
    os.replace(part, path)
