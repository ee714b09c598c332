"""What a push changes on the Hub, what stops it, and how it resumes: with the real client, in this process."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from regen_hf.cli import main
from regen_hf.errors import ConfigError, RegenError, RunError
from regen_hf.hub.privacy import check
from regen_hf.hub.publishing import push
from regen_hf.schema import CONFIGS
from tests.hub_server import HubServer
from tests.paths import ROOT

REPOSITORIES = {
    "dataset": ("dataset", "org/regen"),
    "model": ("model", "org/regen-tiny"),
    "metric": ("space", "org/regen_narrative"),
    "space": ("space", "org/regen-demo"),
}


# The client speaks to httpx in a form that it has left behind.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def edited(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def client(monkeypatch):
    """The client of this process talks to the Hub whose address it is given, as the writer."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")

    def talk_to(url):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        address = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)

    return talk_to


@pytest.fixture
def hub(tmp_path, client):
    with HubServer(tmp_path / "hub") as server:
        client(server.url)
        yield server


def commits(hub, part):
    kind, name = REPOSITORIES[part]
    return len(hub.load(kind, name)["commits"]) if hub.repo_file(kind, name).exists() else 0


def uploads(hub):
    return [path for method, path in hub.requests if method == "PUT"]


# What changes


def test_the_preview_tells_what_is_new_changed_unchanged_and_removed_and_the_push_does_so(hub, tiny_run):
    first = list(push(tiny_run, "org", ["dataset"]))
    assert first[0].endswith(": 16 new")
    shard = tiny_run / "dataset" / "tiny" / "train-00000-of-00001.parquet"
    rows = pq.read_table(shard)
    shard.unlink()
    for number, part in enumerate((rows.slice(0, 60), rows.slice(60))):
        pq.write_table(part, shard.with_name(f"train-0000{number}-of-00002.parquet"))
    hub.put("dataset", "org/regen", {"other/train.parquet": b"another run's", "notes.md": b"somebody's"})

    def told(lines):
        return {
            line.split(" (")[0].split(":")[0].strip(): line.rpartition(": ")[2] for line in lines if line[:2] == "  "
        }

    before = commits(hub, "dataset")
    preview = list(push(tiny_run, "org", ["dataset"], dry_run=True))
    assert commits(hub, "dataset") == before
    what = told(preview)
    assert what["tiny/train-00000-of-00002.parquet"] == what["tiny/train-00001-of-00002.parquet"] == "new"
    assert what["README.md"] == "changed"
    assert what["tiny/test-00000-of-00001.parquet"] == "unchanged"
    assert what["tiny/train-00000-of-00001.parquet"] == "removed"
    assert not {"other/train.parquet", "notes.md"} & set(what)
    assert preview[0].endswith(": 2 new, 1 changed, 14 unchanged, 1 removed")

    list(push(tiny_run, "org", ["dataset"]))
    there = set(hub.files("dataset", "org/regen"))
    assert {path for path in there if path.startswith("tiny/train")} == {
        "tiny/train-00000-of-00002.parquet",
        "tiny/train-00001-of-00002.parquet",
    }
    assert {"other/train.parquet", "notes.md"} <= there
    assert commits(hub, "dataset") == before + 1


