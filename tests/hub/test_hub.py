"""The push to a Hub on the loopback by the real client, loaded back in processes without this package."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import gradio_client
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard, SpaceCard
from safetensors.numpy import load_file, save_file

import regen_hf
from regen_hf.errors import RunError
from regen_hf.hub.publishing import push
from regen_hf.schema import CONFIGS, SPLITS, offered_tasks
from tests.hub_server import HubServer
from tests.paths import ROOT

REPOSITORIES = {
    "dataset": ("dataset", "org/regen"),
    "model": ("model", "org/regen-tiny"),
    "metric": ("space", "org/regen_narrative"),
    "space": ("space", "org/regen-demo"),
}

RELOADED = """
import sys
sys.modules["regen_hf"] = None
import json, re
import pyarrow.parquet as pq
import torch
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import hf_hub_download
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

run = sys.argv[1]
assert get_dataset_config_names("org/regen") == ["tiny", "tiny-items", "tiny-interactions"]
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

from pathlib import Path
from huggingface_hub import snapshot_download
space = Path(snapshot_download("org/regen-demo", repo_type="space"))
source = Path(sys.argv[2]).parents[1] / "spaces" / "regen_demo"
for path in source.glob("*.*"):
    assert path.name == "README.md" or (space / path.name).read_bytes() == path.read_bytes(), path
config = json.load(open(hf_hub_download("org/regen-demo", "config.json", repo_type="space")))
AutoProcessor.from_pretrained(config["model"], revision=config["model_revision"], trust_remote_code=True)
load_dataset(config["dataset"], config["dataset_config"], split=config["split"], revision=config["dataset_revision"])

(block,) = re.findall(r"```python\\n(.*?)```", open(sys.argv[2], encoding="utf-8").read(), flags=re.DOTALL)
exec(block.replace("regen-office", "regen-tiny").replace('"office', '"tiny'), {})

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


names = [f"{name}{suffix}" for name in ("tiny", "other") for suffix in ("", "-items", "-interactions")]
assert get_dataset_config_names("writer/regen") == names
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
            {name: package / "metrics" / name for name in ("regen_narrative.py", "text_metrics.py")},
        ),
        "space": (ROOT / "spaces" / "regen_demo", set(), {}),
    }
    made = {
        "dataset": {"eval.yaml"},
        "model": {".eval_results/regen.yaml"},
        "space": {"config.json"},
        "metric": {"style.css"},
    }
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
    shipped |= {"cf_items.safetensors", "pipeline.py"}
    assert shipped <= set(hub.files("model", "org/regen-tiny"))


def test_the_push_verified_all_that_it_pushed(pushed, finished_run):
    _, told = pushed
    counts = json.loads((finished_run / "dataset" / "manifest.json").read_text())["counts"]
    verified = [line for line in told.splitlines() if line.startswith("verified ")]
    assert verified[:5] == [
        *(f"verified dataset org/regen: tiny, {split}: {counts[split]} rows are equal" for split in SPLITS),
        *(
            f"verified dataset org/regen: tiny-{name}, train: {counts[name]:,} rows are equal"
            for name in ("items", "interactions")
        ),
    ]
    assert [line.split(":")[0] for line in verified[5:]] == [
        "verified model org/regen-tiny",
        "verified metric org/regen_narrative",
        "verified space org/regen-demo",
    ]


@pytest.mark.parametrize("part", ["dataset", "model", "space", "app"])
def test_what_comes_back_other_than_it_is_here_is_found(pushed, tiny_run, tmp_path, part):
    hub, _ = pushed
    asked = {
        "pushed": {part: (REPOSITORIES.get(part, ("", ""))[1], "v1")},
        "configs": {"tiny": {"test": [str(tiny_run / "dataset" / "tiny" / "test-00000-of-00001.parquet")]}},
        "model": str(tiny_run / "model"),
        "space": str(ROOT / "spaces" / "regen_demo"),
    }
    if part == "dataset":
        (shard,) = asked["configs"]["tiny"]["test"]
        pq.write_table(pq.read_table(shard).slice(1), shard)
    elif part == "model":
        weights = tiny_run / "model" / "model.safetensors"
        tensors = load_file(weights)
        name = next(name for name in tensors if "adapter.projection" in name and tensors[name].any())
        save_file({**tensors, name: tensors[name] * 2}, weights, metadata={"format": "pt"})
    else:
        files = hub.files("space", "org/regen-demo")
        config = json.loads(files["config.json"]) | {"model_revision": "0" * 40}
        other = {"style.css": b""} if part == "app" else {"config.json": json.dumps(config).encode()}
        asked["pushed"] = {"space": (f"org/other-{part}", "main")}
        hub.put("space", f"org/other-{part}", files | other)
    done = call(["-P", ROOT / "regen_hf/hub/reload_check.py"], tmp_path, hub.url, stdin=json.dumps(asked))
    assert done.returncode == 1
    told = {
        "dataset": "tiny, test: rows 0 to ",
        "model": "org/regen-tiny: the logits of 4 users differ",
        "space": "Revision Not Found",
        "app": "org/other-app: style.css differs from the file on disk",
    }
    assert told[part] in done.stderr.strip().splitlines()[-1]


