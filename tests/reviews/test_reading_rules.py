"""The plain-Python rules, by values written by hand: the fuzz test is worth as much as they are."""

from collections import Counter

import pytest

from tests.reviews.reading_rules import (
    Cell,
    File,
    Refused,
    Settings,
    category,
    check_scale,
    fields,
    plain,
    price,
    rating,
    time,
    title,
)
from tests.reviews.sequence_rules import best, k_core, sequences, tie

SECOND = 1500000000


@pytest.mark.parametrize(
    ("text", "seconds", "nanoseconds"),
    [
        ("1500000000", SECOND, 0),
        ("1500000000.25", SECOND, 250_000_000),
        ("1500000000123", SECOND, 123_000_000),
        ("1500000000123456", SECOND, 123_456_000),
        ("1500000000123456789", SECOND, 123_456_789),
        (" 2017-07-14 ", 1499990400, 0),
        ("2017-07-14T02:40:00.123456789Z", SECOND, 123_456_789),
        ("2017-07-14 04:40+02:00", SECOND, 0),
        ("2017-07-13T19:10:00-0730", SECOND, 0),
        ("20170714", 1499990400, 0),
        ("201707140240", SECOND, 0),
        ("20170714024000.0", SECOND, 0),
        ("31536000", 31536000, 0),
        ("2261-12-31T23:59:59.999999999Z", 9214646399, 999_999_999),
        ("9214646399999999999", 9214646399, 999_999_999),
    ],
)
def test_times(text, seconds, nanoseconds):
    assert time(text)[0] == seconds * 10**9 + nanoseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "missing_time"),
        (" ", "missing_time"),
        ("\\N", "missing_time"),
        ("34699", "time_in_1970"),
        ("73051", "time_in_1970"),
        ("2017", "year_only"),
        ("0", "time_in_1970"),
        ("31535999.9", "time_in_1970"),
        ("1970-12-31", "time_in_1970"),
        ("20170231", "time_in_1970"),  # no day, so it is a number of seconds
        ("1969-12-31", "invalid_time"),
        ("-1", "invalid_time"),
        ("2262-01-01", "invalid_time"),
        ("99999999999", "invalid_time"),
        ("next week", "invalid_time"),
    ],
)
def test_times_that_are_rejected(text, reason):
    assert time(text)[:2] == (None, reason)


@pytest.mark.parametrize(
    ("text", "scale", "stars"),
    [
        ("0.5", None, 1),
        ("4.5", None, 5),
        ("2.4", None, 2),
        ("NA", None, None),
        ("1", (1, 10), 1),
        ("10", (1, 10), 5),
        ("5.5", (1, 10), 3),
        ("0", (0, 1), 1),
        ("1", (0, 1), 5),
        ("-1", (0, 1), None),
    ],
)
def test_ratings(text, scale, stars):
    assert rating(text, Settings(rating_scale=scale, rating_missing=(-1,)))[:2] == (stars, None)


def test_ratings_that_are_rejected():
    assert [rating(text, Settings())[1] for text in ("0.4", "5.1", "4,5")] == [
        *["rating_out_of_scale"] * 2,
        "invalid_rating",
    ]


def rated(*ratings):
    return File("csv", ("rating",), tuple({"rating": Cell(text)} for text in ratings))


def test_a_file_with_another_scale_is_refused():
    for texts in ("12345", "1111", "011", ["15", "NA", "3", "8"], ["0.5", "1", "5", "4", "3"]):
        check_scale(rated(*texts), Settings())
    for texts in ("123456", "011001", ["7", "8", "9", "3", "10", "NA"], [*["5"] * 98, "6", "0"]):
        with pytest.raises(Refused):
            check_scale(rated(*texts), Settings())
    check_scale(rated(*["5"] * 99, "6"), Settings())
    check_scale(rated("0", *"51243"), Settings(rating_missing=(0,)))


@pytest.mark.parametrize(
    ("form", "cell", "id_", "floats"),
    [
        ("csv", Cell("17.0", False), "17", 1),
        ("csv", Cell("17.0"), "17.0", 0),
        ("csv", Cell("017", False), "017", 0),
        ("csv", Cell("NA", False), None, 0),
        ("csv", Cell("NA"), "NA", 0),
        ("json", Cell("17.0", False), "17", 1),
        ("json", Cell("NaN", False), None, 0),
        ("json", Cell("NaN"), "NaN", 0),
        ("parquet", 17.0, "17", 0),
        ("parquet", "17.0", "17.0", 0),
        ("parquet", float("nan"), None, 0),
    ],
)
def test_ids(form, cell, id_, floats):
    texts, reject, counted = fields(File(form, ("user",), ()), {"user": cell}, "reviews")
    assert (texts["user"], reject, counted) == (id_, None, floats)


def test_texts():
    counts = Counter()
    assert plain(" a<br />b &amp;lt; &copy=2 <3\0 ", counts) == "a\nb &lt; &copy=2 <3"
    assert +counts == {"markup": 1, "entities": 1, "nul_characters": 1}
    assert title("Multi-Function (Print, <b>Scan</b>)", counts) == "Multi-Function (Print, Scan)"
    assert category('[["A", "A", "B &amp; C", "</span>"], ["D"]]', counts) == "A - B & C"
    assert category('["\\ud83d\\ude00", "\\ud83d"]', counts) == "😀 - �"
    assert [price(text, counts) for text in ("$4.00 - $6.00", "$1,250.00", "ask us", "NA")] == [4.0, 1250.0, None, None]


def test_the_best_record_of_an_item():
    bare = {"asin": "B", "title": "Pen", "category": None, "description": None, "price": None}
    untitled = bare | {"title": None, "category": "A", "description": "Long text.", "price": 2.0}
    assert best([untitled, bare, bare | {"price": 3.0}, bare | {"price": 2.0}]) == bare | {"price": 2.0}


def test_the_core():
    assert k_core([("U", "A"), ("V", "A"), ("U", "B"), ("V", "B"), ("V", "C"), ("W", "C")], "ABCD", 2) == {"A", "B"}


def test_sequences():
    items = [
        File("csv", ("item", "title"), ({"item": Cell("a"), "title": Cell("A")}, {"item": Cell("b"), "title": None}))
    ]
    names = ("user", "item", "time", "rating", "summary", "text")
    rows = [("u", "a", "1500000000"), ("u", "a", "1500000000.0"), ("u", "a", "1500000000.5"), ("u", "b", "1500000000")]
    records = tuple(
        {name: Cell(text) for name, text in zip(names, (*row, "5", "s", "x"), strict=True)}
        for row in [*rows, ("v", "c", "1500000000")]
    )
    optional = File("json", ("item", "title", "category", "description", "price"), ())
    made = sequences([File("csv", names, records)], [*items, optional], Settings())
    assert [purchase["review"]["unix_time"] for purchase in made["users"]["u"]] == [SECOND, SECOND]
    assert made["accounting"] == {
        "reviews": {"read": 5, "kept": 2, "dropped": {"duplicate": 1, "unknown_item": 1, "untitled_item": 1}},
        "items": {"read": 2, "kept": 1, "dropped": {"untitled": 1}},
        "users": {"kept": 1, "dropped": {"short_history": 1}},
        "times": {"purchases": 2, "tied": 0},
        "cleaned": {"reviews": {}, "items": {}},
        "files": {
            "reviews": {"read": 1, "unquoted": 0, "missing": {}},
            "items": {"read": 2, "unquoted": 0, "missing": {"category": 1, "description": 1, "price": 1}},
        },
    }
    assert tie(("A1", "B1")) == "dd81a69b"