def test_push_export_and_demo_name_a_stale_output(hub, tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("runpy.run_path", lambda *_, **__: {})  # the app serves until it is stopped
    monkeypatch.setattr("regen_hf.model.export.export_vllm", lambda *_: None)
    assert "stale" not in "".join(push(tiny_run, "org", dry_run=True))
    config = tiny_run / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 12", "max_steps: 77"))
    message = rf"The output of {{}} in {re.escape(str(tiny_run))} is stale.*Run `regen run"
    lines = "".join(push(tiny_run, "org", dry_run=True))
    assert re.search(message.format("`train`, `evaluate` and `attribution`"), lines)
    assert "stale" not in "".join(push(tiny_run, "org", ["dataset"], dry_run=True))
    for command in (["export", "--to", "vllm"], ["demo", "--port", "7999"]):
        assert main([command[0], str(tiny_run), *command[1:]]) == 0
        assert re.search(message.format("`train`"), capsys.readouterr().err)


def test_a_dry_run_without_a_token_reads_and_one_without_a_network_tells_that_it_could_not(
    hub, client, finished_run, monkeypatch
):
    monkeypatch.delenv("HF_TOKEN")
    lines = list(push(finished_run, "anybody", dry_run=True))
    assert f"  model.safetensors ({(finished_run / 'model/model.safetensors').stat().st_size:,} bytes): new" in lines
    assert lines[-1] == "Nothing was pushed: this was a dry run."
    assert {method for method, _ in hub.requests} == {"GET"}
    client("http://127.0.0.1:9")
    offline = list(push(finished_run, "anybody", dry_run=True))
    assert offline[-2] == "The Hub cannot be reached: its current files are unknown."
    assert [line.rpartition(": ")[0] for line in lines if line[:2] == "  "] == [
        line for line in offline if line[:2] == "  "
    ]
    assert not any("manifest.json" in line for line in offline)


def test_parts_are_pushed_one_by_one_under_names_of_ones_own_and_then_linked(hub, finished_run):
    names = {"dataset": "shop", "model": "teller", "metric": "told", "space": "shop-demo"}
    with pytest.raises(
        RegenError, match=r"dataset writer/shop and the model writer/teller .* --dataset --model --space"
    ):
        list(push(finished_run, "writer", ["space"], names))
    list(push(finished_run, "writer", ["model"], names))
    card = hub.files("model", "writer/teller")["README.md"].decode()
    assert "writer/shop" not in card  # no link to what is not there
    pictures = {path for path in hub.files("model", "writer/teller") if path.endswith(".png")}
    assert "figures/loss.png" in pictures
    assert not [path for path in pictures if "left_out" in path]  # users of a dataset that is not there
    list(push(finished_run, "writer", ["dataset", "metric"], names))
    assert set(hub.files("space", "writer/told")) >= {"told.py", "text_metrics.py"}
    list(push(finished_run, "writer", ["space"], names))
    config = json.loads(hub.files("space", "writer/shop-demo")["config.json"])
    assert (config["model"], config["dataset"]) == ("writer/teller", "writer/shop")
    assert config["model_revision"] == hub.load("model", "writer/teller")["branches"]["main"]
    list(push(finished_run, "writer", ["model"], names))
    card = huggingface_hub.ModelCard(hub.files("model", "writer/teller")["README.md"].decode())
    assert card.data.datasets == ["writer/shop"]
    assert card.data.eval_results[0].dataset_type == "writer/shop"


def test_a_dataset_is_pushed_before_there_is_a_model(hub, tiny_run):
    shutil.rmtree(tiny_run / "model")
    assert list(push(tiny_run, "org", ["dataset", "metric"]))[-1] == f"pushed {hub.url}/spaces/org/regen_narrative"
    with pytest.raises(RunError, match="has no trained model"):
        list(push(tiny_run, "org"))


def test_a_dataset_named_like_a_table_of_another_is_not_pushed(hub, tiny_run):
    card = tiny_run / "dataset" / "README.md"
    card.write_text(card.read_text().replace("tiny", "office-interactions"))  # as earlier versions accepted it
    with pytest.raises(RunError, match="'office-interactions', like a table of the dataset 'office'"):
        list(push(tiny_run, "org", ["dataset"], dry_run=True))


def test_a_tag_marks_what_was_pushed_and_is_not_moved(hub, tiny_run):
    for _ in range(2):  # the second time nothing changes, and the tag is there
        list(push(tiny_run, "org", tag="v1"))
    for kind, name in REPOSITORIES.values():
        about = hub.load(kind, name)
        assert about["tags"] == {"v1": about["branches"]["main"]}
        assert len(about["commits"]) == 2
    edited(tiny_run / "model" / "processor_config.json", note="retrained")
    with pytest.raises(RegenError, match=r"org/regen-tiny was not pushed: its tag v1 points to another commit"):
        list(push(tiny_run, "org", tag="v1"))
    assert commits(hub, "model") == 2
    list(push(tiny_run, "org", tag="v2"))
    assert set(hub.load("model", "org/regen-tiny")["tags"]) == {"v1", "v2"}


# The page about it


def blocks(page):
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_commands_of_the_page_push_as_it_says(hub, finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "office").symlink_to(finished_run)
    monkeypatch.setattr("regen_hf.hub.publishing.verify", lambda run, pushed: [f"verified {part}" for part in pushed])
    commands = [line for block in blocks("publish.md") for line in block.splitlines() if line.startswith("regen ")]
    assert len(commands) == 4
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
    told = capsys.readouterr().out
    assert told.count("\nverified ") == 4
    assert "dry run" in told
    assert all(hub.load(kind, name)["private"] for kind, name in REPOSITORIES.values())
    assert [part for part, (kind, name) in REPOSITORIES.items() if "v1" in hub.load(kind, name)["tags"]] == [
        "dataset",
        "model",
    ]
    assert "modeling_regen.py" in hub.files("model", "org/my-recommender")


@pytest.mark.parametrize("fails", [None, "--dataset --model --dry-run", "runs/a --namespace org --verify"])
def test_the_script_pushes_all_runs_after_a_dry_run_of_all(tmp_path, fails):
    """With a `regen` that only notes how it was called."""
    stand_in = tmp_path / "regen"
    stand_in.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/called\ncase "$*" in *"{fails}"*) exit 1;; esac\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts" / "push_all.sh", "org", "runs/a", "runs/b"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == (fails is not None)
    expected = [
        "push runs/a --namespace org --dry-run",
        "push runs/b --namespace org --dataset --model --dry-run",
        "push runs/a --namespace org --verify",
        "push runs/b --namespace org --dataset --model --verify",
        "push runs/a --namespace org --space --verify",
    ]
    called = (tmp_path / "called").read_text().splitlines()
    assert called == expected[: next((n + 1 for n, line in enumerate(expected) if fails and fails in line), None)]


