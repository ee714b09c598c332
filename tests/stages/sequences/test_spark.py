"""Spark: the same rows as DuckDB, whatever the number of ranges, the memory and the order of the log."""

import gzip
import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from regen_hf import outputs, schema
from regen_hf.engines import Spark
from regen_hf.stages.sequences.build import build
from regen_hf.stages.sequences.purchases import DROPS
from regen_hf.stages.sequences.settings import SequencesConfig

pytest.importorskip("pyspark", reason="pyspark is not installed")
if not shutil.which("java"):
    pytest.skip("Spark needs Java, which is not installed", allow_module_level=True)
pytestmark = pytest.mark.spark

DAY = 86400
START = 10957 * DAY
SETTINGS = {"max_history": 20, "min_history": 4, "k_core": 3, "since": "2000-01-02", "until": "2000-01-03"}
"""With these, the log has reviews that are dropped for each reason that there is."""


def log(rng: random.Random) -> tuple[list[str], list[str]]:
    """Lines of reviews and items with all that can be dropped, many ties in time, and text that sorts badly."""
    items = [{"asin": f"B{n}", "title": f"Pen {n}" if n % 7 else None, "category": ["Pens"]} for n in range(40)]
    words = ["", "é", "e\u0301", "\U0001f58a", "Z", "a", "_", " x", "\n", "&amp;", None]
    reviews = [
        {
            "reviewerID": f"U{int(90 * rng.random() ** 2)}" + rng.choice(["", "é"]),
            "asin": f"B{rng.randrange(44)}",
            "unixReviewTime": START + rng.randrange(4) * DAY + rng.choice([0, 0, 0.25]),
            "overall": rng.choice([None, 1.0, 5.0]),
            "summary": rng.choice(words),
            "reviewText": rng.choice(words),
        }
        for _ in range(4000)
    ]
    reviews += rng.choices(reviews, k=200)
    for times in (1, 3):
        reviews += [
            {"reviewerID": f"few {times}", "asin": f"B{n + 1}", "unixReviewTime": START + DAY} for n in range(times)
        ]
    return [json.dumps(record) for record in [*reviews, {}]], [json.dumps(record) for record in items]


def rows_and_accounting(folder: Path) -> tuple[str, str]:
    """A hash of all rows, split by split and in their order, and the accounting."""
    rows = [list(outputs.rows(outputs.split_files(folder, name))) for name in schema.SPLITS]
    assert all(rows)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest(), (folder / "accounting.json").read_text()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Keeps one session alive for all tests of this module."""
    with Spark("local[2]", "1GB", tmp_path_factory.mktemp("spill")) as spark:
        spark.session.conf.set("spark.sql.shuffle.partitions", "3")
        yield spark


@pytest.fixture(scope="module")
def make(tmp_path_factory, session):
    """Build from lines in a new folder, and give its output."""

    def run(lines, **settings) -> Path:
        folder = tmp_path_factory.mktemp("run [1]")  # brackets mean something to Spark
        files = {}
        for name, part in zip(("reviews", "items"), lines, strict=True):
            path = folder / f"{name}.json.gz"
            path.write_bytes(gzip.compress("".join(f"{line}\n" for line in part).encode()))
            files[name] = (str(path),)
        (folder / "out").mkdir()
        (folder / "work").mkdir()
        build(folder, folder / "out", folder / "work", SequencesConfig(**files, **SETTINGS, **settings))
        return folder / "out"

    return run


@pytest.fixture(scope="module")
def expected(make):
    return rows_and_accounting(make(log(random.Random(0))))


def test_spark_gives_the_rows_and_the_accounting_of_duckdb(make, expected):
    dropped = json.loads(expected[1])["reviews"]["dropped"]
    assert set(DROPS) <= set(dropped)
    assert rows_and_accounting(make(log(random.Random(0)), engine="spark")) == expected


@pytest.mark.parametrize("engine", ["duckdb", "spark"])
def test_ranges_memory_and_the_order_of_the_log_change_no_row(make, expected, engine, monkeypatch):
    reviews, items = log(random.Random(0))
    random.Random(1).shuffle(reviews)
    random.Random(2).shuffle(items)
    monkeypatch.setattr("regen_hf.engines.COPIES", 10_000)
    out = make((reviews, items), engine=engine, memory="1GB")
    assert rows_and_accounting(out) == expected
    assert len(list((out.parent / "work").glob("histories-*/0*"))) > 2
