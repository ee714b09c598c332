"""Own files and columns: any table of users, items and times becomes the same rows as a release's JSON lines."""

import csv
import datetime
import gzip
import io
import json
import re
import shlex
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regen_hf.cli import main
from regen_hf.config import section
from regen_hf.errors import ConfigError, InputError
from regen_hf.reviews.canonical import FLAGS
from regen_hf.reviews.formats import chosen, read_mapping
from regen_hf.reviews.ingest import IngestOptions, read_items, read_reviews
from regen_hf.reviews.parquet import parquet
from regen_hf.reviews.reasons import EXPECTED
from regen_hf.reviews.scrubbing import EMAIL, URL, scrub
from regen_hf.reviews.times import SECOND
from regen_hf.stages.sequences.settings import SequencesConfig
from tests.paths import ROOT

SOURCES = list((ROOT / "regen_hf").rglob("*.py"))
COLUMNS = {"user": "customer id", "item": "sku/code", "time": "created", "rating": "stars", "text": 'the "body"'}
ITEM_COLUMNS = {"item": "sku", "title": "name", "price": "cost"}


@pytest.fixture
def read(tmp_path, engine):
    """Write records as a file and read it: (rows, log, rejects)."""

    def run(name, records, reader=read_reviews, **how):
        path = tmp_path / name
        path.write_bytes(records if isinstance(records, bytes) else written(name, records))
        log = reader(engine, [str(path)], tmp_path / "work", IngestOptions(**how))
        rows = [row for table in log.tables for row in pq.read_table(table).to_pylist()]
        return rows, log, [row for table in log.rejects for row in pq.read_table(table).to_pylist()]

    return run


def written(name, records) -> bytes:
    if name.endswith("parquet"):
        file = io.BytesIO()
        pq.write_table(records if isinstance(records, pa.Table) else pa.Table.from_pylist(records), file)
        return file.getvalue()
    if "json" in name:
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(records[0]), delimiter={"c": ",", "t": "\t", "s": ";"}[name[0]])
        writer.writeheader()
        writer.writerows(records)
        data = text.getvalue().encode()
    return gzip.compress(data) if name.endswith(".gz") else data


def own(columns=COLUMNS, item_columns=None, kind="reviews"):
    return chosen(kind, "auto", columns, item_columns or {})


OWN = [
    {"customer id": "U1", "sku/code": "S1", "created": 1500000000, "stars": 4, 'the "body"': "Fine, really.\nYes."},
    {"customer id": "U2", "sku/code": "S1", "created": 1500000001, "stars": None, 'the "body"': None},
]


@pytest.mark.parametrize("name", ["j.json", "j.json.gz", "c.csv", "c.csv.gz", "t.tsv", "s.csv", "p.parquet"])
def test_own_columns_give_the_same_rows_in_every_form_of_file(read, name):
    rows, log, _ = read(name, OWN, form=own())
    assert log.read == 2
    assert [
        {k: v for k, v in row.items() if k != "user_hash"} for row in sorted(rows, key=lambda r: r["reviewer_id"])
    ] == [
        {
            "reviewer_id": "U1",
            "asin": "S1",
            "time": 1500000000 * SECOND,
            "rating": 4,
            "summary": None,
            "text": "Fine, really.\nYes.",
        },
        {"reviewer_id": "U2", "asin": "S1", "time": 1500000001 * SECOND, "rating": None, "summary": None, "text": None},
    ]
    assert log.cleaned == {"empty_review": 1}


