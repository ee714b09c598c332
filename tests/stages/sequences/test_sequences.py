"""Sequences: who is kept, in what order, in which split, and that every number adds up."""

import collections
import csv
import gzip
import hashlib
import itertools
import json
import random
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from regen_hf import outputs, schema
from regen_hf.config import section
from regen_hf.errors import ConfigError, InputError, RegenError
from regen_hf.stages.sequences.build import build
from regen_hf.stages.sequences.purchases import DROPS
from regen_hf.stages.sequences.settings import SequencesConfig
from tests.paths import SHARED_DATA

DATA = SHARED_DATA
DAY = 86400
START = 10957 * DAY
"""2000-01-01; earlier times are errors of other columns."""


def review(user="A1", asin="B1", time=0, rating=5.0, summary="Good", text="It writes."):
    return {
        "reviewerID": user,
        "asin": asin,
        "unixReviewTime": START + time,
        "overall": rating,
        "summary": summary,
        "reviewText": text,
    }


def item(asin="B1", title="Pen", **fields):
    return {"asin": asin, "title": title, "category": ["Office", "Pens"], "description": [], "price": ""} | fields


ITEMS = [item(f"B{n}", f"Pen {n}") for n in range(100)]


class Result:
    """What a build left in its folder, read back."""

    def __init__(self, out: Path, counts: dict):
        self.out, self.counts = out, counts
        self.accounting = json.loads((out / "accounting.json").read_text())
        self.split = {name: list(outputs.rows(outputs.split_files(out, name))) for name in schema.SPLITS}
        self.users = {row["reviewer_id"]: row["purchase_history"] for rows in self.split.values() for row in rows}
        self.items = pq.read_table(out / "items" / "items.parquet").to_pylist()
        self.rejects = pq.read_table(out / "rejects.parquet").to_pylist()

    def asins(self, user: str = "A1") -> list[str]:
        return [purchase["item"]["asin"] for purchase in self.users[user]]


@pytest.fixture
def make(tmp_path):
    """Build from records or lines in a new run folder."""
    numbers = itertools.count()

    def run(reviews, items=ITEMS, work=None, **settings):
        folder = tmp_path / f"run{next(numbers)}"
        paths = {}
        for name, records in (("reviews", reviews), ("items", items)):
            paths[name] = (str(folder / f"{name}.json.gz"),)
            folder.mkdir(exist_ok=True)
            lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
            Path(paths[name][0]).write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        (folder / "out").mkdir()
        work = work or folder / "work"
        work.mkdir(exist_ok=True)
        counts = build(folder, folder / "out", work, SequencesConfig(**paths, **settings))
        return Result(folder / "out", counts)

    return run


# Rows


def test_the_files_hold_the_columns_of_the_schema(make):
    made = make([review()])
    for name in schema.SPLITS:
        for path in outputs.split_files(made.out, name):
            assert pq.read_schema(path).remove_metadata() == schema.SEQUENCES
    assert [path.name for path in outputs.item_files(made.out)] == ["items.parquet"]
    assert pq.read_schema(made.out / "items" / "items.parquet").remove_metadata() == schema.ITEMS


def test_a_purchase_carries_its_item_and_its_review(make):
    pen = item(price="$2.50", description=["Blue."])
    assert make([review(time=9, rating=4.0)], [item("B0"), pen]).users["A1"] == [
        {
            "item": {"asin": "B1", "title": "Pen", "category": "Office - Pens", "description": "Blue.", "price": 2.5},
            "review": {"summary": "Good", "rating": 4, "text": "It writes.", "unix_time": START + 9},
        }
    ]


def test_a_history_is_in_the_order_of_time(make):
    made = make([review(asin=f"B{n}", time=time) for n, time in enumerate([30, 10, 20])])
    assert made.asins() == ["B1", "B2", "B0"]


def test_the_latest_purchases_are_kept_and_the_rest_is_counted(make):
    made = make([review(asin=f"B{n}", time=n * DAY) for n in range(60)])
    assert made.asins() == [f"B{n}" for n in range(10, 60)]
    assert made.accounting["reviews"] == {"read": 60, "kept": 50, "dropped": {"beyond_max_history": 10}}
    assert make([review(asin=f"B{n}", time=n) for n in range(9)], max_history=2).asins() == ["B7", "B8"]


