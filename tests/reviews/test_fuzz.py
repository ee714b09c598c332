"""Random logs in every format: `regen sequences` writes what the rules in plain Python say."""

import datetime
import gzip
import io
import itertools
import json
import random
import re
import tempfile
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from regen_hf import outputs
from regen_hf.engines import DuckDB
from regen_hf.errors import InputError
from regen_hf.schema import SPLITS
from regen_hf.stages.sequences.build import build
from regen_hf.stages.sequences.settings import SequencesConfig
from tests.reviews.reading_rules import ENTITIES, MARKUP, NULL_WORDS, SCRIPT, Bad, Cell, File, Refused, Settings
from tests.reviews.sequence_rules import sequences as expected

KEYS = {"user": "u", "item": "i", "time": "t", "rating": "r", "summary": "s", "text": "x"}
ITEM_KEYS = {"item": "i", "title": "n", "category": "c", "description": "d", "price": "p"}
COLUMNS = {"reviews": KEYS, "items": ITEM_KEYS, "both": KEYS | ITEM_KEYS}
"""Columns by kind of file; files of both kinds of columns have reviews and their items."""
DELIMITERS = {"csv": ",", "semicolons": ";", "tsv": "\t"}
FORMS = ("json", "literal", "csv", "semicolons", "tsv", "parquet")

# Values of text formats. Each pool is drawn from often, the odd ones seldom.
USUAL = {
    "user": ["u1", "u2", "17"],
    "item": ["i1", "i2", "i3", "7"],
    "time": ["1500000000", "1500000001", "1500000000.5", "1500000000123", "1500000000123456", "2017-07-14", "20170714"],
    "rating": ["5", "4.5", "1", "0.5", "2.0", "3"],
    "summary": ["Good", "5", "", "Tom &amp; I"],
    "text": ["It writes.", "a<br />b", "two\nlines", ""],
    "title": ["Pen", "Pen <b>blue</b>", "Multi-Function (Print, Scan)"],
    "category": ["Office", '["Office", "Pens"]', '[["Office", "Pens"], ["School"]]'],
    "description": ["Blue.", '["<p>Fine.</p>", "", "Set."]', "['a' \"b's\"]"],
    "price": ["$2.50", "$4.00 - $6.00", "3"],
}
NULLS = ["", " ", *NULL_WORDS]
IDS = [
    "17.0",
    "17.00",
    "017",
    "0",
    "0.0",
    "-5.0",
    "2.5",
    "12345678901234567890",
    " u1 ",
    " 17.0 ",
    " NA",
    "é ü",
    "u,1",
    "a\tb",
]
TIMES = [
    *("1500000000.5", "1500000000.25", "1.5e9", "1500000000123", "1500000000123456", "1500000000123456789", "5e9"),
    *("1500000000123456788", "2017-07-14T02:40:00Z", "2017-07-14T02:40:00.123456789Z", "2017-07-14 04:40+02:00"),
    *("2017-07-14T02:40:00.5-0730", "20170714.0", "201707140240", "20170714024000", "20170714024000.0", "20231311"),
    *("42930", "42930.5", "34699", "34700", "73050.25", "73051", "1900", "2017", "2017.0", "2100", "2101", "-5"),
    *("0", "31535999", "31536000", "1970-06-01", "1971-01-01", "1969-12-31", "19691231", "19700101", "0001-01-01"),
    *("next week", "20170231", "2017-02-31", "201713140240", "9999-12-31", "2261-12-31T23:59:59.9Z", "2262-01-01"),
    *("99999999999", "100000000000", "100000000000000", "100000000000000000", "9214646399999999999"),
    *("9214646400000000000", "99999999999999999999", "1e30", " 1500000000 "),
    *("1500000000.123456789", "1.5000000005e9", "-0", "+1500000000", "01500000000", "1500000000.", ".5", "infinity"),
    *("2017-07-14T02:40:00+14:00", "2017-07-14 02:40:00 UTC", "2017-7-14", "14/07/2017"),
    *("1970-12-31T23:59:59.999999999Z", "1971-01-01T00:00+00:01", "20170714.00", "2017071402", "20991231"),
]
ODD = {
    "user": [*NULLS, *IDS],
    "item": [*NULLS, *IDS],
    "time": [*NULLS, *TIMES],
    "rating": [*NULLS, "abc", "4,5", " 4 ", "3.5e0"],
    "price": [*NULLS, "ask us", "$1,250.00", "9.99", ".a{width:5px}"],
    "title": ["", " ", "NA", SCRIPT, "<b> </b>", "Tom&nbsp;&amp; I\n"],
    "category": ["", "NA", '["A", "A", "</span>"]', "[sic] a", '["\\ud83d\\ude00", "\\ud83d"]', "[]", "[null]"],
    "description": ["", "NULL", "a<style>x{}</style>b", "[]", '["\\ude00"]'],
}
WILD = ["0.25", "0", "-1", "6", "11", "100"]
"""Ratings with which a file is refused where there is no scale."""
PIECES = [*MARKUP, *ENTITIES, *NULL_WORDS, " ", "x", "<3", "&copy=2", '"', ",", ";", "\t", "\n", "é", "😀", "\xa0", "'"]
WORDS = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
GOOD = {"user": "u1", "item": "i1", "time": "1500000002", "rating": "4", "title": "Pen"}
LIST = re.compile(r'\[("[^\\]*)?\]|\[\[.*')
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[0-9]+)?")


