"""CPU time and memory of `regen sequences`, compared with other programs that build the same histories.

    python benchmarks/sequences.py --reviews 2000000 --write

A power-law log of N reviews is generated once, in the format of the 2018 release. Then every contestant reads it and
writes the same rows as parquet, each in its own process, one after the other, in rounds:

    regen          `regen sequences`, under --memory
    polars         a hand-written script for this log: fast, all in memory
    pandas         the same in pandas
    hf_datasets    plain use of Hugging Face `datasets`: load, map, a loop over rows

Only `regen` validates the file and accounts for every line. Costs are CPU seconds (user and system) and the peak
resident memory of the process. The benchmark fails unless all produce the same rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REVIEWS, ITEMS = "reviews.json.gz", "items.json.gz"
MAX_HISTORY = 50
SPLITS = (("test", "0", "19999999"), ("validation", "19999999", "33333333"), ("train", "33333333", "g"))
"""Bounds of the first 8 hex digits of the md5 of a user id in each split."""
ENTITIES = {"&amp;": "&", "&#34;": '"', "<br />": "\n"}
"""The markup in the texts of the log."""
BLOCK = 100_000
RESULTS = Path(__file__).parent / "results" / "sequences.json"


# The log


def make_log(folder: Path, reviews: int) -> None:
    """Write the log of `reviews` reviews and its items into `folder`.

    The probability of a user or item falls with the square root of its rank, so the counts per user and per item have
    a power-law tail. On average a user has 8 reviews and an item 30, as in the Office and Clothing files of the paper.
    1 % of the lines are exact duplicates, 1 % are of unknown items, 2 % are of items whose title is markup, 6 % of the
    texts contain markup or entities, 2 % of the reviews have no text.
    """
    import numpy as np
    from isal import igzip

    users, items = max(reviews // 8, 10), max(reviews // 30, 10)
    rng = np.random.default_rng(0)
    vocabulary = _words(rng, 20_000)
    ranks = (len(vocabulary) * rng.random(8_000_000) ** 3).astype(int)
    pool = " ".join(vocabulary[rank] for rank in ranks.tolist())
    folder.mkdir(parents=True, exist_ok=True)
    with igzip.open(folder / ITEMS, "wt", compresslevel=3, encoding="utf-8") as file:
        for item in range(items):
            start = int(rng.integers(len(pool) - 2000))
            record = {
                "category": ["Office Products", f"Kind {item % 1009 % 97}", f"Sort {item % 1009}"],
                "description": [pool[start : start + 300].strip()] if item % 3 else [],
                "title": pool[start + 300 : start + 360].strip().title() if item % 50 else "<span id='productTitle'>",
                "also_buy": [_asin(int(other)) for other in rng.integers(items, size=10)],
                "brand": f"Brand {item % 503}",
                "rank": f"{item} in Office Products (",
                "price": f"${item % 90 + 0.99:.2f}" if item % 4 else "",
                "asin": _asin(item),
            }
            file.write(json.dumps(record) + "\n")
    with igzip.open(folder / REVIEWS, "wt", compresslevel=3, encoding="utf-8") as file:
        for block, start in enumerate(range(0, reviews, BLOCK)):
            file.write(_reviews(np.random.default_rng([1, block]), min(BLOCK, reviews - start), users, items, pool))
    (folder / "made.json").write_text(json.dumps({"reviews": reviews, "users": users, "items": items}))


def _words(rng, count: int) -> list[str]:
    letters = rng.integers(97, 123, size=(count, 14), dtype="uint8").tobytes().decode()
    lengths = rng.integers(1, 5, size=count) + rng.integers(1, 7, size=count)
    return [letters[14 * n : 14 * n + length] for n, length in enumerate(lengths.tolist())]


def _asin(item: int) -> str:
    return f"B{item:09d}"


def _reviews(rng, count: int, users: int, items: int, pool: str) -> str:
    user = (users * rng.random(count) ** 2).astype(int)
    item = (items * rng.random(count) ** 2).astype(int)
    item[rng.random(count) < 0.01] = items  # a number past the last item
    day = rng.integers(12_000, 17_800, count)
    stars = rng.choice([1, 2, 3, 4, 5], count, p=[0.06, 0.05, 0.09, 0.2, 0.6])
    length = rng.lognormal(5.1, 0.9, count).clip(10, 4000).astype(int)
    place = rng.integers(len(pool) - 5000, size=count)
    kind = rng.random(count)
    lines = []
    columns = (user, item, day, stars, length, place, kind)
    for u, i, d, s, n, p, k in zip(*(column.tolist() for column in columns), strict=True):
        if k < 0.01 and lines:
            lines.append(lines[-1])
            continue
        text = "" if k < 0.03 else pool[p : p + n]
        if k > 0.94:
            text = text.replace(" ", (" &amp; ", " &#34;", "<br />")[int(k * 1e6) % 3], 2)
        summary = pool[p + 4000 : p + 4010 + n % 40].replace(" ", "-", 1)
        lines.append(
            f'{{"overall": {s}.0, "verified": true, "reviewTime": "06 {d % 28 + 1}, {1970 + d // 365}", '
            f'"reviewerID": "A{u * 2654435761 % 2**32:010X}", "asin": "{_asin(i)}", "style": {{"Size:": " {n % 9}"}}, '
            f'"reviewerName": "Shopper {u}", "reviewText": {json.dumps(text)}, "summary": {json.dumps(summary)}, '
            f'"unixReviewTime": {d * 86400}}}\n'
        )
    return "".join(lines)


# The contestants: independent programs that import nothing of the package.


def _tie(user: str, item: str) -> str:
    """The key by which a user's purchases of one time are ordered."""
    import hashlib

    return hashlib.md5(f"{user}\t{item}".encode()).hexdigest()[:16]


