import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from regen_hf import RegenBuilder
from regen_hf.schema import ROW, SPLITS, features, rows, split_files


def ask(code, cwd, home):
    """Run `code` in a new process with fresh caches in `cwd`; its last line as JSON."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_repository_loads_with_distinct_users_in_its_splits(finished_run):
    dataset = load_dataset(str(finished_run / "dataset"))
    assert set(dataset) == set(SPLITS)
    users = {split: set(dataset[split]["reviewer_id"]) for split in SPLITS}
    assert all(len(users[split]) == len(dataset[split]) > 0 for split in SPLITS)
    assert len(set.union(*users.values())) == sum(map(len, users.values())) == 160
    assert dataset["train"].features == features(ROW)


def test_rows_hold_history_narratives_and_scores(finished_run):
    row = load_dataset(str(finished_run / "dataset"), split="test")[0]
    assert 5 <= len(row["purchase_history"]) <= 50
    times = [purchase["review"]["unix_time"] for purchase in row["purchase_history"]]
    assert times == sorted(times)
    assert all(row["last_purchase"].values())
    assert all(row["user"].values())
    assert (row["narrator"], row["rater"]) == ("reference", "reference")
    scores = [score for part in row["metadata"].values() for score in part.values() if score is not None]
    assert scores
    assert all(1 <= score <= 7 for score in scores)


def test_the_repository_streams(finished_run):
    streamed = load_dataset(str(finished_run / "dataset"), split="validation", streaming=True)
    assert list(streamed) == list(rows(split_files(finished_run / "dataset", "validation")))


def test_the_catalogue_is_a_config_of_its_own(finished_run):
    items = load_dataset(str(finished_run / "dataset"), "tiny-items", split="train")
    bought = {
        purchase["item"]["asin"]
        for split in SPLITS
        for row in rows(split_files(finished_run / "dataset", split))
        for purchase in row["purchase_history"]
    }
    assert bought <= set(items["asin"])


def test_rows_join_by_user_whatever_their_order(finished_run, tmp_path):
    """A wrong join would give each user another's narratives."""
    from regen_hf.dataset import DatasetConfig, build

    run = tmp_path / "run"
    for stage in ("sequences", "narratives", "ratings"):
        shutil.copytree(finished_run / stage, run / stage)
    path = run / "narratives" / "narratives.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(1, len(table))))), path)  # the first user's are lost
    out = tmp_path / "out"
    out.mkdir()
    build(run, out, tmp_path, DatasetConfig(name="x"))
    lost = table.column("reviewer_id")[0].as_py()
    truth = {row["reviewer_id"]: row["last_purchase"] for row in table.to_pylist()}
    for split in SPLITS:
        for row in rows(split_files(out, split)):
            expected = None if row["reviewer_id"] == lost else truth[row["reviewer_id"]]
            assert row["last_purchase"] == expected


def test_a_folder_named_regen_loads_with_the_public_api_alone(finished_run, tmp_path):
    shutil.copytree(finished_run / "dataset", tmp_path / "regen")
    code = """
import json, sys
sys.modules["regen_hf"] = None
from datasets import load_dataset
dataset = load_dataset("regen")
print(json.dumps({split: len(rows) for split, rows in dataset.items()}))
"""
    assert sum(ask(code, tmp_path, tmp_path / "home").values()) == 160


SMALL = 'load_dataset("regen", shoppers=90, items=64, **more)'


@pytest.mark.parametrize("first", ["regen_hf", "datasets"])
def test_after_import_regen_hf_the_sample_is_built_in_any_folder(tmp_path, first):
    (tmp_path / "empty").mkdir()
    second = {"regen_hf": "datasets", "datasets": "regen_hf"}[first]
    code = f"""
import json, {first}, {second}
from datasets import load_dataset
more = {{}}
dataset = {SMALL}
more = {{"streaming": True}}
streamed = {SMALL}
again = load_dataset("regen", "sample-items", shoppers=90, items=64, split="train")
same = next(iter(streamed["test"])) == dataset["test"][0]
print(json.dumps([{{split: len(users) for split, users in dataset.items()}}, same, len(again)]))
"""
    sizes, same, items = ask(code, tmp_path / "empty", tmp_path / "home")
    assert sum(sizes.values()) == 90
    assert same
    assert items == 64
    assert not list((tmp_path / "empty").iterdir())


def test_a_local_folder_goes_before_the_built_sample(finished_run, tmp_path):
    shutil.copytree(finished_run / "dataset", tmp_path / "regen")
    code = """
import json, regen_hf
from datasets import load_dataset
print(json.dumps(sum(len(rows) for rows in load_dataset("regen").values())))
"""
    assert ask(code, tmp_path, tmp_path / "home") == 160


def test_other_names_are_left_to_datasets(tmp_path):
    import regen_hf  # noqa: F401 (it must change nothing here)

    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    loaded = load_dataset("csv", data_files=str(tmp_path / "two.csv"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded[0] == {"a": 1, "b": 2}


def test_the_builder_gives_what_the_command_line_gives(finished_run, tmp_path):
    builder = RegenBuilder(config_name="sample", shoppers=160, items=64, cache_dir=str(tmp_path))
    builder.download_and_prepare()
    built = builder.as_dataset(split="test")
    assert list(built) == list(rows(split_files(finished_run / "dataset", "test")))


def test_the_card_counts_what_the_files_hold(finished_run):
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(finished_run / "dataset" / "README.md")
    accounting = json.loads((finished_run / "sequences" / "accounting.json").read_text())
    assert (
        f"Of {accounting['reviews']['read']:,} reviews read, {accounting['reviews']['kept']:,} were kept" in card.text
    )
    for split, users in accounting["splits"].items():
        assert f"| {split} | {users} |" in card.text
    assert "simulated" in card.text
    assert "not by a language model" in card.text
    assert [config["config_name"] for config in card.data.to_dict()["configs"]] == ["tiny", "tiny-items"]