@pytest.mark.parametrize("name", ["j.json", "c.csv", "p.parquet"])
def test_a_wrong_mapping_says_which_columns_there_are(read, name):
    form = own(COLUMNS | {"user": "customer_id"})
    with pytest.raises(
        InputError, match=rf"{name}, given as --reviews, has no column 'customer_id'.*created, customer id"
    ):
        read(name, OWN, form=form)
    with pytest.raises(InputError, match="Did you mean 'customer id'"):
        read(name, OWN, form=form)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"user": "u", "item": "i"}}, "columns maps no column to time, expected at least user: COLUMN"),
        ({"columns": COLUMNS | {"txet": "t"}}, "columns maps 'txet', which is unknown, .*Did you mean 'text'"),
        ({"item_columns": {"item": "i"}, "items": ("i",)}, "item_columns maps no column to title"),
        ({"columns": {"user": 3, "item": "i", "time": "t"}}, "sequences.columns.user was given 3"),
        ({"columns": "u"}, "sequences.columns was given 'u'"),
        ({"format": "amazon-2019"}, "format is 'amazon-2019', expected one of auto, amazon-2014"),
        ({"format": "own"}, "format is own, but columns is empty"),
        ({"format": "amazon-2014", "columns": COLUMNS}, "format is amazon-2014, but columns"),
        (
            {"columns": COLUMNS | {"title": "t"}, "items": ("i",)},
            "columns maps title to columns of the reviews, but items were given",
        ),
        ({"item_columns": ITEM_COLUMNS, "reviews": ("r",)}, "item_columns was given, but no items"),
        ({"columns": COLUMNS, "sample": True}, "sample was given together with format or columns"),
        ({"since": "2020"}, "since is '2020', expected a day such as 2015-01-31"),
        ({"until": "31.1.2020"}, "until is '31.1.2020'"),
        ({"since": "2020-01-02", "until": "2020-01-01"}, "since is 2020-01-02, which is after until"),
        ({"k_core": -1}, "k_core is -1, expected at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        section(SequencesConfig, settings, "sequences")


def test_a_day_may_come_as_a_date():
    day = datetime.date(2015, 1, 31)
    assert section(SequencesConfig, {"since": day}, "sequences").since == "2015-01-31"
    assert SequencesConfig(since=day, until="2015-01-31").nanoseconds == (1422662400 * SECOND, 1422748800 * SECOND)


def test_the_mapping_file_is_checked(tmp_path):
    path = tmp_path / "columns.yaml"
    path.write_text("columns: {user: u, item: i, time: t}\n")
    assert read_mapping(path) == {"columns": {"user": "u", "item": "i", "time": "t"}, "item_columns": {}}
    for text in ("user: u\n", "columns: [u, i]\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"columns\.yaml contains .*expected 'columns: \{user"):
            read_mapping(path)
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        read_mapping(tmp_path / "none.yaml")


# Releases


RELEASED = {"reviewerID": "U", "asin": "B", "unixReviewTime": "1500000000", "overall": "5.0"}


@pytest.mark.parametrize("name", ["c.csv.gz", "t.tsv", "p.parquet"])
def test_a_release_is_recognised_in_a_table(read, name):
    rows, _, _ = read(name, [RELEASED])
    assert (rows[0]["reviewer_id"], rows[0]["asin"], rows[0]["rating"]) == ("U", "B", 5)
    # As written by list-aware tools: parquet keeps lists, a CSV cell holds their text.
    names = ["Office", "Pens"]
    texts = [names] if name.endswith("parquet") else [json.dumps(names), str(names), "['Office' 'Pens']"]  # numpy's
    for text in texts:
        item = {"asin": "B", "title": "Pen", "category": text, "description": text, "price": "$5.00 - $7.00"}
        rows, log, _ = read(name, [item], read_items)
        assert rows[0] == {
            "asin": "B",
            "title": "Pen",
            "category": "Office - Pens",
            "description": "Office Pens",
            "price": 5.0,
        }
        assert log.cleaned == {"category_list": 1, "description_list": 1, "price_range": 1}


def test_ids_that_pandas_made_floats_are_the_integers_that_they_were(read):
    ids = pa.array([12345678901.0, 7.0, None, 2.5, float("nan"), float("inf")])
    table = pa.table({"reviewerID": ids, "asin": pa.array(["B"] * 6), "unixReviewTime": pa.array([1.5e9] * 6)})
    rows, log, _ = read("p.parquet", table)
    assert sorted(row["reviewer_id"] for row in rows) == ["12345678901", "2.5", "7", "inf"]
    assert {row["time"] for row in rows} == {1500000000 * SECOND}
    assert log.dropped == {"missing_user": 2}


def test_a_format_that_is_forced_must_fit(read):
    form = chosen("reviews", "amazon-2023", {}, {})
    with pytest.raises(
        InputError, match=r"has no column 'user_id', 'parent_asin', 'timestamp', expected by Amazon rev.*2023"
    ):
        read("c.csv", [RELEASED], form=form)
    # Keys of both releases: a forced one is taken, where looking would have found the other.
    both = RELEASED | {"user_id": "V", "parent_asin": "P", "timestamp": 1588687728923}
    assert read("j.json", [both])[0][0]["reviewer_id"] == "U"
    assert read("j.json", [both], form=form)[0][0]["reviewer_id"] == "V"


# Times


def test_times_that_parquet_knows_the_type_of(read):
    moment = datetime.datetime(2020, 5, 17, 12, 30, 15, 900000)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for kind, value, seconds, milliseconds in [
        (pa.timestamp("ns"), moment, 1589718615, 900),
        (pa.timestamp("s"), moment.replace(microsecond=0), 1589718615, 0),
        (pa.timestamp("us", "Europe/Berlin"), moment.replace(tzinfo=zone), 1589711415, 900),
        (pa.date32(), moment.date(), 1589673600, 0),
        (pa.int64(), 1589718615000, 1589718615, 0),
        (pa.float64(), 1589718615.5, 1589718615, 500),
        (pa.string(), "2020-05-17T12:30:15.900+02:00", 1589711415, 900),
        (pa.dictionary(pa.int8(), pa.string()), "2020-05-17", 1589673600, 0),
    ]:
        table = pa.table({"reviewerID": ["U"], "asin": ["B"], "unixReviewTime": pa.array([value], kind)})
        assert read("p.parquet", table)[0][0]["time"] == seconds * SECOND + milliseconds * 10**6, kind


def test_views_of_text_in_parquet_are_text_and_float32_keeps_its_shortest_form(tmp_path):
    columns = {
        "reviewerID": pa.array(["U", "V"], pa.string_view()),
        "title": pa.array([b"Pen", None], pa.binary_view()),
        "price": pa.array([9.99, 5.0], pa.float32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    (records,) = parquet(tmp_path / "p.parquet", 10**6, {name: name for name in columns}, ())
    rows = records.fields.select(list(columns)).to_pylist()
    assert rows == [
        {"reviewerID": "U", "title": "Pen", "price": "9.99"},
        {"reviewerID": "V", "title": None, "price": "5"},
    ]


MOMENTS = st.datetimes(datetime.datetime(1971, 1, 2), datetime.datetime(2200, 1, 1))
OFFSETS = st.sampled_from(["", "Z", "+00:00", "+02:00", "-07:30", "+14:00", "+0530", "-03"])


# Each example is a file, so few long ones.
@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.tuples(MOMENTS, OFFSETS, st.sampled_from(["T", " "]), st.sampled_from(["auto", "minutes"])), min_size=20
    )
)
def test_iso_dates_are_what_python_takes_them_for(tmp_path_factory, engine, drawn):
    texts = [f"{moment.isoformat(sep, spec)}{offset}" for moment, offset, sep, spec in drawn]
    folder = tmp_path_factory.mktemp("dates")
    records = [{"reviewerID": f"{n:05d}", "asin": "B", "unixReviewTime": text} for n, text in enumerate(texts)]
    (folder / "r.json").write_bytes(written("r.json", records))
    log = read_reviews(engine, [str(folder / "r.json")], folder / "work", IngestOptions())
    rows = {row["reviewer_id"]: row["time"] for table in log.tables for row in pq.read_table(table).to_pylist()}
    for number, text in enumerate(texts):
        moment = datetime.datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        microseconds = (moment - datetime.datetime.fromtimestamp(0, datetime.UTC)) // datetime.timedelta(microseconds=1)
        assert rows[f"{number:05d}"] == microseconds * 1000, text
    assert log.cleaned["iso_date"] == len(texts)


def test_eight_digits_are_a_day_where_they_can_be_one(read):
    times = {
        20230511: 1683763200,
        "20230511": 1683763200,
        "19991231": 946598400,
        1500000000: 1500000000,
    }
    bad = [20231311, "20230231"]  # seconds of 1970
    rows, log, rejects = read("j.json", [RELEASED | {"unixReviewTime": time} for time in [*times, *bad]])
    assert sorted(row["time"] for row in rows) == [seconds * SECOND for seconds in sorted(times.values())]
    assert log.cleaned["compact_date"] == 3
    assert [reject["reason"] for reject in rejects] == ["time_in_1970"] * 2


# What cleaning changed


def test_every_rule_that_changes_a_value_is_counted(read):
    records = [
        RELEASED | {"reviewText": "a<br />b &amp; c", "summary": "&quot;Hm&quot;"},
        RELEASED | {"unixReviewTime": 1500000000000, "overall": 4.5, "reviewText": "x"},
        RELEASED | {"unixReviewTime": "2017-07-14", "reviewText": " ", "summary": ""},
        RELEASED | {"reviewText": "a\x00b"},
        RELEASED | {"overall": "x", "unixReviewTime": 1500000000000, "reviewText": "refused &amp; not counted"},
    ]
    rows, log, _ = read("j.json", records)
    assert [row["rating"] for row in sorted(rows, key=lambda row: row["text"] or "")] == [5, 5, 5, 5]
    assert log.cleaned == {
        "empty_review": 1,
        "entities": 2,
        "iso_date": 1,
        "markup": 1,
        "milliseconds": 1,
        "nul_characters": 1,
        "rounded_rating": 1,
    }
    items = [
        {"asin": "1", "title": "<script>x()</script>", "category": ["A", "</span>"], "description": ["<p>x</p>", "y"]},
        {"asin": "2", "title": "Tom &amp; I", "category": "A", "description": "plain", "price": "$1.00 - $2.00"},
        {"asin": "3", "title": "T", "category": [["A", "B"], ["C"]], "description": [], "price": ".a{width:5px}"},
        {"asin": " ", "title": "<b>not counted</b>", "category": ["A"]},
    ]
    _, log, _ = read("j.json", items, read_items)
    assert log.cleaned == {
        "category_list": 2,
        "description_list": 1,
        "entities": 1,
        "further_categories": 1,
        "markup": 1,
        "markup_category": 1,
        "markup_title": 1,
        "price_range": 1,
        "unreadable_price": 1,
    }


# Scrubbing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jörg.x+y@mail.example.co.uk, please", "write to [EMAIL], please"),
        ("joe@example.com.5jane@example.com and joe@example.com+jane@example.com", "[EMAIL] and [EMAIL]"),
        ("see https://example.com/a?b=1&c=2. Or www.example.org!", "see [URL]. Or [URL]!"),
        ("(http://example.com)", "([URL])"),
        ("mail joe@www.example.com", "mail [EMAIL]"),
        ("amzn.to/2xYz and Amazon.com", "[URL] and Amazon.com"),
        ("+1 (555) 123-4567 or 555-123-4567 or 1-800-555-1212", "[PHONE] or [PHONE] or [PHONE]"),
        ("+44 20 7946 0958, 020 7946 0958, +49-171-1234567", "[PHONE], [PHONE], [PHONE]"),
        ("call me at 5551234567", "call me at [PHONE]"),
        ("4111-1111-1111-1111 and 378282246310005", "[CARD] and [CARD]"),
        ("card:5555555555554444.", "card:[CARD]."),
        ("123 4111 1111 1111 1111", "123 [CARD]"),
    ],
)
def test_personal_data_become_typed_markers(text, expected):
    assert scrub(text, Counter()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "9 x 12 inches, 1234 pages, $1,234.56, 2012-2013",
        "ISBN 9780306406157, model HP-564XL 123456789",
        "4111 1111 1111 1112",  # no card: the check digit is wrong
        "@home and a @ b, e.g./i.e., and/or",
        "on 2015-10-12 at 10:30:45, 1/2/2015",
        "version 10.0.19041.1052",
        "10-20-300 or 12345-6789",
    ],
)
def test_what_is_not_personal_stays(text):
    assert scrub(text, Counter()) == text