def run_polars(log: Path, out: Path) -> None:
    """Build the histories with Polars, all in memory."""
    import hashlib

    import polars as pl
    import pyarrow.parquet as pq

    columns = {"asin": pl.String, "title": pl.String, "category": pl.List(pl.String)}
    columns |= {"description": pl.List(pl.String), "price": pl.String}
    items = (
        pl.read_ndjson(log / ITEMS, schema=columns)
        .filter(~pl.col("title").str.contains("<", literal=True))
        .select(
            "asin",
            "title",
            pl.col("category").list.join(" - "),
            pl.col("description").list.join(" ").replace("", None),
            pl.col("price").str.strip_prefix("$").cast(pl.Float64, strict=False),
        )
    )

    def text(name: str) -> pl.Expr:
        return pl.col(name).str.replace_many(list(ENTITIES), list(ENTITIES.values())).str.strip_chars().fill_null("")

    columns = {"reviewerID": pl.String, "asin": pl.String, "unixReviewTime": pl.Int64, "overall": pl.Float64}
    reviews = (
        pl.read_ndjson(log / REVIEWS, schema=columns | {"summary": pl.String, "reviewText": pl.String})
        .select(
            pl.col("reviewerID").alias("reviewer_id"),
            "asin",
            pl.col("overall").cast(pl.Int64).alias("rating"),
            pl.col("unixReviewTime").alias("unix_time"),
            text("summary").alias("summary"),
            text("reviewText").alias("text"),
        )
        .join(items.select("asin"), on="asin", how="semi")
        .unique()
    )
    users = reviews.select("reviewer_id").unique()
    hashes = [hashlib.md5(user.encode()).hexdigest()[:8] for user in users["reviewer_id"]]
    keys = ["user_hash", "reviewer_id"]
    tied = pl.struct("reviewer_id", "unix_time").is_duplicated()
    purchases = (
        reviews.join(users.with_columns(user_hash=pl.Series(hashes)), on="reviewer_id")
        .with_columns(
            tie=pl.when(tied)
            .then(pl.struct("reviewer_id", "asin"))
            .map_elements(lambda row: _tie(*row.values()), pl.String)
        )
        .sort([*keys, "unix_time", "tie", "asin", "rating", "summary", "text"])
        .group_by(keys, maintain_order=True)
        .tail(MAX_HISTORY)
        .join(items, on="asin", how="left", maintain_order="left")
    )
    review = [pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in ("summary", "text")]
    histories = (
        purchases.select(
            *keys,
            purchase_history=pl.struct(
                item=pl.struct("asin", "title", "category", "description", "price"),
                review=pl.struct(review[0], "rating", review[1], "unix_time"),
            ),
        )
        .group_by(keys, maintain_order=True)
        .agg("purchase_history")
    )
    for name, low, high in SPLITS:
        rows = histories.filter(pl.col("user_hash").is_between(pl.lit(low), pl.lit(high), closed="left"))
        table = rows.drop("user_hash").to_arrow(compat_level=pl.CompatLevel.oldest())
        # The writer of Polars took up to 3 times as long for these nested rows.
        pq.write_table(table, out / f"{name}.parquet", row_group_size=5000, compression="zstd")


