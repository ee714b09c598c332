"""Cards, and the push to a Hub on the loopback by the real client, loaded back in processes without this package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, ModelCard, SpaceCard
from safetensors.numpy import load_file, save_file

from regen_hf.errors import RunError
from regen_hf.hub import dataset_card, merged_card, model_card, push
from regen_hf.schema import SPLITS, TASKS

from .hub_server import HubServer

ROOT = Path(__file__).parents[1]
REPOSITORIES = {
    "dataset": ("dataset", "org/regen"),
    "model": ("model", "org/regen-tiny"),
    "metric": ("space", "org/regen_narrative"),
    "space": ("space", "org/regen-demo"),
}

LOADED_BACK = """
import sys
sys.modules["regen_hf"] = None
import json, re
import pyarrow.parquet as pq
import torch
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import hf_hub_download
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

run = sys.argv[1]
assert get_dataset_config_names("org/regen") == ["tiny", "tiny-items"]
users = load_dataset("org/regen", "tiny")
for split in ("train", "validation", "test"):
    shard = f"{run}/dataset/tiny/{split}-00000-of-00001.parquet"
    assert users[split].to_list() == pq.read_table(shard).to_pylist(), split
assert load_dataset("org/regen", split="test").to_list() == users["test"].to_list()
items = load_dataset("org/regen", "tiny-items", split="train")
assert items.to_list() == pq.read_table(f"{run}/dataset/tiny-items/items-00000-of-00001.parquet").to_pylist()
streamed = load_dataset("org/regen", "tiny", split="test", streaming=True)
assert list(streamed.take(3)) == users["test"].to_list()[:3]