def test_the_script_tells_how_it_is_called():
    done = subprocess.run([ROOT / "scripts" / "push_all.sh", "org"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: scripts/push_all.sh NAMESPACE RUN…\n")


def test_what_the_script_pushes_is_linked_at_once_and_a_second_time_changes_nothing(
    hub, finished_run, tiny_run, tmp_path, monkeypatch, capsys
):
    for name in CONFIGS:
        (tiny_run / "dataset" / f"tiny{name}").rename(tiny_run / "dataset" / f"other{name}")
    card = tiny_run / "dataset" / "README.md"
    card.write_text(re.sub(r"\btiny\b", "other", card.read_text()))
    (tmp_path / "regen").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/called\n')
    (tmp_path / "regen").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "scripts" / "push_all.sh", "org", finished_run, tiny_run], env=environment, check=True)
    called = (tmp_path / "called").read_text().splitlines()
    monkeypatch.setattr("regen_hf.hub.publishing.verify", lambda run, pushed: [])
    repositories = {**REPOSITORIES, "other": ("model", "org/regen-other")}

    def after_the_script():
        capsys.readouterr()
        for command in called:
            assert main(shlex.split(command)) == 0, command
        return {part: hub.load(kind, name)["branches"]["main"] for part, (kind, name) in repositories.items()}

    first = after_the_script()
    assert after_the_script() == first
    assert "\npushed" not in capsys.readouterr().out
    config = json.loads(hub.files("space", "org/regen-demo")["config.json"])
    assert (config["model"], config["model_revision"]) == ("org/regen-tiny", first["model"])
    assert config["dataset_revision"] == first["dataset"]  # with both runs in it
    cards = {part: hub.files(*repositories[part])["README.md"].decode() for part in ("model", "other", "dataset")}
    assert "org/regen_narrative" in cards["model"]
    assert "org/regen_narrative" in cards["other"]
    assert "org/regen-demo" in cards["model"]
    assert "org/regen-demo" not in cards["other"]  # it shows the first run's model
    assert cards["dataset"].count("spaces/org/regen-demo") == 1


