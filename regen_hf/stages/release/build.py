"""Read the official REGEN release into rows of the dataset."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import outputs
from ...engines import DuckDB, chunk_size, hash_ranges
from ...errors import InputError
from ...reviews import accounting
from ...reviews.canonical import typed_reviews
from ...reviews.catalogue import read_catalogue, save_catalogue, write_items
from ...reviews.files import find
from ...reviews.ingest import REJECTS, rejects_table
from ...reviews.lines import Chunk, chunks, progress
from ...reviews.splits import split_rows, write_shards
from ...reviews.times import SECOND
from ...schema import ITEMS, LAST_PURCHASE, METADATA, ROW, SPLITS, USER
from .settings import ReleaseConfig

RELEASE = "official REGEN release"
"""The value of `narrator` and `rater`: the release does not name a model."""
OPTION = "--from-release"
ROW_GROUP = 1000
"""Rows in a row group: few, so that reading one range of hashes reads few rows of its neighbours."""
ROWS = pa.schema(
    [
        ("user_hash", pa.string()),  # first 8 hex digits of md5(reviewer_id)
        ("file", pa.int64()),  # number of the file
        ("line", pa.int64()),
        ("raw", pa.string()),
        ("read", pa.int64()),  # purchases in the line
        ("bad_scores", pa.int64()),  # scores outside 1..7
        *ROW,
    ]
)
"""Rows in the chunks, before duplicates are dropped."""

NARRATIVES = {"last_purchase": LAST_PURCHASE, "user": USER}
TEXTS = {f"{part}.{text.name}": (part, text.name) for part, texts in NARRATIVES.items() for text in texts}
SCORES = {f"metadata.{part.name}.{score.name}": (part.name, score.name) for part in METADATA for score in part.type}
FIELDS: dict[str, str | tuple[str, ...]] = {
    "reviewer_id": "reviewer_id",
    "purchase_history": "purchase_history",
    **TEXTS,
    **{name: ("metadata", *path) for name, path in SCORES.items()},
}
"""Columns of `DuckDB.read_json` and their paths in a line."""
PURCHASE = {
    "item": dict.fromkeys(ITEMS.names, "VARCHAR"),
    "review": dict.fromkeys(("summary", "rating", "text", "unix_time", "timestamp"), "VARCHAR"),
}


def build(run: Path, out: Path, work: Path, config: ReleaseConfig) -> dict[str, Any]:
    """Read the release into `out`.

    Returns:
        Counts: lines read, users and purchases kept, items, users of each split.

    Raises:
        InputError: a file is missing, damaged or not of the release, or no user is left.
    """
    shutil.rmtree(work, ignore_errors=True)  # an interrupted run starts again, which takes minutes
    (work / "chunks").mkdir(parents=True)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    with (
        DuckDB(config.memory, work / "spill") as engine,
        pq.ParquetWriter(out / outputs.REJECTS, REJECTS, compression="zstd") as rejects,
    ):
        paths = find(config.from_release, OPTION)
        _read(engine, paths, work / "chunks", rejects, config, counts, dropped)
        _write_splits(engine, paths, work, out, rejects, config, counts, dropped)
        catalogue = save_catalogue(engine, sorted(work.glob("items-*")), work)
    asins = read_catalogue(catalogue)["asin"]
    write_items(catalogue, pc.is_valid(asins).combine_chunks(), out / outputs.CATALOGUE)
    splits = {split: counts[split] for split in SPLITS}
    reviews, items = counts["reviews"], len(asins)
    account = {
        "users": accounting.account(counts["lines"], sum(splits.values()), dropped),
        "reviews": accounting.account(
            counts["reviews_read"], reviews, {"beyond_max_history": counts["reviews_read"] - reviews}
        ),
        "items": accounting.account(reviews, items, {"duplicate": reviews - items}),
        "scores": {"out_of_scale": counts["bad_scores"]},
        "splits": splits,
    }
    if not account["users"]["kept"]:
        raise InputError(_no_user_left(account["users"], out / outputs.REJECTS))
    outputs.write_json(out / outputs.ACCOUNTING, account)
    accounting.show("release", account["users"])
    return {
        "lines_read": counts["lines"],
        "users": account["users"]["kept"],
        "reviews": reviews,
        "items": items,
        **splits,
    }


def _no_user_left(users: dict[str, Any], rejects: Path) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in users["dropped"].items())
    first = next(outputs.rows([rejects]), None)
    line = f" The first is line {first['line']} of {first['file']}: {first['reason']}." if first else ""
    return f"No user is left: the {users['read']} lines were dropped as: {reasons}.{line} Give a file of the release."


def _read(
    engine: DuckDB,
    paths: list[Path],
    folder: Path,
    rejects: pq.ParquetWriter,
    config: ReleaseConfig,
    counts: Counter[str],
    dropped: Counter[str],
) -> None:
    """Write the rows of each chunk of lines to `folder`, sorted by the user's hash."""
    number = 0
    for file, (path, advance) in enumerate(progress(paths, "read release")):
        for chunk in chunks(path, chunk_size(config.memory)):
            if chunk.numbers[0].as_py() == 1:
                _recognise(path, chunk)
            table = _rows(engine, chunk, config.max_history)
            if len(table) != len(chunk.lines):
                raise RuntimeError(f"{path}: {len(chunk.lines)} lines came back as {len(table)} rows.")
            bad = table.filter(pc.is_valid(table["reject"]))
            if len(bad):
                raw = chunk.raw(pc.subtract(bad["line"], chunk.numbers[0]))
                rejects.write_table(rejects_table([path] * len(bad), bad["line"], bad["reject"], raw))
            table = table.append_column("file", pa.repeat(pa.scalar(file), len(table)))
            table = table.append_column("raw", pc.utf8_rtrim(chunk.lines["line"], "\r\n"))
            for name in set(ROWS.names) - set(table.column_names):  # columns that the release lacks
                table = table.append_column(name, pa.nulls(len(table), ROWS.field(name).type))
            rows = table.filter(pc.is_null(table["reject"])).select(ROWS.names).cast(ROWS).sort_by("user_hash")
            pq.write_table(rows, folder / f"{number:06d}.parquet", row_group_size=ROW_GROUP, compression="zstd")
            number += 1
            counts["lines"] += len(table)
            counts["bytes"] += rows.drop_columns("raw").nbytes
            dropped.update(bad["reject"].to_pylist())
            advance(chunk.position)


