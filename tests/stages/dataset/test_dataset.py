import contextlib
import gzip
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset
from huggingface_hub import DatasetCard

from regen_hf import __version__
from regen_hf.cards.facts import language
from regen_hf.cli import main
from regen_hf.outputs import rows, split_files
from regen_hf.run import STAGES, Run
from regen_hf.schema import INTERACTIONS, NARRATIVES, RATED, ROW, SPLITS, features, offered_tasks

TASKS = offered_tasks()


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
    assert all(text for name, text in row["last_purchase"].items() if name != "critique")
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


def test_the_purchases_are_a_flat_config_in_the_order_of_the_rows(finished_run):
    flat = load_dataset(str(finished_run / "dataset"), "tiny-interactions", split="train")
    assert flat.features == features(INTERACTIONS)
    expected = [
        {
            "user": row["reviewer_id"],
            "item": purchase["item"]["asin"],
            "time": purchase["review"]["unix_time"],
            **{name: purchase["review"][name] for name in ("rating", "summary", "text")},
            "split": split,
        }
        for split in SPLITS
        for row in rows(split_files(finished_run / "dataset", split))
        for purchase in row["purchase_history"]
    ]
    assert flat.to_list() == expected


def test_rows_join_by_user_whatever_their_order(finished_run, tmp_path):
    """A wrong join would give each user another's narratives."""
    from regen_hf.stages.dataset.build import build
    from regen_hf.stages.dataset.settings import DatasetConfig

    run = tmp_path / "run"
    for stage in ("sequences", "narratives", "ratings"):
        shutil.copytree(finished_run / stage, run / stage)
    path = run / "narratives" / "narratives.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(1, len(table))))), path)  # the first user's are lost
    out = tmp_path / "out"
    out.mkdir()
    counts = build(run, out, tmp_path, DatasetConfig(name="x"))
    assert (sum(counts[split] for split in SPLITS), counts["preview_of"]) == (159, 160)
    lost = table.column("reviewer_id")[0].as_py()
    truth = {row["reviewer_id"]: row["last_purchase"] for row in table.to_pylist()}
    for split in SPLITS:
        for row in rows(split_files(out, split)):
            assert row["reviewer_id"] != lost
            assert row["last_purchase"] == truth[row["reviewer_id"]]


def test_a_preview_is_stated_and_its_unrated_users_have_no_scores(tiny_run, capsys):
    ids = {}
    for users in (12, 6):
        given = ["--set", f"narratives.users={users}", "--set", "ratings.users=4"]
        assert main(["run", str(tiny_run), "--until", "dataset", *given]) == 0
        written = [row for split in SPLITS for row in rows(split_files(tiny_run / "dataset", split))]
        ids[users] = {row["reviewer_id"] for row in written}
        rated = {row["reviewer_id"] for row in written if row["rater"]}
        assert (len(written), len(rated)) == (users, 4)
        assert all((row["metadata"] is None) == (row["reviewer_id"] not in rated) for row in written)
        card = DatasetCard.load(tiny_run / "dataset" / "README.md").text
        assert f"**This is a preview: {users} of the 160 users,**" in card
        assert "preview of 160" in capsys.readouterr().err
    assert ids[6] < ids[12]
    assert load_dataset(str(tiny_run / "dataset"))["train"].num_rows == len(ids[6] & set(train_users(tiny_run)))
    assert main(["run", str(tiny_run), "--until", "dataset", "--set", "narratives.users=0"]) == 0
    assert "This is a preview" not in DatasetCard.load(tiny_run / "dataset" / "README.md").text


def train_users(run):
    return [row["reviewer_id"] for row in rows(split_files(run / "sequences", "train"), ["reviewer_id"])]


def test_a_preview_without_users_in_a_split_names_the_option(tiny_run, tmp_path):
    from regen_hf.errors import InputError
    from regen_hf.stages.evaluation.build import build
    from regen_hf.stages.evaluation.settings import EvaluationConfig

    assert main(["run", str(tiny_run), "--until", "dataset", "--set", "narratives.users=1"]) == 0
    counts = Run(tiny_run).manifest(STAGES["dataset"])["counts"]
    empty = [split for split in ("validation", "test") if not counts[split]]
    assert empty
    told = f"The dataset is a preview of 1 of 160 users: .* with `regen narratives {tiny_run} --users N`"
    for split in empty:
        with pytest.raises(InputError, match=f"The {split} split contains no users. {told}"):
            build(tiny_run, tmp_path, tmp_path, EvaluationConfig(split=split))