def any_text(rng, name, wild):
    """A text for a column."""
    if name in ("summary", "text") and rng.random() < 0.3:
        return "".join(rng.choices(PIECES, k=rng.randrange(6)))
    return rng.choice(ODD[name] + WILD * wild if name in ODD and rng.random() < 0.15 else USUAL[name])


def cell(form, text, quoted):
    """The text without quotes where the format permits it."""
    if form in DELIMITERS:
        return Cell(text, quoted or any(sign in text for sign in f'{DELIMITERS[form]}"\r\n'))
    bare = NUMBER.fullmatch(text) or text == {"json": "NaN", "literal": "None"}[form]
    return Cell(text, quoted or not (bare or LIST.fullmatch(text)))


HALVES = {"json": "a pair \ud83d\ude00", "literal": "a pair \ud83d\ude00, a half \ud83d"}
"""Halves of surrogate pairs, written as escapes."""
BAD_LINES = [
    Bad(b"not json", "not_json"),
    Bad(b"[1, 2]", "not_an_object"),
    Bad(b"", "blank_line"),
    Bad(b'{"u": "\xff"}', "not_utf8"),
]


def bad_lines(form, width):
    """Lines that are no records, in a file with `width` columns."""
    if form not in DELIMITERS:
        # Python keeps the last of two keys.
        return BAD_LINES + [Bad(b'{"i": "i1", "i": "i2"}', "repeated_key")] * (form == "json")
    delimiter = DELIMITERS[form]
    return [Bad(b"", "blank_line"), Bad(b"x", "wrong_field_count")] + [
        Bad(delimiter.encode().join([cell] * count), reason)
        for cell, count, reason in [
            (b"x", width + 1, "wrong_field_count"),
            (b"\xff", width, "not_utf8"),
            (b"\0", width, "nul_byte"),
        ]
    ]


