"""Read the official REGEN release into rows of the dataset."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...engines import DuckDB, memory_bytes
from ...errors import InputError
from ...reviews.files import find
from ...reviews.lines import Chunk, chunks
from ...reviews.ingest import REJECTS
from ...schema import ITEMS, LAST_PURCHASE, METADATA, ROW, SPLITS, USER, hash_bound
from .settings import ReleaseConfig

RELEASE = "official REGEN release"
"""Stands in `narrator` and `rater`: the release names no model."""


OPTION = "--from-release"


COPIES = 8
"""A range of hashes is so small that this many copies of its rows fit into the memory set."""


ROW_GROUP = 1000
"""Users in a row group: small, so that one range of hashes reads few rows of its neighbours."""


ROWS = pa.schema(
    [
        ("user_hash", pa.string()),
        ("read", pa.int64()),
        ("bad_scores", pa.int64()),
        ("file", pa.int64()),
        ("line", pa.int64()),
        *ROW,
    ]
)
"""A row on its way: with the hash it is sorted by, the purchases read, the scores outside 1..7, and its file (a number)
and line."""


def build(run: Path, out: Path, work: Path, config: ReleaseConfig) -> dict[str, Any]:
    """Read the release into `out`.

    Returns:
        Counts: lines read, users and purchases kept, items, users of each split.

    Raises:
        InputError: a file is missing, damaged or not of the release, or no user is left.
    """
    shutil.rmtree(work, ignore_errors=True)  # what a killed run left: reading again takes minutes and costs nothing
    work.mkdir(parents=True)
    users: Counter[str] = Counter()
    paths = find(config.from_release, OPTION)
    with (
        DuckDB(config.memory, work / "spill") as engine,
        pq.ParquetWriter(out / "rejects.parquet", REJECTS, compression="zstd") as rejects,
    ):
        size = _read(engine, paths, work, rejects, config, users)
        reviews, again = _put_together(engine, size, work, out, config, users)
        _write_duplicates(paths, again, rejects, config)
        items = _write_items(engine, work, out)
    splits = {split: users[split] for split in SPLITS}
    dropped = {reason: n for reason, n in sorted(users.items()) if n and reason not in ("read", *SPLITS)}
    kept = sum(splits.values())
    if users["read"] != kept + sum(dropped.values()):
        raise RuntimeError(f"The accounting does not add up: {users['read']} read, {kept} kept, dropped {dropped}.")
    if not kept:
        raise InputError(_nobody_left(users["read"], dropped, out))
    accounting = {
        "users": {"read": users["read"], "kept": kept, "dropped": dropped},
        "reviews": _entry(reviews["read"], reviews["kept"], "beyond_max_history"),
        "items": _entry(reviews["kept"], items, "duplicate"),
        "scores": {"out_of_scale": reviews["bad_scores"]},
        "splits": splits,
    }
    (out / "accounting.json").write_text(json.dumps(accounting, indent=2) + "\n", encoding="utf-8")
    lost = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "none"
    print(f"release: {users['read']:,} lines read, {kept:,} users kept, dropped: {lost}", file=sys.stderr)  # noqa: T201
    return {"lines_read": users["read"], "users": kept, "reviews": reviews["kept"], "items": items, **splits}


def _entry(read: int, kept: int, reason: str) -> dict[str, Any]:
    return {"read": read, "kept": kept, "dropped": {reason: read - kept} if read != kept else {}}


def _nobody_left(read: int, dropped: dict[str, int], out: Path) -> str:
    first = pq.ParquetFile(out / "rejects.parquet").read_row_group(0).slice(0, 1).to_pylist()[0] if dropped else {}
    where = f" The first is line {first['line']} of {first['file']}: {first['reason']}." if first else ""
    reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
    return f"No user is left: the {read} lines were dropped as: {reasons}.{where} Is it a file of the REGEN release?"


# From lines to chunks of rows
def _read(
    engine: DuckDB,
    paths: list[Path],
    work: Path,
    rejects: pq.ParquetWriter,
    config: ReleaseConfig,
    users: Counter[str],
) -> int:
    """Write the rows of each chunk of lines to `work`, sorted by the user's hash; returns their bytes in memory."""
    from tqdm import tqdm

    size = number = 0
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, unit="B", unit_scale=True, desc="read release") as bar:
        done = 0
        for place, path in enumerate(paths):
            lines_read = 0
            for chunk in chunks(path, _chunk_size(config)):
                if not lines_read:
                    _recognise(path, chunk)
                lines_read += len(chunk.lines)
                rows, refused = _rows(engine, chunk, place, config)
                users.update(refused["reason"].to_pylist())
                if len(refused):
                    rejects.write_table(refused)
                size += rows.nbytes
                target = work / f"{number:06d}.parquet"
                pq.write_table(rows, target, row_group_size=ROW_GROUP, compression="zstd")
                number += 1
                bar.update(done + chunk.position - bar.n)
            users["read"] += lines_read
            done += path.stat().st_size
    return size


