"""The official release, as a file of its own nesting made from the rows of the tiny run."""

import gzip
import json
import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from regen_hf.cli import main
from regen_hf.errors import ConfigError, InputError
from regen_hf.outputs import item_files, rows, split_files
from regen_hf.run import Run
from regen_hf.run.stages import STAGES
from regen_hf.schema import SPLITS
from regen_hf.stages.release.build import build
from regen_hf.stages.release.settings import ReleaseConfig
from tests.conftest import TINY


def regen(*words):
    return main([str(word) for word in words])


def as_released(row):
    """A row as a line of the release: no endorsement, no critique, none of the columns of this package."""
    known = ("reviewer_id", "purchase_history", "last_purchase", "user", "metadata")
    line = json.loads(json.dumps({key: row[key] for key in known}))
    for name in ("endorsement", "critique"):
        del line["last_purchase"][name], line["metadata"][name]
    return line


def rows_of(run):
    """All rows of the dataset of a run."""
    return [row for split in SPLITS for row in rows(split_files(run / "dataset", split))]


def as_earlier(row):
    """A row of the release without the columns that were added to the schema later."""
    row = {name: value for name, value in row.items() if name not in ("checks", "rater_left_out")}
    for name in ("last_purchase", "metadata"):
        row[name] = {key: value for key, value in row[name].items() if key not in ("critique", "endorsement")}
    return row


@pytest.fixture(scope="module")
def users(finished_run):
    return rows_of(finished_run)


@pytest.fixture
def lines(users):
    return [as_released(row) for row in users]


