"""Raw files: every line becomes a canonical row or a counted reject, and a file that cannot be used says why."""

import gzip
import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.errors import InputError
from regen_hf.reviews import cleaning
from regen_hf.reviews.formats import Format
from regen_hf.reviews.ingest import IngestOptions, read_items, read_reviews

CHUNK = 2**20


def review(**fields):
    record = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1500000000, "overall": 5.0}
    return record | {"summary": "Good", "reviewText": "It writes."} | fields


def item(**fields):
    return {
        "asin": "B1",
        "title": "Pen",
        "category": ["Office", "Pens"],
        "description": ["Blue."],
        "price": "$2",
    } | fields


def lines_of(records) -> bytes:
    """JSON lines; what is bytes already stays as it is."""
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)


@pytest.fixture
def read(tmp_path, engine):
    """Read records, or a file, as reviews or items: (rows, log, rejects)."""

    def run(source, reader=read_reviews, chunk=CHUNK, **how):
        if not isinstance(source, str | Path):
            data, source = source if isinstance(source, bytes) else lines_of(source), tmp_path / "raw.jsonl"
            source.write_bytes(data)
        log = reader(engine, [str(source)], tmp_path / "work", IngestOptions(chunk_size=chunk, **how))
        rows = [row for path in log.tables for row in pq.read_table(path).to_pylist()]
        rejects = [row for path in log.rejects for row in pq.read_table(path).to_pylist()]
        assert log.read == len(rows) + sum(log.dropped.values())
        assert len(rejects) == sum(log.dropped.values())
        return rows, log, rejects

    return run


# Rows


def test_a_2018_review_becomes_a_canonical_row(read):
    rows, log, rejects = read([review(vote="3", style={"Color:": "blue"}, verified=True)])
    assert rows == [
        {
            "user_hash": "27f237e6",  # printf A1 | md5sum | cut -c1-8
            "reviewer_id": "A1",
            "asin": "B1",
            "time": 1500000000 * 10**9,
            "rating": 5,
            "summary": "Good",
            "text": "It writes.",
        }
    ]
    assert (log.read, log.dropped, rejects) == (1, {}, [])


def test_a_2023_review_uses_the_parent_item_and_milliseconds(read):
    record = {"rating": 4.0, "title": "Fine", "text": "Works", "images": [], "asin": "VARIANT", "parent_asin": "PARENT"}
    rows, _, _ = read([record | {"user_id": "U", "timestamp": 1588687728923, "helpful_vote": 0}])
    del rows[0]["user_hash"]
    assert rows == [
        {
            "reviewer_id": "U",
            "asin": "PARENT",
            "time": 1588687728923 * 10**6,
            "rating": 4,
            "summary": "Fine",
            "text": "Works",
        }
    ]


def test_an_empty_review_is_kept_as_a_purchase_without_words(read):
    bare = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1500000000}
    rows, _, _ = read([bare, review(overall=None, summary="", reviewText=" \n"), review(overall="NaN")])
    assert [(r["rating"], r["summary"], r["text"]) for r in rows[:2]] == [(None, None, None)] * 2
    assert rows[2]["rating"] is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Tom &amp; I", "Tom & I"),
        ("a<br />b", "a\nb"),
        ("&#34;so&#34; <3", '"so" <3'),
        ("5 > 4 & so", "5 > 4 & so"),
        ("a\x00b", "ab"),
        ("  plain  ", "plain"),
        ('<a href="/x">this pen</a>', "this pen"),
        ("[not a list]", "[not a list]"),
    ],
)
def test_markup_and_entities_in_text_become_characters(read, given, expected):
    rows, _, _ = read([review(reviewText=given)])
    assert rows[0]["text"] == expected


def test_numbers_may_be_written_as_text(read):
    rows, _, _ = read([review(reviewerID=17, unixReviewTime="1500000000", overall="3")])
    assert (rows[0]["reviewer_id"], rows[0]["time"], rows[0]["rating"]) == ("17", 1500000000 * 10**9, 3)