for Auto in (AutoModel, AutoModelForCausalLM, AutoProcessor):
    try:
        Auto.from_pretrained("org/regen-tiny", trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise SystemExit("code was run that was not trusted")
told = []
for source in ("org/regen-tiny", run + "/model"):
    model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    histories = users["test"][:4]["purchase_history"]
    inputs = processor(history=list(histories), task="long_user_summary")
    with torch.no_grad():
        logits = model(**inputs).logits
    tokens = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    told.append((logits, processor.batch_decode(tokens[:, inputs["input_ids"].shape[1]:])))
assert torch.equal(told[0][0], told[1][0])
assert told[0][1] == told[1][1]
assert all(told[0][1])

import evaluate
pairs = {"predictions": ["A red pen.", ""], "references": ["A blue pen.", "A gift."]}
scores = evaluate.load("org/regen_narrative").compute(**pairs)
assert scores["bleu"] > 0 and scores["rougeLsum"] > 0, scores

assert load_dataset("org/regen", "tiny", split="test", revision="v1").to_list() == users["test"].to_list()
AutoModelForCausalLM.from_pretrained("org/regen-tiny", revision="v1", trust_remote_code=True)

config = json.load(open(hf_hub_download("org/regen-demo", "config.json", repo_type="space")))
AutoProcessor.from_pretrained(config["model"], revision=config["model_revision"], trust_remote_code=True)
load_dataset(config["dataset"], config["dataset_config"], split=config["split"], revision=config["dataset_revision"])

for kind, repository in (("dataset", "org/regen"), ("model", "org/regen-tiny"), ("space", "org/regen_narrative")):
    card = open(hf_hub_download(repository, "README.md", repo_type=kind), encoding="utf-8").read()
    blocks = re.findall(r"```python\\n(.*?)```", card, flags=re.DOTALL)
    assert blocks, kind
    for block in blocks:
        # Polars and DuckDB ask huggingface.co whatever the endpoint is; on disk their lines are run as printed.
        block = "\\n".join(line for line in block.splitlines() if not re.search("polars|duckdb", line))
        print(f"what the card of the {kind} prints:")
        exec(block, {})
"""

BOTH_RUNS = """
import sys
sys.modules["regen_hf"] = None
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub import HfApi


assert get_dataset_config_names("writer/regen") == ["tiny", "tiny-items", "other", "other-items"]
first, second = (load_dataset("writer/regen", name, split="test") for name in ("tiny", "other"))
assert load_dataset("writer/regen", split="test").to_list() == first.to_list() == second.to_list()
assert load_dataset("writer/regen", "other-items", split="train").num_rows > 0
for kind, name in (
    ("dataset", "regen"), ("model", "regen-tiny"), ("model", "regen-other"), ("space", "regen_narrative"),
    ("space", "regen-demo"),
):
    assert HfApi().repo_info(f"writer/{name}", repo_type=kind).private
    try:
        HfApi(token=False).repo_info(f"writer/{name}", repo_type=kind)
    except RepositoryNotFoundError:
        continue
    raise SystemExit(f"{name} is open to everybody")
"""


def call(words, home, endpoint, token="hf_writer", stdin="", **more):
    """Run a Python program with the given words in a new process with fresh caches; the finished process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(home / "home"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **({"HF_TOKEN": token} if token else {}),
        **more,
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=300,
    )


def regen_push(run, namespace, home, endpoint, *options, **more):
    return call(["-m", "regen_hf.cli", "push", run, "--namespace", namespace, *options], home, endpoint, **more)


def edited(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def pushed(hub, finished_run, tmp_path_factory):
    """The Hub once `regen push` has pushed and verified the tiny run in `org`, and what the command printed."""
    broken = iter(["cut"])  # a download broken off goes on

    def cut_once(method, path):
        is_weights = method == "GET" and path.endswith("/model.safetensors") and "/resolve/" in path
        return next(broken, None) if is_weights else None

    hub.fault = cut_once
    done = regen_push(finished_run, "org", tmp_path_factory.mktemp("push"), hub.url, "--tag", "v1", "--verify")
    assert next(broken, None) is None
    assert done.returncode == 0, done.stderr
    return hub, done.stdout


# The push


def test_what_is_pushed_is_what_is_on_disk_in_one_commit_each(pushed, finished_run):
    hub, told = pushed
    package = ROOT / "regen_hf"
    pictures = {path.name: path for path in (finished_run / "figures").glob("*.png")}
    of_the_model = {name for name in pictures if re.match("loss|scores|soft_token|norm_|left_out", name)}
    assert {"loss.png", "scores.png", "left_out_1.png"} <= of_the_model < set(pictures)
    sources = {
        "dataset": (
            finished_run / "dataset",
            {f"figures/tiny/{name}" for name in set(pictures) - of_the_model},
            {},
        ),
        "model": (finished_run / "model", {f"figures/{name}" for name in of_the_model}, {}),
        "metric": (
            ROOT / "spaces" / "regen_narrative",
            set(),
            {name: package / "evaluation" / name for name in ("regen_narrative.py", "metrics.py")},
        ),
        "space": (ROOT / "spaces" / "regen_demo", set(), {}),
    }
    made = {"model": {".eval_results/regen.yaml"}, "space": {"config.json"}}
    for part, (source, figures, more) in sources.items():
        kind, name = REPOSITORIES[part]
        files = hub.files(kind, name)
        expected = {
            path.relative_to(source).as_posix(): path
            for path in source.rglob("*")
            if path.is_file() and path.name != "manifest.json" and "__pycache__" not in path.parts
        }
        expected |= more | {path: pictures[path.rpartition("/")[2]] for path in figures}
        assert set(files) == set(expected) | made.get(part, set()) | {".gitattributes", "README.md"}
        for path in set(expected) - {"README.md"}:
            assert files[path] == expected[path].read_bytes(), path
            assert f"  {path} ({len(files[path]):,} bytes): new\n" in told
        about = hub.load(kind, name)
        assert len(about["commits"]) == 2  # that of the new repository, and one
        assert about["tags"] == {"v1": about["branches"]["main"]}
        assert f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{name}\n" in told
    shipped = {"content_encoder/model.safetensors", "modeling_regen.py", "processing_regen.py", "cf_items.json"}
    assert shipped <= set(hub.files("model", "org/regen-tiny"))


def test_the_push_verified_all_that_it_pushed(pushed, finished_run):
    _, told = pushed
    counts = json.loads((finished_run / "dataset" / "manifest.json").read_text())["counts"]
    verified = [line for line in told.splitlines() if line.startswith("verified ")]
    assert verified[:4] == [
        *(f"verified dataset org/regen: tiny, {split}: {counts[split]} rows are equal" for split in SPLITS),
        f"verified dataset org/regen: tiny-items, train: {counts['items']} rows are equal",
    ]
    assert [line.split(":")[0] for line in verified[4:]] == [
        "verified model org/regen-tiny",
        "verified metric org/regen_narrative",
        "verified space org/regen-demo",
    ]


@pytest.mark.parametrize("part", ["dataset", "model", "space"])
def test_what_comes_back_other_than_it_is_here_is_found(pushed, tiny_run, tmp_path, part):
    hub, _ = pushed
    asked = {
        "pushed": {part: (REPOSITORIES[part][1], "v1")},
        "configs": {"tiny": {"test": [str(tiny_run / "dataset" / "tiny" / "test-00000-of-00001.parquet")]}},
        "model": str(tiny_run / "model"),
    }
    if part == "dataset":
        (shard,) = asked["configs"]["tiny"]["test"]
        pq.write_table(pq.read_table(shard).slice(1), shard)
    elif part == "model":
        weights = tiny_run / "model" / "model.safetensors"
        tensors = load_file(weights)
        name = next(name for name in tensors if "adapter" in name and tensors[name].any())
        save_file({**tensors, name: tensors[name] * 2}, weights, metadata={"format": "pt"})
    else:
        config = json.loads(hub.files("space", "org/regen-demo")["config.json"]) | {"model_revision": "0" * 40}
        asked["pushed"] = {"space": ("org/other-demo", "main")}
        hub.put(
            "space",
            "org/other-demo",
            hub.files("space", "org/regen-demo") | {"config.json": json.dumps(config).encode()},
        )
    done = call(["-P", ROOT / "regen_hf/hub/loaded_back.py"], tmp_path, hub.url, stdin=json.dumps(asked))
    assert done.returncode == 1
    told = {
        "dataset": "tiny, test: rows 0 to ",
        "model": "org/regen-tiny: the logits of 4 users differ",
        "space": "Revision Not Found",
    }
    assert told[part] in done.stderr.strip().splitlines()[-1]


def test_nothing_pushed_tells_of_this_machine(pushed, finished_run):
    hub, _ = pushed
    private = [str(finished_run), str(finished_run.parent), str(Path.home()) + "/", str(ROOT), "hf_writer"]
    for kind, name in REPOSITORIES.values():
        for path, content in hub.files(kind, name).items():
            assert not [needle for needle in private if needle.encode() in content], (kind, path)


def test_a_second_push_of_the_same_run_commits_nothing(pushed, finished_run, tmp_path):
    hub, _ = pushed
    done = regen_push(finished_run, "org", tmp_path, hub.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unchanged http") == 4
    for kind, name in REPOSITORIES.values():
        assert len(hub.load(kind, name)["commits"]) == 2, name


def test_everything_loads_back_where_this_package_is_not_installed_and_the_cards_code_runs(
    pushed, finished_run, tmp_path
):
    hub, _ = pushed
    done = call(["-c", LOADED_BACK, finished_run], tmp_path, hub.url, token=None)
    assert done.returncode == 0, done.stderr
    first = pq.read_table(finished_run / "dataset" / "tiny" / "train-00000-of-00001.parquet").slice(0, 1).to_pylist()[0]
    assert first["user"]["long_summary"] in done.stdout


def test_the_repositories_are_linked_and_the_space_takes_the_commits_pushed_with_it(pushed):
    hub, _ = pushed
    model = ModelCard(hub.files("model", "org/regen-tiny")["README.md"].decode())
    space = SpaceCard(hub.files("space", "org/regen-demo")["README.md"].decode())
    assert model.data.datasets == space.data.datasets == ["org/regen"]
    assert space.data.models == ["org/regen-tiny"]
    assert (space.data.sdk, space.data.app_file) == ("gradio", "app.py")
    assert json.loads(hub.files("space", "org/regen-demo")["config.json"]) == {
        "model": "org/regen-tiny",
        "model_revision": hub.load("model", "org/regen-tiny")["branches"]["main"],
        "dataset": "org/regen",
        "dataset_revision": hub.load("dataset", "org/regen")["branches"]["main"],
        "dataset_config": "tiny",
        "split": "test",
        "simulated": True,
    }


def test_a_private_push_is_private_and_a_second_run_stands_beside_the_first(hub, finished_run, tiny_run, tmp_path):
    (tiny_run / "dataset" / "tiny").rename(tiny_run / "dataset" / "other")
    (tiny_run / "dataset" / "tiny-items").rename(tiny_run / "dataset" / "other-items")
    card = tiny_run / "dataset" / "README.md"
    card.write_text(re.sub(r"\btiny\b", "other", card.read_text()))
    for run in (finished_run, tiny_run):
        done = regen_push(run, "writer", tmp_path, hub.url, "--private")
        assert done.returncode == 0, done.stderr
    done = call(["-c", BOTH_RUNS], tmp_path, hub.url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("folder", "message"), [("model", "no trained model"), ("dataset", "another dataset")])
@pytest.mark.parametrize("content", ["[]", "{}", '{"fingerprint'])
def test_an_output_whose_manifest_is_damaged_is_not_pushed(finished_run, tmp_path, folder, message, content):
    for part in ("model", "dataset"):
        (tmp_path / part).mkdir()
        shutil.copy(finished_run / part / "manifest.json", tmp_path / part)
    shutil.copy(finished_run / "run.json", tmp_path)
    (tmp_path / folder / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=message):
        list(push(tmp_path, "org", dry_run=True))


def test_a_model_of_another_dataset_is_not_pushed(tiny_run):
    edited(tiny_run / "dataset" / "manifest.json", fingerprint="other")
    with pytest.raises(RunError, match="trained on another dataset"):
        list(push(tiny_run, "org", dry_run=True))


# The cards


def test_the_dataset_card_says_what_the_accounting_says(finished_run):
    card = DatasetCard.load(finished_run / "dataset" / "README.md")
    counts = json.loads((finished_run / "dataset" / "manifest.json").read_text())["counts"]
    reviews = json.loads((finished_run / "sequences" / "accounting.json").read_text())["reviews"]
    for split in SPLITS:
        assert f"| {split} | {counts[split]:,} |" in card.text
    assert f"Of {reviews['read']:,} reviews read, {reviews['kept']:,} were kept." in card.text
    for reason, number in reviews["dropped"].items():
        assert (f"| {reason.replace('_', ' ')} | {number:,} |" in card.text) == (number > 0)
    for task in TASKS.values():
        assert f"`{'.'.join(task.field)}`" in card.text
    assert "**The people in this dataset are simulated.**" in card.text
    assert "fixed rules (`reference`), not by a language model" in card.text
    assert "simulated" in card.data.tags
    assert card.data.configs[0]["config_name"] == "tiny"
    assert card.data.configs[0]["default"] is True


def test_a_card_of_real_reviews_calls_nobody_simulated_and_names_who_wrote(tiny_run):
    manifest = tiny_run / "sequences" / "manifest.json"
    edited(manifest, config=json.loads(manifest.read_text())["config"] | {"sample": False})
    edited(tiny_run / "narratives" / "manifest.json", config={"backend": "openai", "model": "/data/models/writer-9b"})
    edited(tiny_run / "ratings" / "manifest.json", config={"backend": "openai", "model": "org/rater-9b"})
    counts = json.loads((tiny_run / "dataset" / "manifest.json").read_text())["counts"]
    card = dataset_card(tiny_run, tiny_run / "dataset", "tiny", counts)
    assert "simulated" not in card
    assert "/data/models" not in card
    assert re.search(r"written by the language\s+model `writer-9b`", card)
    assert "given by the language model `org/rater-9b`" in card
    assert DatasetCard(card).data.license == "unknown"
    assert "simulated" not in model_card(tiny_run)


def test_the_model_card_holds_every_score_of_the_results_file_and_the_facts_of_the_training(finished_run):
    card = model_card(finished_run)
    results = json.loads((finished_run / "evaluation" / "results.json").read_text())
    training = json.loads((finished_run / "model" / "manifest.json").read_text())
    scores, every = card.split("## Scores")[1].split("\n## ")[0].split("All metrics of the model itself")
    for task, row in zip(TASKS, [line for line in every.splitlines() if re.match(r"\| \w+_", line)], strict=True):
        given = results["models"]["fused"][task]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == task
        means = [given[key]["mean"] for key in given if key != "n"]
        assert len(cells) == len(means) + 1
        for cell, mean in zip(cells[1:], means, strict=True):
            digits = len(cell.split(" [")[0].partition(".")[2])
            assert cell.split(" [")[0] == ("–" if mean is None else f"{mean:.{digits}f}")
    rows = [line for line in scores.splitlines() if line.startswith("| ") and "|---" not in line][1:]
    assert len(rows) == 3 * len(TASKS)
    for row in rows:
        task, metric, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        key, digits = {"BLEU": ("bleu", 1), "ROUGE-Lsum": ("rougeLsum", 1), "Similarity": ("similarity", 3)}[metric]
        for model, cell in zip(results["models"], cells, strict=True):
            assert cell.split(" [")[0] == f"{results['models'][model][task][key]['mean']:.{digits}f}"
        assert cells[0].count("[") == 1
    assert f"{training['counts']['examples']:,} examples, 12 optimiser steps of 8 examples" in card
    assert "**It was trained on simulated shoppers**" in card
    assert "a small backbone trained from nothing" in card
    assert "empty_history" in card.split("## Scores")[1]


@pytest.mark.parametrize("case", ["not evaluated", "another model evaluated"])
def test_without_results_of_this_very_model_the_card_has_no_scores(tiny_run, case):
    if case == "not evaluated":
        shutil.rmtree(tiny_run / "evaluation")
    else:
        edited(tiny_run / "model" / "manifest.json", fingerprint="retrained")
    card = model_card(tiny_run)
    assert "Scores" not in card
    assert "| BLEU" not in card
    assert "## Limits" in card


def test_a_backbones_folder_does_not_reach_the_card(tiny_run):
    manifest = tiny_run / "model" / "manifest.json"
    before = json.loads(manifest.read_text())["config"]
    edited(manifest, config=before | {"backbone": "/data/models/backbone-1b"})
    card = model_card(tiny_run)
    assert "/data" not in card
    assert "backbone `backbone-1b`" in card
    assert ModelCard(card).data.base_model is None
    edited(manifest, config=before | {"backbone": "some/backbone-1b"})
    assert ModelCard(model_card(tiny_run)).data.base_model == "some/backbone-1b"


def test_merging_cards_keeps_the_configs_sections_and_default_that_were_there():
    def card(name, *, default=True, license="apache-2.0", text="", rows=5, size="n<1K"):
        # `datasets` writes the entry of a single config without a list.
        entry = {"config_name": name, "splits": [{"name": "test", "num_examples": rows}]}
        info = json.dumps(entry if name == "a" else [entry, {"config_name": f"{name}-items"}])
        flag = "  default: true\n" if default else ""
        return (
            f"---\nlicense: {license}\ntags:\n- of-{name}\nsize_categories:\n- {size}\ndataset_info: {info}\n"
            f"configs:\n- config_name: {name}\n{flag}  data_files: {name}/*\n"
            f"---\n\n# REGEN: {name}\n\nAbout {name}{text}.\n"
        )

    both = merged_card(card("b"), card("a"))
    assert merged_card(card("b"), both) == both
    assert merged_card(card("a"), both) == both
    configs = DatasetCard(both).data.configs
    assert [(config["config_name"], config.get("default")) for config in configs] == [("a", True), ("b", None)]
    assert DatasetCard(both).data.tags == ["of-a", "of-b"]
    assert both.index("About a.") < both.index("About b.")
    again = merged_card(card("a", text=", anew"), both)
    assert "About a, anew." in again
    assert "About a." not in again
    assert "About b." in again

    def told(text):
        data = DatasetCard(text).data
        rows = {entry["config_name"]: entry.get("splits", [{}])[0].get("num_examples") for entry in data.dataset_info}
        return rows, data.size_categories

    assert told(both) == ({"a": 5, "b": 5, "b-items": None}, ["n<1K"])
    grown = merged_card(card("b", rows=5000, size="1K<n<10K"), both)
    assert told(grown) == ({"a": 5, "b": 5000, "b-items": None}, ["n<1K", "1K<n<10K"])
    assert told(merged_card(card("a", rows=6), grown)) == ({"a": 6, "b": 5000, "b-items": None}, ["n<1K", "1K<n<10K"])
    assert DatasetCard(merged_card(card("b", license="mit"), card("a"))).data.license == "other"
    foreign = merged_card(card("a"), "---\nlicense: mit\n---\nOur own words.\n")
    assert "Our own words." in foreign
    assert DatasetCard(foreign).data.configs[0]["default"] is True
    assert DatasetCard(foreign).data.license == "apache-2.0"