def without_narratives(run, users, field=("user", "long_summary")):
    """Take a narrative of the first `users` users out of the run's file."""
    path = run / "narratives" / "narratives.parquet"
    table = pq.read_table(path).to_pylist()
    for row in table[:users]:
        row[field[0]][field[1]] = None
    pq.write_table(pa.Table.from_pylist(table, NARRATIVES), path)


def test_missing_narratives_are_counted_and_need_partial(tiny_run, tmp_path, capsys):
    without_narratives(tiny_run, 3)
    without_narratives(tiny_run, 2, ("last_purchase", "endorsement"))
    without_narratives(tiny_run, 9, ("last_purchase", "reason"))  # which may be null: not every history tells it
    shutil.rmtree(tiny_run / "dataset")
    assert main(["dataset", str(tiny_run)]) == 1
    told = capsys.readouterr().err
    assert "3 users" in told
    assert "2 without product_endorsement, 3 without long_user_summary" in told
    assert f"regen dataset {tiny_run} --partial" in told
    assert not (tiny_run / "dataset").exists()
    assert main(["dataset", str(tiny_run), "--partial"]) == 0
    card = DatasetCard.load(tiny_run / "dataset" / "README.md").text
    assert "3 users lack narratives: this is a partial dataset" in card
    assert "| long_user_summary | `user.long_summary` | 157 | 3 |" in card
    rows = load_dataset(str(tiny_run / "dataset"))
    assert sum(row["user"]["long_summary"] is None for split in rows.values() for row in split) == 3
    main(["run", str(tiny_run)])  # the settings remember it, and nothing is made again for it
    assert "dataset: fresh" in capsys.readouterr().err


def test_failed_checks_and_low_scores_set_texts_and_the_scores_of_their_part_to_null(finished_run, tmp_path):
    from regen_hf.stages.dataset.build import build
    from regen_hf.stages.dataset.settings import DatasetConfig

    run = tmp_path / "run"
    for stage in ("sequences", "narratives", "ratings"):
        shutil.copytree(finished_run / stage, run / stage)
    path = run / "narratives" / "narratives.parquet"
    table = pq.read_table(path).to_pylist()
    for number, failed in enumerate(["profile.words", "long_summary.cut", "endorsement.cut", "reason.verbatim"]):
        table[number]["checks"]["failed"] = [failed]
    table[4]["checks"]["warnings"] = ["explanation.unknown_names"]
    table[5]["checks"]["failed"] = ["profile.words", "brief_summary.cut"]
    table[6]["last_purchase"] = None  # missing narratives stay missing
    pq.write_table(pa.Table.from_pylist(table, NARRATIVES), path)
    names = [row["reviewer_id"] for row in table]
    path = run / "ratings" / "ratings.parquet"
    schema, rated = pq.read_schema(path), {row["reviewer_id"]: row for row in pq.read_table(path).to_pylist()}
    for row in rated.values():
        row["metadata"]["last_purchase"]["veracity"] = 2 if row["reviewer_id"] == names[7] else 6
    rated[names[8]]["metadata"]["last_purchase"]["veracity"] = None
    pq.write_table(pa.Table.from_pylist(list(rated.values()), schema), path)

    def built(name, **settings):
        (tmp_path / name).mkdir()
        counts = build(run, tmp_path / name, tmp_path, DatasetConfig(name="x", partial=True, **settings))
        every = [row for split in SPLITS for row in rows(split_files(tmp_path / name, split))]
        return counts, {row["reviewer_id"]: row for row in every}

    _, before = built("all")
    counts, after = built(
        "filtered", drop_failed=("profile.words", "cut", "unknown_names"), min_score=("last_purchase.veracity=3",)
    )
    assert list(after) == list(before)
    gone = {
        names[0]: ["profile"],
        names[1]: ["long_summary"],
        names[2]: ["endorsement"],
        names[4]: ["explanation"],
        names[5]: ["profile", "brief_summary"],
        names[7]: ["reason", "explanation"],
    }
    parts = {task.field[1]: task.rated_in for task in TASKS.values()}
    for name, row in before.items():
        lost = gone.get(name, [])
        for column in ("last_purchase", "user"):
            texts = row[column] and {key: None if key in lost else text for key, text in row[column].items()}
            assert after[name][column] == texts
        for part, scores in row["metadata"].items():
            dropped = part in {parts[text] for text in lost}
            assert after[name]["metadata"][part] == (dict.fromkeys(scores) if dropped else scores)
        assert after[name]["checks"] == row["checks"]
    assert counts["texts_dropped"] == 8
    assert counts["dropped"] == {"profile.words": 2, "cut": 3, "unknown_names": 1, "last_purchase.veracity=3": 2}
    card = DatasetCard.load(tmp_path / "filtered" / "README.md").text
    assert "8 texts were set to null" in card
    assert "`cut` 3" in card
    assert "`last_purchase.veracity < 3` 2." in card
    counts, _ = built("errors", drop_failed=("errors",))
    assert counts["dropped"] == {"errors": 6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "office-interactions"}, "table of the dataset 'office'"),
        ({"name": "office-items"}, "table of the dataset 'office'"),
        ({"drop_failed": ("cuts",)}, "drop_failed contains 'cuts', expected errors, a kind of check"),
        ({"drop_failed": ("history.cut",)}, "kind after a text .*such as profile.words"),
        ({"min_score": ("user=4",)}, "expected PART.ATTRIBUTE=N"),
        ({"min_score": ("user.veracity=9",)}, "N from 1 to 7"),
        ({"min_score": ("user.richness=4",)}, "expected PART.ATTRIBUTE=N"),
        ({"min_score": ("example.richness=4",)}, "rates no text"),
        ({"min_score": ("endorsement.foresight=4",)}, "better the lower"),
        ({"min_score": ("critique.leak=4",)}, "better the lower"),
    ],
)
def test_filters_that_make_no_sense_are_refused(settings, message):
    from regen_hf.stages.dataset.settings import DatasetConfig

    with pytest.raises(ValueError, match=message):
        DatasetConfig(**settings)