# Types of parquet columns by name, each with its values.
MOMENTS = [
    datetime.datetime(2017, 7, 14, 2, 40),
    datetime.datetime(2017, 7, 14, 2, 40, 0, 123000),
    datetime.datetime(1970, 1, 3),
    datetime.datetime(1969, 12, 31),
    datetime.datetime(1, 1, 1),
    datetime.datetime(9999, 12, 31),
]
NAN = float("nan")
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
TYPED = {
    "id": [(pa.int64(), [7, 17, 0, -5]), (pa.float64(), [7.0, 17.0, 2.5, NAN])],
    "time": [
        (pa.int64(), [1500000000, 1500000001, 1500000000123, 1500000000123456789, 42930, 20170714, 2017, 0]),
        (pa.float64(), [1500000000.0, 1500000000.5, 1500000001.0, NAN, 20170714.0, 1.5e12]),
        (pa.timestamp("us"), MOMENTS),
        (pa.timestamp("ms"), MOMENTS),
        (pa.timestamp("us", "Europe/Berlin"), [moment.replace(tzinfo=datetime.UTC) for moment in MOMENTS[:4]]),
        (pa.timestamp("ns"), MOMENTS[:4]),
        (pa.date32(), [moment.date() for moment in MOMENTS]),
    ],
    "rating": [
        (pa.int8(), [1, 2, 3, 4, 5]),
        (pa.float32(), [1.0, 4.5, NAN]),
        (pa.decimal128(3, 1), [Decimal("4.5"), Decimal("3.0")]),
    ],
    "price": [(pa.float32(), [9.99, 5.0]), (pa.float64(), [9.99, NAN])],
    "category": [(pa.list_(pa.string()), [["Office", "Pens"], []])],
    "text": [(pa.binary(), [b"It writes.", b"\xff", "é".encode()])],
}
TYPED["user"] = TYPED["item"] = TYPED["id"]


# Files


def how_written(form, names, rng):
    """What does not change the content of a file."""
    return {
        "form": form,
        "packed": rng.choice(["", "", "gzip", "gzips", "zstd"]),
        "ends": rng.choice(["\n", "\r\n"]),
        "last": rng.random() < 0.5,
        "bom": rng.random() < 0.2,
        "ascii": rng.random() < 0.5,
        "types": {name: rng.choice(TEXT_TYPES) for name in names},
    }


def file_of(kind, seed, record_seeds):
    """A file of a random form, and how it is written; each seed makes some of its records."""
    rng = random.Random(seed)
    form = rng.choice(FORMS)
    names = list(COLUMNS[kind])
    if rng.random() < 0.2:
        names.remove(rng.choice([name for name in names if name not in ("user", "item", "time", "title")]))
    rng.shuffle(names)
    wild = {name: name == "rating" and rng.random() < 0.2 for name in names}
    how = how_written(form, names, rng)
    types = {name: rng.choice(TYPED.get(name, []) + [(how["types"][name], None)] * 3) for name in names}
    how["types"] = {name: arrow for name, (arrow, _) in types.items()}

    def value(rng, name):
        if rng.random() < 0.05:
            return None
        if form == "parquet":
            values = types[name][1]
            return rng.choice(values) if values else any_text(rng, name, wild[name])
        if name == "text" and how["ascii"] and form in HALVES and rng.random() < 0.1:
            return Cell(HALVES[form])
        if form in HALVES and rng.random() < 0.01:
            return Cell('["x"]', False)
        return cell(form, any_text(rng, name, wild[name]), rng.random() < 0.5)

    records = []
    for number in record_seeds:
        rng = random.Random(number)
        for _ in range(rng.randrange(1, 5)):
            if form != "parquet" and rng.random() < 0.05:
                records.append(rng.choice(bad_lines(form, len(names))))
            records.append({name: value(rng, name) for name in names})
    if form != "parquet":  # a complete record: JSON is recognised by its keys
        records.insert(len(records) // 2, {name: Cell(GOOD.get(name, "3")) for name in names})
    elif not records:
        records.append({name: value(rng, name) for name in names})
    unquoted = form in DELIMITERS and "text" in names and rng.random() < 0.2
    if unquoted:
        records = [dict(zip(names, unquoted_cells(rng, form, names), strict=True)) for _ in range(len(records) + 1)]
        for record, text in zip(records[-2:], ('"So', 'they say"'), strict=True):
            record["text"] = Cell(text, False)
    form = "csv" if form in DELIMITERS else form
    return File(form, tuple(names), tuple(records), unquoted), how


def unquoted_cells(rng, form, names):
    """Cells of a record in a file without quoting."""
    for name in names:
        texts = [text for text in USUAL[name] if not cell(form, text, False).quoted]
        yield Cell(rng.choice(texts), False)


SEEDS = st.integers(0, 2**32 - 1)


def files(kind):
    return st.builds(file_of, st.just(kind), SEEDS, st.lists(SEEDS, min_size=2 * (kind == "items"), max_size=20))


# Writing


def written(file, how, kind):
    """The bytes of a file."""
    if file.form == "parquet":
        columns = {name: [record[name] for record in file.records] for name in file.columns}
        table = pa.table({COLUMNS[kind][n]: array(v, how["types"][n]) for n, v in columns.items()})
        data = io.BytesIO()
        pq.write_table(table, data)
        return data.getvalue()
    lines = [record.raw if isinstance(record, Bad) else line(record, file, how, kind) for record in file.records]
    if file.form == "csv":
        lines.insert(0, DELIMITERS[how["form"]].join(COLUMNS[kind][name] for name in file.columns).encode())
    ends = how["ends"].encode()
    data = b"\xef\xbb\xbf" * how["bom"] + ends.join(lines) + (ends if how["last"] or not lines[-1] else b"")
    if how["packed"] == "zstd":
        return pa.compress(data, "zstd", asbytes=True)
    if how["packed"]:
        middle = len(data) // 2 if how["packed"] == "gzips" else len(data)
        return gzip.compress(data[:middle]) + gzip.compress(data[middle:])
    return data


def array(values, kind):
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind, from_pandas=False)