PIECES = [
    "joe@example.com",
    "http://x.org/y",
    "(555) 123-4567",
    "4111 1111 1111 1111",
    "www.",
    "@",
    " ",
    "5",
    "-",
    "a",
    "é",
    "\n",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_what_was_scrubbed_holds_nothing_to_scrub(text):
    counts = Counter()
    once = scrub(text, counts)
    assert not EMAIL.search(once)
    assert not URL.search(once)
    assert (once == text) == (not counts)
    assert sum(once.count(f"[{name}]") for name in ("EMAIL", "URL", "PHONE", "CARD")) <= sum(counts.values())


def test_scrubbing_reaches_the_rows_and_the_rejects_and_is_counted(read):
    records = [
        RELEASED | {"summary": "joe@example.com", "reviewText": "Call 555-123-4567 or 555-123-4568"},
        RELEASED | {"overall": 9, "reviewText": "see www.example.com"},
        RELEASED | {"reviewerID": "jane@example.com"},
    ]
    rows, log, rejects = read("j.json", records, scrub=True)
    assert [(row["summary"], row["text"]) for row in rows] == [("[EMAIL]", "Call [PHONE] or [PHONE]")]
    assert log.dropped == {"email_as_user": 1, "rating_out_of_scale": 1}
    assert (log.cleaned["scrubbed_email"], log.cleaned["scrubbed_phone"]) == (1, 2)
    assert "[URL]" in rejects[0]["raw"]
    assert "[EMAIL]" in rejects[1]["raw"]
    assert "jane" not in str(rejects)
    assert {row["reviewer_id"] for row in read("j.json", records)[0]} == {"U", "jane@example.com"}


# On the command line


def test_own_files_become_sequences_on_the_command_line(tmp_path, capsys):
    (tmp_path / "c.csv").write_bytes(
        written("c.csv", [record | {"created": "2020-01-01T10:00:00+02:00", "product": "Pen"} for record in OWN])
    )
    (tmp_path / "columns.yaml").write_text(json.dumps({"columns": COLUMNS | {"title": "product"}}))
    words = ["sequences", tmp_path / "run", "--reviews", tmp_path / "c.csv", "--columns", tmp_path / "columns.yaml"]
    assert main([str(word) for word in words]) == 0
    told = json.loads((tmp_path / "run" / "sequences" / "accounting.json").read_text())
    assert told["reviews"] == {"read": 2, "kept": 2, "dropped": {}}
    assert told["items"] == {"read": 2, "kept": 1, "dropped": {"duplicate": 1}}
    assert told["cleaned"]["reviews"] == {"empty_review": 1, "iso_date": 2}
    # Another mapping is another setting: the stage is out of date, and the error says what the columns are.
    (tmp_path / "columns.yaml").write_text(json.dumps({"columns": COLUMNS | {"title": "prodct"}}))
    assert main([str(word) for word in words]) == 1
    assert "no column 'prodct'" in capsys.readouterr().err


def run_page(name):
    """Run the commands of a page of docs/ in the working folder, and return its text."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    shell = f'set -e; python() {{ "{sys.executable}" "$@"; }}\n'
    # `regen` runs in this process, which has imported everything; the rest is the shell's.
    for part in re.split(r"(?m)^(regen .*\n)", "".join(blocks)):
        if part.startswith("regen "):
            assert main(shlex.split(part)[1:]) == 0, part
        else:
            subprocess.run(["bash", "-c", shell + part], check=True)
    return text


def test_the_commands_of_the_guide_do_what_it_says(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page("own_data.md")
    told = json.loads((tmp_path / "runs" / "mine" / "sequences" / "accounting.json").read_text())
    assert told["reviews"] == {"read": 6, "kept": 4, "dropped": {"invalid_time": 1, "rating_out_of_scale": 1}}
    assert told["cleaned"]["reviews"]["scrubbed_email"] == 1
    assert "8         invalid_time" in capfd.readouterr().out
    recent = json.loads((tmp_path / "runs" / "recent" / "sequences" / "accounting.json").read_text())
    assert recent["users"] == {"kept": 1, "dropped": {"short_history": 1}}


def test_the_table_of_the_guide_names_every_reason_and_every_rule():
    guide = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in guide.split("| `dropped` |")[1].split("\n\n")[0].splitlines()[2:]]
    rules, reasons = (set(re.findall(r"`([a-z_0-9]{6,})`", " ".join(row[column] for row in rows))) for column in (3, 4))
    assert reasons == set(EXPECTED)
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert set(FLAGS) <= rules == {rule for rule in rules if re.search(rf"['\"]{rule}['\"]|f\"scrubbed_", sources)}


def test_the_page_on_movielens_reads_files_like_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page("movielens.md")
    folder = tmp_path / "runs" / "movielens" / "sequences"
    told = json.loads((folder / "accounting.json").read_text())
    assert told["reviews"] == {"read": 5, "kept": 5, "dropped": {}}
    assert told["cleaned"]["reviews"] == {"empty_review": 5}
    assert pq.read_table(folder / "items" / "items.parquet").select(["asin", "title", "category"]).to_pylist() == [
        {"asin": "10", "title": "Le Café du port (1998)", "category": "Comedy|Drama"},
        {"asin": "20", "title": "Night Train North (1987)", "category": "Thriller"},
        {"asin": "30", "title": "The Paper Kite (1995)", "category": "Drama"},
    ]