def test_large_splits_are_cut_into_shards_of_bounded_size_in_row_groups_for_the_viewer(
    finished_run, tmp_path, monkeypatch
):
    from regen_hf.stages.dataset import shards
    from regen_hf.stages.dataset.build import build
    from regen_hf.stages.dataset.settings import DatasetConfig

    whole = list(rows(split_files(finished_run / "dataset", "train")))
    monkeypatch.setattr(shards, "SHARD", 60_000)
    monkeypatch.setattr(shards, "ROW_GROUP", 10)
    build(finished_run, tmp_path, tmp_path / "work", DatasetConfig(name="x"))
    files = split_files(tmp_path, "train")
    assert len(files) > 2
    assert files[-1].name == f"train-{len(files) - 1:05d}-of-{len(files):05d}.parquet"
    for path in files:
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        sizes = [sum(group.column(c).total_compressed_size for c in range(group.num_columns)) for group in groups]
        assert sum(sizes[:-1]) < 60_000  # closed with the row group that passes the limit
    assert {pq.read_metadata(path).row_group(0).num_rows for path in files[:-1]} == {10}
    assert list(rows(files)) == whole
    assert list(load_dataset(str(tmp_path), split="train")) == whole
    configs = DatasetCard.load(tmp_path / "README.md").data.configs
    assert configs[0]["data_files"][0] == {"split": "train", "path": [f"x/{path.name}" for path in files]}


def test_a_row_group_never_holds_many_wide_rows(tmp_path):
    from regen_hf.stages.dataset import shards

    wide = pa.table({"text": ["x" * 10**6] * 100})
    wide = pa.concat_tables([wide, pa.table({"text": ["y" * (2 * 10**6 - 4), "z" * (2 * 10**6 - 3)]})])
    assert shards.write(wide.to_batches(), wide.schema, tmp_path, "wide") == (102, 104 * 10**6 + 401, 1)
    metadata = pq.read_metadata(tmp_path / "wide-00000-of-00001.parquet")
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sum(groups) == 102
    assert max(groups) < 70  # of 1 MB each


@pytest.mark.parametrize("limit", [2**25, 3000])
def test_files_and_sizes_depend_on_the_rows_and_not_on_their_batches(tmp_path, monkeypatch, limit):
    from regen_hf.stages.dataset import shards

    monkeypatch.setattr(shards, "ROW_GROUP", 10)
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", limit)
    chance = random.Random(0)
    table = pa.table(
        {
            "text": [None if n % 7 == 0 else "é" * chance.randrange(300) for n in range(97)],
            "flag": [None if n % 3 == 0 else n % 2 == 0 for n in range(97)],
            "list": [
                None if n % 11 == 0 else [{"x": n, "y": None if n % 2 else "y" * n}] * chance.randrange(4)
                for n in range(97)
            ],
        }
    )
    written = []
    for number in range(8):
        cuts = sorted(chance.sample(range(1, 97), 12)) if number else []
        batches = []
        for start, end in itertools.pairwise([0, *cuts, 97]):
            # Rows of their own, or a view of all rows, with or without a bitmap of nulls.
            part = table.slice(start, end - start)
            batches += (pa.Table.from_pylist(part.to_pylist(), table.schema) if number % 2 else part).to_batches()
        counts = shards.write(iter(batches), table.schema, tmp_path / str(number), "x")
        (path,) = (tmp_path / str(number)).iterdir()
        assert pq.read_table(path).equals(table)
        written.append((counts, path.read_bytes()))
    assert all(other == written[0] for other in written)
    groups = pq.read_metadata(path).num_row_groups
    assert groups == 10 if limit > 3000 else groups > 10