def run_pandas(log: Path, out: Path) -> None:
    """Build the histories with pandas, column by column where possible."""
    import hashlib

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = pd.read_json(log / ITEMS, lines=True, dtype=False)
    items = items[~items["title"].str.contains("<", regex=False)]
    items = pd.DataFrame(
        {
            "asin": items["asin"],
            "title": items["title"],
            "category": items["category"].map(" - ".join),
            "description": items["description"].map(" ".join).replace("", None),
            "price": pd.to_numeric(items["price"].str.removeprefix("$")),
        }
    )
    reviews = pd.read_json(log / REVIEWS, lines=True, dtype=False)
    reviews = reviews[["reviewerID", "asin", "overall", "unixReviewTime", "summary", "reviewText"]]
    reviews.columns = ["reviewer_id", "asin", "rating", "unix_time", "summary", "text"]
    for name in ("summary", "text"):
        for entity, character in ENTITIES.items():
            reviews[name] = reviews[name].str.replace(entity, character, regex=False)
        reviews[name] = reviews[name].str.strip()
    reviews["rating"] = reviews["rating"].astype("int64")
    reviews = reviews[reviews["asin"].isin(items["asin"])].drop_duplicates()
    hashes = {user: hashlib.md5(user.encode()).hexdigest()[:8] for user in reviews["reviewer_id"].unique()}
    reviews["user_hash"] = reviews["reviewer_id"].map(hashes)
    tied = reviews.duplicated(["reviewer_id", "unix_time"], keep=False)
    pairs = zip(reviews["reviewer_id"][tied], reviews["asin"][tied], strict=True)
    reviews.loc[tied, "tie"] = [_tie(*pair) for pair in pairs]
    reviews = reviews.sort_values(
        ["user_hash", "reviewer_id", "unix_time", "tie", "asin", "rating", "summary", "text"], ignore_index=True
    )
    reviews = reviews.groupby(["user_hash", "reviewer_id"], sort=False).tail(MAX_HISTORY)
    purchases = reviews.merge(items, on="asin", how="left").replace({"summary": {"": None}, "text": {"": None}})
    item = pa.Table.from_pandas(purchases[["asin", "title", "category", "description", "price"]], preserve_index=False)
    review = pa.Table.from_pandas(purchases[["summary", "rating", "text", "unix_time"]], preserve_index=False)
    sizes = purchases.groupby(["user_hash", "reviewer_id"], sort=False).size()
    offsets = pa.array([0, *sizes.cumsum()], pa.int32())
    pairs = pa.StructArray.from_arrays([_struct(item), _struct(review)], ["item", "review"])
    users = sizes.index.to_frame(index=False)
    table = pa.table(
        {
            "user_hash": pa.array(users["user_hash"], pa.string()),
            "reviewer_id": pa.array(users["reviewer_id"], pa.string()),
            "purchase_history": pa.ListArray.from_arrays(offsets, pairs),
        }
    )
    for name, low, high in SPLITS:
        rows = table.filter(pa.array((users["user_hash"] >= low) & (users["user_hash"] < high)))
        pq.write_table(rows.drop_columns("user_hash"), out / f"{name}.parquet", row_group_size=5000, compression="zstd")


