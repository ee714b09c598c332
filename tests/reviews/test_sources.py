"""Files given on the command line: missing columns, delimiters, headers, encodings, rating scales, errors."""

import gzip
import json
import re
from pathlib import Path

import pytest

from regen_hf.cli import main
from regen_hf.reviews.reasons import EXPECTED
from regen_hf.stages.sequences.purchases import DROPS
from tests.paths import ROOT

ITEMS = "sku,name\n1,Pen\n2,Ink\n3,Cap\n"
COLUMNS = {"user": "u", "item": "i", "time": "t"}
OPTIONAL = COLUMNS | {"rating": "r", "text": "x"}


@pytest.fixture
def sequences(tmp_path, capsys):
    """Run `regen sequences` on files given as name -> content; returns the exit code, histories, accounting, stderr."""

    def run(reviews, *options, items=ITEMS, columns=COLUMNS):
        options = [*options, "--item-encoding", "utf-8"] if "--encoding" in options else options
        paths = []
        for name, content in reviews.items():
            paths.append(str(tmp_path / name))
            Path(paths[-1]).write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "items.csv").write_text(items)
        mapping = {"columns": columns, "item_columns": {"item": "sku", "title": "name"}}
        (tmp_path / "columns.yaml").write_text(json.dumps(mapping))
        words = ["sequences", str(tmp_path / "run"), "--reviews", *paths, "--items", str(tmp_path / "items.csv")]
        code = main([*words, "--columns", str(tmp_path / "columns.yaml"), *options])
        out = tmp_path / "run" / "sequences"
        if code:
            return code, {}, {}, capsys.readouterr().err
        return code, histories(out), json.loads((out / "accounting.json").read_text()), capsys.readouterr().err

    return run


def histories(folder):
    import pyarrow.parquet as pq

    rows = [
        row
        for split in ("train", "validation", "test")
        for file in folder.glob(f"{split}-*.parquet")
        for row in pq.read_table(file).to_pylist()
    ]
    return {
        row["reviewer_id"]: [
            (p["item"]["asin"], p["review"]["rating"], p["review"]["text"]) for p in row["purchase_history"]
        ]
        for row in rows
    }


# Columns that some files lack