def test_memory_and_the_split_of_the_input_change_neither_files_nor_card(finished_run, tmp_path, monkeypatch):
    lines = gzip.decompress((finished_run / "sample" / "reviews.jsonl.gz").read_bytes()).splitlines(keepends=True)
    items = str(finished_run / "sample" / "items.jsonl.gz")
    random.Random(0).shuffle(lines)
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_bytes(b"".join(lines[number::3]))
    (tmp_path / "all.jsonl").write_bytes(b"".join(lines))
    datasets = []
    for name, reviews, memory in (("one", ["all.jsonl"], "2GB"), ("three", ["2.jsonl", "0.jsonl", "1.jsonl"], "1GB")):
        monkeypatch.setattr("regen_hf.engines.COPIES", 3 if name == "one" else 40_000)
        given = {"reviews": [str(tmp_path / file) for file in reviews], "items": [items], "memory": memory}
        run = Run(tmp_path / name, {"sequences": given, "dataset": {"name": "x"}})
        with run.locked():
            run.save()
            run.build_all("dataset")
        folder = tmp_path / name / "dataset"
        info = DatasetCard.load(folder / "README.md").data.dataset_info
        datasets.append((info, {file.name: file.read_bytes() for file in folder.rglob("*.parquet")}))
    assert len(split_files(tmp_path / "three" / "sequences", "train")) > 3
    assert datasets[0] == datasets[1]


def test_the_lines_that_the_card_shows_run_as_printed(finished_run, tmp_path, monkeypatch):
    (tmp_path / "path" / "to" / "this").mkdir(parents=True)
    (tmp_path / "path" / "to" / "this" / "repository").symlink_to(finished_run / "dataset")
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", (finished_run / "dataset" / "README.md").read_text(), re.DOTALL)
    told = io.StringIO()
    names = {}
    with contextlib.redirect_stdout(told):
        exec(first, names)
    assert names["user"]["user"]["long_summary"] in told.getvalue()
    *imports, pandas_line, polars_line, duckdb_line = second.strip().splitlines()
    exec("\n".join(imports), names)
    truth = [row["reviewer_id"] for row in rows(split_files(finished_run / "dataset", "test"))]
    assert eval(pandas_line, names)["reviewer_id"].to_list() == truth
    assert eval(polars_line, names)["reviewer_id"].to_list() == truth
    assert [row[0] for row in eval(duckdb_line, names).fetchall()] == truth


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"backend": "openai", "language": "de"}, "de"), ({"backend": "reference", "language": "en"}, "en"), (None, None)],
)
def test_the_language_of_a_card_is_that_of_the_narratives(tmp_path, config, expected):
    if config:
        (tmp_path / "narratives").mkdir()
        made = {"fingerprint": "", "inputs": {"stages": {}, "files": {}}, "counts": {}, "seconds": 1}
        (tmp_path / "narratives" / "manifest.json").write_text(json.dumps(made | {"config": config}))
    assert language(tmp_path) == expected


def test_the_card_tells_the_hub_all_it_asks_for(finished_run):
    from huggingface_hub import metadata_load

    card = metadata_load(finished_run / "dataset" / "README.md")
    assert card["license"] == "apache-2.0"
    assert card["task_categories"] == ["text-generation"]
    assert card["size_categories"] == ["n<1K"]
    assert card["language"] == "en"
    assert [config["config_name"] for config in card["configs"]] == ["tiny", "tiny-items", "tiny-interactions"]
    info = {entry["config_name"]: entry for entry in card["dataset_info"]}
    assert Features._from_yaml_list(info["tiny"]["features"]) == features(ROW)
    files = sum(path.stat().st_size for path in (finished_run / "dataset" / "tiny").iterdir())
    assert info["tiny"]["download_size"] == files
    for split in info["tiny"]["splits"]:
        loaded = load_dataset(str(finished_run / "dataset"), split=split["name"])
        assert len(loaded) == split["num_examples"]


