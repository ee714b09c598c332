"""A training that was killed and whose checkpoints are damaged, as a power loss leaves them: `regen train` resumes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from regen_hf.cli import main
from regen_hf.run import Run
from regen_hf.stages.training import phases
from tests.paths import ROOT

SETTINGS = {"max_steps": 10, "save_steps": 2, "validation_users": 8}


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 9:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_kill(run, patience):
    make = phases.make_trainer

    def make_and_kill(*arguments):
        trainer = make(*arguments)
        trainer.add_callback(Kill())
        return trainer

    phases.make_trainer = make_and_kill
    run = Run(Path(run), {"training": SETTINGS | {"patience": int(patience)}})
    run.save()
    run.build_all("train")


@pytest.fixture(scope="module", params=[0, 5], ids=["last", "best"])
def killed(finished_run, request, tmp_path_factory):
    """A run whose training was killed after two checkpoints, and the weights of one that was not killed."""
    folder = tmp_path_factory.mktemp("killed")
    whole, run = (Path(shutil.copytree(finished_run, folder / name)) for name in ("whole", "run"))
    program = f"from {__name__} import train_and_kill; train_and_kill({str(run)!r}, {request.param})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [path.name for path in checkpoints(run)] == ["checkpoint-6", "checkpoint-8"]
    Run(whole, {"training": SETTINGS | {"patience": request.param}}).save()
    assert main(["train", str(whole)]) == 0
    return run, load_file(whole / "model" / "model.safetensors")


def checkpoints(run):
    return sorted(run.glob(".work/model.keep/*/stage-0.checkpoints/checkpoint-*"))


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def zeros(file):
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = {
    "cut weights": ([(1, "model.safetensors", cut)], "removed checkpoint-8, .* resumes from checkpoint-6"),
    "no optimizer": ([(1, "optimizer.pt", Path.unlink)], "removed checkpoint-8, .* resumes from checkpoint-6"),
    "zeros": ([(1, "rng_state.pth", zeros)], "removed checkpoint-8, .* resumes from checkpoint-6"),
    "all": (
        [(0, "scheduler.pt", cut), (1, "trainer_state.json", cut)],
        "removed checkpoint-6, checkpoint-8, .* has no other checkpoint and starts from the beginning",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_training_resumes_from_the_last_checkpoint_that_is_intact(killed, damage, tmp_path, capfd):
    folder, expected = killed
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    files, message = DAMAGES[damage]
    for number, name, change in files:
        change(checkpoints(run)[number] / name)
    assert main(["train", str(run)]) == 0
    stderr = " ".join(capfd.readouterr().err.split())
    assert re.search(message, stderr)
    weights = load_file(run / "model" / "model.safetensors")
    assert [name for name in expected if not weights[name].equal(expected[name])] == []
    assert not [*run.rglob("checksums.json")]
