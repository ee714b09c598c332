"""`regen inspect`: what a reader at a terminal sees of one shopper."""

import re
import shutil
import subprocess
import sys
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.cli import main
from regen_hf.errors import RunError
from regen_hf.inspection import inspect
from regen_hf.outputs import rows, split_files
from regen_hf.schema import ROW, TASKS


@pytest.fixture(scope="module")
def shopper(finished_run):
    return next(rows(split_files(finished_run / "dataset", "validation")))


def words(text):
    return re.sub(r"\s+", " ", text)


def test_it_shows_history_and_narratives_with_their_scores(finished_run, shopper):
    told = "\n".join(inspect(finished_run, shopper["reviewer_id"], width=100))
    assert f"{shopper['reviewer_id']} · validation · {len(shopper['purchase_history'])} purchases" in told
    places = [told.index(f"\n{number:>3}  ") for number in range(1, len(shopper["purchase_history"]) + 1)]
    assert places == sorted(places)
    for purchase in shopper["purchase_history"]:
        assert purchase["item"]["title"][:40] in told
    for task in TASKS.values():
        assert task.text(shopper) in words(told)
    assert re.search(rf"\ncritique\b.*\n  {re.escape(shopper['last_purchase']['critique'] or '(none)')}", told)
    for part in ("last_purchase", "user", "endorsement"):
        assert f"grounding {shopper['metadata'][part]['grounding']}" in told
    assert "Narratives by reference (fixed rules, no language model)" in told


def test_one_purchase_is_told_of_as_one(tmp_path, shopper):
    (tmp_path / "dataset").mkdir()
    once = shopper | {"reviewer_id": "once", "purchase_history": shopper["purchase_history"][:1]}
    once["purchase_history"][0]["review"]["unix_time"] = 0
    pq.write_table(pa.Table.from_pylist([once], ROW), tmp_path / "dataset" / "test.parquet")
    assert next(inspect(tmp_path, "once", width=100)) == "once · test · 1 purchase, 1970-01-01"


def test_a_shopper_without_narratives_is_told_the_reason(tmp_path, shopper):
    none = {name: dict.fromkeys(shopper[name]) for name in ("last_purchase", "user")}
    failed = shopper | none | {"reviewer_id": "failed", "narrator": "some-model"}
    empty = failed | {"reviewer_id": "empty", "purchase_history": []}
    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.Table.from_pylist([failed, empty], ROW), tmp_path / "dataset" / "test.parquet")
    assert list(inspect(tmp_path, "failed", width=100))[-1] == "No narratives by some-model: every answer failed."
    assert list(inspect(tmp_path, "empty", width=100))[-1].endswith("no request is sent for an empty history.")


def columns(line):
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


@pytest.mark.parametrize("width", [40, 64, 100])
def test_no_line_is_wider_than_the_terminal(tmp_path, shopper, width):
    wide = shopper | {"reviewer_id": "w", "user": {**shopper["user"], "long_summary": "铅笔和笔记本" * 40 + " end"}}
    wide["purchase_history"][0]["item"]["title"] = "文房具" * 50
    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.Table.from_pylist([wide], ROW), tmp_path / "dataset" / "test.parquet")
    lines = list(inspect(tmp_path, "w", width=width))
    assert max(columns(line) for line in lines) <= width
    assert "".join(line.strip() for line in lines).count("铅笔和笔记本") == 40


def test_text_of_strangers_cannot_steer_the_terminal(tmp_path, shopper):
    evil = shopper | {"reviewer_id": "evil\x1b[2J", "narrator": "\x1b]0;gone\x07"}
    review = {"summary": "\x1b[31mred", "text": "back\x08space \u202egnirts \x9b5A", "rating": 5, "unix_time": 2**62}
    evil["purchase_history"] = [
        {"item": {**dict.fromkeys(ROW.field(1).type.value_type[0].type.names), "asin": "B\x00"}, "review": review}
    ]
    evil["user"] = {**shopper["user"], "profile": "calm\r\x1b[1Aover"}
    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.Table.from_pylist([evil], ROW), tmp_path / "dataset" / "test.parquet")
    told = "\n".join(inspect(tmp_path, None, width=80))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
    assert r"evil\x1b[2J" in told
    assert r"\x1b[31mred" in told
    assert r"\u202egnirts" in told
    assert "????-??-??" in told


def test_without_an_id_it_shows_one_of_the_test_split_and_names_others(finished_run, capsys):
    assert main(["inspect", str(finished_run)]) == 0
    told = capsys.readouterr().out
    first, second = (row["reviewer_id"] for row in rows(split_files(finished_run / "dataset", "test"), limit=2))
    assert f"{first} · test" in told
    assert "--user ID shows another" in told
    assert second in told


def test_an_unknown_id_names_the_closest_ones(finished_run, shopper, capsys):
    wrong = shopper["reviewer_id"] + "x"
    assert main(["inspect", str(finished_run), "--user", wrong]) == 1
    told = capsys.readouterr().err
    assert repr(wrong) in told
    assert shopper["reviewer_id"] in told
    assert "160" in told


def test_it_works_with_what_the_run_has(finished_run, shopper, tmp_path):
    with pytest.raises(RunError, match="no histories"):
        list(inspect(tmp_path))
    shutil.copytree(finished_run / "sequences", tmp_path / "sequences")
    told = "\n".join(inspect(tmp_path, shopper["reviewer_id"]))
    assert "No narratives yet" in told
    shutil.copytree(finished_run / "narratives", tmp_path / "narratives")
    told = "\n".join(inspect(tmp_path, shopper["reviewer_id"]))
    assert shopper["user"]["profile"] in told
    assert "not rated yet" in told
    shutil.copytree(finished_run / "ratings", tmp_path / "ratings")
    assert list(inspect(tmp_path, shopper["reviewer_id"])) == list(inspect(finished_run, shopper["reviewer_id"]))


def test_a_terminal_without_stars_gets_question_marks(finished_run, shopper):
    command = [sys.executable, "-m", "regen_hf.cli", "inspect", finished_run, "--user", shopper["reviewer_id"]]
    done = subprocess.run(command, env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout
    assert shopper["user"]["profile"] in words(done.stdout)


def test_scores_stand_with_the_spread_of_their_votes_and_with_the_checks_that_a_text_failed(tmp_path, shopper):
    row = shopper | {"reviewer_id": "v", "rater": "a, b", "checks": {"failed": ["profile.words", "profile.language"]}}
    row["metadata"] = {**shopper["metadata"], "user": {**shopper["metadata"]["user"], "veracity": 5, "clarity": 6}}
    (tmp_path / "dataset").mkdir()
    pq.write_table(pa.Table.from_pylist([row], ROW), tmp_path / "dataset" / "test.parquet")
    cast = {"veracity": [4, 7, None], "clarity": [6, 6, 6]}
    votes = [
        {"reviewer_id": user, "stage": "user", "attribute": attribute, "vote": number, "score": score}
        for user in ("v", "somebody else")
        for attribute, scores in cast.items()
        for number, score in enumerate(scores if user == "v" else [1, 1, 1])
    ]
    (tmp_path / "ratings").mkdir()
    pq.write_table(pa.Table.from_pylist(votes), tmp_path / "ratings" / "votes.parquet")
    told = words("\n".join(inspect(tmp_path, "v", width=100)))
    assert "rated 1 to 7 by a, b in 3 votes" in told
    assert "veracity 5 (4-7, 1 failed)" in told
    assert "clarity 6 ·" in told
    assert told.count("! failed checks: words, language") == 1
