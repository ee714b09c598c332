"""CSV and TSV: quotes that swallow records, null words and numbers as ids, headers, other delimiters."""

import gzip
from itertools import product

import pyarrow.parquet as pq
import pytest

from regen_hf.reviews.delimited import StrayQuote, delimited, fits_unquoted
from regen_hf.reviews.ingest import IngestOptions, read_reviews
from regen_hf.reviews.lines import chunks

NAMES = ("user", "item", "time", "text")
FIELDS = {"reviewer_id": "user", "asin": "item", "unix_time": "time", "text": "text"}
TIME = 1500000000
SIZES = [20, 64, 2**20]
"""Bytes of a chunk: less than a line, a few lines, the whole file."""


@pytest.fixture
def split(tmp_path):
    """The records of a CSV file with these bytes, as dicts; the arguments are those of `delimited`."""

    def run(data, delimiter=",", names=NAMES, fields=FIELDS, size=2**20, **how):
        path = tmp_path / "r.csv"
        path.write_bytes(data)
        return [
            row
            for records in delimited(chunks(path, size), names, delimiter, fields, **how)
            for row in records.fields.to_pylist()
        ]

    return run


@pytest.fixture
def split_again(tmp_path, split):
    """As `split`, for a file with a stray quote, which is read again: (quoting, records)."""

    def run(data, delimiter=",", names=NAMES, fields=FIELDS, size=2**20):
        with pytest.raises(StrayQuote):
            split(data, delimiter, names, fields, size)
        fits = fits_unquoted(chunks(tmp_path / "r.csv", size), delimiter, len(names))
        quoting = "none" if fits else "lenient"
        return quoting, split(data, delimiter, names, fields, size, quoting=quoting)

    return run


def table(*rows, delimiter=",", end="\n", names=NAMES):
    """A file without quoting."""
    return "".join(delimiter.join(map(str, row)) + end for row in (names, *rows)).encode()


def values(records, names=FIELDS):
    return [tuple(record[name] for name in names) for record in records]


def texts(records):
    return [record["text"] for record in records if not record["reject"]]


# Quotes that swallow records

