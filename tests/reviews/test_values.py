"""Times, ratings, null words and numeric ids: each rule through files of JSON lines, CSV and parquet."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.errors import InputError
from regen_hf.reviews.formats import chosen
from regen_hf.reviews.ingest import IngestOptions, read_items, read_reviews

FORM = chosen("reviews", "auto", {"user": "u", "item": "i", "time": "t", "rating": "r", "text": "x"}, {})
COLUMNS = ("u", "i", "t", "r", "x")
GOOD = {"u": "A", "i": "B", "t": "1500000000", "r": "5", "x": "Fine."}
SECOND = 10**9
DAY = 86400 * SECOND
FORMS = ("json", "csv", "parquet")


@pytest.fixture
def read(tmp_path, engine):
    """Read a file: rows in the order of its lines, reasons to reject by user, and counts of cleaned values."""

    def run(name: str, data: bytes, reader=read_reviews, form=FORM, **settings):
        (tmp_path / name).write_bytes(data)
        result = reader(engine, [str(tmp_path / name)], tmp_path / "work", IngestOptions(form=form, **settings))
        rows = [row for path in result.tables for row in pq.read_table(path).to_pylist()]
        rejects = [row for path in result.rejects for row in pq.read_table(path).to_pylist()]
        return rows, [reject["reason"] for reject in rejects], result.cleaned

    return run


def lines(records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def written(form: str, records) -> bytes:
    """Records of text in a format, null where a column is missing."""
    if form == "json":
        return lines(records)
    if form == "csv":
        rows = [",".join(record.get(name, "") for name in COLUMNS) for record in records]
        return "\n".join([",".join(COLUMNS), *rows, ""]).encode()
    table = pa.table({name: pa.array([record.get(name) for record in records], pa.string()) for name in COLUMNS})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def each(name: str, texts) -> list[dict[str, str]]:
    """Records of a user each, with these texts in a column."""
    return [GOOD | {"u": f"{number:03d}", name: text} for number, text in enumerate(texts)]


def by_user(rows, name: str) -> list:
    return [row[name] for row in sorted(rows, key=lambda row: row["reviewer_id"])]


# Times

TIMES = {
    "1500000000": 1500000000 * SECOND,
    "1500000000.0": 1500000000 * SECOND,
    " 1500000000 ": 1500000000 * SECOND,
    "1.5e9": 1500000000 * SECOND,
    "1500000000.25": 1500000000 * SECOND + 250_000_000,
    "1500000000.0000001": 1500000000 * SECOND + 100,
    "1500000000.123456789": 1500000000123456789,
    "1500000000123": 1500000000123 * 10**6,
    "1500000000123.4567": 1500000000123456700,
    "1500000000123456": 1500000000123456 * 1000,
    "1500000000123456788": 1500000000123456788,
    "1500000000123456789": 1500000000123456789,
    "31536000": 365 * DAY,
    "9214646399999999999": 9214646399999999999,
    "2017-07-14": 17361 * DAY,
    "2017-07-14 02:40Z": 1500000000 * SECOND,
    "2017-07-14T02:40:00.123456789": 1500000000123456789,
    "2017-07-14T04:40:00.5+02:00": 1500000000500000000,
    "2017-07-13T19:10:00.000001-0730": 1500000000000001000,
    "2261-12-31T23:59:59.999999999Z": 9214646399999999999,
    "20170714": 17361 * DAY,
    "20170714.0": 17361 * DAY,
    "201707140240": 1500000000 * SECOND,
    "20170714024000": 1500000000 * SECOND,
    "20170714024000.0": 1500000000 * SECOND,
    "19710101": 365 * DAY,
    "42930": 17361 * DAY,
    "42930.75": 17361 * DAY + DAY * 3 // 4,
    "42930.111111111109": 1500000000 * SECOND,
    "34700": 9131 * DAY,
    "73050.999": 47481 * DAY + 86313600000000,
}
BAD_TIMES = {
    "34699.9": "time_in_1970",
    "73051": "time_in_1970",
    "17361": "time_in_1970",
    "2017": "year_only",
    "2017.0": "year_only",
    "1900": "year_only",
    "2100": "year_only",
    "12": "time_in_1970",
    "0": "time_in_1970",
    "2017.5": "time_in_1970",
    "31535999.999999999": "time_in_1970",
    "1970-05-01": "time_in_1970",
    "20171301": "time_in_1970",
    "20170230": "time_in_1970",
    "20171314024000": "invalid_time",
    "2017-02-30": "invalid_time",
    "2017-07-14T02:40:00.1234567890": "invalid_time",
    "yesterday": "invalid_time",
    "-1": "invalid_time",
    "1969-12-31": "invalid_time",
    "0001-01-01": "invalid_time",
    "9999-12-31": "invalid_time",
    "2262-01-01": "invalid_time",
    "9214646400": "invalid_time",
    "9214646400000000000": "invalid_time",
    "1e300": "invalid_time",
    "inf": "invalid_time",
}
NULLS = ("", " ", "\\N", "NULL", "null", "NA", "NaN", "nan", "None", " NA ")


@pytest.mark.parametrize("form", FORMS)
def test_times_keep_the_full_resolution_of_the_log(read, form):
    rows, rejects, cleaned = read(f"r.{form}", written(form, each("t", TIMES)))
    assert dict(zip(TIMES, by_user(rows, "time"), strict=True)) == TIMES
    assert rejects == []
    assert {name: cleaned[name] for name in ("milliseconds", "microseconds", "nanoseconds")} == {
        "milliseconds": 2,
        "microseconds": 1,
        "nanoseconds": 3,
    }
    assert cleaned["spreadsheet_date"] == 5
    assert (cleaned["iso_date"], cleaned["compact_date"]) == (6, 6)


@pytest.mark.parametrize("form", FORMS)
def test_numbers_that_are_no_time_have_a_reason_of_their_own(read, form):
    rows, rejects, _ = read(f"r.{form}", written(form, [*each("t", [*BAD_TIMES, *NULLS]), GOOD]))
    assert rejects == [*BAD_TIMES.values(), *["missing_time"] * len(NULLS)]
    assert len(rows) == 1


def test_json_numbers_and_types_of_parquet_are_the_same_times(read):
    numbers = [1500000000, 1500000000.25, 1500000000123456788, 20170714, 1500000000123.0]
    expected = [1500000000 * SECOND, 1500000000250000000, 1500000000123456788, 17361 * DAY, 1500000000123000000]
    rows, _, _ = read("r.json", lines(each("t", numbers)))
    assert by_user(rows, "time") == expected
    file = io.BytesIO()
    moments = pa.array([1500000000123456788, 1500000000123456789], pa.timestamp("ns"))
    pq.write_table(pa.table({"u": ["1", "2"], "i": ["B", "B"], "t": moments, "r": [5, 5], "x": ["a", "b"]}), file)
    rows, _, _ = read("r.parquet", file.getvalue())
    assert by_user(rows, "time") == [1500000000123456788, 1500000000123456789]


# Ratings


@pytest.mark.parametrize("form", FORMS)
def test_half_stars_are_rounded_up_and_null_words_are_no_rating(read, form):
    stars = {"0.5": 1, "1": 1, "1.5": 2, "2.4": 2, "3.49999": 3, "4.5": 5, "5.0": 5}
    rows, rejects, cleaned = read(f"r.{form}", written(form, each("r", [*stars, *NULLS, "five", "4x"])))
    assert by_user(rows, "rating") == [*stars.values(), *[None] * len(NULLS)]
    assert rejects == ["invalid_rating"] * 2
    assert cleaned["rounded_rating"] == 5


@pytest.mark.parametrize("form", FORMS)
def test_few_ratings_outside_of_the_scale_are_rejects(read, form):
    assert read(f"r.{form}", written(form, each("r", ["0.4", "5.5", "inf", "3"])))[1] == ["rating_out_of_scale"] * 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("scale", "missing", "expected"),
    [
        ((1, 10), (), {"1": 1, "2": 1, "3": 2, "5": 3, "5.5": 3, "6": 3, "8": 4, "10": 5, "0": None, "11": None}),
        ((0, 1), (), {"0": 1, "1": 5, "0.5": 3, "0.4": 3, "2": None}),
        ((-10, 10), (), {"-10": 1, "0": 3, "10": 5, "-5": 2}),
        ((0, 10), (0, -1), {"0": 0, "-1": 0, "-1.0": 0, "10": 5, "2": 2, "1": 1}),
        ((), (0, -1, 99), {"0": 0, "-1": 0, "99.0": 0, "5": 5, "1": 1, "2": 2, "3": 3, "4": 4}),
    ],
)
def test_a_scale_is_mapped_to_stars_and_missing_ratings_are_null(read, form, scale, missing, expected):
    data = written(form, each("r", expected))
    rows, rejects, cleaned = read(f"r.{form}", data, rating_scale=scale, rating_missing=missing)
    assert by_user(rows, "rating") == [stars or None for stars in expected.values() if stars is not None]
    assert rejects == ["rating_out_of_scale"] * list(expected.values()).count(None)
    assert cleaned.get("scaled_rating", 0) == (sum(bool(stars) for stars in expected.values()) if scale else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("stars", "message"),
    [
        ([*map(str, range(1, 11))], r"10 ratings from 1 to 10, of which 5 .*--rating-scale LOW HIGH.*--rating-missing"),
        (["1"] * 9 + ["0"], r"10 ratings from 0 to 1,.*implicit feedback"),
        (["1"] * 999 + ["0"], "from 0 to 1,"),
        (["3"] * 98 + ["0", "-1"], "from -1 to 3, of which 2 are outside"),
    ],
)
def test_a_file_of_another_scale_is_refused_whatever_the_chunks(read, form, stars, message):
    with pytest.raises(InputError, match=rf"r\.{form} has .*{message}"):
        read(f"r.{form}", written(form, each("r", stars)), chunk_size=500)


@pytest.mark.parametrize(
    "stars", [["1"] * 9, ["0", "1", "1", "1"], ["3"] * 99 + ["0"], ["3"] * 9 + ["inf"], ["NA"] * 9]
)
def test_a_file_of_stars_is_not_refused(read, stars):
    read("r.csv", written("csv", each("r", stars)))


# Ids


def test_numeric_ids_are_integers_and_texts_stay(read):
    ids = [17.0, "17.0", 0.0, 17.5, -17.0, "007", 7, "NA", "NaN", 12345678901234567890]
    texts = ["17", "17.0", "0", "17.5", "-17.0", "007", "7", "NA", "NaN", "12345678901234567890"]
    rows, rejects, cleaned = read(
        "r.json", lines([GOOD | {"u": user, "i": user, "r": 5.0, "x": "1.0"} for user in ids])
    )
    assert sorted(row["reviewer_id"] for row in rows) == sorted(texts)
    assert sorted(row["asin"] for row in rows) == sorted(texts)
    assert {row["text"] for row in rows} == {"1.0"}
    assert (rejects, cleaned["float_ids"]) == ([], 4)


def test_a_quoted_cell_of_csv_is_text_as_a_json_string_is(read):
    data = b'u,i,t,r,x\n"NA","17.0",1500000000,5,NULL\n"007",17.0,1500000000,5,x\n007,00.0,1500000000,5,x\n'
    rows, rejects, cleaned = read("r.csv", data)
    assert sorted((row["reviewer_id"], row["asin"]) for row in rows) == [("007", "00.0"), ("007", "17"), ("NA", "17.0")]
    assert {row["text"] for row in rows if row["reviewer_id"] == "NA"} == {"NULL"}
    assert (rejects, cleaned["float_ids"]) == ([], 1)


def test_nan_in_json_is_null_in_every_column(read):
    nan = float("nan")
    records = [
        GOOD | {"u": nan},
        GOOD | {"i": nan},
        GOOD | {"t": nan},
        GOOD | {"r": nan, "x": nan},
        GOOD | {"x": "NaN"},
    ]
    rows, rejects, _ = read("r.json", lines(records))
    assert rejects == ["missing_user", "missing_item", "missing_time"]
    assert {(row["rating"], row["text"]) for row in rows} == {(None, None), (5, "NaN")}


def test_nan_in_a_title_of_json_is_no_title_and_null_words_are_no_price(read):
    items = [{"asin": 7.0, "title": float("nan"), "price": 3.5}]
    items += [{"asin": f"B{number}", "title": "NA", "price": word} for number, word in enumerate(NULLS)]
    rows, _, cleaned = read("i.json", lines(items), read_items, None)
    assert rows[0] == {"asin": "7", "title": None, "category": None, "description": None, "price": 3.5}
    assert {(row["title"], row["price"]) for row in rows[1:]} == {("NA", None)}
    assert cleaned == {"float_ids": 1}