# What keeps a push from starting


@pytest.mark.parametrize(
    ("case", "namespace", "token", "told"),
    [
        ("wrong token", "org", "hf_nonsense", "the Hub does not accept the token. Log in with `hf auth login`"),
        ("no token", "org", None, "there is no token. Log in with `hf auth login`"),
        ("token that may only read", "org", "hf_reader", "the token can only read"),
        (
            "someone else's namespace",
            "org",
            "hf_stranger",
            "stranger cannot write to org, only to stranger",
        ),
        ("no network", "org", "hf_writer", "cannot be reached. Check the network"),
        ("offline on purpose", "org", "hf_writer", "HF_HUB_OFFLINE is set"),
        ("no name", "my org", "hf_writer", "The Hub does not accept the repository name my org/regen"),
        ("public already", "org", "hf_writer", "it exists and is public"),
        ("no module's name", "org", "hf_writer", "'my-metric', expected the name of a Python module"),
        ("one name twice", "org", "hf_writer", "Metric and Space are both named org/regen_narrative"),
        ("verified dry run", "org", "hf_writer", "Omit one of them"),
    ],
)
def test_what_keeps_a_push_from_starting_is_told_in_a_sentence(
    hub, client, finished_run, monkeypatch, capsys, case, namespace, token, told
):
    options = {
        "public already": ["--private"],
        "no module's name": ["--metric-name", "my-metric"],
        "one name twice": ["--space-name", "regen_narrative"],
        "verified dry run": ["--verify", "--dry-run"],
    }.get(case, [])
    hub.put("dataset", "org/regen", {})
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    if case == "no network":
        client("http://127.0.0.1:9")
    if case == "offline on purpose":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert main(["push", str(finished_run), "--namespace", namespace, *options]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("regen: ")
    assert told in message
    assert not [request for request in hub.requests if request[0] in ("POST", "PUT", "DELETE")]


@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("dataset", {"train.csv": b"a,b"}),
        ("dataset", {"train.csv": b"a,b", "README.md": b"---\nconfigs:\n- config_name: default\n---\n"}),
        ("model", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights"}),
        ("model", {"pytorch_model.bin": b"weights"}),
        ("model", {"config.json": b"[]"}),
        ("metric", {"app.py": b"print()"}),
        ("space", {"app.py": b"print()", "config.json": b"{"}),
    ],
)
def test_a_repository_with_other_content_is_left_alone(hub, finished_run, part, files):
    kind, name = REPOSITORIES[part]
    hub.put(kind, name, files)
    with pytest.raises(RegenError, match=rf"{name} was not pushed: it exists and contains other files .*--{part}-name"):
        list(push(finished_run, "org"))
    assert {part: commits(hub, part) for part in REPOSITORIES} == {other: 2 * (other == part) for other in REPOSITORIES}


def test_a_repository_made_by_hand_and_still_empty_is_filled(hub, finished_run):
    hub.put("model", "org/regen-tiny", {"README.md": b"---\nlicense: mit\n---\nSoon here.\n"})
    list(push(finished_run, "org", ["model"]))
    assert "modeling_regen.py" in hub.files("model", "org/regen-tiny")


def test_a_dataset_card_that_cannot_be_read_is_told_in_a_sentence(hub, finished_run):
    hub.put("dataset", "org/regen", {"README.md": b"---\nconfigs: [\n---\n"})
    with pytest.raises(RegenError, match=r"org/regen was not pushed: it exists, and the YAML .* cannot be read"):
        list(push(finished_run, "org"))
    assert not [request for request in hub.requests if request[0] in ("POST", "PUT", "DELETE")]