def test_events_of_one_second_are_in_the_order_of_their_fractions(make):
    log = [
        review(asin=f"B{8 - n}") | {"unixReviewTime": time}
        for n, time in enumerate(
            ["1500000000123", "1500000000124.5", "1500000000.125", "1500000000126000", "1500000000126000001"]
        )
    ]
    log.append(review(asin="B3") | {"unixReviewTime": "2017-07-14T02:40:00.9Z"})
    random.Random(0).shuffle(log)
    made = make(log)
    assert made.asins() == ["B8", "B7", "B6", "B5", "B4", "B3"]
    assert {purchase["review"]["unix_time"] for purchase in made.users["A1"]} == {1500000000}
    assert made.accounting["times"] == {"purchases": 6, "tied": 0}


def test_events_a_nanosecond_apart_are_different_purchases(make):
    times = [1500000000123456788, 1500000000123456789, 1500000000123456789, "1500000000.123456789"]
    made = make([review() | {"unixReviewTime": time} for time in times])
    assert made.accounting["reviews"] == {"read": 4, "kept": 2, "dropped": {"duplicate": 2}}
    assert made.accounting["times"] == {"purchases": 2, "tied": 0}
    day = make([review() | {"unixReviewTime": time} for time in ("20170714", 1499990400, "2017-07-14", 1499990400.0)])
    assert day.accounting["reviews"] == {"read": 4, "kept": 1, "dropped": {"duplicate": 3}}


def test_purchases_of_the_same_second_keep_one_order_however_the_rows_stand(make):
    ties = [review(asin=f"B{n % 4}", text=f"text {n}", rating=n % 3 + 1, summary=None) for n in range(12)]
    ties += [review(asin="B1", text=None, rating=None), review(asin="B1", text=None, rating=2)]
    rng = random.Random(0)
    first = make(ties).users
    for _ in range(3):
        rng.shuffle(ties)
        assert make(ties).users == first
    asins = [purchase["item"]["asin"] for purchase in first["A1"]]
    assert [len(list(group)) for _, group in itertools.groupby(asins)] == [
        asins.count(asin) for asin in dict.fromkeys(asins)
    ]


def test_the_order_within_one_time_carries_no_information_about_ids(make):
    made = make(
        [review(user=f"A{user}", asin=f"B{(7 * user + step) % 100}") for user in range(200) for step in range(10)]
    )
    ascending = [
        int(earlier["item"]["asin"][1:]) < int(later["item"]["asin"][1:])
        for history in made.users.values()
        for earlier, later in itertools.pairwise(history)
    ]
    assert len(ascending) == 1800
    assert 0.46 < sum(ascending) / len(ascending) < 0.54  # within 3.4 standard deviations of a coin toss
    first_items = {history[0]["item"]["asin"] for history in made.users.values()}
    assert len(first_items) > 60  # another order for each user
    assert made.accounting["times"] == {"purchases": 2000, "tied": 1800}


def test_tied_purchases_are_counted_within_a_user(make):
    times = [("A1", 5), ("A1", 5), ("A1", 6), ("A2", 6), ("A2", 6), ("A2", 6)]
    made = make([review(user=user, asin=f"B{n}", time=time) for n, (user, time) in enumerate(times)])
    assert made.accounting["times"] == {"purchases": 6, "tied": 3}


def test_exact_duplicates_count_once_and_near_duplicates_stay(make):
    made = make([review(), review(), review(), review(text="Another day."), review(rating=4.0), review(time=1)])
    assert len(made.users["A1"]) == 4
    assert made.accounting["reviews"] == {"read": 6, "kept": 4, "dropped": {"duplicate": 2}}


def test_reviews_of_unknown_and_untitled_items_are_dropped_by_their_own_names(make):
    items = [item("B1"), item("B2", title="<span> </span>"), item("B3", title=None)]
    made = make([review(asin=asin) for asin in ("B1", "B2", "B3", "NONE", "B1b")], items)
    assert made.asins() == ["B1"]
    assert made.accounting["reviews"]["dropped"] == {"unknown_item": 2, "untitled_item": 2}
    assert made.accounting["items"] == {"read": 3, "kept": 1, "dropped": {"untitled": 2}}


def test_users_with_a_short_history_are_dropped_with_their_reviews(make):
    reviews = [review("A1", f"B{n}") for n in range(3)] + [review("A2", "B1"), review("A2", "B2"), review("A3", "NO")]
    made = make(reviews, min_history=3)
    assert list(made.users) == ["A1"]
    assert made.accounting["users"] == {"kept": 1, "dropped": {"short_history": 2}}
    assert made.accounting["reviews"]["dropped"] == {"short_history": 2, "unknown_item": 1}


