"""The whole path on real reviews, as a new user runs it."""

import gzip
import html
import json
import re

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from regen_hf.cli import main
from regen_hf.run import Run
from regen_hf.schema import offered_tasks

TASKS = offered_tasks()

pytestmark = pytest.mark.real_data

SMALL = [
    *("--set", "embeddings.cf_dim=16", "--set", "embeddings.content_dim=32", "--set", "embeddings.content_steps=20"),
    *("--set", "training.max_steps=20", "--set", "training.hidden_size=32", "--set", "training.num_layers=2"),
    *("--set", "evaluation.users=5", "--set", "evaluation.max_new_tokens=24"),
]


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory):
    raw = shared_data / "gift_cards_2018"
    folder = tmp_path_factory.mktemp("real") / "gift_cards"
    words = ["--reviews", raw / "Gift_Cards_5.json.gz", "--items", raw / "meta_Gift_Cards.json.gz", *SMALL]
    assert main(["run", str(folder), *map(str, words)]) == 0
    return folder


@pytest.fixture(scope="module")
def raw_reviews(run):
    """The raw reviews, read with nothing of this package."""
    (path,) = Run(run).config["sequences"].reviews
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_stage_is_fresh_at_the_end(run, capsys):
    assert main(["status", str(run)]) == 0
    told = capsys.readouterr().out
    assert told.count(" fresh ") == len(Run(run).stages)
    assert "missing" not in told
    assert "stale" not in told


def test_the_accounting_adds_up_to_the_lines_of_the_files(run, raw_reviews):
    accounting = json.loads((run / "sequences" / "accounting.json").read_text())
    assert accounting["reviews"]["read"] == len(raw_reviews)
    for part in ("reviews", "items"):
        counted = accounting[part]
        assert counted["read"] == counted["kept"] + sum(counted["dropped"].values())
    assert accounting["users"]["kept"] == sum(accounting["splits"].values())


def test_histories_are_the_users_reviews_in_order_of_time(run, raw_reviews):
    dataset = load_dataset(str(run / "dataset"))
    rows = [row for split in dataset.values() for row in split]
    assert {row["reviewer_id"] for row in rows} == {review["reviewerID"] for review in raw_reviews}
    for row in rows:
        own = [review for review in raw_reviews if review["reviewerID"] == row["reviewer_id"]]
        times = [purchase["review"]["unix_time"] for purchase in row["purchase_history"]]
        assert times == sorted(times)
        assert max(times) == max(review["unixReviewTime"] for review in own)
        kept = {(purchase["item"]["asin"], purchase["review"]["unix_time"]) for purchase in row["purchase_history"]}
        assert kept <= {(review["asin"], review["unixReviewTime"]) for review in own}


def test_no_title_of_the_raw_items_is_lost(run):
    (path,) = Run(run).config["sequences"].items
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    titles = {(item["asin"], " ".join(html.unescape(item["title"]).split())) for item in raw if item["title"].strip()}
    kept = pq.read_table(run / "sequences" / "items" / "items.parquet", columns=["asin", "title"]).to_pylist()
    assert {item["asin"] for item in kept} == {asin for asin, _ in titles}
    assert {(item["asin"], item["title"]) for item in kept} <= titles


def test_every_user_has_six_narratives_that_quote_no_review(run):
    rows = load_dataset(str(run / "dataset"), split="train")
    for row in rows:
        texts = [task.text(row) for task in TASKS.values()]
        assert all(texts)
        written = " " + " ".join(re.findall(r"\w+", " ".join(texts).lower())) + " "
        for purchase in row["purchase_history"]:
            words = re.findall(r"\w+", (purchase["review"]["text"] or "").lower())
            for start in range(len(words) - 7):
                assert " " + " ".join(words[start : start + 8]) + " " not in written


def test_the_rows_stream(run):
    first = next(iter(load_dataset(str(run / "dataset"), split="test", streaming=True)))
    assert first["purchase_history"]


def test_it_ends_in_a_model_and_a_results_file(run):
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert results["n_users"] == 5
    assert results["models"]["fused"]["user_profile"]["bleu"]["mean"] is not None
    predictions = pq.read_table(run / "evaluation" / "predictions.parquet")
    assert set(predictions.column("model").to_pylist()) == set(results["models"])