# What breaks on the way


def test_a_page_that_was_made_and_not_filled_is_filled_by_the_next_push(hub, finished_run):
    hub.fault = lambda method, path: 500 if path.endswith("/spaces/org/regen_narrative/commit/main") else None
    with pytest.raises(RegenError, match="The repository was created and is empty"):
        list(push(finished_run, "org", ["metric"]))
    hub.fault = lambda method, path: None
    list(push(finished_run, "org", ["metric"]))
    assert {"text_metrics.py", "regen_narrative.py"} <= set(hub.files("space", "org/regen_narrative"))
    hub.put("space", "writer/regen_narrative", {"index.html": b"somebody's page"})
    with pytest.raises(RegenError, match=r"contains other files \(index\.html\)"):
        list(push(finished_run, "writer", ["metric"]))


@pytest.mark.parametrize(("status", "told"), [(500, "scripted"), (412, "another push"), (409, "another push")])
def test_a_push_broken_off_tells_what_is_there_and_the_next_one_completes_it(hub, finished_run, status, told):
    hub.fault = lambda method, path: status if path.endswith("/models/org/regen-tiny/commit/main") else None
    with pytest.raises(RegenError) as refused:
        list(push(finished_run, "org"))
    message = str(refused.value)
    assert message.startswith("The model org/regen-tiny was not pushed: ")
    assert told in message
    assert message.endswith("The repository was created and is empty. Already pushed: org/regen.")
    assert commits(hub, "space") == 0
    hub.fault = lambda method, path: None
    before = len(uploads(hub))
    list(push(finished_run, "org"))
    assert len(uploads(hub)) == before  # nothing is sent twice
    assert "app.py" in hub.files("space", "org/regen-demo")


def test_a_connection_cut_in_an_upload_and_a_server_error_are_tried_again_and_a_slow_link_is_waited_for(
    hub, finished_run
):
    faults = {"PUT": ["cut"], "POST": [503]}

    def once(method, path):
        if method == "POST" and not path.endswith("/objects/batch"):
            return None
        return faults.get(method, []).pop() if faults.get(method) else None

    hub.fault, hub.pause = once, 0.02
    list(push(finished_run, "org", ["model"]))
    assert faults == {"PUT": [], "POST": []}
    assert (
        hub.files("model", "org/regen-tiny")["model.safetensors"]
        == (finished_run / "model/model.safetensors").read_bytes()
    )


def test_an_upload_that_ended_goes_on_with_the_files_that_lack(hub, finished_run, monkeypatch):
    """Whoever stops it: what has arrived is not sent again."""
    arrived = threading.Semaphore(3)

    def full(method, path):
        return 507 if method == "PUT" and not arrived.acquire(blocking=False) else None

    hub.fault = full
    with pytest.raises(
        RegenError, match=r"the Hub rejected the request \(scripted\).*not sent again. .*No file was pushed"
    ):
        list(push(finished_run, "org", ["dataset"]))
    kept = {path.name for path in (hub.root / "blobs").iterdir()}
    hub.fault = lambda method, path: None
    before = len(uploads(hub))
    list(push(finished_run, "org", ["dataset"]))
    again = {path.split("/")[2] for path in uploads(hub)[before:]}
    assert again
    assert not again & kept


def test_a_push_of_someone_else_in_between_is_not_lost(hub, tiny_run):
    list(push(tiny_run, "org", ["model"]))
    edited(tiny_run / "model" / "processor_config.json", note="retrained")

    def somebody(method, path):
        if path == "/api/models/org/regen-tiny/preupload/main":
            hub.put("model", "org/regen-tiny", {"notes.md": b"first"})

    hub.fault = somebody
    with pytest.raises(RegenError, match="another push changed it at the same time"):
        list(push(tiny_run, "org", ["model"]))
    hub.fault = lambda method, path: None
    list(push(tiny_run, "org", ["model"]))
    files = hub.files("model", "org/regen-tiny")
    assert files["notes.md"] == b"first"
    assert b"retrained" in files["processor_config.json"]


