"""`regen inspect --recommendations`: the list of another system with the reasons of the model."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import regen_hf
from regen_hf.cli import main
from regen_hf.errors import InputError, RunError
from regen_hf.inspection import inspect_recommendations
from regen_hf.outputs import item_files, rows, split_files


@pytest.fixture(scope="module")
def shoppers(finished_run):
    return list(rows(split_files(finished_run / "dataset", "test"), limit=2))


@pytest.fixture(scope="module")
def items(finished_run, shoppers):
    """Two items that the first shopper has not bought, and one that was bought."""
    bought = [purchase["item"]["asin"] for purchase in shoppers[0]["purchase_history"]]
    catalogue = list(rows(item_files(finished_run / "dataset")))
    new = [item for item in catalogue if item["asin"] not in bought][:2]
    return [*new, next(item for item in catalogue if item["asin"] == bought[0])]


@pytest.fixture(scope="module")
def without_model(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "run"
    for part in ("dataset", "sequences"):
        shutil.copytree(finished_run / part, folder / part)
    return folder


def words(lines):
    return re.sub(r"\s+", " ", "\n".join(lines))


def write(path, *recommended):
    columns = dict(zip(("reviewer_id", "asin", "rank"), map(list, zip(*recommended, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)
    return path


def test_each_item_stands_in_its_rank_with_the_reason_of_the_model(finished_run, shoppers, items, tmp_path, capsys):
    user, other = (row["reviewer_id"] for row in shoppers)
    (tmp_path / "top.csv").write_text(
        "rank,reviewer_id,asin,score\n"
        f"10,{user},{items[2]['asin']},0.1\n2,{user},{items[1]['asin']},0.5\n"
        f"1,{other},{items[0]['asin']},0.9\n1,{user},{items[0]['asin']},0.9\n11,{user},unknown,0.0\n"
    )
    assert main(["inspect", str(finished_run), "--recommendations", str(tmp_path / "top.csv")]) == 0
    told = words(capsys.readouterr().out.splitlines())
    number = len(shoppers[0]["purchase_history"])
    assert told.startswith(f"{user} · test · {number} purchases · 4 items of top.csv")
    regen = regen_hf.load(str(finished_run / "model"))
    history = shoppers[0]["purchase_history"]
    reasons = [entry["reason"] for entry in regen.explain(history, items)]
    assert all(reasons)
    shown = [f"{rank} {item['title']}" for rank, item in enumerate(items, 1)]
    expected = [f"{shown[0]} {reasons[0]}", f"{shown[1]} {reasons[1]}", f"{shown[2]} (bought before) {reasons[2]}"]
    expected.append("4 (no title: unknown) This item is not in the catalogue of the run, so there is no reason.")
    assert [words([part]) in told for part in expected] == [True] * 4
    assert sorted(expected, key=lambda part: told.index(words([part]))) == expected


def test_a_run_without_a_model_shows_the_list(without_model, shoppers, items, tmp_path):
    user = shoppers[1]["reviewer_id"]
    file = write(tmp_path / "many.parquet", *((user, item["asin"], rank) for rank, item in enumerate(items * 5)))
    lines = list(inspect_recommendations(without_model, file, user, width=60))
    assert "There are no reasons: the run has no trained model." in words(lines)
    assert "3 items of many.parquet" in words(lines)  # each once
    file = write(tmp_path / "long.parquet", *((user, f"item{rank}", float(rank)) for rank in range(12, 0, -1)))
    told = words(inspect_recommendations(without_model, file, user, width=60))
    assert "10 of 12 items" in told
    assert "1 (no title: item1)" in told
    assert "item11" not in told


@pytest.mark.parametrize(
    ("name", "content", "user", "error", "message"),
    [
        ("none.csv", None, None, InputError, "There is no file .*none.csv, given as --recommendations"),
        ("top.txt", "reviewer_id", None, InputError, "top.txt, expected a file of .parquet or .csv"),
        ("top.csv", "reviewer_id,item\nu,1\n", None, InputError, "columns reviewer_id, item, but not asin and rank"),
        ("top.csv", "reviewer_id,asin,rank\nu,1,first\n", None, InputError, "top.csv cannot be read: .*first"),
        ("top.csv", "reviewer_id,asin,rank\nu,1,\n", "u", InputError, "missing asin or rank for 'u'"),
        ("top.csv", "reviewer_id,asin,rank\nu,1,1\n", "v", InputError, "has no recommendations for 'v'"),
        ("top.csv", "reviewer_id,asin,rank\nu,1,1\n", None, RunError, "There is no user 'u'"),
        ("top.parquet", "reviewer_id,asin,rank\n", None, InputError, "top.parquet cannot be read"),
    ],
)
def test_a_file_that_cannot_be_shown_gives_a_sentence(without_model, tmp_path, name, content, user, error, message):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        list(inspect_recommendations(without_model, tmp_path / name, user))


def test_requests_and_recommendations_are_not_shown_together(without_model, capsys):
    options = ["--request", "u", "--recommendations", "top.csv"]
    (without_model / "run.json").write_text('{"format": 1, "version": "0"}')
    assert main(["inspect", str(without_model), *options]) == 1
    assert "--request and --recommendations were given, expected one of them." in capsys.readouterr().err
