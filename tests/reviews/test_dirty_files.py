"""Dirty files: for each kind of damage, in each form, an error that names the file and where, or exact counts."""

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.errors import InputError
from regen_hf.reviews.ingest import IngestOptions, read_items, read_reviews

GOOD = [
    {"reviewerID": f"A{n}", "asin": f"B{n}", "unixReviewTime": 1500000000 + n, "overall": 5, "reviewText": f"Text {n}."}
    for n in range(4)
]
TEXT = ("json", "csv", "tsv")
ITEM = {"asin": "B1", "title": "Pen", "category": "Office"}


@pytest.fixture
def read(tmp_path, engine):
    """Read a file as reviews or items: (rows, dropped, rejects); every record is a row or a reject."""

    def run(path, reader=read_reviews, **how):
        log = reader(engine, [str(path)], tmp_path / "work", IngestOptions(**{"chunk_size": 2**20} | how))
        rows = [row for table in log.tables for row in pq.read_table(table).to_pylist()]
        rejects = [row for table in log.rejects for row in pq.read_table(table).to_pylist()]
        assert log.read == len(rows) + sum(log.dropped.values())
        assert len(rejects) == sum(log.dropped.values())
        return rows, log.dropped, rejects

    return run


def as_json(records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def commas(records) -> bytes:
    """JSON objects, one per line, with commas between them."""
    return as_json(records).strip().replace(b"\n", b",\n")


def as_table(records, delimiter, end="\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def as_parquet(records, **how) -> bytes:
    return parquet_of(pa.Table.from_pylist(records), **how)


def parquet_of(table, **how) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **how)
    return file.getvalue()


def written(form, records) -> bytes:
    match form:
        case "json":
            return as_json(records)
        case "csv":
            return as_table(records, ",")
        case "tsv":
            return as_table(records, "\t")
    return as_parquet(records)


@pytest.fixture
def put(tmp_path):
    def run(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return run


def line_of(form, place):
    """The number of the record at `place` among the good ones: after a header in CSV and TSV."""
    return place + 1 + (form in ("csv", "tsv"))


def text_of(line):
    return line.decode(errors="backslashreplace")


# Files that cannot be used: an error that names the file, and the line after which it breaks off


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


MANY = [record | {"reviewerID": f"A{n}", "reviewText": str(n * 7919 % 1009)} for n in range(400) for record in GOOD[:1]]


@pytest.mark.parametrize("form", TEXT)
@pytest.mark.parametrize(
    ("ending", "damage", "message"),
    [
        ("gz", lambda d: d[: len(d) // 2], "data is incomplete"),
        ("gz", lambda d: d[:-4], "data is incomplete|damaged"),
        ("gz", lambda d: flipped(d, -8), "damaged"),  # the checksum
        ("gz", lambda d: flipped(d, len(d) // 2), "damaged"),
        ("gz", lambda d: d + b"what is this", "damaged"),
        ("zst", lambda d: d[: len(d) // 2], "data is incomplete|damaged"),
        ("zst", lambda d: flipped(d, 7), "data is incomplete|damaged"),  # zstd keeps a checksum only if it was asked to
    ],
    ids=["gzip cut", "gzip without its end", "gzip checksum", "gzip body", "gzip and more", "zstd cut", "zstd body"],
)
def test_damaged_compression(read, put, form, ending, damage, message):
    data = written(form, MANY)
    packed = gzip.compress(data) if ending == "gz" else pa.Codec("zstd").compress(data, asbytes=True)
    path = put(f"r.{form}.{ending}", damage(packed))
    with pytest.raises(
        InputError, match=rf"r\.{form}\.{ending} cannot be used: (after line [1-9]\d*, )?its? .*({message})"
    ):
        read(path)


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty", lambda d: b"", r"is empty \(0 bytes\)"),
        ("blank", lambda d: b"\n \n\r\n\n", "contains no line of text"),
        ("error page", lambda d: b"<!DOCTYPE html>\n<title>404, not found, sorry</title>\n", "saved error page"),
        ("noise", lambda d: bytes(range(128, 256)) * 50, "contains no line of text"),
        ("UTF-16", lambda d: d.decode().encode("utf-16"), "is UTF-16.*--encoding utf-16"),
        ("old Mac", lambda d: d.replace(b"\n", b"\r"), "old Macs.*tr"),
        ("zip", lambda d: b"PK\x03\x04" + d, "zip archive.*Unpack it"),
        ("xlsx", lambda d: b"PK\x03\x04 [Content_Types].xml" + d, "Excel workbook.*Save it as CSV"),
        ("sqlite", lambda d: b"SQLite format 3\x00\r" + d, "SQLite database.*Export its tables"),
        ("tar", lambda d: b"reviews.json".ljust(257, b"\x00") + b"ustar" + d, "tar archive.*Unpack it"),
        ("tar.gz", lambda d: gzip.compress(b"r.json".ljust(257, b"\x00") + b"ustar" + d), "tar archive.*Unpack it"),
        ("gzip within gzip", lambda d: gzip.compress(gzip.compress(d)), "gzip within gzip"),
        ("parquet within gzip", lambda d: gzip.compress(as_parquet(GOOD)), "compressed parquet"),
        ("JSON array", lambda d: json.dumps(GOOD, indent=1).encode(), "is a JSON array.*jq"),
        (
            "array of lines",
            lambda d: b"[\n" + as_json(GOOD).strip().replace(b"\n", b",\n") + b"\n]\n",
            "is a JSON array",
        ),
        (
            "lines of an array",
            lambda d: b"[" + as_json(GOOD).strip().replace(b"\n", b",\n") + b"\n]",
            "is a JSON array",
        ),
        ("objects without line ends", lambda d: as_json(GOOD).replace(b"\n", b""), "neither JSON lines nor"),
        (
            "no header",
            lambda d: as_table(GOOD, ",").split(b"\n", 1)[1],
            "no header: its first line is a record.*A0.*--header",
        ),
        ("other columns", lambda d: d.replace(b"reviewerID", b"who"), "columns that are not recognised.*who"),
        ("swapped", lambda d: as_json([ITEM]), "looks like Amazon items of 2018; did you swap"),
        ("swapped table", lambda d: as_table([ITEM], ","), "looks like Amazon items of 2018; did you swap"),
        ("header alone", lambda d: as_table(GOOD, ",").split(b"\n")[0], "contains no record"),
        ("one column", lambda d: b"reviewerID\nA1\nA2\n", "neither JSON lines nor.*no names of columns"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_a_text_file_that_is_none_of_its_kind(read, put, form, name, data, message):
    path = put(f"r.{form}", data(written(form, GOOD)))
    with pytest.raises(InputError, match=rf"(?s)r\.{form}.*{message}"):
        read(path)


CHECKED = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cut", lambda: as_parquet(GOOD)[:-20], "not a complete parquet file"),
        ("magic alone", lambda: b"PAR1", "not a complete parquet file"),
        ("altered page", lambda: as_parquet(GOOD, **CHECKED).replace(b"Text 2.", b"Tent 2."), "after row 0.*damaged"),
        (
            "altered footer",
            lambda: as_parquet(GOOD).replace(b"reviewerID", b"reviewer\xff\xff"),
            "not a complete parquet file",
        ),
        ("no row", lambda: parquet_of(pa.Table.from_pylist(GOOD).slice(0, 0)), "contains no record"),
        ("other columns", lambda: as_parquet([{"who": 1, "what": 2}]), "not recognised.*what, who"),
        ("swapped", lambda: as_parquet([ITEM]), "looks like Amazon items of 2018; did you swap"),
        ("error page", lambda: b"<html><body>404</body></html>", "saved error page"),
        ("empty", lambda: b"", r"is empty \(0 bytes\)"),
        (
            "repeated column",
            lambda: parquet_of(pa.table([["A"], ["B"], ["B"], [1]], ["reviewerID", "asin", "asin", "unixReviewTime"])),
            "the column 'asin' twice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value else None,
)
def test_a_parquet_file_that_cannot_be_used(read, put, name, data, message):
    with pytest.raises(InputError, match=rf"(?s)r\.parquet.*{message}"):
        read(put("r.parquet", data()))


@pytest.mark.parametrize("name", ["r.json.gz", "r.csv.gz", "r.zst", "r.tsv.zst"])
def test_an_error_page_saved_under_a_compressed_name(read, put, name):
    with pytest.raises(InputError, match=rf"{name} is named .* but is not (gzip|zstd): it begins with b'<htm'"):
        read(put(name, b"<html>Not found</html>"))


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_table_whose_header_names_a_column_twice(read, put, form):
    with pytest.raises(InputError, match=r"r\..sv has the column 'asin' twice"):
        read(put(f"r.{form}", written(form, GOOD).replace(b"overall", b"asin", 1)))


@pytest.mark.parametrize(
    ("path", "message"), [("", "is a folder"), ("none.csv", "There is no file"), ("*.parquet", "No file matches")]
)
def test_a_path_that_names_no_file(read, tmp_path, path, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / path)


def test_a_path_that_is_no_regular_file(read):
    with pytest.raises(InputError, match="/dev/null, given as --reviews, is not a regular file"):
        read(Path("/dev/null"))


@pytest.mark.parametrize("form", [*TEXT, "parquet"])
def test_a_file_that_grows_while_it_is_read(tmp_path, put, engine, form, monkeypatch):
    from regen_hf.reviews import ingest

    path = put(f"r.{form}", written(form, GOOD))
    whole = ingest._convert

    def growing(*given):
        with path.open("ab") as file:
            file.write(b"more\n")
        return whole(*given)

    monkeypatch.setattr(ingest, "_convert", growing)
    with pytest.raises(InputError, match=rf"r\.{form} changed while it was read"):
        read_reviews(engine, [str(path)], tmp_path / "work", IngestOptions())


# Bad records among good ones: exact counts, and rejects with file, number, reason and text

BAD = {
    "json": [
        ("half a line", b'{"reviewerID": "A1", "asin"', "not_json"),
        ("two objects on a line", json.dumps(GOOD[0]).encode() * 2, "not_json"),
        ("a NUL byte", json.dumps(GOOD[0]).encode().replace(b"Text", b"Te\x00t"), "not_json"),
        ("invalid UTF-8", json.dumps(GOOD[0]).encode().replace(b"Text", b"Te\xfft"), "not_utf8"),
        ("a blank line", b"", "blank_line"),
        ("spaces alone", b" \t ", "blank_line"),
        ("a number", b"17", "not_an_object"),
        ("a list", json.dumps(list(GOOD[0].values())).encode(), "not_an_object"),
        ("a comma at the end", json.dumps(GOOD[0]).encode() + b",", "not_json"),
        ("a repeated key", json.dumps(GOOD[0]).encode()[:-1] + b', "asin": "B9"}', "repeated_key"),
        ("deep nesting", b"[" * 200_000, "not_json"),
    ],
    "csv": [
        ("half a line", b"A9,B9", "wrong_field_count"),
        ("a field too many", b"A9,B9,1500000000,5,Text,more", "wrong_field_count"),
        ("a NUL byte", b"A9,B9,1500000000,5,Te\x00t", "nul_byte"),
        ("invalid UTF-8", b"A9,B9,1500000000,5,Te\xfft", "not_utf8"),
        ("a blank line", b"", "blank_line"),
        ("a quote that is not closed", b'A9,B9,1500000000,5,"Text', "unbalanced_quotes"),
        ("text after a quote", b'A9,B9,1500000000,5,"Te"xt', "unbalanced_quotes"),
        ("another delimiter", b"A9;B9;1500000000;5;Text", "wrong_field_count"),
        ("a second header", b"reviewerID,asin,unixReviewTime,overall,reviewText", "invalid_time"),
    ],
    "tsv": [
        ("half a line", b"A9\tB9", "wrong_field_count"),
        ("a NUL byte", b"A9\tB9\t1500000000\t5\tTe\x00t", "nul_byte"),
        ("invalid UTF-8", b"A9\tB9\t1500000000\t5\tTe\xfft", "not_utf8"),
        ("a blank line", b"", "blank_line"),
    ],
}


@pytest.mark.parametrize(
    ("form", "bad", "reason"),
    [pytest.param(form, bad, reason, id=f"{form}-{name}") for form in BAD for name, bad, reason in BAD[form]],
)
def test_a_bad_line(read, put, form, bad, reason):
    lines = written(form, GOOD).splitlines()
    place = line_of(form, 2)
    lines.insert(place - 1, bad)
    path = put(f"r.{form}", b"\n".join(lines) + b"\n")
    rows, dropped, rejects = read(path)
    assert sorted(row["reviewer_id"] for row in rows) == ["A0", "A1", "A2", "A3"]
    assert dropped == {reason: 1}
    assert rejects == [{"file": str(path), "line": place, "reason": reason, "raw": text_of(bad)}]


@pytest.mark.parametrize("form", BAD)
def test_bad_lines_one_after_the_other_in_a_file_with_carriage_returns(read, put, form):
    first, *good = written(form, GOOD).splitlines()
    lines = [first, *good[:2], *(bad for _, bad, _ in BAD[form]), *good[2:]]
    path = put(f"r.{form}", b"\r\n".join(lines) + b"\r\n")
    rows, dropped, rejects = read(path)
    assert sorted(row["reviewer_id"] for row in rows) == ["A0", "A1", "A2", "A3"]
    assert dropped == Counter(reason for _, _, reason in BAD[form])
    assert rejects == [
        {"file": str(path), "line": line, "reason": reason, "raw": text_of(bad)}
        for line, (_, bad, reason) in enumerate(BAD[form], 4)
    ]
    with pytest.raises(InputError, match=rf"r\.{form}, line 4: {BAD[form][0][2]}.*--strict"):
        read(path, strict=True)


WRONG = [
    ({"reviewerID": None}, "missing_user"),
    ({"reviewerID": "  "}, "missing_user"),
    ({"asin": None}, "missing_item"),
    ({"unixReviewTime": None}, "missing_time"),
    ({"unixReviewTime": "yesterday"}, "invalid_time"),
    ({"unixReviewTime": "2020-13-01"}, "invalid_time"),
    ({"unixReviewTime": "01/02/2020"}, "invalid_time"),
    ({"unixReviewTime": "2020-01-01T10:00:00 Europe/Berlin"}, "invalid_time"),
    ({"unixReviewTime": "infinity"}, "invalid_time"),
    ({"unixReviewTime": "-5"}, "invalid_time"),
    ({"unixReviewTime": "1e400"}, "invalid_time"),
    ({"overall": "five"}, "invalid_rating"),
    ({"overall": "11"}, "rating_out_of_scale"),
    ({"overall": "-inf"}, "rating_out_of_scale"),
]


@pytest.mark.parametrize("form", [*TEXT, "parquet"])
def test_wrong_values(read, put, form):
    texts = [{name: str(value) for name, value in record.items()} | {"overall": None} for record in GOOD]
    wrong = [texts[2] | change for change, _ in WRONG]
    path = put(f"r.{form}", written(form, [*texts[:3], *wrong, texts[3]]))
    rows, dropped, rejects = read(path)
    assert sorted(row["asin"] for row in rows) == ["B0", "B1", "B2", "B3"]
    assert dropped == Counter(reason for _, reason in WRONG)
    assert [(reject["file"], reject["line"], reject["reason"]) for reject in rejects] == [
        (str(path), line_of(form, 3 + place), reason) for place, (_, reason) in enumerate(WRONG)
    ]
    if form in ("json", "parquet"):
        assert [json.loads(reject["raw"]) for reject in rejects] == wrong
    with pytest.raises(InputError, match=rf"r\.{form}, line {line_of(form, 3)}: missing_user.*--strict"):
        read(path, strict=True)


@pytest.mark.parametrize("form", ["json", "parquet"])
@pytest.mark.parametrize("name", ["reviewerID", "unixReviewTime", "reviewText"])
@pytest.mark.parametrize("value", [{"a": 1}, [1, 2]], ids=["object", "list"])
def test_nesting_where_one_value_is_expected(read, put, form, name, value):
    if form == "json":
        records = [*GOOD[:2], GOOD[2] | {name: value}, GOOD[3]]
    else:
        records = [record | {name: value if record is GOOD[2] else None} for record in GOOD]
    rows, dropped, rejects = read(put(f"r.{form}", written(form, records)))
    assert dropped["wrong_type"] == 1
    assert [reject["line"] for reject in rejects if reject["reason"] == "wrong_type"] == [3]
    assert all(reject["reason"] == "wrong_type" for reject in rejects) or form == "parquet"
    assert not any(row["reviewer_id"] == "A2" for row in rows)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_an_item_whose_title_is_nested(read, put, form):
    nested = [ITEM | {"title": {"en": "Pen"}}, *([ITEM] if form == "json" else [])]
    rows, dropped, _ = read(put(f"i.{form}", written(form, nested)), read_items)
    assert (len(rows), dropped) == (form == "json", {"wrong_type": 1})


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()], ids=["binary", "string"])
def test_parquet_text_that_is_not_utf8(read, put, kind):
    values = [b"Text", b"Te\xfft", b"\xc3\xa9"]
    texts = pa.array(values, pa.binary())
    if kind == pa.string():
        texts = pa.Array.from_buffers(kind, 3, texts.buffers())
    table = pa.table(
        {"reviewerID": ["A", "B", "C"], "asin": ["1"] * 3, "unixReviewTime": [10**9] * 3, "reviewText": texts}
    )
    rows, dropped, rejects = read(put("r.parquet", parquet_of(table)))
    assert sorted(row["text"] for row in rows) == ["Text", "é"]
    assert (dropped, rejects[0]["line"]) == ({"not_utf8": 1}, 2)


# What is odd but whole


@pytest.mark.parametrize("form", [*TEXT, "parquet"])
def test_a_line_of_ten_megabytes(read, put, form):
    records = [*GOOD[:2], GOOD[2] | {"reviewText": 'Long, "very long" ' * 600_000}, GOOD[3]]
    rows, dropped, _ = read(put(f"r.{form}", written(form, records)))
    assert dropped == {}
    assert max(len(row["text"]) for row in rows) > 10**7


@pytest.mark.parametrize("form", TEXT)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data[:-1],
        lambda data: gzip.compress(data[:70]) + gzip.compress(data[70:]),
        lambda data: gzip.compress(data) + b"\x00" * 512,
    ],
    ids=["byte order mark", "CRLF", "no last line end", "gzip of two members", "gzip padded with zeros"],
)
def test_files_that_are_odd_but_whole(read, put, form, change):
    rows, dropped, _ = read(put("r.data", change(written(form, GOOD))))
    assert (sorted(row["text"] for row in rows), dropped) == ([record["reviewText"] for record in GOOD], {})


def test_quotes_in_a_table_may_hold_its_delimiter_its_quotes_and_its_line_ends(read, put):
    texts = ['a "quoted" word', "one\ntwo\r\nthree", ",;\t,", '"']
    records = [record | {"reviewText": text} for record, text in zip(GOOD, texts, strict=True)]
    for form in ("csv", "tsv"):
        rows, dropped, _ = read(put(f"r.{form}", written(form, records)))
        assert dropped == {}
        assert {row["text"] for row in rows} == {text.strip() for text in texts}


def test_a_record_of_several_lines_has_the_number_of_its_first(read, put):
    records = [GOOD[0] | {"reviewText": "1\n2\n3"}, GOOD[1] | {"overall": 9, "reviewText": "4\n5"}, GOOD[2]]
    _, dropped, rejects = read(put("r.csv", written("csv", records)))
    assert dropped == {"rating_out_of_scale": 1}
    assert (rejects[0]["line"], rejects[0]["raw"]) == (5, 'A1,B1,1500000001,9,"4\n5"')


def test_a_tsv_that_knows_no_quotes_keeps_them_as_text(read, put):
    data = b"reviewerID\tasin\tunixReviewTime\treviewText\n" + b"".join(
        f"A{n}\tB1\t1500000000\t{text}\n".encode() for n, text in enumerate(['"Great" pen', '"Great pen', 'a 5" ruler'])
    )
    rows, dropped, _ = read(put("r.tsv", data))
    assert (sorted(row["text"] for row in rows), dropped) == (['"Great pen', '"Great" pen', 'a 5" ruler'], {})


def test_a_quote_left_open_takes_no_other_record_with_it_wherever_chunks_end(read, put):
    lines = [f"A{n},B1,{1500000000 + n},5,Text {n}" for n in range(1500)]
    lines[700] = 'A700,B1,1500000700,5,"Text'
    lines[1499] = 'A1499,B1,1500001499,5,"Text'
    data = ("reviewerID,asin,unixReviewTime,overall,reviewText\n" + "\n".join(lines) + "\n").encode()
    for size in (5000, 2**20):
        rows, dropped, rejects = read(put("r.csv", data), chunk_size=size)
        assert (len(rows), dropped) == (1498, {"unbalanced_quotes": 2})
        assert [reject["line"] for reject in rejects] == [702, 1501]


def test_lone_surrogates_in_json_are_refused_or_kept_but_break_nothing(read, put):
    rows, dropped, _ = read(put("r.json", as_json([GOOD[0] | {"reviewText": "a\ud800b"}, GOOD[1]])))
    assert len(rows) + sum(dropped.values()) == 2
    assert "A1" in {row["reviewer_id"] for row in rows}
