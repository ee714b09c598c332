"""scripts/train_job.py by `uv run`, from its PEP 723 metadata, with a push to a local Hub."""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import huggingface_hub
import pytest

from tests.bare_install import PROJECT
from tests.hub_server import HubServer
from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "train_job.py"
UV = Path(sys.executable).with_name("uv")


def test_the_metadata_of_the_script_agrees_with_the_project():
    block = re.search(r"(?m)^# /// script\n((?:#.*\n)*?)# ///$", SCRIPT.read_text())[1]
    metadata = tomllib.loads(re.sub(r"(?m)^# ?", "", block))
    assert metadata["requires-python"] == PROJECT["requires-python"]
    assert set(metadata["dependencies"]) <= set(PROJECT["dependencies"])


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The script in this process, which is given the address of a Hub and its arguments; a run stops the test."""

    def call(url, *words):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        monkeypatch.setattr("sys.argv", ["train_job.py", *words, "--folder", str(tmp_path / "office")])
        monkeypatch.setattr("regen_hf.cli.main", lambda words: pytest.fail(f"regen {words} was called"))
        code = runpy.run_path(str(SCRIPT))["main"]()
        assert not (tmp_path / "office").exists()
        return code

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["org", "--parts"], "--parts: expected at least one argument"),
        (["org", "--parts", "models"], "--parts: invalid choice: 'models'"),
        (["--set", "training.max_steps=3", "org"], "ORG is 'training.max_steps=3', expected a user or organisation"),
        (["--reviews", "https://example.org/r.gz", "org"], "ORG is 'https://example.org/r.gz'"),
        (["org", "--smaple"], "unrecognized arguments: --smaple"),
    ],
)
def test_wrong_arguments_are_reported_before_the_training(job, capsys, words, message):
    with pytest.raises(SystemExit):
        job("http://127.0.0.1:9", *words)
    assert message in capsys.readouterr().err


def test_what_would_stop_the_push_is_reported_before_the_training(job, capsys, tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        hub.put("model", "org/regen-office", {"other.bin": b"somebody's"})
        hub.put("dataset", "writer/regen", {})
        for words, message in [
            (["org", "--sample"], "model org/regen-office was not pushed: it exists and contains other files"),
            (["writer", "--private"], "dataset writer/regen was not pushed: it exists and is public"),
            (["nobody"], "the token of writer cannot write to nobody"),
            (["org", "--parts", "space"], "The Space needs the dataset org/regen on the Hub"),
            (["org", "--set", "dataset.name=a-items"], "name is 'a-items', expected another end"),
        ]:
            assert job(hub.url, *words) == 1
            assert message in capsys.readouterr().err
    assert job("http://127.0.0.1:9", "org") == 1
    assert "http://127.0.0.1:9 cannot be reached. Check the network" in capsys.readouterr().err


@pytest.mark.slow
def test_uv_runs_the_script_which_pushes_at_the_end(tiny_run, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_writer",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        # Instead of `--with WHEEL`: installing its dependencies takes minutes.
        "PYTHONPATH": os.pathsep.join([sysconfig.get_paths()["purelib"], str(ROOT)]),
    }
    with HubServer(tmp_path / "hub") as hub:

        def job(namespace):
            words = [UV, "run", "-q", "--python", sys.executable, SCRIPT, namespace, "--folder", tiny_run, "--sample"]
            given = environment | {"HF_ENDPOINT": hub.url}
            return subprocess.run(words, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

        done = job("nobody")
        if "error: Failed to fetch" in done.stderr or "error: Request failed" in done.stderr:
            pytest.skip("no package index can be reached")
        assert done.returncode == 1
        assert "nothing was trained. The dataset nobody/regen was not pushed: the token of writer cannot" in done.stderr
        done = job("org")
        assert done.returncode == 0, done.stderr
        assert "[1/10] sample: fresh" in done.stderr
        assert {"eval.yaml", "README.md"} <= set(hub.files("dataset", "org/regen"))
        assert "model.safetensors" in hub.files("model", "org/regen-tiny")