def line(record, file, how, kind):
    values = [(COLUMNS[kind][name], record[name]) for name in file.columns]
    if file.form == "csv":
        texts = ("" if v is None else '"' + v.text.replace('"', '""') + '"' if v.quoted else v.text for _, v in values)
        return DELIMITERS[how["form"]].join(texts).encode()
    given = [(key, value) for key, value in values if value is not None]
    if file.form == "json":
        pairs = (
            f"{json.dumps(k)}: {json.dumps(v.text, ensure_ascii=how['ascii']) if v.quoted else v.text}"
            for k, v in given
        )
    else:
        quoted = ascii if how["ascii"] else repr
        pairs = (f"{k!r}: {'u' * how['ascii'] + quoted(v.text) if v.quoted else v.text}" for k, v in given)
    return ("{" + ", ".join(pairs) + "}").encode()


# Comparing


RULES = st.builds(
    Settings,
    rating_scale=st.sampled_from([None, None, None, (1, 10), (0, 5)]),
    rating_missing=st.sampled_from([(), (), (0, -1)]),
    min_history=st.sampled_from([1, 1, 2]),
    max_history=st.sampled_from([50, 50, 3]),
    k_core=st.sampled_from([0, 0, 0, 2]),
    since=st.sampled_from(["", "", "", "2017-07-14"]),
    until=st.sampled_from(["", "", "", "2017-07-14"]),
)
SEPARATE = st.tuples(
    st.lists(files("reviews"), min_size=1, max_size=4), st.lists(files("items"), min_size=1, max_size=3), RULES
)
LOGS = st.one_of(*[SEPARATE] * 4, st.tuples(st.lists(files("both"), min_size=1, max_size=3), st.just([]), RULES))


class Engine(DuckDB):
    """DuckDB that keeps the SQL of its rules for the next log: to generate it takes half of the time of a small one."""

    kept = {}

    def __init__(self, memory, spill):
        super().__init__(memory, spill)
        self.queries = self.kept


def mapping(kind, log):
    """The columns that some file has."""
    return {name: key for name, key in COLUMNS[kind].items() if any(name in file.columns for file, _ in log)}


def right(reviews, items, rules):
    """What the rules give for files."""
    log = [file for file, _ in reviews]
    return expected(log, [file for file, _ in items] or log, rules)