def test_a_tag_that_the_hub_refuses_is_told_apart_from_the_push(hub, finished_run):
    hub.fault = lambda method, path: 403 if "/tag/" in path else None
    with pytest.raises(RegenError, match=r"model org/regen-tiny was not tagged v1: .* Already pushed: org/regen-tiny"):
        list(push(finished_run, "org", ["model"], tag="v1"))
    assert commits(hub, "model") == 2


# What must not leave


def private(run, **more):
    with pytest.raises(RegenError) as refused:
        list(push(run, "org", dry_run=True, **more))
    return str(refused.value)


def with_column(path, name, values, change=lambda table: table):
    table = pq.read_table(path)
    pq.write_table(change(table.append_column(name, pa.array(values * len(table)))), path)


def test_the_check_lists_all_that_must_not_leave_wherever_it_is(hub, tiny_run):
    secret = "sk-" + "y" * 40
    edited(tiny_run / "model" / "processor_config.json", note=str(tiny_run), encoder="/data/models/encoder")
    edited(tiny_run / "model" / "generation_config.json", reviewerName="x")
    weights = tiny_run / "model" / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "source": "/home/someone/checkpoint-9"})
    shard = tiny_run / "dataset" / "tiny" / "test-00000-of-00001.parquet"
    with_column(
        shard, "reviewerName", ["Jane Doe"], lambda table: table.replace_schema_metadata({"made": f"by {secret}"})
    )
    items = tiny_run / "dataset" / "tiny-items" / "items-00000-of-00001.parquet"
    table = pq.read_table(items)
    place = table.schema.get_field_index("description")
    leaky = ["hf_" + "x" * 34, *table["description"].to_pylist()[1:]]
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(leaky)), items)
    message = private(tiny_run)
    assert secret not in message
    assert message.splitlines()[1:] == [
        "  tiny/test-00000-of-00001.parquet of the dataset contains a possible token or key",
        "  tiny/test-00000-of-00001.parquet of the dataset contains columns that a row does not have: reviewerName",
        "  tiny-items/items-00000-of-00001.parquet of the dataset contains a secret or a path of this "
        "machine in 1 texts of the column description",
        "  generation_config.json of the model contains a field for a reviewer's name",
        "  model.safetensors of the model contains the path /home/someone…",
        "  processor_config.json of the model contains the path of the run folder",
        "  processor_config.json of the model contains the path /data/models…",
    ]
    assert not [request for request in hub.requests if request[0] in ("POST", "PUT")]


@pytest.mark.parametrize(
    "secret",
    ["hf_" + "x" * 34, "sk-ant-" + "y" * 40, "ghp_" + "a1" * 18, "AKIA" + "A" * 16, "-----BEGIN RSA PRIVATE KEY-----"],
)
def test_keys_of_other_services_are_known_too(tmp_path, secret):
    with pytest.raises(RegenError, match=r"notes\.md of the model contains a possible token or key"):
        list(check({"model": {"notes.md": f"use {secret} here".encode()}}, tmp_path))


def test_what_the_environment_keeps_secret_is_not_pushed(tmp_path, monkeypatch):
    monkeypatch.setenv("OUR_SERVER_API_KEY", "correct-horse-battery")
    with pytest.raises(RegenError, match="the value of the environment variable OUR_SERVER_API_KEY"):
        list(check({"space": {"app.py": b"key = 'correct-horse-battery'"}}, tmp_path))