def test_of_several_records_of_an_item_the_most_complete_wins_in_any_order(make):
    records = [
        item(title=None, description=["Long, but of an item without a name."], price="$5"),
        item(title="Pen", price="$2"),
        item(title="Pen, blue", price="$2", description=["Blue."]),
        item(title="Pen", price="$2", description=["Blu."]),
    ]
    for order in [records[n:] + records[:n] for n in range(4)] + [records[::-1]]:
        made = make([review()], order)
        assert [(row["title"], row["description"]) for row in made.items] == [("Pen, blue", "Blue.")]
        assert made.accounting["items"] == {"read": 4, "kept": 1, "dropped": {"duplicate": 3}}


def test_the_catalogue_holds_every_titled_item_in_the_order_of_asin(make):
    made = make([review()], reversed([*ITEMS, item("Z", title="")]))
    assert [row["asin"] for row in made.items] == sorted(record["asin"] for record in ITEMS)


# Which purchases count


def test_reviews_outside_of_the_days_asked_for_are_dropped_and_counted(make):
    times = [0, 10 * DAY - 1, 10 * DAY, 12 * DAY - 1, 12 * DAY]
    reviews = [review(asin=f"B{n}", time=time) for n, time in enumerate(times)]
    made = make(reviews, since="2000-01-11", until="2000-01-12")
    assert made.asins() == ["B2", "B3"]
    assert made.accounting["reviews"]["dropped"] == {"after_until": 1, "before_since": 2}
    assert make(reviews, since="2000-01-12").asins() == ["B3", "B4"]
    assert make(reviews, until="2000-01-10").asins() == ["B0", "B1"]


def core_by_hand(pairs, k):
    """The purchases of the k-core, by taking out one user or item after the other."""
    pairs = list(pairs)
    while True:
        users, items = (collections.Counter(pair[side] for pair in pairs) for side in (0, 1))
        kept = [pair for pair in pairs if users[pair[0]] >= k and items[pair[1]] >= k]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_k_core_is_the_one_found_by_hand(make, monkeypatch, k):
    rng = random.Random(k)
    bought = [
        (f"U{min(rng.randrange(60), rng.randrange(60))}", f"B{min(rng.randrange(90), rng.randrange(90))}")
        for _ in range(500)
    ]
    reviews = [review(user, asin, time) for time, (user, asin) in enumerate(bought)]
    reviews += [reviews[0], review("U1", "UNKNOWN"), review("U2", "B1", time=99 * DAY)]
    made = make(reviews, k_core=k, until="2000-01-02")
    expected = core_by_hand(bought, k)
    assert 0 < len(expected) < len(bought)
    found = [(user, asin) for user in made.users for asin in made.asins(user)]
    assert sorted(found) == sorted(expected)
    assert {row["asin"] for row in made.items} == {asin for _, asin in expected}
    assert made.accounting["reviews"]["dropped"] == {
        "after_until": 1,
        "duplicate": 1,
        "k_core": len(bought) - len(expected),
        "unknown_item": 1,
    }
    assert made.accounting["items"]["dropped"] == {"k_core": 100 - len(made.items)}
    assert made.accounting["users"]["dropped"] == {"k_core": len({user for user, _ in bought}) - len(made.users)}
    monkeypatch.setattr("regen_hf.engines.COPIES", 80_000)
    cut = make(reviews, k_core=k, until="2000-01-02")
    assert (cut.split, cut.accounting) == (made.split, made.accounting)


def test_a_core_of_nobody_says_what_was_dropped(make):
    with pytest.raises(InputError, match=r"No user is left.*2 k_core"):
        make([review("A1", "B1"), review("A2", "B1")], k_core=2)