def written(path, lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def built(tmp_path, lines, **settings):
    """The output of the stage for some lines."""
    file = written(tmp_path / "office.jsonl", lines)
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    build(tmp_path, out, tmp_path / "work", ReleaseConfig(from_release=(str(file),), **settings))
    return out


def test_rows_are_those_of_the_release_in_the_splits_of_raw_files(finished_run, users, lines, tmp_path):
    out = built(tmp_path, lines)
    expected = {user["reviewer_id"]: as_released(user) for user in users}
    for split in SPLITS:
        here = list(rows(split_files(out, split)))
        assert [row["reviewer_id"] for row in here] == [
            row["reviewer_id"] for row in rows(split_files(finished_run / "dataset", split))
        ]
        for row in here:
            assert row["narrator"] == row["rater"] == "official REGEN release"
            for name in ("endorsement", "critique"):
                assert row["last_purchase"][name] is None
                assert set(row["metadata"][name].values()) == {None}
            assert as_released(row) == expected[row["reviewer_id"]]


def test_the_catalogue_holds_each_item_once_in_its_most_complete_form(lines, tmp_path):
    bare = json.loads(json.dumps(lines[0]))
    item = bare["purchase_history"][0]["item"]
    item.update(description=None, price=None)
    out = built(tmp_path, [bare, *lines[1:]])
    items = {row["asin"]: row for row in rows(item_files(out))}
    bought = {purchase["item"]["asin"] for line in lines for purchase in line["purchase_history"]}
    assert set(items) == bought
    assert list(items) == sorted(items)
    others = [
        purchase["item"]
        for line in lines[1:]
        for purchase in line["purchase_history"]
        if purchase["item"]["asin"] == item["asin"]
    ]
    assert others
    assert items[item["asin"]] == others[0]


@pytest.mark.parametrize("form", ["timestamp", "milliseconds", "text", "date", "compact date"])
def test_the_time_is_read_under_both_names_and_in_every_form_seen(lines, tmp_path, form):
    truth = [purchase["review"]["unix_time"] for line in lines for purchase in line["purchase_history"]]
    for line in lines:
        for purchase in line["purchase_history"]:
            review = purchase["review"]
            time = review.pop("unix_time")
            if "date" in form:
                pattern = "%m/%d/%Y" if form == "date" else "%Y%m%d"
                review["unix_time"] = datetime.fromtimestamp(time, UTC).strftime(pattern)
            else:
                review["timestamp"] = {"timestamp": time, "milliseconds": time * 1000, "text": str(time)}[form]
    out = built(tmp_path, lines)
    times = {
        row["reviewer_id"]: [purchase["review"]["unix_time"] for purchase in row["purchase_history"]]
        for split in SPLITS
        for row in rows(split_files(out, split))
    }
    found = [time for line in lines for time in times[line["reviewer_id"]]]
    assert found == [time - time % 86400 for time in truth] if "date" in form else found == truth


def test_a_price_of_0_is_none_and_a_score_outside_the_scale_is_null_and_counted(lines, tmp_path):
    lines[0]["purchase_history"][0]["item"]["price"] = 0.0
    lines[0]["metadata"]["user"].update(veracity=8, clarity="good", grounding=0)
    lines[0]["last_purchase"]["reason"] = "  "
    out = built(tmp_path, lines)
    row = next(
        row
        for split in SPLITS
        for row in rows(split_files(out, split))
        if row["reviewer_id"] == lines[0]["reviewer_id"]
    )
    assert row["purchase_history"][0]["item"]["price"] is None
    scores = row["metadata"]["user"]
    assert (scores["veracity"], scores["clarity"], scores["grounding"]) == (None, None, None)
    assert scores["personalization"] == lines[0]["metadata"]["user"]["personalization"]
    assert row["last_purchase"]["reason"] is None
    assert json.loads((out / "accounting.json").read_text())["scores"] == {"out_of_scale": 3}


def changed(line, **review):
    line = json.loads(json.dumps(line))
    line["purchase_history"][0]["review"].update(review)
    return line


BAD = {
    "not_json": lambda line: json.dumps(line)[:200] + "\n",
    "not_an_object": lambda line: "[1, 2]\n",
    "blank_line": lambda line: "  \n",
    "repeated_key": lambda line: json.dumps(line)[:-1] + ', "reviewer_id": "B"}\n',
    "missing_user": lambda line: line | {"reviewer_id": " "},
    "wrong_type": lambda line: line | {"user": line["user"] | {"profile": ["Buys pens.", "Likes blue."]}},
    "missing_history": lambda line: line | {"purchase_history": []},
    "missing_item": lambda line: line | {"purchase_history": [{"item": {"title": "A pen"}, "review": {}}]},
    "missing_time": lambda line: changed(line, unix_time=None),
    "invalid_time": lambda line: changed(line, unix_time=1e300),
    "invalid_rating": lambda line: changed(line, rating="great"),
    "rating_out_of_scale": lambda line: changed(line, rating=1e300),
}


def test_every_line_is_a_user_or_is_counted_with_its_reason_number_and_text(lines, tmp_path):
    bad = {reason: damage(line) for (reason, damage), line in zip(BAD.items(), lines, strict=False)}
    wrong = lines[20] | {"purchase_history": "none"}
    twice = changed(lines[30], text="Another text.")
    out = built(tmp_path, [*lines[50:], *bad.values(), wrong, *lines[30:50], twice])
    accounting = json.loads((out / "accounting.json").read_text())
    assert accounting["users"]["read"] == 110 + len(bad) + 22
    assert accounting["users"]["dropped"] == {**dict.fromkeys(bad, 1), "missing_history": 2, "duplicate": 1}
    assert accounting["users"]["kept"] == sum(accounting["splits"].values()) == 130
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert [(row["line"], row["reason"]) for row in rejects] == [
        *((111 + place, reason) for place, reason in enumerate(bad)),
        (111 + len(bad), "missing_history"),
        (111 + len(bad) + 21, "duplicate"),
    ]
    assert json.loads(rejects[-1]["raw"]) == twice
    assert rejects[0]["raw"] == bad["not_json"].rstrip("\n")
    first = next(
        row for split in SPLITS for row in rows(split_files(out, split)) if row["reviewer_id"] == twice["reviewer_id"]
    )
    assert as_released(first) == lines[30]  # the first line of a user counts


def test_bytes_that_are_no_utf8_are_one_bad_line(lines, tmp_path):
    file = tmp_path / "office.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(lines[0]).encode() + b"\n\xff\xfe{}\n"))
    (tmp_path / "out").mkdir()
    build(tmp_path, tmp_path / "out", tmp_path / "work", ReleaseConfig(from_release=(str(file),)))
    assert json.loads((tmp_path / "out" / "accounting.json").read_text())["users"]["dropped"] == {"not_utf8": 1}


def test_rows_are_the_same_with_any_memory_in_ranges_and_in_any_order_of_lines(lines, tmp_path, monkeypatch):
    def content(out):
        splits = {split: list(rows(split_files(out, split))) for split in SPLITS}
        return splits, list(rows(item_files(out)))

    whole = content(built(tmp_path, lines))
    monkeypatch.setattr("regen_hf.engines.COPIES", 3000)
    out = built(tmp_path, lines[::-1], memory="500MB")
    assert len(split_files(out, "train")) > 2
    assert content(out) == whole


def test_long_histories_keep_their_latest_purchases(lines, tmp_path):
    out = built(tmp_path, lines, max_history=6)
    accounting = json.loads((out / "accounting.json").read_text())["reviews"]
    lengths = [len(line["purchase_history"]) for line in lines]
    assert accounting["kept"] == sum(min(length, 6) for length in lengths)
    assert accounting["dropped"] == {"beyond_max_history": sum(lengths) - accounting["kept"]}
    row = next(rows(split_files(out, "test")))
    line = next(line for line in lines if line["reviewer_id"] == row["reviewer_id"])
    assert row["purchase_history"] == line["purchase_history"][-6:]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"reviewerID": "A", "asin": "B", "unixReviewTime": 1}\n', "Raw reviews go to `regen sequences`"),
        ('{"reviewer_id": "A", "purchase_history": [{"item": {"asin": "B"}, "review": {"date": 1}}]}\n', "no time"),
        ("<html>404</html>\n", "contains no user of the REGEN release"),
    ],
)
def test_another_file_is_refused_with_what_it_holds(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        built(tmp_path, [text])


def test_a_file_without_one_good_user_says_what_is_wrong_with_the_first(lines, tmp_path):
    with pytest.raises(InputError, match=r"No user is left.*3 invalid_time.*line 1 of .*office\.jsonl: invalid_time"):
        built(tmp_path, [changed(line, unix_time="soon") for line in lines[:3]])


def test_shares_that_leave_no_train_users_are_refused():
    with pytest.raises(ConfigError, match="below 1"):
        ReleaseConfig(validation=0.5, test=0.5)


@pytest.fixture(scope="module")
def released(users, tmp_path_factory):
    """A run on the release, up to the scores of the model trained on it."""
    folder = tmp_path_factory.mktemp("released")
    file = written(folder / "office.jsonl", map(as_released, users))
    assert regen("dataset", folder / "run", "--from-release", file, "--name", "office") == 0
    settings = [
        f"{section}.{key}={value}"
        for section in ("embeddings", "training", "evaluation", "attribution", "figures")
        for key, value in {**TINY[section], **({"max_steps": 4} if section == "training" else {})}.items()
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    assert regen("run", folder / "run", *words) == 0
    return folder / "run"


def test_the_release_feeds_every_later_stage(released, users, capsys):
    assert regen("status", released) == 0
    states = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert states == dict.fromkeys(
        ("release", "dataset", "embeddings", "train", "evaluate", "attribution", "figures"), "fresh"
    )
    loaded = load_dataset(str(released / "dataset"), "office")
    assert sum(map(len, loaded.values())) == len(users)
    assert len(load_dataset(str(released / "dataset"), "office-items", split="train")) > 0
    scores = json.loads((released / "evaluation" / "results.json").read_text())["models"]["fused"]
    assert scores["user_profile"]["bleu"]["mean"] is not None
    assert scores["product_endorsement"]["n"] == 0  # the release has none
    assert scores["product_endorsement"]["bleu"] == {"mean": None, "low": None, "high": None}


def test_its_card_says_that_it_is_the_release(released):
    card = DatasetCard.load(released / "dataset" / "README.md")
    assert "This is the official release of REGEN" in card.text
    assert "simulated" not in card.text
    assert "reference" not in card.text
    assert card.data.license == "unknown"
    assert "Of 160 lines read, 160 users were kept." in card.text
    assert "| product_endorsement | `last_purchase.endorsement` | 0 | 160 | – | – | – | yes |" in card.text
    assert "| critique | `last_purchase.critique` | 0 | 160 |" in card.text
    assert "The release has none." in card.text
    assert "| from_release | `office.jsonl` |" in card.text


def test_an_edited_release_is_read_again_and_a_moved_one_is_not(users, tmp_path):
    file = written(tmp_path / "office.jsonl", map(as_released, users))
    run = tmp_path / "run"
    assert regen("dataset", run, "--from-release", file) == 0
    before = (run / "dataset" / "manifest.json").stat().st_mtime_ns
    moved = file.rename(tmp_path / "elsewhere.jsonl")
    assert regen("dataset", run, "--from-release", moved) == 0
    assert (run / "dataset" / "manifest.json").stat().st_mtime_ns == before
    written(moved, map(as_released, users[1:]))
    assert not Run(run).is_fresh(STAGES["release"])
    assert not Run(run).is_fresh(STAGES["dataset"])
    assert regen("dataset", run) == 0
    assert Run(run).manifest(STAGES["release"])["counts"]["users"] == len(users) - 1


def test_a_release_that_an_earlier_version_read_lacks_columns_which_become_null(users, tmp_path):
    run = tmp_path / "run"
    lines = [as_released(row) for row in users[:40]]
    for number, line in enumerate(lines):
        line["metadata"]["user"]["veracity"] = 3 + number % 4
    assert regen("dataset", run, "--from-release", written(tmp_path / "office.jsonl", lines)) == 0
    complete = rows_of(run)
    for split in SPLITS:
        for path in split_files(run / "release", split):
            if earlier := [as_earlier(row) for row in rows([path])]:
                pq.write_table(pa.Table.from_pylist(earlier), path)
    assert regen("dataset", run, "--min-score", "user.veracity=5", "--drop-failed", "errors") == 0
    filtered = rows_of(run)
    dropped = [row["reviewer_id"] for row in complete if row["metadata"]["user"]["veracity"] < 5]
    assert len(dropped) == 20
    for before, after in zip(complete, filtered, strict=True):
        before["metadata"] |= {"endorsement": None, "critique": None}
        if before["reviewer_id"] in dropped:
            before["user"] = dict.fromkeys(before["user"])
            before["metadata"]["user"] = dict.fromkeys(before["metadata"]["user"])
        assert after == before
    assert (run / "dataset" / "README.md").read_text().count(f"{3 * len(dropped)} texts were set to null") == 1
    shutil.rmtree(run / "dataset")
    assert regen("dataset", run, "--set", "dataset.min_score=[]", "--set", "dataset.drop_failed=[]") == 0
    assert [row["checks"] for row in rows_of(run)] == [None] * len(complete)


def test_a_run_has_one_source(tiny_run, tmp_path, capsys):
    file = tmp_path / "office.jsonl"
    file.write_text("{}\n")
    assert regen("dataset", tiny_run, "--from-release", file) == 1
    assert "expected one source per run" in capsys.readouterr().err
    assert regen("run", tmp_path / "new", "--from-release", file, "--sample") == 1
    assert "expected one source per run" in capsys.readouterr().err
    path = tiny_run / "config.yaml"
    path.write_text(path.read_text().replace("sample: true", "sample: false"))
    assert regen("dataset", tiny_run, "--from-release", file) == 1
    assert "Name a new run folder" in capsys.readouterr().err


def test_a_stage_that_the_release_takes_the_place_of_is_refused(users, tmp_path, capsys):
    run = tmp_path / "run"
    assert regen("dataset", run, "--from-release", written(tmp_path / "o.jsonl", map(as_released, users[:20]))) == 0
    for command in ("sequences", "narratives", "ratings"):
        assert regen(command, run) == 1
        error = capsys.readouterr().err
        assert f"`{command}`. The stages of this run are: release, dataset" in error


@pytest.mark.real_data
def test_a_real_user_in_the_nesting_of_the_release_is_read(shared_data, tmp_path):
    file = shared_data / "regen_release" / "office_one_user.jsonl"
    assert regen("dataset", tmp_path / "run", "--from-release", file, "--name", "office") == 0
    (row,) = [row for split in load_dataset(str(tmp_path / "run" / "dataset")).values() for row in split]
    truth = json.loads(file.read_text())
    assert row["reviewer_id"] == truth["reviewer_id"]
    assert row["user"]["long_summary"] == truth["user"]["long_summary"].strip()
    assert [purchase["item"]["asin"] for purchase in row["purchase_history"]] == [
        purchase["item"]["asin"] for purchase in truth["purchase_history"]
    ]
    assert row["purchase_history"][0]["review"]["unix_time"] == 1405987200  # 07/22/2014