def test_blanks_around_a_user_and_an_item_are_no_part_of_them(read):
    blanks = [("", ""), (" ", ""), ("", "\t"), ("\n\r", " \f\v")]
    rows, _, _ = read([review(reviewerID=f"{before}A 1{after}", asin=f"{before}B1{after}") for before, after in blanks])
    assert {(row["reviewer_id"], row["asin"]) for row in rows} == {("A 1", "B1")}


# Rejects


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"reviewerID": "A1", "asin"', "not_json"),  # half a line
        (b'{"reviewerID": "A1"} {"reviewerID": "A2"}', "not_json"),  # two objects
        (b'{"reviewerID": "A\x001"}', "not_json"),  # a NUL byte
        (b"<html>", "not_json"),
        (b'["A1", "B1", 1500000000]', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"reviewerID": "A\xff"}', "not_utf8"),
        (b'{"reviewerID": "A1", "asin": "B1", "asin": "B2", "unixReviewTime": 1500000000}', "repeated_key"),
        (b"", "blank_line"),
        (b" \t\r", "blank_line"),
        (review(reviewerID=None), "missing_user"),
        (review(reviewerID="  "), "missing_user"),
        (review(asin=""), "missing_item"),
        (review(unixReviewTime=None), "missing_time"),
        (review(unixReviewTime=" "), "missing_time"),
        (review(unixReviewTime="yesterday"), "invalid_time"),
        (review(unixReviewTime=-1), "invalid_time"),
        (review(unixReviewTime=10**20), "invalid_time"),
        (review(overall=6), "rating_out_of_scale"),
        (review(overall=0.0), "rating_out_of_scale"),
        (review(overall="five"), "invalid_rating"),
        (review(reviewText={"text": "nested"}), "wrong_type"),
        (review(reviewerID=["A1"]), "wrong_type"),
    ],
)
def test_a_bad_line_is_a_reject_with_its_number_reason_and_text(read, tmp_path, bad, reason):
    rows, log, rejects = read([review(), bad, review(asin="B2")])
    assert [row["asin"] for row in rows] == ["B1", "B2"]
    assert (log.read, log.dropped) == (3, {reason: 1})
    raw = (bad if isinstance(bad, bytes) else json.dumps(bad).encode()).rstrip(b"\r\n")
    expected = {"file": str(tmp_path / "raw.jsonl"), "line": 2, "reason": reason}
    assert rejects == [expected | {"raw": raw.decode(errors="backslashreplace")}]


@pytest.mark.parametrize(
    "data",
    [
        lines_of([review()]) * 2,
        b"\xef\xbb\xbf" + lines_of([review()]) * 2,
        lines_of([review()]).replace(b"\n", b"\r\n") * 2,
        (lines_of([review()]) * 2)[:-1],
    ],
    ids=["unix", "byte order mark", "crlf", "no last line end"],
)
def test_line_ends_and_marks_lose_no_line(read, data):
    assert len(read(data)[0]) == 2


def test_a_line_of_ten_megabytes_is_read_whatever_the_size_of_a_chunk(read):
    rows, _, _ = read([review(), review(asin="B2", reviewText="x" * 10**7), review(asin="B3")])
    assert sorted(len(row["text"]) for row in rows) == [10, 10, 10**7]


def test_the_size_of_a_chunk_changes_nothing(read):
    records = [review(reviewerID=f"A{n}", unixReviewTime=10**9 + n) if n % 7 else b"{broken" for n in range(400)]
    whole, small = read(records), read(records, chunk=3999)
    assert len(small[1].tables) > 10
    assert sorted(map(str, whole[0])) == sorted(map(str, small[0]))
    assert whole[2] == small[2]
    assert [reject["line"] for reject in whole[2]] == [n + 1 for n in range(0, 400, 7)]


def test_keys_that_repeat_are_refused_in_every_chunk(read):
    bad = json.dumps(review())[:-1] + ', "asin": "B2"}'
    records = [bad.encode() if place % 3 == 0 else review(reviewerID=f"A{place}", odd=1) for place in range(99)]
    rows, log, rejects = read(records, chunk=999)
    assert len(log.tables) > 10
    assert (len(rows), log.dropped) == (66, {"repeated_key": 33})
    assert [reject["line"] for reject in rejects] == list(range(1, 100, 3))
    # Another file, of which the key that repeats is not read.
    fields = {"reviewer_id": "reviewerID", "asin": "summary", "unix_time": "unixReviewTime"}
    rows, log, _ = read([bad.encode()] * 9, chunk=999, form=Format("own", fields, tuple(fields), tuple(fields)))
    assert (len(rows), log.dropped) == (9, {})