def test_items_may_be_told_by_the_reviews_alone(tmp_path):
    columns = {"user": "who", "item": "sku", "time": "at", "title": "name", "price": "cost"}
    lines = [
        "who,sku,at,name,cost",
        "A1,S1,1500000001,Pen,$2.00",
        "A1,S2,1500000002,,",
        "A2,S1,1500000003,Pen,",
        "A2,S2,1500000004,<b> </b>,",
        "A2,S3,x,Ink,1",
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "out").mkdir()
    config = SequencesConfig(reviews=(str(tmp_path / "log.csv"),), columns=columns)
    made = Result(tmp_path / "out", build(tmp_path, tmp_path / "out", tmp_path / "work", config))
    assert {user: made.asins(user) for user in made.users} == {"A1": ["S1"], "A2": ["S1"]}
    assert [(row["title"], row["price"]) for row in made.items] == [("Pen", 2.0), ("Ink", 1.0)]
    assert made.accounting["items"] == {"read": 5, "kept": 2, "dropped": {"duplicate": 2, "untitled": 1}}
    assert made.accounting["reviews"] == {"read": 5, "kept": 2, "dropped": {"invalid_time": 1, "untitled_item": 2}}
    assert [(row["line"], row["reason"], row["raw"]) for row in made.rejects] == [(6, "invalid_time", lines[5])]


def test_strict_stops_at_the_first_bad_line_and_names_it(make, tmp_path):
    with pytest.raises(InputError, match=r"reviews\.json\.gz, line 2: not_json.*begins with '\{broken'.*--strict"):
        make([review(), "{broken", "{broken too"], strict=True)
    assert not list((tmp_path / "run0" / "out").iterdir())
    assert make([review(), review()], strict=True).accounting["reviews"]["dropped"] == {"duplicate": 1}


def test_the_accounting_tells_what_cleaning_changed(make):
    made = make([review(text="a &amp; b"), review(asin="B2", text=None, summary=None)], [item(title="<b>"), *ITEMS])
    assert made.accounting["cleaned"] == {
        "reviews": {"empty_review": 1, "entities": 1},
        "items": {"category_list": 101, "markup_title": 1},
    }


# Splits


def crowd(users=300, rng=None):
    rng = rng or random.Random(7)
    return [review(f"U{n}", f"B{rng.randrange(100)}", rng.randrange(9) * DAY) for n in range(users) for _ in range(4)]


def test_splits_hold_distinct_users_and_about_their_shares(make):
    made = make(crowd(1000), validation=0.2, test=0.1)
    names = [{row["reviewer_id"] for row in rows} for rows in made.split.values()]
    assert len(set.union(*names)) == sum(map(len, names)) == 1000
    assert made.accounting["splits"] == {name: len(rows) for name, rows in made.split.items()}
    for name, share in {"train": 0.7, "validation": 0.2, "test": 0.1}.items():
        assert len(made.split[name]) == pytest.approx(share * 1000, abs=50)


def test_the_split_is_the_md5_of_the_user_id_alone(make):
    for name, rows in make(crowd()).split.items():
        for row in rows:
            place = int(hashlib.md5(row["reviewer_id"].encode()).hexdigest()[:8], 16) / 2**32
            assert name == ("test" if place < 0.1 else "validation" if place < 0.2 else "train")


def test_a_user_stays_in_its_split_when_others_come_and_go(make):
    reviews = crowd()
    whole, half = make(reviews), make([record for record in reviews if int(record["reviewerID"][1:]) % 2])
    for name in schema.SPLITS:
        assert half.split[name] == [row for row in whole.split[name] if int(row["reviewer_id"][1:]) % 2]


def test_a_split_of_nobody_is_an_empty_file(make):
    made = make([review()], validation=0.0, test=0.0)
    assert {name: len(rows) for name, rows in made.split.items()} == {"train": 1, "validation": 0, "test": 0}
    assert len(outputs.split_files(made.out, "test")) == 1


# The same result on any way


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.parquet")}


def test_the_same_rows_in_any_order_give_the_same_bytes(make):
    reviews, items = crowd(), [*ITEMS, item("B5", "Pen five", description=["More."])]
    first = make(reviews, items)
    random.Random(1).shuffle(reviews)
    random.Random(2).shuffle(items)
    assert content(make(reviews, items).out) == content(first.out)


def test_any_number_of_ranges_gives_the_same_rows_in_the_same_order(make, monkeypatch):
    reviews = crowd(200) + [review("U1", text="x" * 1000, time=n) for n in range(100)]
    whole = make(reviews)
    monkeypatch.setattr("regen_hf.engines.COPIES", 80_000)
    cut = make(reviews)
    assert len(outputs.split_files(cut.out, "train")) > 3
    assert cut.split == whole.split
    assert cut.accounting == whole.accounting