def test_folders_that_the_run_was_given_are_known_whatever_they_are_called(hub, tiny_run):
    manifest = tiny_run / "model" / "manifest.json"
    edited(manifest, config=json.loads(manifest.read_text())["config"] | {"backbone": "/lustre/llms/one"})
    edited(tiny_run / "model" / "generation_config.json", source="/lustre/llms/one/v2")
    assert private(tiny_run).splitlines()[1:] == [
        "  generation_config.json of the model contains a path of this machine"
    ]


@pytest.mark.parametrize("user", ["Jane Doe", "jane@example.com"])
def test_users_who_go_by_name_or_address_are_not_pushed(hub, tiny_run, user):
    shard = tiny_run / "dataset" / "tiny" / "test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    place = table.schema.get_field_index("reviewer_id")
    users = [user, *table["reviewer_id"].to_pylist()[1:]]
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(users)), shard)
    message = private(tiny_run, parts=["dataset"])
    assert "as the reviewer_id of 1 users" in message
    assert user not in message


def test_what_people_wrote_is_told_of_and_not_taken_for_a_path(tmp_path):
    from regen_hf.schema import ROW

    review = {"summary": "Look at /home/garden", "rating": 5, "text": "Mail joe@example.com", "unix_time": 1}
    item = {"asin": "4111111111111111", "title": "Pen", "category": None, "description": None, "price": None}
    row = dict.fromkeys(ROW.names) | {"reviewer_id": "A1", "purchase_history": [{"item": item, "review": review}]}
    pq.write_table(pa.Table.from_pylist([row], ROW), tmp_path / "test.parquet")
    files = {"dataset": {"tiny/test.parquet": tmp_path / "test.parquet"}}
    (note,) = check(files, tmp_path)
    assert note.startswith("note: 1 e-mail addresses in reviews and narratives. `regen sequences ")


def test_users_who_signed_with_their_name_are_counted(tiny_run, tmp_path):
    shard = tiny_run / "dataset" / "tiny" / "test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[0]["purchase_history"][0]["review"]["text"] = "Writes well.\n- Jane Doe"
    rows[1]["user"]["long_summary"] = "Zoë Löwe buys pens."
    rows[2]["purchase_history"][0]["review"]["text"] = "Jane Doe told me of it."  # another one's name
    rows[3]["purchase_history"][0]["review"]["summary"] = "From a happy Amazon Customer"
    pq.write_table(pa.Table.from_pylist(rows, table.schema), shard)
    raw = tmp_path / "reviews.json"
    names = ["Jane Doe", "Zoë Löwe", "Max Power", "Amazon Customer"]
    lines = [{"reviewerID": row["reviewer_id"], "reviewerName": name} for row, name in zip(rows, names, strict=False)]
    raw.write_text("\n".join(map(json.dumps, lines)) + "\nno json\n")
    manifest = tiny_run / "sequences" / "manifest.json"
    inputs = json.loads(manifest.read_text())["inputs"]
    edited(manifest, inputs=inputs | {"files": {str(raw): {"kind": "reviews", "sha256": "0" * 64}}})
    notes = list(check({"dataset": {f"tiny/{shard.name}": shard}}, tiny_run))
    assert notes[0].startswith("note: the names of 2 users in the raw files are also in their reviews or narratives")
    table = pq.read_table(shard)  # as an earlier version wrote it
    texts = table["last_purchase"].combine_chunks().flatten()[:3]
    earlier = pa.StructArray.from_arrays(texts, ["reason", "explanation", "endorsement"])
    pq.write_table(table.set_column(table.column_names.index("last_purchase"), "last_purchase", earlier), shard)
    assert list(check({"dataset": {f"tiny/{shard.name}": shard}}, tiny_run)) == notes
    raw.unlink()
    assert not list(check({"dataset": {f"tiny/{shard.name}": shard}}, tiny_run))


def test_two_spaces_need_two_names(finished_run):
    with pytest.raises(ConfigError, match="Rename one of them"):
        list(push(finished_run, "org", names={"metric": "same", "space": "same"}, dry_run=True))
