"""Files of a run: names, readers and atomic writers."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf import outputs
from regen_hf.schema import SPLITS


def test_each_file_has_one_path_and_other_names_raise_an_error(tmp_path):
    for name, stage in outputs.FILES.items():
        if stage in outputs.FOLDERS:
            folder, _, file = name.partition("/")
            assert outputs.folder(tmp_path, stage) == tmp_path / folder
            assert outputs.path(tmp_path, stage, file) == tmp_path / name
    with pytest.raises(KeyError, match=r"judge writes no file 'ranks\.parquet'; add it to outputs\.FILES"):
        outputs.path(tmp_path, "judge", outputs.RANKS)
    with pytest.raises(KeyError, match="writes no file"):
        outputs.path(tmp_path, "train", f"../{outputs.FOLDERS['evaluate']}/{outputs.RESULTS}")
    with pytest.raises(KeyError, match="training"):
        outputs.path(tmp_path, "training", outputs.MANIFEST)
    assert outputs.requests_path(tmp_path, "ratings") == tmp_path / "requests" / "ratings.sqlite"


def test_shards_are_read_in_order_with_their_rows(tmp_path):
    names = [outputs.shard_name("train", number, 12) for number in range(12)]
    for number in reversed(range(12)):
        pq.write_table(pa.table({"n": [2 * number, 2 * number + 1], "other": ["", ""]}), tmp_path / names[number])
    (tmp_path / "items").mkdir()
    pq.write_table(pa.table({"asin": ["B1"]}), tmp_path / "items" / outputs.shard_name("items"))
    files = outputs.split_files(tmp_path, "train")
    assert [file.name for file in files] == names
    assert outputs.count(files) == 24
    assert [row["n"] for row in outputs.rows(files, batch_size=1)] == list(range(24))
    assert list(outputs.rows(files, ["n"], limit=3)) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert outputs.split_files(tmp_path, "test") == []
    assert [file.name for file in outputs.item_files(tmp_path)] == ["items-00000-of-00001.parquet"]


def test_histories_are_listed_split_by_split(tmp_path):
    folder = outputs.folder(tmp_path, "sequences")
    folder.mkdir()
    for split in SPLITS:
        for number in (1, 0):
            (folder / outputs.shard_name(split, number, 2)).touch()
    expected = [folder / outputs.shard_name(split, number, 2) for split in SPLITS for number in (0, 1)]
    assert outputs.sequence_files(tmp_path) == expected


@pytest.mark.parametrize("stage", ["sequences", "release"])
def test_the_accounting_is_that_of_the_stage_that_read_the_raw_files(tmp_path, stage):
    outputs.folder(tmp_path, "sequences").mkdir()  # which also exists in a run of the release
    outputs.folder(tmp_path, stage).mkdir(exist_ok=True)
    assert outputs.source(tmp_path) == stage
    assert outputs.accounting(tmp_path) == {}
    outputs.write_json(outputs.path(tmp_path, stage, outputs.ACCOUNTING), {"reviews": {"read": 3}})
    assert outputs.accounting(tmp_path) == {"reviews": {"read": 3}}


def test_missing_outputs_are_empty(tmp_path):
    assert outputs.results(tmp_path) == outputs.agreement(tmp_path) == outputs.manifest(tmp_path, "train") == {}
    assert outputs.read_json(tmp_path / "none.json") is None
    assert not outputs.is_run(tmp_path)
    outputs.write_json(tmp_path / outputs.RUN, {})
    assert outputs.is_run(tmp_path)


COMPLETE = {"fingerprint": "f", "inputs": {"stages": {}, "files": {}}, "counts": {}, "seconds": 1}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", json.dumps({"fingerprint": "f"}), json.dumps(COMPLETE | {"inputs": {"stages": {}}})],
)
def test_an_incomplete_manifest_counts_as_none(tmp_path, text):
    folder = outputs.folder(tmp_path, "train")
    folder.mkdir()
    outputs.write_json(folder / outputs.MANIFEST, COMPLETE)
    assert outputs.manifest(tmp_path, "train") == COMPLETE
    (folder / outputs.MANIFEST).write_text(text)
    assert outputs.read_manifest(folder) is None
    assert outputs.manifest(tmp_path, "train") == {}


def fill(folder):
    folder.mkdir()
    (folder / "part").touch()


def replace(target, write, error=None):
    with outputs.replacing(target) as new:
        write(new)
        if error:
            raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_writer_keeps_the_old_file_and_no_new_one(tmp_path, error):
    target = tmp_path / "results.json"
    target.write_text("old")
    for file, write in (
        (target, lambda new: new.write_text("half")),
        (target, lambda new: None),
        (tmp_path / "folder", fill),
    ):
        with pytest.raises(error):
            replace(file, write, error)
        assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
        assert target.read_text() == "old"


def test_values_that_cannot_be_written_keep_the_old_file(tmp_path):
    target = tmp_path / "results.json"
    outputs.write_results(tmp_path, {"n": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        outputs.write_json(target, {"n": {1, 2}})
    with pytest.raises(UnicodeEncodeError):
        outputs.write_text(target, "half \ud800")
    assert outputs.read_json(target) == {"n": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_replaces_the_old_one(tmp_path):
    for text in ("naïve", "crème"):
        outputs.write_json(tmp_path / "a.json", {"text": text})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "text": "crème"\n}\n'
    for number in (1, 2):
        outputs.write_parquet(tmp_path / "a.parquet", pa.table({"n": [number]}))
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == {"n": [2]}
    replace(tmp_path / "folder", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.parquet", "folder"]
    assert (tmp_path / "folder" / "part").exists()


@pytest.mark.parametrize("number", [0, 1, 4, 9])
def test_rows_are_appended_in_batches(tmp_path, number):
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    rows = [{"n": index, "text": None if index % 2 else "x"} for index in range(number)]
    with outputs.row_writer(tmp_path / "a.parquet", schema, batch_size=4) as append:
        for row in rows:
            append(row)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.equals(schema)
    assert table.to_pylist() == rows


def test_failed_requests_are_appended_line_by_line(tmp_path):
    outputs.append_failed(tmp_path, "u1", "user, vote 1", {"error": "no JSON", "raw": "Fine.\nÉ"})
    outputs.append_failed(tmp_path, "u2", "example, vote 0", {"error": "timeout", "raw": None})
    lines = (tmp_path / outputs.FAILED).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"reviewer_id": "u1", "request": "user, vote 1", "error": "no JSON", "raw": "Fine.\nÉ"},
        {"reviewer_id": "u2", "request": "example, vote 0", "error": "timeout", "raw": None},
    ]


def test_names_of_models_do_not_show_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "small").mkdir(parents=True)
    assert outputs.public_name("models/small") == "small"
    assert outputs.public_name("google/gemma-3-270m") == "google/gemma-3-270m"
    assert outputs.public_name(None) is None


def test_versions_list_only_installed_packages():
    versions = outputs.versions(["numpy", "no-such-package"])
    assert list(versions) == ["regen-hf", "python", "numpy"]