@pytest.mark.parametrize(
    ("full", "lacking"),
    [
        ("u,i,t,r,x\na,1,1500000000,5,fine\n", "u,i,t,r\nb,1,1500000001,4\n"),
        ('{"u": "a", "i": 1, "t": 1500000000, "r": 5, "x": "fine"}\n', '{"u": "b", "i": 1, "t": 1500000001, "r": 4}\n'),
        ("u,i,t,r,x\na,1,1500000000,5,fine\n", '{"u": "b", "i": 1, "t": 1500000001, "r": 4}\n'),
    ],
    ids=["CSV", "JSON", "both"],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_optional_column_that_one_file_lacks_is_null_there(sequences, full, lacking, first):
    reviews = {"1": full, "2": lacking} if first else {"1": lacking, "2": full}
    code, users, account, err = sequences(reviews, columns=OPTIONAL)
    assert code == 0
    assert users == {"a": [("1", 5, "fine")], "b": [("1", 4, None)]}
    assert account["files"]["reviews"] == {"read": 2, "unquoted": 0, "missing": {"text": 1}}
    assert account["files"]["items"] == {"read": 1, "unquoted": 0, "missing": {}}
    assert "no text in 1 of 2 files" in err


def test_a_key_that_first_occurs_after_the_lines_that_were_sampled_is_read(sequences):
    lines = [{"u": "a", "i": 1, "t": 1500000000 + n} for n in range(1500)] + [
        {"u": "b", "i": 1, "t": 1500000000, "x": "late"}
    ]
    code, users, account, _ = sequences(
        {"r": "".join(json.dumps(line) + "\n" for line in lines)}, columns=COLUMNS | {"text": "x"}
    )
    assert code == 0
    assert users["b"] == [("1", None, "late")]
    assert account["files"]["reviews"]["missing"] == {}


@pytest.mark.parametrize(
    "content", ["u,i,t,text\na,1,1500000000,x\n", '{"u": "a", "i": 1, "t": 1500000000, "text": "x"}\n']
)
def test_a_column_that_no_file_has_refuses_the_files(sequences, content):
    code, _, _, err = sequences({"1": content, "2": content}, columns=COLUMNS | {"text": "txt"})
    assert code == 1
    assert re.search(r"has no column 'txt'.*Its columns: i, t, text, u\. Did you mean 'text'\?", err)


@pytest.mark.parametrize("missing", ["u", "i", "t"])
def test_a_required_column_that_one_file_lacks_refuses_it(sequences, missing):
    names = [name for name in "uit" if name != missing]
    code, _, _, err = sequences({"1": "u,i,t\na,1,1500000000\n", "2": f"{','.join(names)}\na,1\n"})
    assert code == 1
    assert re.search(rf"/2, given as --reviews, has no column '{missing}'", err)


def test_a_column_may_be_mapped_once(sequences):
    code, _, _, err = sequences({"r": "u,i,t\na,1,1500000000\n"}, columns={"user": "u", "item": "u", "time": "t"})
    assert code == 1
    assert "columns maps the column 'u' to user and item, expected one name per column" in err


# Delimiters, headers, encodings


def test_files_without_a_header(tmp_path, capsys):
    (tmp_path / "ratings.dat").write_bytes(
        "é1::10::5::978300760\né1::11::3::978300860\n2::10::4::978300000\n".encode("latin-1")
    )
    (tmp_path / "movies.dat").write_bytes(
        "10::Le Café, The (1995)::Comedy|Drama\n11::Rain (1996)::Drama\n".encode("latin-1")
    )
    words = ["sequences", tmp_path / "run", "--reviews", tmp_path / "ratings.dat", "--items", tmp_path / "movies.dat"]
    options = ["--delimiter", "::", "--header", "user,item,rating,time", "--item-delimiter", "::"]
    options += ["--item-header", "item,title,category", "--encoding", "latin-1"]
    assert main([str(word) for word in (*words, *options)]) == 0
    users = histories(tmp_path / "run" / "sequences")
    assert users == {"é1": [("10", 5, None), ("11", 3, None)], "2": [("10", 4, None)]}
    words[1] = tmp_path / "other"
    assert main([str(word) for word in words]) == 1
    assert re.search(
        r"no header.*--item-delimiter '::' --item-header|in UTF-8.*--item-encoding", capsys.readouterr().err
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_another_encoding(sequences, encoding, pack):
    text = "u;i;t;Käufer\nä;1;1500000000;größer\n"
    code, users, _, _ = sequences(
        {"r": pack(text.encode(encoding))}, "--encoding", encoding, columns=COLUMNS | {"text": "Käufer"}
    )
    assert code == 0
    assert users == {"ä": [("1", None, "größer")]}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--encoding", "latin1337", "encoding is 'latin1337', which Python does not know"),
        ("--delimiter", '"', "delimiter is '\"', expected"),
        ("--header", "user,thing", "maps no column to item, time"),
    ],
)
def test_text_settings_are_checked(sequences, option, value, message):
    code, _, _, err = sequences({"r": "u,i,t\n"}, option, value, columns={} if option == "--header" else COLUMNS)
    assert code == 1
    assert message in err


@pytest.mark.parametrize("scale", [["10", "1"], ["0", "inf"], ["nan", "5"], ["1"], ["1", "5", "10"]])
def test_a_scale_without_two_finite_ends_is_an_error(sequences, scale):
    code, _, _, err = sequences({"r": "u,i,t,r,x\n"}, "--rating-scale", *scale, columns=OPTIONAL)
    assert (code, f"rating_scale is {' '.join(scale)}, expected" in err) == (1, True)


def test_a_tab_may_be_typed_as_in_a_shell(sequences):
    code, users, _, _ = sequences({"r": "a,b\t1\t1500000000\n"}, "--delimiter", r"\t", "--header", "u,i,t")
    assert (code, users) == (0, {"a,b": [("1", None, None)]})


# Quotes


