"""scripts/train_job.py by `uv run`, from its PEP 723 metadata, with a push to a local Hub."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

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
        assert "the results could not be pushed to nobody: the token of writer cannot write to nobody" in done.stderr
        done = job("org")
        assert done.returncode == 0, done.stderr
        assert "[1/10] sample: fresh" in done.stderr
        assert {"eval.yaml", "README.md"} <= set(hub.files("dataset", "org/regen"))
        assert "model.safetensors" in hub.files("model", "org/regen-tiny")