def actual(folder, reviews, items, rules, memory, chunk):
    """What the stage writes for files."""
    paths = {"reviews": [], "items": []}
    for kind, log in (("reviews" if items else "both", reviews), ("items", items)):
        for number, (file, how) in enumerate(log):
            path = folder / f"{kind}{number}"
            path.write_bytes(written(file, how, kind))
            paths["items" if kind == "items" else "reviews"].append(str(path))
    (folder / "out").mkdir()
    (folder / "work").mkdir()
    given = {name: value for name, value in vars(rules).items() if value not in (None, ())}
    config = SequencesConfig(
        reviews=tuple(paths["reviews"]),
        items=tuple(paths["items"]),
        columns=mapping("reviews" if items else "both", reviews),
        item_columns=mapping("items", items),
        memory=memory,
        **given,
    )
    stage = "regen_hf.stages.sequences.build"
    with mock.patch(f"{stage}.chunk_size", return_value=chunk), mock.patch(f"{stage}.DuckDB", Engine):
        build(folder, folder / "out", folder / "work", config)
    out = folder / "out"
    users = {
        row["reviewer_id"]: row["purchase_history"]
        for split in SPLITS
        for row in outputs.rows(outputs.split_files(out, split))
    }
    accounting = json.loads((out / "accounting.json").read_text())
    assert accounting.pop("splits")
    return {
        "users": users,
        "items": pq.read_table(out / "items" / "items.parquet").to_pylist(),
        "accounting": accounting,
    }


def result(function, *args):
    try:
        return function(*args)
    except (InputError, Refused) as error:
        return {"refused": True, "error": str(error)}


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(LOGS, st.sampled_from(["2GB", "20KB"]), st.sampled_from([2**20, 500]))
def test_a_random_log_is_read_as_the_rules_say(log, memory, chunk):
    reviews, items, rules = log
    with tempfile.TemporaryDirectory() as folder:
        for kind, files in (("reviews" if items else "both", reviews), ("items", items)):
            for file, how in files:
                if how.get("packed") in ("", None) and file.form != "parquet":
                    note(f"{kind}: {written(file, how, kind).decode(errors='backslashreplace')}")
        wanted = result(right, reviews, items, rules)
        got = result(actual, Path(folder), reviews, items, rules, memory, chunk)
    if "refused" in wanted:
        assert "refused" in got, wanted
        return
    assert got == wanted


def layout(kind, rows, rng):
    """The rows, shuffled, in files of random forms that all mean the same: every text is quoted."""
    rng.shuffle(rows)
    bounds = sorted({0, len(rows), *(rng.randrange(len(rows)) for _ in range(2))})
    log = []
    for start, end in itertools.pairwise(bounds):
        form = rng.choice(FORMS)
        names = rng.sample(list(COLUMNS[kind]), len(COLUMNS[kind]))
        null = {"json": Cell("null", False), "literal": Cell("None", False)}.get(form)
        wrap = (lambda text: text) if form == "parquet" else Cell
        records = tuple({k: null if v is None else wrap(v) for k, v in row.items()} for row in rows[start:end])
        log.append((File("csv" if form in DELIMITERS else form, tuple(names), records), how_written(form, names, rng)))
    return log


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 2**32))
def test_order_split_form_and_compression_change_nothing(seed):
    rng = random.Random(seed)
    rows = {
        kind: [
            {name: any_text(rng, name, False) if rng.random() < 0.95 else None for name in COLUMNS[kind]}
            for _ in range(n)
        ]
        for kind, n in (("reviews", 60), ("items", 12))
    }
    results = []
    for chunk in (2**20, 500):
        log = [layout(kind, rows[kind], rng) for kind in rows]
        with tempfile.TemporaryDirectory() as folder:
            results.append(result(actual, Path(folder), *log, Settings(), "2GB", chunk))
            results[-1]["accounting"].pop("files")
    assert results[0] == results[1]