def _struct(table):
    import pyarrow as pa

    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = pa.string() if pa.types.is_large_string(column.type) else column.type
        columns[name] = column.cast(kind).combine_chunks()
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def run_hf_datasets(log: Path, out: Path) -> None:
    """Build the histories with `datasets`: load the JSON, clean with map, group by user in a loop, and write."""
    import hashlib

    from datasets import Dataset, Features, List, Value, load_dataset

    cache = str(out / "cache")

    def clean(text: str) -> str:
        for entity, character in ENTITIES.items():
            text = text.replace(entity, character)
        return text.strip()

    catalogue = {}
    for row in load_dataset("json", data_files=str(log / ITEMS), split="train", cache_dir=cache):
        if "<" not in row["title"]:
            catalogue[row["asin"]] = {
                "asin": row["asin"],
                "title": row["title"],
                "category": " - ".join(row["category"]),
                "description": " ".join(row["description"]) or None,
                "price": float(row["price"][1:]) if row["price"] else None,
            }
    reviews = load_dataset("json", data_files=str(log / REVIEWS), split="train", cache_dir=cache)
    reviews = reviews.filter(lambda row: row["asin"] in catalogue)
    reviews = reviews.map(
        lambda row: {
            "user_hash": hashlib.md5(row["reviewerID"].encode()).hexdigest()[:8],
            "summary": clean(row["summary"]),
            "reviewText": clean(row["reviewText"]),
        }
    )
    users: dict[tuple[str, str], set[tuple]] = {}
    for row in reviews:
        tie = _tie(row["reviewerID"], row["asin"])
        purchase = (row["unixReviewTime"], tie, row["asin"], int(row["overall"]), row["summary"], row["reviewText"])
        users.setdefault((row["user_hash"], row["reviewerID"]), set()).add(purchase)

    def rows(low: str, high: str):
        for user_hash, user in sorted(users):
            if low <= user_hash < high:
                purchases = sorted(users[user_hash, user])[-MAX_HISTORY:]
                yield {
                    "reviewer_id": user,
                    "purchase_history": [
                        {
                            "item": catalogue[asin],
                            "review": {
                                "summary": summary or None,
                                "rating": rating,
                                "text": text or None,
                                "unix_time": moment,
                            },
                        }
                        for moment, _, asin, rating, summary, text in purchases
                    ],
                }

    text, number = Value("string"), Value("int64")
    item = dict.fromkeys(("asin", "title", "category", "description"), text) | {"price": Value("float64")}
    review = {"summary": text, "rating": number, "text": text, "unix_time": number}
    features = Features({"reviewer_id": text, "purchase_history": List({"item": item, "review": review})})
    for name, low, high in SPLITS:
        split = Dataset.from_generator(
            rows, features=features, gen_kwargs={"low": low, "high": high}, cache_dir=cache, fingerprint=f"{name}0"
        )
        split.to_parquet(out / f"{name}.parquet")


def digest(out: Path) -> None:
    """Print a hash of the rows in `out` for each split, independent of the number of files."""
    import duckdb

    hashes = {}
    for name, _, _ in SPLITS:
        query = "SELECT count(*), sum(hash(reviewer_id, purchase_history)) FROM read_parquet(?)"
        hashes[name] = duckdb.execute(query, [f"{out}/{name}*.parquet"]).fetchone()
    print(json.dumps({name: [rows, str(total)] for name, (rows, total) in hashes.items()}))


# Measurement. This process imports nothing heavy, because its memory would count in the peak of its children.


def measure(command: list[str], folder: Path, watch: str = "") -> dict[str, float]:
    """The cost of a process and its children.

    CPU seconds (user and system), wall seconds, peak memory in GB (of the largest process), the maximum size of
    `folder` in GB, and, as `seen`, the seconds until a path in `folder` matches the pattern `watch`.
    """
    start, disk, seen = time.monotonic(), 0, {}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            disk = max(disk, size(folder))
            if watch and not seen and any(folder.glob(watch)):
                seen = {"seen": time.monotonic() - start}
            time.sleep(0.2)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read().decode()[-4000:]}")
    cost = {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - start, **seen}
    return {**cost, "memory": usage.ru_maxrss * 1024 / 1e9, "peak_disk": disk / 1e9}


def size(folder: Path) -> int:
    """Bytes of the files in `folder`; a file with two names counts once."""
    sizes = {}
    for parent, _, names in os.walk(folder):  # unlike rglob, it ignores folders that disappear
        for name in names:
            with contextlib.suppress(OSError):
                state = os.stat(os.path.join(parent, name))
                sizes[state.st_ino] = state.st_size
    return sum(sizes.values())