def test_finished_chunks_are_reused_until_the_file_changes(read, tmp_path):
    path = tmp_path / "reviews.json"
    path.write_bytes(lines_of([review()]))
    _, first, _ = read(path)
    made = first.tables[0].stat().st_mtime_ns
    assert read(path)[1].tables[0].stat().st_mtime_ns == made
    path.write_bytes(lines_of([review(), review(asin="B2")]))
    assert [row["asin"] for row in read(path)[0]] == ["B1", "B2"]


# Compression


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".json.zst"])
def test_plain_gzip_and_zstd_read_alike(read, tmp_path, ending):
    path = tmp_path / f"reviews{ending}"
    with pa.output_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}.get(path.suffix)) as file:
        file.write(lines_of([review(asin=f"B{n}") for n in range(50)]))
    assert len(read(path)[0]) == 50


def test_a_gzip_of_several_members_is_read_to_its_end(read, tmp_path):
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(lines_of([review()])) + gzip.compress(lines_of([review(asin="B2")])))
    assert [row["asin"] for row in read(path)[0]] == ["B1", "B2"]


def damaged(change):
    data = bytearray(
        gzip.compress(lines_of([review(asin=f"B{n}", reviewText=str(zlib.crc32(bytes([n])))) for n in range(99)]))
    )
    return bytes(change(data))