def test_a_build_that_was_interrupted_goes_on_with_the_ranges_that_are_left(make, tmp_path, monkeypatch):
    monkeypatch.setattr("regen_hf.engines.COPIES", 80_000)
    reviews, work = crowd(200), tmp_path / "kept"
    expected = make(reviews)
    from regen_hf.stages.sequences import ranges

    whole, calls = ranges.write_histories, []

    def dying(file, config, purchases, part):
        calls.append(part.parent)
        whole(file, config, purchases, part)
        if len(calls) == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "run1"
    with monkeypatch.context() as patch:
        patch.setattr(ranges, "write_histories", dying)
        with pytest.raises(KeyboardInterrupt):
            make(reviews, work=work)
    assert not list((folder / "out").iterdir())
    config = SequencesConfig(reviews=(str(folder / "reviews.json.gz"),), items=(str(folder / "items.json.gz"),))
    calls.clear()
    monkeypatch.setattr(ranges, "write_histories", lambda *given: calls.append(given[3].parent) or whole(*given))
    made = Result(folder / "out", build(folder, folder / "out", work, config))
    assert calls[0].stem == "00002"
    assert made.split == expected.split
    assert made.accounting == expected.accounting


def test_what_an_interrupted_build_left_of_other_items_is_not_used(make, tmp_path):
    work = tmp_path / "kept"
    make([review()], work=work)
    assert make([review()], [item(title="Pencil")], work=work).users["A1"][0]["item"]["title"] == "Pencil"


def test_chunks_of_the_log_that_were_finished_are_not_read_again_after_a_kill(make, tmp_path, monkeypatch):
    from regen_hf.reviews import ingest

    reviews, work = [review(text="x" * 1000, time=n) for n in range(3000)], tmp_path / "kept"
    whole, calls = ingest._convert, []

    def dying(*given):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(given)
        whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_convert", dying)
        with pytest.raises(KeyboardInterrupt):
            make(reviews, work=work, memory="1MB")
    folder = tmp_path / "run0"
    config = SequencesConfig(
        reviews=(str(folder / "reviews.json.gz"),), items=(str(folder / "items.json.gz"),), memory="1MB"
    )
    calls.clear()
    monkeypatch.setattr(ingest, "_convert", lambda *given: calls.append(given) or whole(*given))
    made = Result(folder / "out", build(folder, folder / "out", work, config))
    assert made.accounting["reviews"]["read"] == 3000
    chunks = sorted(path.name for path in (work / "reviews").glob("0*.parquet"))
    assert len(chunks) > 2
    assert [given[-2].name for given in calls] == chunks[1:]  # of two, one was of the items