STRAY = {
    "last column": [("a", 1, TIME, '"Great'), ("b", 2, TIME, 'a ruler of 5"')],
    "middle column": [("a", '"1', TIME, "Great"), ("b", '2"', TIME, "Good")],
    "first column": [('"a', 1, TIME, "Great"), ('b"', 2, TIME, "Good")],
    "time": [("a", 1, f'"{TIME}', "Great"), ("b", 2, f'{TIME}"', "Good")],
    "five records": [
        ("a", 1, TIME, '"Great'),
        *((f"c{n}", n, TIME, f"Text {n}") for n in range(3)),
        ("b", 2, TIME, '5"'),
    ],
    "ISO dates": [("a", 1, "2020-01-01", '"Great'), ("b", 2, "2020-01-02T10:00:00Z", '5"')],
    "days of a spreadsheet": [("a", 1, 43831, '"Great'), ("b", 2, "43831.5", '5"')],
    "exponents": [("a", 1, "1.5e9", '"Great'), ("b", 2, "1.5E+09", '5"')],
    "times after spaces": [("a", 1, " 1500000000.5", '"Great'), ("b", 2, " 2020-01-02", '5"')],
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("stray", STRAY)
def test_a_file_whose_quote_swallows_records_is_read_without_quoting(split_again, stray, end):
    rows = [("x", 7, TIME, "One"), *STRAY[stray], ("y", 8, TIME, '"Two"')]
    for delimiter, size in product([",", "\t", ";", "|"], SIZES):
        quoting, records = split_again(table(*rows, delimiter=delimiter, end=end), delimiter, size=size)
        assert quoting == "none"
        assert values(records) == [tuple(map(str, row)) for row in rows]
        assert [record["number"] for record in records] == list(range(2, len(rows) + 2))


@pytest.mark.parametrize("after_interruption", [False, True])
def test_each_record_of_a_file_that_is_read_again_counts_once(engine, tmp_path, monkeypatch, after_interruption):
    rows = [(f"U{n}", f"B{n}", TIME + n, f"Text {n}") for n in range(200)]
    rows[150:152] = [("U150", "B150", TIME, '"Text 150'), ("U151", "B151", TIME, 'Text 151"')]
    names = ("reviewerID", "asin", "unixReviewTime", "reviewText")
    (tmp_path / "r.csv").write_bytes(table(*rows, names=names))
    (tmp_path / "s.csv").write_bytes(table(("U1000", "B1", TIME, '"Text, quoted"'), names=names))

    def read():
        return read_reviews(engine, [str(tmp_path / "?.csv")], tmp_path / "work", IngestOptions(chunk_size=1000))

    if after_interruption:
        with monkeypatch.context() as patched:
            patched.setattr("regen_hf.reviews.sources.fits_unquoted", interrupted)
            with pytest.raises(KeyboardInterrupt):
                read()
    log = read()
    texts = {row["reviewer_id"]: row["text"] for file in log.tables for row in pq.read_table(file).to_pylist()}
    assert texts == {row[0]: row[3] for row in rows} | {"U1000": "Text, quoted"}
    assert (log.read, log.dropped, log.files) == (201, {}, {"read": 2, "unquoted": 1, "missing": log.files["missing"]})


def interrupted(*args):
    raise KeyboardInterrupt


def test_a_compressed_file_whose_quote_swallows_records(split_again):
    rows = STRAY["last column"]
    assert len(split_again(gzip.compress(table(*rows)))[1]) == 2


def test_a_quote_that_swallows_items(split_again):
    fields = {"asin": "item", "title": "title"}
    rows = [("1", '"Pen'), ("2", "Ink"), ("3", 'Ruler of 5"'), ("4", "Cap")]
    quoting, records = split_again(table(*rows, names=("item", "title")), ",", ("item", "title"), fields)
    assert (quoting, values(records, fields)) == ("none", rows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_properly_quoted_file_with_one_stray_quote_loses_one_record_at_most(split_again, delimiter, size):
    d = delimiter
    good = [f'u{n}{d}{n}{d}{TIME}{d}"A text{d} with a ""word"" {n}"' for n in range(20)]
    stray = [f'a{d}1{d}{TIME}{d}"Great', f'b{d}2{d}{TIME}{d}5"']
    data = "\n".join([d.join(NAMES), *good[:10], *stray, *good[10:]]).encode()
    quoting, records = split_again(data, delimiter, size=size)
    assert quoting == "lenient"
    expected = [f'A text{d} with a "word" {n}' for n in range(20)]
    if delimiter == "\t":
        assert texts(records) == [*expected[:10], '"Great', '5"', *expected[10:]]
    else:
        assert texts(records) == [*expected[:10], '5"', *expected[10:]]
        assert [(r["number"], r["reject"]) for r in records if r["reject"]] == [(12, "unbalanced_quotes")]


def test_a_file_with_each_field_in_quotes_keeps_its_quoting(split_again):
    good = [f'"u{n}","{n}","{TIME}","Text"' for n in range(20)]
    data = "\n".join([",".join(NAMES), *good, f'a,1,{TIME},"Great', f'b,2,{TIME},5"']).encode()
    quoting, records = split_again(data)
    assert (quoting, records[0]["reviewer_id"], len(texts(records))) == ("lenient", "u0", 21)


@pytest.mark.parametrize(
    "text",
    [
        "Sizes:\n1, 2, 1500000000, 4\nthe end",
        "I paid 5, not 6\nin 2020, 2021, 1600000000, and\n1,234,567",
        "a,b\nc,d,e\nf",
        "user,item,time,text\nuser,item,time,text",
        "1,2,3,4\n5,6,7,8",
        "2020-01-01,1,5\n2020-01-02,2,6\n",
        "\n\n\n",
        '""\n,"",""\n"',
    ],
)
def test_texts_of_several_lines_are_kept(split, text):
    for column, size in product(range(4), SIZES):
        names = [*NAMES[:3]]
        names.insert(column, "text")
        row = ["a", "1", str(TIME)]
        row.insert(column, '"' + text.replace('"', '""') + '"')
        data = "\n".join([",".join(names), *[",".join(row)] * 3]).encode()
        records = split(data, names=names, size=size)
        assert values(records) == [("a", "1", str(TIME), text)] * 3


def test_two_texts_of_several_lines_in_a_record_are_kept(split):
    names, fields = ("summary", *NAMES), {"summary": "summary", **FIELDS}
    for time, size in product((f'"{TIME}"', str(TIME)), SIZES):
        data = f'summary,user,item,time,text\n"a\nb",u,i,{time},"two\nlines"\n'.encode()
        assert values(split(data, names=names, fields=fields, size=size), fields) == [
            ("a\nb", "u", "i", str(TIME), "two\nlines")
        ]


def test_descriptions_of_several_lines_are_kept(split):
    fields = {"asin": "item", "title": "title", "description": "description"}
    description = "Blue, thin, light\nRed, thick, heavy\nGreen, for school, and 1,000 more"
    data = f'item,title,description\nB1,Pen,"{description}"\nB2,Ink,"{description}"\n'.encode()
    assert values(split(data, names=list(fields.values()), fields=fields), fields) == [
        ("B1", "Pen", description),
        ("B2", "Ink", description),
    ]


def test_a_file_with_many_damaged_lines_does_not_fit_without_quoting(tmp_path):
    def fits(damaged):
        rows = [("a", 1, TIME, '"Great'), *[("b", 2, TIME, "Good")] * (99 - damaged), *[("b", 2)] * damaged]
        (tmp_path / "r.csv").write_bytes(table(*rows) + b"\n \n" * 50)
        return fits_unquoted(chunks(tmp_path / "r.csv", 100), ",", 4)

    assert (fits(0), fits(5), fits(6)) == (True, True, False)


# Without quoting, without a header


@pytest.mark.parametrize("size", [5, 2**20])
def test_a_delimiter_of_several_characters(split, size):
    data = b'1::1193::5::978300760\r\n"1::NA::3::978302109\n1::2\n\n1::17.0::3::978302109::\n'
    fields = {"reviewer_id": "user", "asin": "item", "rating": "rating", "unix_time": "time"}
    records = split(data, "::", tuple(fields.values()), fields, size, has_header=False)
    assert values(records, ("number", "reject", *fields)) == [
        (1, None, "1", "1193", "5", "978300760"),
        (2, None, '"1', None, "3", "978302109"),
        (3, "wrong_field_count", None, None, None, None),
        (4, "blank_line", None, None, None, None),
        (5, "trailing_delimiter", None, None, None, None),
    ]


@pytest.mark.parametrize("blank", ["", "\n", "\r\n \n\t\n\n"])
def test_blank_lines_before_the_header(split, blank):
    for size, quoting in product([1, 5, 2**20], ["strict", "none"]):
        records = split(blank.encode() + table(("a", 1, TIME, "x")), size=size, quoting=quoting)
        assert values(records, ("number", "reject", "reviewer_id")) == [(blank.count("\n") + 2, None, "a")]


def test_a_file_without_a_header(split):
    data = table(("a", 1, TIME, "x"), ("b", 2, TIME, '"y, z"')).split(b"\n", 1)[1]
    records = split(data, has_header=False)
    assert values(records) == [("a", "1", str(TIME), "x"), ("b", "2", str(TIME), "y, z")]
    assert [record["number"] for record in records] == [1, 2]


def test_lines_that_end_with_a_delimiter_which_the_header_lacks(split):
    data = b"user,item,time,text\na,1,1500000000,x,\nb,2,1500000000,y,more\n"
    assert [record["reject"] for record in split(data)] == ["trailing_delimiter", "wrong_field_count"]


# Ids


@pytest.mark.parametrize("text", ["plain", '"quoted, ""text"""', '"NA,17.0"', '"two\nlines"'])
def test_unquoted_ids(split, text):
    nulls = ("", " ", r"\N", "NULL", "null", "NA", " NA ", "NaN", "nan", "None")
    floats = {"17.0": "17", "0.0": "0", " 17.00 ": "17", "9007199254740993.0": "9007199254740993"}
    kept = ("na", "Null", "NONE", "N/A", "-", "0", "17", "Nancy", "007.0", "00.0", "17.5", "17.", ".0", "-17.0", "1e3")
    expected = dict.fromkeys(nulls) | floats | {word: word for word in (*kept, "17.0.0", "a17.0")}
    for quoting in ("strict", "lenient", *["none"] * (text == "plain")):
        for rows, name in (
            ([f"{cell},1,{TIME},{text}\n" for cell in expected], "reviewer_id"),
            ([f"a,{cell},{TIME},{text}\n" for cell in expected], "asin"),
        ):
            records = split(("user,item,time,text\n" + "".join(rows)).encode(), quoting=quoting)
            assert values(records, ("reject", name, "float_ids")) == [
                (None, value, int(cell in floats)) for cell, value in expected.items()
            ]


@pytest.mark.parametrize("before", ["", "x,", '"x",', '"a, ""b"", c",', '"1\n2",', 'a"b,', ","])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "^"])
def test_quoted_ids_are_text(split, before, delimiter):
    names = ["other"] * bool(before) + ["user", "item", "time", "text"]
    for word in ("NA", "NULL", r"\N", "17.0", "", " "):
        data = f'{",".join(names)}\n{before}"{word}",17.0,{TIME},"x"\n{before}{word},"17.0",{TIME},x\n'
        records = split(data.replace(",", delimiter).encode(), delimiter, names)
        unquoted = "17" if word == "17.0" else None
        assert values(records, ("reviewer_id", "asin")) == [(word, "17"), (unquoted, "17.0")]
        assert [record["float_ids"] for record in records] == [1, int(word == "17.0")]


def test_two_float_ids_in_a_record_count_twice(split):
    assert [record["float_ids"] for record in split(table(("1.0", "2.0", TIME, "3.0")))] == [2]


def test_ids_of_tsv_lines_whose_quotes_are_text(split):
    rows = [("NA", "17.0", TIME, '"Great" pen'), ('"x', "NA", TIME, 'y"z'), ("NA", "2", TIME, '"open')]
    records = split(table(*rows, delimiter="\t"), "\t")
    assert values(records, ("reviewer_id", "asin", "float_ids")) == [(None, "17", 1), ('"x', None, 0), (None, "2", 0)]


def test_null_words_in_other_columns_are_text(split):
    assert texts(split(table(("a", 1, TIME, "NA"), ("b", 2, TIME, "17.0")))) == ["NA", "17.0"]
