"""`load_dataset("regen")`: the builder, and the names that it leaves to `datasets`."""

import dataclasses
import gzip
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import datasets
import pytest
from datasets import load_dataset

from regen_hf.builder import RegenBuilder, RegenBuilderConfig
from regen_hf.errors import ConfigError, InputError
from regen_hf.outputs import rows, split_files


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
flat = load_dataset("regen", "sample-interactions", shoppers=90, items=64, split="train")
assert len(flat) == sum(len(user["purchase_history"]) for split in dataset.values() for user in split)
same = next(iter(streamed["test"])) == dataset["test"][0]
print(json.dumps([{{split: len(users) for split, users in dataset.items()}}, same, len(again)]))
"""
    sizes, same, items = ask(code, tmp_path / "empty", tmp_path / "home")
    assert sum(sizes.values()) == 90
    assert same
    assert items == 64
    assert not list((tmp_path / "empty").iterdir())


NAMES = [f"{name}{suffix}" for name in ("sample", "office", "clothing") for suffix in ("", "-items", "-interactions")]


@pytest.mark.parametrize("first", ["regen_hf", "datasets", "datasets.inspect", "datasets.load"])
def test_datasets_lists_the_configs_in_any_order_of_the_imports(tmp_path, first):
    code = f"""
import json, {first}
import datasets, regen_hf
names = datasets.get_dataset_config_names("regen")
builder = datasets.load_dataset_builder("regen", "office-items").builder_configs
print(json.dumps([names, list(builder), datasets.get_dataset_default_config_name("regen")]))
"""
    assert ask(code, tmp_path, tmp_path / "home") == [NAMES, NAMES, "sample"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data_dir": "raw"},
            "'sample' does not use data_dir='raw'.*office, office-items, office-interactions, clothing",
        ),
        ({"data_files": "raw/a.csv"}, "'sample' does not use data_files='raw/a.csv'.*data_dir=FOLDER.*regen run"),
        ({"name": "sample-items", "data_dir": "raw"}, "'sample-items' does not use data_dir"),
        ({"name": "office", "data_files": {"train": "a.csv"}}, "'office' does not use data_files"),
        ({"name": "office", "data_dir": "raw", "seed": 1}, "'office' has no argument 'seed'. Its arguments: data_dir"),
        ({"shopers": 9}, "'sample' has no argument 'shopers'. Its arguments: items, seed, shoppers"),
        ({"version": "2.0.0"}, "'sample' has no argument 'version'"),
        (
            {"features": datasets.Features({"a": datasets.Value("string")})},
            "features was given for the config 'sample'",
        ),
        ({"revision": "v1"}, "revision was given 'v1', expected none"),
        ({"seed": -1}, "seed was given -1"),
        ({"shoppers": "many"}, "shoppers was given 'many'"),
        ({"shoppers": 0}, "shoppers is 0"),
    ],
)
def test_an_argument_is_used_or_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset("regen", cache_dir=str(tmp_path), **arguments)


def test_every_argument_of_the_builder_changes_its_rows_or_is_refused(tmp_path):
    def users(**arguments):
        builder = RegenBuilder(config_name="sample", cache_dir=str(tmp_path), **arguments)
        builder.download_and_prepare()
        return builder.as_dataset(split="train")["purchase_history"][:]

    small = {"shoppers": 30, "items": 40}
    own = {field.name for field in dataclasses.fields(RegenBuilderConfig)}
    own -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    other = {"shoppers": 31, "items": 41, "seed": 1}
    assert own == set(other)
    rows = users(**small)
    for name, value in other.items():
        assert users(**small | {name: value}) != rows


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


@pytest.fixture(scope="module")
def office(finished_run, tmp_path_factory):
    """The raw files of the tiny world under the names of the 2018 release, 12 users of it."""
    folder = tmp_path_factory.mktemp("office")
    users = sorted({row["reviewer_id"] for row in rows(split_files(finished_run / "sequences", "train"))})[:12]
    with gzip.open(finished_run / "sample" / "reviews.jsonl.gz", "rt") as file:
        reviews = [line for line in file if any(user in line for user in users)]
    with gzip.open(folder / "Office_Products_5.json.gz", "wt") as file:
        file.writelines(reviews)
    shutil.copy(finished_run / "sample" / "items.jsonl.gz", folder / "meta_Office_Products.json.gz")
    return folder


def histories(dataset):
    return {row["reviewer_id"]: row["purchase_history"] for split in dataset.values() for row in split}


def test_office_is_built_from_raw_files_and_an_edited_one_is_seen(office, finished_run, tmp_path):
    folder, cache = shutil.copytree(office, tmp_path / "office"), str(tmp_path / "cache")
    built = load_dataset("regen", "office", data_dir=str(folder), cache_dir=cache)
    truth = histories(load_dataset(str(finished_run / "dataset")))
    assert histories(built) == {user: truth[user] for user in histories(built)}
    assert len(histories(built)) == 12
    assert {row["narrator"] for split in built.values() for row in split} == {"reference"}
    items = load_dataset("regen", "office-items", data_dir=str(folder), cache_dir=cache, split="train")
    assert len(items) == 64
    path = folder / "Office_Products_5.json.gz"
    gone = sorted(truth)[0]
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(line for line in lines if gone not in line).encode()))
    again = load_dataset("regen", "office", data_dir=str(folder), cache_dir=cache)
    assert set(histories(again)) == set(histories(built)) - {gone}


def test_a_folder_with_the_official_release_gives_its_narratives(finished_run, tmp_path):
    expected = list(rows(split_files(finished_run / "dataset", "test"), limit=5))
    with (tmp_path / "clothing.jsonl").open("w") as file:
        for row in expected:
            file.write(
                json.dumps({key: row[key] for key in ("reviewer_id", "purchase_history", "last_purchase", "user")})
                + "\n"
            )
    builder = RegenBuilder(config_name="clothing", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    built = builder.as_dataset(split="test")
    assert [row["user"] for row in built] == [row["user"] for row in expected]
    assert set(built["narrator"]) == {"official REGEN release"}


@pytest.fixture
def mirror(office, monkeypatch):
    """A server on the loopback with the raw files where the 2018 release has them."""
    from regen_hf import builder

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = office / self.path.split("/")[-1]
            known = self.path.startswith("/v2/") and path.exists()
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(path.read_bytes())

        do_HEAD = do_GET

        def log_message(self, *words):
            asked.append(self.path)

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(builder, "HOSTS", (f"{address}/gone", f"{address}/v2"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_folder_the_raw_files_of_2018_are_downloaded(mirror, tmp_path, streaming):
    config = datasets.DownloadConfig(cache_dir=str(tmp_path / "downloads"))
    built = load_dataset(
        "regen", "office", cache_dir=str(tmp_path / "cache"), streaming=streaming, download_config=config
    )
    assert len(histories(built)) == 12
    assert "/v2/categoryFilesSmall/Office_Products_5.json.gz" in mirror
    assert "/v2/metaFiles2/meta_Office_Products.json.gz" in mirror


def test_the_hash_of_the_sources_covers_the_package_and_nothing_beside_it(tmp_path, monkeypatch):
    from regen_hf import builder

    package = tmp_path / "regen_hf"
    package.mkdir()
    monkeypatch.setattr(builder, "__file__", str(package / "builder.py"))
    before = builder.source_hash()
    (tmp_path / "beside.py").write_text("x = 1")
    assert builder.source_hash() == before
    (package / "inside.py").write_text("x = 1")
    assert builder.source_hash() != before


def test_files_that_cannot_be_had_are_named_with_where_to_put_them(mirror, tmp_path):
    config = datasets.DownloadConfig(cache_dir=str(tmp_path / "downloads"), max_retries=0)
    wanted = r"Clothing_Shoes_and_Jewelry_5\.json\.gz and meta_Clothing_Shoes_and_Jewelry\.json\.gz .*data_dir=FOLDER"
    with pytest.raises(InputError, match="cannot be downloaded.*" + wanted):
        load_dataset("regen", "clothing", cache_dir=str(tmp_path / "cache"), download_config=config)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "Clothing_Shoes_and_Jewelry_5.json").write_text("{}")
    with pytest.raises(InputError, match="There is no file of items in .*half.*" + wanted):
        load_dataset("regen", "clothing", data_dir=str(tmp_path / "half"), cache_dir=str(tmp_path / "cache"))