def test_the_engine_spark_says_what_to_install_where_it_is_missing(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(RegenError, match=r'pyspark.*pip install "regen-hf\[spark\]"'):
        make([review()], engine="spark")


# Accounting


@pytest.mark.parametrize("seed", range(4))
def test_every_number_adds_up_on_dirty_input(make, seed):
    rng = random.Random(seed)
    items = [item(f"B{n}", rng.choice(["Pen", "Pen", None, "<div>"])) for n in range(40)]
    items += [item(f"B{rng.randrange(40)}", rng.choice(["Pencil", None])) for _ in range(15)]
    items += ["", "{", json.dumps(item(None))]
    reviews = [
        review(f"U{rng.randrange(60)}", f"B{rng.randrange(50)}", rng.randrange(3), rng.choice([1, 5]), text=None)
        for _ in range(1500)
    ]
    bad = ["", "[]", "{'a", json.dumps(review(user="")), json.dumps(review(rating="good"))]
    bad.append(json.dumps(review() | {"unixReviewTime": "x"}))
    dirt = [rng.choice(bad) for _ in range(100)]
    lines = reviews + dirt
    rng.shuffle(lines)
    made = make(lines, items, max_history=12, min_history=8)

    # The same by hand.
    titles = collections.defaultdict(set)
    for record in items[:-3]:
        titles[record["asin"]].add(record["title"] in ("Pen", "Pencil"))
    titled = {asin for asin, has in titles.items() if True in has}
    seen = {tuple(record.values()) for record in reviews}
    known = [row for row in seen if row[1] in titled]
    lengths = collections.Counter(row[0] for row in known)
    kept = {user: min(length, 12) for user, length in lengths.items() if length >= 8}
    names = ["blank_line", "not_an_object", "not_json", "missing_user", "invalid_rating", "invalid_time"]
    dropped = collections.Counter(names[bad.index(line)] for line in dirt)
    dropped["duplicate"] = len(reviews) - len(seen)
    dropped["unknown_item"] = sum(row[1] not in titles for row in seen)
    dropped["untitled_item"] = sum(row[1] in titles and row[1] not in titled for row in seen)
    dropped["beyond_max_history"] = sum(length - 12 for length in lengths.values() if length > 12)
    dropped["short_history"] = sum(length for length in lengths.values() if length < 8)

    entry = made.accounting["reviews"]
    assert entry == {"read": 1600, "kept": sum(kept.values()), "dropped": dict(+dropped)}
    assert entry["read"] == entry["kept"] + sum(entry["dropped"].values())
    assert {user: len(history) for user, history in made.users.items()} == kept
    assert made.accounting["items"] == {
        "read": 58,
        "kept": len(titled),
        "dropped": {
            "blank_line": 1,
            "duplicate": 55 - len(titles),
            "missing_asin": 1,
            "not_json": 1,
            "untitled": len(titles) - len(titled),
        },
    }
    refused = collections.Counter(
        reject["reason"] for reject in made.rejects if reject["file"].endswith("reviews.json.gz")
    )
    assert refused == {reason: count for reason, count in entry["dropped"].items() if reason not in DROPS}
    for reject in made.rejects[: len(dirt)]:
        assert lines[reject["line"] - 1] == reject["raw"]


# Settings and errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample": True, "reviews": ("a",)}, "sample was given together"),
        ({"min_history": 0}, "min_history is 0, expected at least 1"),
        ({"max_history": 3, "min_history": 5}, "max_history is 3, expected at least min_history, which is 5"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"test": -0.1}, "test is -0.1"),
        ({"validation": 0.5, "test": 0.5}, "add up to 1, expected below 1"),
        ({"memory": "plenty"}, "memory is 'plenty', expected a number with a unit"),
        ({"engine": "flink"}, "engine is 'flink', expected duckdb or spark"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        section(SequencesConfig, settings, "sequences")


@pytest.mark.parametrize("given", [{}, {"reviews": ("r.json",)}, {"items": ("i.json",)}])
def test_without_files_and_without_the_sample_it_says_what_to_give(tmp_path, given):
    with pytest.raises(InputError, match=r"No (reviews|items) were given.*--reviews FILE.*--sample"):
        build(tmp_path, tmp_path, tmp_path, SequencesConfig(**given))


def test_reviews_and_items_that_do_not_belong_together_leave_nobody_and_say_so(make, tmp_path):
    with pytest.raises(
        InputError, match=r"No user is left of 2 reviews.*2 unknown_item.*belong together.*item: .X. and .B0."
    ):
        make([review(asin="X"), review(asin="Y")])
    assert not list((tmp_path / "run0" / "out").iterdir())


def test_the_sample_world_is_read_from_its_place_in_the_run(tmp_path, make):
    made = make([review()])
    source = made.out.parent
    (tmp_path / "run" / "sample").mkdir(parents=True)
    for name in ("reviews", "items"):
        shutil.copy(source / f"{name}.json.gz", tmp_path / "run" / "sample" / f"{name}.jsonl.gz")
    (tmp_path / "out").mkdir()
    build(tmp_path / "run", tmp_path / "out", tmp_path / "work", SequencesConfig(sample=True))
    assert content(tmp_path / "out") == content(made.out)


def test_a_small_sample_world_comes_back_as_its_truth_tells(tmp_path):
    from regen_hf.stages.sample.build import write
    from regen_hf.stages.sample.settings import SampleConfig

    (tmp_path / "sample").mkdir()
    (tmp_path / "out").mkdir()
    damage = write(tmp_path / "sample", SampleConfig(shoppers=200, items=240))
    made = Result(tmp_path / "out", build(tmp_path, tmp_path / "out", tmp_path / "work", SequencesConfig(sample=True)))
    truth = pq.read_table(tmp_path / "sample" / "truth.parquet").to_pylist()
    assert {user: made.asins(user) for user in made.users} == {row["reviewer_id"]: row["purchases"] for row in truth}
    assert made.accounting["reviews"] == {
        "read": damage["review_lines"],
        "kept": damage["purchases"],
        "dropped": {
            "duplicate": damage["duplicated_reviews"],
            "not_json": damage["unreadable_reviews"],
            "unknown_item": damage["reviews_of_unknown_items"],
            "untitled_item": damage["reviews_of_untitled_items"],
        },
    }


# Real reviews


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.exists(), reason="the development data is not beside the checkout")
def test_the_gift_cards_of_2018_come_out_as_counted_by_hand(tmp_path):
    folder = DATA / "gift_cards_2018"
    files = {"reviews": (str(folder / "Gift_Cards_5.json.gz"),), "items": (str(folder / "meta_Gift_Cards.json.gz"),)}
    (tmp_path / "out").mkdir()
    made = Result(tmp_path / "out", build(tmp_path, tmp_path / "out", tmp_path / "work", SequencesConfig(**files)))
    with gzip.open(files["reviews"][0]) as lines:
        reviews = [json.loads(line) for line in lines]
    with gzip.open(files["items"][0]) as lines:
        items = {record["asin"]: record for record in map(json.loads, lines)}

    assert made.accounting["reviews"] == {"read": 2972, "kept": 2972, "dropped": {}}
    assert (made.accounting["users"]["kept"], made.accounting["items"]["kept"]) == (458, 1547)
    by_user = collections.defaultdict(list)
    for record in reviews:
        by_user[record["reviewerID"]].append(record)
    assert {user: len(history) for user, history in made.users.items()} == {u: len(r) for u, r in by_user.items()}
    assert len({purchase["item"]["asin"] for history in made.users.values() for purchase in history}) == 148
    for user, history in made.users.items():
        times = [purchase["review"]["unix_time"] for purchase in history]
        assert times == sorted(record["unixReviewTime"] for record in by_user[user])
        latest = {record["asin"] for record in by_user[user] if record["unixReviewTime"] == times[-1]}
        assert history[-1]["item"]["asin"] in latest
    ratings = collections.Counter(p["review"]["rating"] for history in made.users.values() for p in history)
    assert ratings == collections.Counter(int(record["overall"]) for record in reviews)
    without_text = sum(p["review"]["text"] is None for history in made.users.values() for p in history)
    assert without_text == sum(not record.get("reviewText", "").strip() for record in reviews)
    # 362 items have something in the price's place, of which 4 are pieces of a web page.
    dollars = {asin for asin, record in items.items() if record["price"].startswith("$")}
    assert {row["asin"] for row in made.items if row["price"] is not None} == dollars
    assert len(dollars) == 358
    cleaned = made.accounting["cleaned"]["items"]
    assert cleaned["unreadable_price"] == 362 - 358
    assert cleaned["description_list"] == sum(bool(record["description"]) for record in items.values())
    assert cleaned["category_list"] == sum(bool(record["category"]) for record in items.values())
    assert not [row for row in made.items if "&#" in row["title"] or "<div" in (row["description"] or "")]
    assert sum(row["description"] is not None for row in made.items) <= 805


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.exists(), reason="the development data is not beside the checkout")
def test_the_office_ratings_of_2014_come_out_of_their_csv_as_counted_by_hand(tmp_path):
    folder = DATA / "office_2014"
    reviews, items = folder / "ratings_Office_Products_5.csv.gz", folder / "meta_Office_Products_5.jsonl.gz"
    (tmp_path / "out").mkdir()
    config = SequencesConfig(reviews=(str(reviews),), items=(str(items),), strict=True)
    made = Result(tmp_path / "out", build(tmp_path, tmp_path / "out", tmp_path / "work", config))
    with gzip.open(reviews, "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    with gzip.open(items, "rt", encoding="utf-8") as lines:
        titled = {record["asin"] for record in map(json.loads, lines) if record["title"]}
    known = [row for row in rows if row["asin"] in titled]
    lengths = collections.Counter(row["reviewerID"] for row in known)
    assert made.accounting["reviews"] == {
        "read": len(rows),
        "kept": sum(min(length, 50) for length in lengths.values()),
        "dropped": {
            "beyond_max_history": sum(max(length - 50, 0) for length in lengths.values()),
            "untitled_item": len(rows) - len(known),
        },
    }
    assert made.accounting["cleaned"]["reviews"] == {"empty_review": len(rows)}  # ratings alone: no words
    assert {user: len(history) for user, history in made.users.items()} == {u: min(n, 50) for u, n in lengths.items()}
    ratings = {(row["reviewerID"], row["asin"], int(row["unixReviewTime"])): float(row["overall"]) for row in known}
    for user, history in made.users.items():
        for purchase in history:
            review = purchase["review"]
            assert ratings[user, purchase["item"]["asin"], review["unix_time"]] == review["rating"]