def test_nothing_pushed_tells_of_this_machine(pushed, finished_run):
    hub, _ = pushed
    private = [str(finished_run), str(finished_run.parent), str(Path.home()) + "/", str(ROOT), "hf_writer"]
    for kind, name in REPOSITORIES.values():
        for path, content in hub.files(kind, name).items():
            assert not [needle for needle in private if needle.encode() in content], (kind, path)


def test_everything_loads_back_where_this_package_is_not_installed_and_the_cards_code_runs(
    pushed, finished_run, tmp_path
):
    hub, _ = pushed
    done = call(["-c", RELOADED, finished_run, ROOT / "docs" / "publish.md"], tmp_path, hub.url, token=None)
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
        "splits": list(SPLITS),
        "simulated": True,
        "item_head": False,
        "tasks": [
            {"name": task.name, "question": task.question, "field": list(task.field), "rated_in": task.rated_in}
            for task in offered_tasks().values()
        ],
    }


def test_the_space_runs_on_the_repositories_alone(pushed, finished_run, tmp_path, capsys):
    hub, _ = pushed
    for path, content in hub.files("space", "org/regen-demo").items():
        (tmp_path / path).write_bytes(content)
    (tmp_path / "sitecustomize.py").write_text('import sys; sys.modules["regen_hf"] = None')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(tmp_path),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(port),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        while "Running on local URL" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)
        row = pq.read_table(finished_run / "dataset" / "tiny" / "test-00000-of-00001.parquet").to_pylist()[0]
        told = client.predict(row["purchase_history"], "user_profile", api_name="/narrate")
        offered = client.predict(row["purchase_history"], 3, api_name="/recommend")
        found = client.predict("", api_name="/search")
        (example,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), flags=re.DOTALL)
        exec(example.replace("org/regen-demo", f"http://127.0.0.1:{port}"), {})
    finally:
        process.terminate()
        process.wait(20)
    assert capsys.readouterr().out.strip()  # what the example of the card prints
    regen = regen_hf.load(str(finished_run / "model"))
    assert told.strip() == regen.narrate(row, task="user_profile")
    by_als = regen.processor.recommend(row["purchase_history"], 3)  # the model has no item head
    assert [each["item"]["asin"] for each in offered] == [asin for asin, _ in by_als]
    catalogue = pq.read_table(finished_run / "dataset" / "tiny-items" / "items-00000-of-00001.parquet")
    assert found[0]["asin"] == catalogue.column("asin")[0].as_py()


def test_a_private_push_is_private_and_a_second_run_stands_beside_the_first(hub, finished_run, tiny_run, tmp_path):
    for suffix in CONFIGS:
        (tiny_run / "dataset" / f"tiny{suffix}").rename(tiny_run / "dataset" / f"other{suffix}")
    card = tiny_run / "dataset" / "README.md"
    card.write_text(re.sub(r"\btiny\b", "other", card.read_text()))
    for run in (finished_run, tiny_run):
        done = regen_push(run, "writer", tmp_path, hub.url, "--private")
        assert done.returncode == 0, done.stderr
    done = call(["-c", BOTH_RUNS], tmp_path, hub.url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("folder", "message"), [("model", "has no trained model"), ("dataset", "another dataset")])
@pytest.mark.parametrize("content", ["[]", "{}", '{"fingerprint'])
def test_an_output_whose_manifest_is_damaged_is_not_pushed(finished_run, tmp_path, folder, message, content):
    for part in ("model", "dataset"):
        (tmp_path / part).mkdir()
        shutil.copy(finished_run / part / "manifest.json", tmp_path / part)
    shutil.copy(finished_run / "run.json", tmp_path)
    (tmp_path / folder / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=message):
        list(push(tmp_path, "org", dry_run=True))


def test_the_demo_refuses_a_model_without_texts(tiny_run):
    path = tiny_run / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    edited(path, config={**manifest["config"], "tasks": []})
    with pytest.raises(RunError, match=r"trained to rank only \(training.tasks is \[\]\).*--dataset --model"):
        list(push(tiny_run, "org", parts=["space", "model", "dataset"], dry_run=True))


def test_a_model_of_another_dataset_is_not_pushed(tiny_run):
    edited(tiny_run / "dataset" / "manifest.json", fingerprint="other")
    with pytest.raises(RunError, match="trained on another dataset"):
        list(push(tiny_run, "org", dry_run=True))