def test_every_number_of_the_card_is_that_of_the_rows(finished_run):
    """Counted again here, row by row, with nothing of the package's own counting."""
    card = DatasetCard.load(finished_run / "dataset" / "README.md").text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line[:2] == "| "]
    table = {row[0]: row[1:] for row in cells}
    dataset = load_dataset(str(finished_run / "dataset"))
    everybody = [row for split in dataset.values() for row in split]
    for name, users in {**dataset, "all": everybody}.items():
        lengths = sorted(len(row["purchase_history"]) for row in users)
        median = lengths[(len(lengths) - 1) // 2]
        assert table[name] == [f"{n:,}" for n in (len(lengths), sum(lengths), lengths[0], median, lengths[-1])]
    fields = re.findall(r"`(\w+)`", " ".join(card.split("| field |")[1].split("\n\n")[0].splitlines()[2:]))
    assert sorted(field for field in fields if field in ROW.names) == sorted(ROW.names)
    bought = Counter(purchase["item"]["asin"] for row in everybody for purchase in row["purchase_history"])
    assert f"of which {len(bought)} were bought" in card
    assert f"the most popular item {max(bought.values()):,} times" in card
    ratings = Counter(purchase["review"]["rating"] for row in everybody for purchase in row["purchase_history"])
    for rating, number in ratings.items():
        assert table[str(rating)] == [f"{number:,}"]
    for task in TASKS.values():
        words = sorted(len(task.text(row).split()) for row in everybody)
        assert table[task.name][1:3] == ["160", "0"]
        assert table[task.name][4] == str(words[(len(words) - 1) // 2])
    critiques = sum(row["last_purchase"]["critique"] is not None for row in everybody)
    assert table["critique"][1:3] == [str(critiques), str(160 - critiques)]
    assert f"{critiques} of 160 users, of whom {critiques} have one" in " ".join(card.split())
    for part, attributes in RATED.items():
        for attribute in attributes:
            scores = Counter(row["metadata"][part][attribute] for row in everybody)
            found = table[f"`{part}.{attribute}`"]
            assert found[:8] == [str(scores[score]) for score in (*range(1, 8), None)]
            if scores[None] < 160:
                mean = sum(score * n for score, n in scores.items() if score) / (160 - scores[None])
                assert float(found[8]) == pytest.approx(mean, abs=0.006)


def test_the_card_tells_where_the_narratives_come_from_and_when(finished_run):
    card = DatasetCard.load(finished_run / "dataset" / "README.md").text
    assert "simulated" in card
    assert "not by a language model" in card
    assert "Narratives of 160 simulated shoppers state the planted truth of the simulation" in card
    manifest = json.loads((finished_run / "narratives" / "manifest.json").read_text())
    (row,) = [line for line in card.splitlines() if line.startswith("| narratives |")]
    assert row.startswith(f"| narratives | {manifest['made'][:10]} | ")
    assert f" | {__version__} | " in row
    accounting = json.loads((finished_run / "sequences" / "accounting.json").read_text())
    assert f"Of {accounting['reviews']['read']:,} reviews read, {accounting['reviews']['kept']:,} were kept" in card
    assert "@article{sayana2024beyond" in card
    assert "## Limits" in card


ELSEWHERE = """
import json, sys
import datasets
from datasets import get_dataset_config_names, load_dataset

repository = sys.argv[1]
rows = {split: list(users) for split, users in load_dataset(repository).items()}
streamed = {split: list(users) for split, users in load_dataset(repository, streaming=True).items()}
items = list(load_dataset(repository, "tiny-items", split="train"))
print(json.dumps([datasets.__version__, get_dataset_config_names(repository), rows, streamed == rows, len(items)]))
"""


@pytest.mark.slow
def test_the_repository_loads_with_datasets_4_too(finished_run, tmp_path):
    """In an environment of its own: this one has datasets 5."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "-q"]
    # Compiling every module takes longer than compiling those that are imported.
    install = [*pip, "install", "--no-compile", "--progress-bar", "off", "datasets==4.0.*"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PIP_CONSTRAINT"))}
    done = subprocess.run(install, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        pytest.skip(f"datasets 4.0 cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, "-c", ELSEWHERE, finished_run / "dataset"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    version, configs, loaded, same, items = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.0.")
    assert configs == ["tiny", "tiny-items", "tiny-interactions"]
    assert loaded == {split: list(rows(split_files(finished_run / "dataset", split))) for split in SPLITS}
    assert same
    assert items == 64