def _chunk_size(config: ReleaseConfig) -> int:
    return max(memory_bytes(config.memory) // 64, 2**20)


def _recognise(path: Path, chunk: Chunk) -> None:
    """Check by the first object that the file is of the release.

    Raises:
        InputError: it is not; the message says what its fields are.
    """
    for line in chunk.lines["line"].slice(0, 1000).to_pylist():
        try:
            record = json.loads(line or "")
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        if not {"reviewer_id", "purchase_history"} <= set(record):
            raise InputError(
                f"{path}, given as {OPTION}, is not of the REGEN release: expected reviewer_id and purchase_history, "
                f"its fields are: {', '.join(sorted(record))}. Raw reviews go to `regen sequences` as --reviews."
            )
        try:
            review = record["purchase_history"][0]["review"]
            named = {"unix_time", "timestamp"} & set(review)
        except (TypeError, LookupError):
            continue
        if not named:
            raise InputError(
                f"{path}, given as {OPTION}, has no time under the names unix_time or timestamp. "
                f"The fields of a review are: {', '.join(sorted(review))}."
            )
        return
    raise InputError(
        f"{path}, given as {OPTION}, holds no user of the REGEN release in its first lines, expected one JSON object "
        "with reviewer_id and purchase_history per line."
    )


def _texts(kind: pa.StructType) -> dict[str, Any]:
    """The structure of a struct for `json_transform`, each value as text."""
    return {part.name: _texts(part.type) if pa.types.is_struct(part.type) else "VARCHAR" for part in kind}


ITEM = ROW.field("purchase_history").type.value_type.field("item").type


REVIEW = {"summary": "VARCHAR", "rating": "VARCHAR", "text": "VARCHAR", "unix_time": "VARCHAR", "timestamp": "VARCHAR"}


STRUCTURE = {
    "reviewer_id": "VARCHAR",
    "purchase_history": [{"item": _texts(ITEM), "review": REVIEW}],
    "last_purchase": _texts(LAST_PURCHASE),
    "user": _texts(USER),
    "metadata": _texts(METADATA),
}


NARRATIVES = {"last_purchase": LAST_PURCHASE, "user": USER}


DATES = ["%m/%d/%Y", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]


TIME = "coalesce(p.review.unix_time, p.review.timestamp)"


SECONDS = f"""CASE WHEN try_cast({TIME} AS DOUBLE) >= 1e11 THEN floor(try_cast({TIME} AS DOUBLE) / 1000)
    ELSE coalesce(floor(try_cast({TIME} AS DOUBLE)), epoch(try_strptime({TIME}, {DATES}))) END"""
"""Times from 1e11 on are milliseconds: as seconds this is the year 5138, as milliseconds the year 1973."""


def _rows(engine: DuckDB, chunk: Chunk, place: int, config: ReleaseConfig) -> tuple[pa.Table, pa.Table]:
    """The rows of a chunk of lines of the file of this number, sorted by the user's hash, and the lines without one."""
    engine.connection.register("release_lines", chunk.lines)
    table = engine.connection.sql(_query(), params={"keep": config.max_history}).to_arrow_table()
    if len(table) != len(chunk.lines):
        raise RuntimeError(f"{chunk.path}: {len(chunk.lines)} lines came back as {len(table)} rows.")
    bad = table.filter(pc.is_valid(table["reject"])).select(["number", "reject"]).sort_by("number")
    rows = table.filter(pc.is_null(table["reject"])).sort_by([("user_hash", "ascending"), ("number", "ascending")])
    refused = {
        "file": [str(chunk.path)] * len(bad),
        "line": bad["number"],
        "reason": bad["reject"],
        "raw": chunk.raw(pc.subtract(bad["number"], chunk.lines["number"][0])),
    }
    rows = rows.append_column("line", rows["number"])
    rows = rows.append_column("file", pa.repeat(pa.scalar(place), len(rows)))
    for unknown in set(ROWS.names) - set(rows.column_names):  # what only this package's own stages tell
        rows = rows.append_column(unknown, pa.nulls(len(rows), ROWS.field(unknown).type))
    return rows.select(ROWS.names).cast(ROWS), pa.table(refused, schema=REJECTS)


def _query() -> str:
    """SQL: a row for each line of `release_lines`, with `number`, `reject` (null, or why it is no user) and `ROWS`."""

    def text(path: str) -> str:
        return f"nullif(trim({path}), '')"

    def struct(parts: dict[str, str]) -> str:
        return "{" + ", ".join(f"'{name}': {value}" for name, value in parts.items()) + "}"

    def score(path: str) -> str:
        number = f"try_cast({path} AS DOUBLE)"  # never a plain cast: DuckDB may run it on rows that a CASE leaves out
        return f"CASE WHEN {number} IN (1, 2, 3, 4, 5, 6, 7) THEN try_cast({number} AS BIGINT) END"

    item = {name: text(f"p.item.{name}") for name in ("asin", "title", "category", "description")}
    review = {
        "summary": text("p.review.summary"),
        "rating": "try_cast(floor(try_cast(p.review.rating AS DOUBLE) + 0.5) AS BIGINT)",
        "text": text("p.review.text"),
        "unix_time": f"try_cast({SECONDS} AS BIGINT)",
    }
    item["price"] = "nullif(try_cast(p.item.price AS DOUBLE), 0)"
    purchase = struct({"item": struct(item), "review": struct(review)})
    scores = {part.name: [attribute.name for attribute in part.type] for part in METADATA}
    paths = [f"r.metadata.{part}.{attribute}" for part, attributes in scores.items() for attribute in attributes]
    metadata = struct(
        {part: struct({name: score(f"r.metadata.{part}.{name}") for name in names}) for part, names in scores.items()}
    )
    bad_scores = " + ".join(f"CAST({path} IS NOT NULL AND ({score(path)}) IS NULL AS BIGINT)" for path in paths)

    def some(condition: str) -> str:
        return f"len(list_filter(r.purchase_history, lambda p: {condition})) > 0"

    rating = "try_cast(p.review.rating AS DOUBLE)"
    narratives = [f"{name}.{part.name}" for name, kind in NARRATIVES.items() for part in kind]
    bracket = " OR ".join(f"r.{name}[1] IN ('[', '{{')" for name in ("reviewer_id", *narratives))
    kinds = ", ".join("'/" + name.replace(".", "/") + "'" for name in ("reviewer_id", *narratives))
    return f"""
        SELECT number, reject, md5(reviewer_id)[:8] AS user_hash, reviewer_id,
               len(r.purchase_history) AS read, {bad_scores} AS bad_scores,
               CASE WHEN reject IS NULL
                    THEN list_transform(r.purchase_history[-$keep:], lambda p: {purchase}) END AS purchase_history,
               {struct({part.name: text(f"r.last_purchase.{part.name}") for part in LAST_PURCHASE})} AS last_purchase,
               {struct({part.name: text(f"r.user.{part.name}") for part in USER})} AS user,
               {metadata} AS metadata, '{RELEASE}' AS narrator, '{RELEASE}' AS rater
        FROM (SELECT number, r, trim(r.reviewer_id) AS reviewer_id,
                     CASE WHEN bad IS NOT NULL THEN bad
                          WHEN ({bracket}) AND list_has_any(json_type(line, [{kinds}]), ['ARRAY', 'OBJECT'])
                          THEN 'wrong_type'
                          WHEN coalesce(trim(r.reviewer_id), '') = '' THEN 'missing_user'
                          WHEN coalesce(len(r.purchase_history), 0) = 0 THEN 'missing_history'
                          WHEN {some("coalesce(trim(p.item.asin), '') = ''")} THEN 'missing_item'
                          WHEN {some(f"coalesce({TIME}, '') = ''")} THEN 'missing_time'
                          WHEN {some(f"coalesce(NOT ({SECONDS}) BETWEEN 0 AND 1e11, true)")} THEN 'invalid_time'
                          WHEN {some(f"coalesce(p.review.rating, '') <> '' AND {rating} IS NULL")} THEN 'invalid_rating'
                          WHEN {some(f"NOT {rating} BETWEEN 1 AND 5")} THEN 'rating_out_of_scale'
                     END AS reject
              FROM (SELECT number, line, bad,
                           CASE WHEN bad IS NULL THEN json_transform(line, '{json.dumps(STRUCTURE)}') END AS r
                    FROM (SELECT number, line,
                                 CASE WHEN line IS NULL THEN 'not_utf8'
                                      WHEN regexp_full_match(line, '\\s*') THEN 'blank_line'
                                      WHEN NOT json_valid(line) THEN 'not_json'
                                      WHEN json_type(line) <> 'OBJECT' THEN 'not_an_object'
                                      WHEN len(list_distinct(json_keys(line))) < len(json_keys(line))
                                      THEN 'repeated_key' END AS bad
                          FROM release_lines)))
        """  # noqa: S608 (names of the schema)


# From chunks to ranges of hashes
def _put_together(
    engine: DuckDB, size: int, work: Path, out: Path, config: ReleaseConfig, users: Counter[str]
) -> tuple[Counter[str], pa.Table]:
    """Write the splits to `out` and the distinct items of each range to `work`.

    Returns:
        Counts of the purchases; and `file` and `line` of the lines whose user had one before.
    """
    again = []
    counts: Counter[str] = Counter()
    ranges = max(1, -(-COPIES * size // memory_bytes(config.memory)))
    bounds = [f"{place * 2**32 // ranges:08x}" for place in range(ranges)] + ["g"]  # "g" is after every hex digit
    test, validation = hash_bound(config.test), hash_bound(config.test + config.validation)
    splits = {"test": ("", test), "validation": (test, validation), "train": (validation, "g")}
    chunk_files = sorted(work.glob("*.parquet"))
    shards: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for number in range(ranges):
        inside = [("user_hash", ">=", bounds[number]), ("user_hash", "<", bounds[number + 1])]
        rows = pa.concat_tables([pq.read_table(path, filters=inside, partitioning=None) for path in chunk_files])
        rows = rows.append_column("place", pa.array(range(len(rows)), pa.int64()))
        rows = rows.sort_by([("user_hash", "ascending"), ("reviewer_id", "ascending"), ("place", "ascending")])
        first = _first_of_each(rows["reviewer_id"])
        again.append(rows.filter(pc.invert(first)).select(["file", "line"]))
        users["duplicate"] += len(again[-1])
        rows = rows.filter(first)
        counts["read"] += pc.sum(rows["read"]).as_py() or 0
        counts["bad_scores"] += pc.sum(rows["bad_scores"]).as_py() or 0
        counts["kept"] += pc.sum(pc.list_value_length(rows["purchase_history"])).as_py() or 0
        for split, (low, high) in splits.items():
            part = rows.filter(pc.and_(pc.greater_equal(rows["user_hash"], low), pc.less(rows["user_hash"], high)))
            if len(part):
                shards[split].append(out / f"{split}-{number:05d}.part")
                pq.write_table(
                    part.select(ROW.names).cast(ROW), shards[split][-1], row_group_size=ROW_GROUP, compression="zstd"
                )
            users[split] += len(part)
        engine.connection.register("release_rows", rows)
        items = engine.connection.sql(
            "SELECT DISTINCT unnest(list_transform(purchase_history, lambda p: p.item), max_depth := 2) "
            "FROM release_rows"
        )
        _write_stream(items.to_arrow_reader(ROW_GROUP), ITEMS, work / f"items-{number:05d}")
        engine.connection.unregister("release_rows")
    for split, files in shards.items():
        for number, path in enumerate(files):
            path.rename(out / f"{split}-{number:05d}-of-{len(files):05d}.parquet")
        if not files:
            pq.write_table(ROW.empty_table(), out / f"{split}-00000-of-00001.parquet")
    return counts, pa.concat_tables(again)


def _write_duplicates(paths: list[Path], again: pa.Table, rejects: pq.ParquetWriter, config: ReleaseConfig) -> None:
    """Add these lines to the rejects; for their text, the files that have any are read a second time."""
    for place, path in enumerate(paths):
        lines = again.filter(pc.equal(again["file"], place))["line"]
        for chunk in chunks(path, _chunk_size(config)) if len(lines) else ():
            here = pc.indices_nonzero(pc.is_in(chunk.numbers, lines.combine_chunks()))
            if len(here):
                numbers, reason = chunk.numbers.take(here), ["duplicate"] * len(here)
                refused = {"file": [str(path)] * len(here), "line": numbers, "reason": reason, "raw": chunk.raw(here)}
                rejects.write_table(pa.table(refused, schema=REJECTS))


def _first_of_each(sorted_ids: pa.ChunkedArray) -> pa.Array:
    """Whether each of the sorted values differs from the one before it."""
    values = sorted_ids.combine_chunks()
    if not len(values):
        return pa.array([], pa.bool_())
    differs = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
    return pa.concat_arrays([pa.array([True]), differs])


def _write_items(engine: DuckDB, work: Path, out: Path) -> int:
    """Write one record of each item bought, the most complete one; returns their number."""
    engine.read_parquet(sorted(work.glob("items-*")), ITEMS, "release_items")
    target = out / "items" / "items.parquet"
    target.parent.mkdir()
    best = engine.connection.sql(
        """
        SELECT DISTINCT ON (asin) asin, title, category, description, price FROM release_items
        ORDER BY asin, title IS NULL,
                 CAST(category IS NULL AS INT) + CAST(description IS NULL AS INT) + CAST(price IS NULL AS INT),
                 -len(concat(title, category, description)), title, category, description, price
        """
    )
    return _write_stream(best.to_arrow_reader(ROW_GROUP), ITEMS, target)


def _write_stream(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.cast(schema))
            rows += len(batch)
    return rows