SWALLOWED = (
    'u\ti\tt\tx\na\t1\t1500000000\t"stray\nb\t2\t1500000001\tmiddle\nc\t3\t1500000002\tend"\nd\t1\t1500000003\tfine\n'
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_a_quote_that_swallows_records(sequences, delimiter, pack):
    text = SWALLOWED.replace("\t", delimiter).encode()
    code, users, account, err = sequences({"r": pack(text)}, columns=COLUMNS | {"text": "x"})
    assert code == 0
    assert {user: history[0][2] for user, history in users.items()} == {
        "a": '"stray',
        "b": "middle",
        "c": 'end"',
        "d": "fine",
    }
    assert account["files"]["reviews"]["unquoted"] == 1
    assert "quotes are text in 1 of 1 files" in err


# Scales of ratings


def rated(*ratings):
    return "u,i,t,r\n" + "".join(f"u{n},1,{1500000000 + n},{rating}\n" for n, rating in enumerate(ratings))


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([*range(1, 11)] * 2, "20 ratings from 1 to 10, of which 10 are outside"),
        ([0, 1, 1, 0, 1], "5 ratings from 0 to 1"),
        ([1] * 300 + [0], "301 ratings from 0 to 1"),
        ([-1, *[5] * 50], "51 ratings from -1 to 5, of which 1 are outside"),
        ([100, 80, 60, 40, 20], "from 20 to 100"),
    ],
)
def test_another_scale_refuses_the_file(sequences, ratings, message):
    code, _, _, err = sequences({"r": rated(*ratings)}, columns=COLUMNS | {"rating": "r"})
    assert code == 1
    assert message in err
    assert "--rating-scale LOW HIGH" in err
    assert "leave the rating unmapped" in err


@pytest.mark.parametrize(
    "ratings", [[0.5, 1, 1.5, 4.5, 5], [1] * 9, [9, 4, 4, 4], [5] * 200 + [6], ["", "NULL", 5, 4, 3, 2]]
)
def test_a_file_of_stars_needs_no_scale(sequences, ratings):
    code, _, account, _ = sequences({"r": rated(*ratings)}, columns=COLUMNS | {"rating": "r"})
    assert code == 0
    assert account["reviews"]["dropped"] == ({"rating_out_of_scale": 1} if max(map(str, ratings)) in ("6", "9") else {})


def test_a_scale_is_mapped_to_stars(sequences):
    ratings = {1: 1, 10: 5, 5.5: 3, 7.75: 4, 3: 2, 0: None}
    options = ["--rating-scale", "1", "10", "--rating-missing", "0", "-1"]
    code, users, account, _ = sequences({"r": rated(*ratings, 11)}, *options, columns=COLUMNS | {"rating": "r"})
    assert code == 0
    assert [users[f"u{n}"][0][1] for n in range(len(ratings))] == list(ratings.values())
    assert account["reviews"]["dropped"] == {"rating_out_of_scale": 1}
    assert account["cleaned"]["reviews"]["scaled_rating"] == 5


@pytest.mark.parametrize("scale", [["1"], ["5", "1"], ["3", "3"], ["1", "2", "3"]])
def test_a_scale_has_two_ends(sequences, scale):
    code, _, _, err = sequences({"r": rated(1)}, "--rating-scale", *scale, columns=COLUMNS | {"rating": "r"})
    assert code == 1
    assert "expected the lowest and the highest rating, such as 1 10" in err


# Errors where no record is valid


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"u": "a", "i": 1, "t": "Wed Mar 22 11:37:04 -0700 2017"}\n',
            "1 invalid_time. Expected: unix seconds.*ISO.*line 1 of .*Wed Mar 22",
        ),
        ("u,i,t\na,1,2017\n", "1 year_only"),
        ("u,i,t\n,1,1500000000\n,2,1500000000\na,1,x\n", "2 missing_user, 1 invalid_time. Expected: a user id"),
    ],
)
def test_the_reason_of_which_all_records_were_dropped_is_explained(sequences, content, message):
    code, _, _, err = sequences({"r": content})
    assert code == 1
    assert re.search(rf"No record of reviews is valid, [0-9]+ were read\. Dropped: {message}", err), err


def test_every_reason_is_explained():
    """A reason is a literal in the readers; each must have an explanation."""
    sources = [path.read_text() for path in (ROOT / "regen_hf" / "reviews").glob("*.py")]
    literals = {match for source in sources for match in re.findall(r'"([a-z]+(?:_[a-z0-9]+)+)"', source)}
    reasons = {"not_json", "wrong_field_count", "time_in_1970", "invalid_rating", "email_as_user"}
    assert reasons | set(DROPS) <= set(EXPECTED)
    assert reasons <= literals
    assert set(EXPECTED) <= literals | set(DROPS) | {"repeated_key", "not_an_object", "duplicate", "untitled"}