def once(name: str, log: Path, memory: str) -> dict[str, float | str]:
    """Run one contestant: its cost and a hash of its rows."""
    with tempfile.TemporaryDirectory(dir=log, prefix=f"{name}-") as scratch:
        out = Path(scratch) / "out"
        if name == "regen":
            command = [sys.executable, "-m", "regen_hf.cli", "sequences", str(out), "--memory", memory]
            command += ["--reviews", str(log / REVIEWS), "--items", str(log / ITEMS)]
            rows = out / "sequences"
        else:
            out.mkdir()
            command, rows = [sys.executable, __file__, "--as", name, str(log), str(out)], out
        cost = measure(command, out)
        hashed = subprocess.run([sys.executable, __file__, "--digest", str(rows)], capture_output=True, check=True)
        return {**cost, "output": size(rows) / 1e9, "rows": hashed.stdout.decode()}


CONTESTANTS = {"polars": run_polars, "pandas": run_pandas, "hf_datasets": run_hf_datasets}
SLOW = ("hf_datasets",)
"""Runs only in the last round: it takes longer than all others together, and costs several times as much."""


def main() -> None:
    """Generate the log, measure in rounds, check that all rows are equal, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, nargs="+", default=[200_000], help="sizes of log (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, hf_datasets only once (%(default)s)")
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS), help="compared with regen (%(default)s)")
    parser.add_argument("--memory", default="2GB", help="memory limit of regen (%(default)s)")
    parser.add_argument("--logs", type=Path, help="folder in which logs are kept and reused")
    parser.add_argument("--write", action="store_true", help=f"add the results to {RESULTS.name}")
    parser.add_argument("--as", nargs=3, dest="child", help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--digest", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CONTESTANTS[options.child[0]](Path(options.child[1]), Path(options.child[2]))
    elif options.make:
        make_log(Path(options.make[0]), int(options.make[1]))
    elif options.digest:
        digest(options.digest)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            results = json.loads(RESULTS.read_text()) if options.write and RESULTS.exists() else {}
            for reviews in options.reviews:
                log = (options.logs or Path(scratch)) / str(reviews)
                if not (log / "made.json").exists():
                    subprocess.run([sys.executable, __file__, "--make", str(log), str(reviews)], check=True)
                results[str(reviews)] = compare(log, options)
                if options.write:
                    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(json.dumps({size: result["ratios"] for size, result in results.items()}))


def compare(log: Path, options: argparse.Namespace) -> dict:
    """Medians of `options.rounds` rounds with one log, and their ratios to those of regen."""
    names = ["regen", *options.contestants]
    runs: dict[str, list] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            if name in SLOW and turn < options.rounds - 1:
                continue
            runs[name].append(once(name, log, options.memory))
            cost = runs[name][-1]
            shown = ", ".join(f"{key} {cost[key]:.2f}" for key in ("cpu", "wall", "memory"))
            print(f"{log.name} reviews, round {turn + 1}, {name}: {shown}", file=sys.stderr, flush=True)
            if cost["rows"] != runs["regen"][0]["rows"]:
                raise SystemExit(
                    f"{name} produced other rows than regen: {cost['rows']} and {runs['regen'][0]['rows']}"
                )
    median = {
        name: {key: round(statistics.median(run[key] for run in of), 3) for key in of[0] if key != "rows"}
        for name, of in runs.items()
    }
    gigabytes = float(options.memory.upper().removesuffix("GB"))
    ratios = {"runs": options.rounds, "memory_to_limit": round(median["regen"]["memory"] / gigabytes, 3)}
    for name in options.contestants:
        for key in ("cpu", "memory"):
            ratios[f"{key}_{name}_to_regen"] = round(median[name][key] / median["regen"][key], 2)
    sizes = {"log_gb": sum((log / name).stat().st_size for name in (REVIEWS, ITEMS)) / 1e9}
    spread = {name: [round(run["cpu"], 2) for run in of] for name, of in runs.items()}
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[1], "limit": options.memory}
    return {"ratios": ratios, "median": median, "cpu_of_each_run": spread, **sizes, **machine}


if __name__ == "__main__":
    main()