def _recognise(path: Path, chunk: Chunk) -> None:
    """Check by the first object of a file that it is of the release.

    Raises:
        InputError: it is not.
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
                f"{path}, given as {OPTION}, is not of the REGEN release: its fields are "
                f"{', '.join(sorted(record))}, expected reviewer_id and purchase_history. "
                "Raw reviews go to `regen sequences` as --reviews."
            )
        try:
            review = record["purchase_history"][0]["review"]
            has_time = {"unix_time", "timestamp"} & set(review)
        except (TypeError, LookupError):
            continue
        if not has_time:
            raise InputError(
                f"{path}, given as {OPTION}, has no time: the fields of a review are {', '.join(sorted(review))}, "
                "expected unix_time or timestamp. Rename the field."
            )
        return
    raise InputError(
        f"{path}, given as {OPTION}, contains no user of the REGEN release in its first lines, expected one JSON "
        "object with reviewer_id and purchase_history per line. Check the file."
    )


def _rows(engine: DuckDB, chunk: Chunk, max_history: int) -> pa.Table:
    """One row for each line of a chunk, in order: `line`, `reject` (null, or the reason why it is no user) and `ROWS`.

    The rules of raw reviews decide about each purchase; a line has the reason of its first invalid one.
    """
    lines = engine.to_arrow(engine.read_json(chunk.lines, FIELDS, ["reviewer_id", *TEXTS]))
    engine.read_arrow(lines, "release_lines")
    purchases = engine.read_arrow(engine.connection.sql(_purchases()).to_arrow_table(), "release_purchases")
    engine.read_arrow(engine.apply(typed_reviews, purchases), "typed_purchases")
    return engine.connection.sql(_users(), params={"keep": max_history}).to_arrow_table()


def _purchases() -> str:
    """SQL: a row for each purchase in `release_lines`: its line, its item, and the fields of a raw review as text."""

    def text(path: str) -> str:
        return f"nullif(trim({path}), '')"

    item = {name: text(f"p.item.{name}") for name in ITEMS.names}
    item["price"] = "nullif(try_cast(p.item.price AS DOUBLE), 0)"
    return f"""
        SELECT row_number() OVER () AS number, line, reject, nested, reviewer_id,
               {_struct(item)} AS item, p.item.asin AS asin,
               coalesce(strftime(try_strptime(time, '%m/%d/%Y'), '%Y-%m-%d'), time) AS unix_time,
               p.review.rating AS rating, {text("p.review.summary")} AS summary, {text("p.review.text")} AS text
        FROM (SELECT *, coalesce(p.review.unix_time, p.review.timestamp) AS time
              FROM (SELECT number AS line, reject, nested, reviewer_id,
                           unnest(TRY(from_json(purchase_history, '[{json.dumps(PURCHASE)}]'))) AS p
                    FROM release_lines))
        """  # noqa: S608 (names of the schema)


def _users() -> str:
    """SQL: a row for each line of `release_lines`, from `release_purchases` and `typed_purchases`."""

    def score(name: str) -> str:
        number = f'try_cast("{name}" AS DOUBLE)'
        return f"CASE WHEN {number} IN (1, 2, 3, 4, 5, 6, 7) THEN try_cast({number} AS BIGINT) END"

    texts = {
        part: _struct({text.name: f"nullif(trim(\"{part}.{text.name}\"), '')" for text in kind})
        for part, kind in NARRATIVES.items()
    }
    metadata = _struct(
        {
            part.name: _struct({kind.name: score(f"metadata.{part.name}.{kind.name}") for kind in part.type})
            for part in METADATA
        }
    )
    bad_scores = " + ".join(f'CAST("{name}" IS NOT NULL AND ({score(name)}) IS NULL AS BIGINT)' for name in SCORES)
    review = _struct(
        {"summary": "t.summary", "rating": "t.rating", "text": "t.text", "unix_time": f"t.time // {SECOND}"}
    )
    return f"""
        SELECT number AS line, user_hash, h.reviewer_id, read, {bad_scores} AS bad_scores, purchase_history,
               {texts["last_purchase"]} AS last_purchase, {texts["user"]} AS user, {metadata} AS metadata,
               '{RELEASE}' AS narrator, '{RELEASE}' AS rater,
               CASE WHEN read > 0 THEN h.reject
                    WHEN l.reject IS NOT NULL THEN l.reject
                    WHEN nested THEN 'wrong_type'
                    WHEN coalesce(trim(l.reviewer_id), '') = '' THEN 'missing_user'
                    ELSE 'missing_history' END AS reject
        FROM (SELECT * EXCLUDE (purchase_history) FROM release_lines) l
        LEFT JOIN (SELECT line, count(*) AS read, any_value(t.user_hash) AS user_hash,
                          any_value(t.reviewer_id) AS reviewer_id,
                          arg_min(t.reject, number) FILTER (t.reject IS NOT NULL) AS reject,
                          list({{'item': item, 'review': {review}}} ORDER BY number)[-$keep:] AS purchase_history
                   FROM release_purchases p JOIN typed_purchases t USING (number) GROUP BY line) h
               ON l.number = h.line
        ORDER BY number
        """  # noqa: S608 (names of the schema)


def _struct(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"'{name}': {value}" for name, value in values.items()) + "}"


def _write_splits(
    engine: DuckDB,
    paths: list[Path],
    work: Path,
    out: Path,
    rejects: pq.ParquetWriter,
    config: ReleaseConfig,
    counts: Counter[str],
    dropped: Counter[str],
) -> None:
    """Write the splits to `out`, the distinct items of each range to `work`, and duplicates to the rejects.

    The first line of a user counts, the others are duplicates.
    """
    import ibis

    shards: dict[str, list[Path]] = {split: [] for split in SPLITS}
    table = engine.read_parquet(sorted((work / "chunks").glob("*.parquet")), ROWS, "release_rows")
    for number, (low, high) in enumerate(hash_ranges(counts["bytes"], config.memory)):
        in_range = table.filter(table.user_hash >= low, table.user_hash < high)
        rank = ibis.row_number().over(group_by=in_range.reviewer_id, order_by=[in_range.file, in_range.line])
        ranked = in_range.mutate(rank=rank)
        first, others = ranked.filter(ranked["rank"] == 0), ranked.filter(ranked["rank"] > 0)
        rows = engine.to_arrow(first.drop("rank", "raw").order_by("user_hash", "reviewer_id"))
        duplicates = engine.to_arrow(others.select("file", "line", "raw").order_by("file", "line"))
        if len(duplicates):
            files = [paths[file] for file in duplicates["file"].to_pylist()]
            reasons = ["duplicate"] * len(duplicates)
            rejects.write_table(rejects_table(files, duplicates["line"], reasons, duplicates["raw"]))
        dropped["duplicate"] += len(duplicates)
        counts["reviews_read"] += pc.sum(rows["read"]).as_py() or 0
        counts["bad_scores"] += pc.sum(rows["bad_scores"]).as_py() or 0
        counts["reviews"] += pc.sum(pc.list_value_length(rows["purchase_history"])).as_py() or 0
        for split, users in split_rows(rows["user_hash"], config.validation, config.test).items():
            counts[split] += users.stop - users.start
            if users.stop > users.start:
                shards[split].append(work / f"{split}-{number:05d}.parquet")
                part = rows[users].select(ROW.names).cast(ROW)
                pq.write_table(part, shards[split][-1], row_group_size=ROW_GROUP, compression="zstd")
        items = pc.struct_field(pc.list_flatten(rows["purchase_history"]), "item")
        distinct = pa.Table.from_struct_array(items).group_by(ITEMS.names, use_threads=False).aggregate([])
        pq.write_table(distinct.select(ITEMS.names).cast(ITEMS), work / f"items-{number:05d}.parquet")
    write_shards(out, shards, ROW)