def flip(place):
    def change(data):
        data[place] ^= 1
        return data

    return change


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.json.gz", damaged(lambda d: d[: len(d) // 2]), "data is incomplete"),
        ("r.json.gz", damaged(flip(-8)), "damaged"),  # the checksum itself
        ("r.json.gz", damaged(flip(len(damaged(bytes)) // 2)), "damaged"),
        ("r.json.gz", b"<!DOCTYPE html><title>Not found</title>\n", "not gzip.*error page"),
        ("r.json.zst", lines_of([review()]), "not zstd"),
        ("r.json.zst", b"\x28\xb5\x2f\xfd" + b"\x01" * 40, "damaged"),
        ("r.json", b"", r"empty \(0 bytes\)"),
        ("r.json", b"\n\n  \n", "no line of text"),
        ("r.json.gz", gzip.compress(b""), "no line of text"),
        ("r.json", b"<html>\n<body>Not found</body>\n", "neither JSON lines nor CSV.*begins with '<html>'.*error page"),
        ("r.json", lines_of([review()]).decode().encode("utf-16"), "UTF-16.*iconv"),
        ("r.json", lines_of([item()]), "--reviews, looks like Amazon items of 2018; did you swap"),
        (
            "r.json",
            lines_of([{"who": 1, "what": 2}]),
            "not recognised. Its columns: what, who.*Expected: .*--columns",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_used_says_which_and_why(read, tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"(?s){name}.*{message}"):
        read(tmp_path / name)


def test_reviews_given_as_items_are_recognised(read):
    with pytest.raises(InputError, match=r"--items, looks like Amazon reviews .*did you swap"):
        read([review()], read_items)


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.json", "There is no file"), ("none-*.json", "No file matches"), (".", "is a folder")],
)
def test_a_path_that_names_no_file_is_refused(read, tmp_path, path, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, engine):
    from regen_hf.reviews.lines import chunks

    path = tmp_path / "r.json"
    path.write_bytes(lines_of([review()] * 100))
    reading = chunks(path, 1000)
    next(reading)
    with path.open("ab") as file:
        file.write(lines_of([review()]))
    with pytest.raises(InputError, match="changed while it was read"):
        list(reading)


def test_a_glob_names_many_files_and_each_file_is_read_once(tmp_path, engine):
    for n in range(3):
        (tmp_path / f"part-{n}.json").write_bytes(lines_of([review(asin=f"B{n}")]))
    patterns = [str(tmp_path / "part-*.json"), str(tmp_path / "part-1.json")]
    log = read_reviews(engine, patterns, tmp_path / "work", IngestOptions(CHUNK))
    assert log.read == 3
    assert sorted(a for path in log.tables for a in pq.read_table(path)["asin"].to_pylist()) == ["B0", "B1", "B2"]


# Items


def test_a_2018_item_becomes_a_canonical_row(read):
    rows, _, _ = read([item(price="$1,250.00 - $2,000", description=["<p>Blue.</p>", "Fine &amp; thin."])], read_items)
    expected = {"asin": "B1", "title": "Pen", "category": "Office - Pens", "description": "Blue. Fine & thin."}
    assert rows == [expected | {"price": 1250.0}]


def test_a_2014_item_file_of_python_literals_is_read(read):
    record = {"asin": "B1", "title": "Owner's pen", "categories": [["Office", "Pens"]], "price": 9.99}
    rows, log, rejects = read([repr(record).encode(), b"{'asin': broken}"], read_items)
    expected = {"asin": "B1", "title": "Owner's pen", "category": "Office - Pens", "description": None, "price": 9.99}
    assert rows == [expected]
    assert (log.dropped, rejects[0]["raw"]) == ({"not_json": 1}, "{'asin': broken}")


def test_python_2_literals_with_prefixed_strings_are_read(read):
    line = b"{u'asin': u'B1', u'title': u'Owner\\xb4s pen', u'categories': [[u'Office', u'Pens']], u'price': 4.99}"
    rows, log, _ = read([line], read_items)
    assert (rows[0]["title"], rows[0]["category"], rows[0]["price"]) == ("Owner´s pen", "Office - Pens", 4.99)
    assert log.dropped == {}


def test_a_2023_item_is_known_by_its_parent(read):
    record = {"main_category": "Office", "title": "Pen", "features": ["x"], "description": [], "price": None}
    rows, _, _ = read([record | {"store": "S", "categories": ["Office", "Pens"], "parent_asin": "P"}], read_items)
    assert rows == [{"asin": "P", "title": "Pen", "category": "Office - Pens", "description": None, "price": None}]


@pytest.mark.parametrize(
    "title",
    [
        None,
        "",
        "  ",
        '<span id="productTitle" class="a-size-large">',
        "<img src=x",
        "<!-- x -->",
        "var aPageStart = (new Date()).getTime();",
    ],
)
def test_a_title_that_is_missing_or_markup_is_no_title(title):
    assert cleaning.title(title, Counter()) is None


@pytest.mark.parametrize("title", ["I <3 pens", "Pens <Black>", "Size < 5 in", "A & B", "Function generator"])
def test_a_title_with_an_angle_bracket_is_not_markup_for_that(title):
    assert cleaning.title(title, Counter()) == title


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("$9.99", 9.99),
        ("9.99", 9.99),
        ("$10.00 - $7.50", 7.5),
        ("$1,250.00", 1250.0),
        ("from 14.99", 14.99),
        ("$0.00", 0.0),
    ]
    + [
        (text, None)
        for text in (None, "", "-5", "free", "NaN", "$", "1.2.3", ".a-box{width:5px}", "<div>$5</div>", "9" * 200)
    ],
)
def test_prices_are_read_and_debris_is_not(text, price):
    assert cleaning.price(text, Counter()) == price


def test_text_with_any_blank_at_its_ends_is_stripped():
    blanks = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
    texts = [text for blank in blanks for text in (f"{blank}a", f"a{blank}", blank)]
    column = pa.chunked_array([pa.array([None, "", *texts, "é日本", "a & b"]).slice(1)])
    found = cleaning.plain_column(column, Counter()).to_pylist()
    assert found == [None, *["a", "a", None] * len(blanks), "é日本", "a & b"]


def test_an_item_without_asin_is_a_reject(read):
    rows, log, _ = read([item(), item(asin=None), item(asin={"id": "B1"})], read_items)
    assert (len(rows), log.dropped) == (1, {"missing_asin": 1, "wrong_type": 1})
