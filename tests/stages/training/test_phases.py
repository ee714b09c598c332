"""Phases, LoRA, early stopping, resuming: trainings of a few steps on the tiny run."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from regen_hf.errors import ConfigError
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.stages.training import phases
from regen_hf.stages.training.build import build
from regen_hf.stages.training.examples import NONE
from regen_hf.stages.training.settings import TrainingConfig
from tests.conftest import TINY
from tests.paths import ROOT

# PEFT 0.21 asks transformers 5.23 by a name that the latter calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
LOG = "training_log.json"


def config(**changes):
    settings = {**TINY["training"], "max_steps": 4, "save_steps": 2, "report_to": "none"} | changes
    sft = {name: settings.pop(name) for name in ("report_to", "weight_decay", "lr_scheduler_type") if name in settings}
    return TrainingConfig(**settings, sft=sft)


@pytest.fixture
def train(finished_run, tmp_path):
    """Train in a folder of the test; the same name goes on with the same work."""

    def do(name, settings, out=None):
        made = tmp_path / (out or name)
        made.mkdir()
        (tmp_path / f"{name}.work").mkdir(exist_ok=True)
        build(finished_run, made, tmp_path / f"{name}.work", settings)
        return made

    return do


def weights(folder):
    return RegenForCausalLM.from_pretrained(folder).state_dict()


def same(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])] == []


def steps(folder):
    return [entry["step"] for entry in json.loads((folder / LOG).read_text()) if "loss" in entry]


def test_a_frozen_backbone_stays_and_the_adapter_learns(train):
    short, long = (weights(train(str(n), config(freeze="backbone", max_steps=n, warmup_ratio=0))) for n in (1, 3))
    changed = {name for name in short if not torch.equal(short[name], long[name])}
    adapter = {name for name in short if name.startswith("model.adapter.")}
    measured = {"model.adapter.content_mean", "model.adapter.content_matrix"}
    assert changed == adapter - measured


def test_stages_follow_one_another_and_each_is_resumed_where_it_was_killed(train, tmp_path):
    settings = config(
        stages=(
            {"freeze": "backbone", "max_steps": 3, "learning_rate": 1e-2},
            {"lora": {"r": 2, "lora_dropout": 0.1}, "max_steps": 4, "save_steps": 2},
            {"max_steps": 4},
        ),
        cf_dropout=0.2,
    )
    whole = train("whole", settings)
    assert steps(whole)[-1] == 11
    assert not (whole / "lora").exists()
    # As a kill in the middle of the second stage leaves it: its first checkpoint, and nothing of the third.
    work = tmp_path / "killed.work"
    shutil.copytree(tmp_path / "whole.work", work)
    for stage in ("stage-1", "stage-2"):
        shutil.rmtree(work / stage)
    torn = work / "stage-1.checkpoints" / "checkpoint-3"
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text('{"global_step": ')
    assert same(weights(train("killed", settings)), weights(whole))
    assert (tmp_path / "killed" / LOG).exists()
    shutil.rmtree(work / "stage-2")
    assert same(weights(train("killed", settings, out="again")), weights(whole))


LORA = {"lora": {"r": 4}, "learning_rate": 0.02, "next_item_weight": 1.0, "item_dim": 5}
NEW = (".adapter.", ".item_head.")
"""Parts of the names of weights that are trained completely beside LoRA."""


@pytest.fixture(scope="module")
def forms(finished_run, tmp_path_factory):
    """The same training with LoRA, merged and in adapter form."""
    folder = tmp_path_factory.mktemp("forms")
    for name, merge in (("merged", True), ("beside", False)):
        for made in (folder / name, folder / f"{name}.work"):
            made.mkdir()
        build(finished_run, folder / name, folder / f"{name}.work", config(**LORA, merge=merge))
    return folder


def test_both_forms_of_a_lora_training_load_to_the_same_model(forms, finished_run, tmp_path):
    assert same(weights(forms / "merged"), weights(forms / "beside"))
    names = {path.name for path in (forms / "beside").iterdir()}
    assert names - {"lora"} == {path.name for path in (forms / "merged").iterdir()}
    assert {path.name for path in (forms / "beside" / "lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    # The language model of the adapter form is the one that training began with; the adapter lies with LoRA's weights.
    begun = load_file(forms / "beside" / "model.safetensors")
    ended = load_file(forms / "merged" / "model.safetensors")
    assert {name for name in ended if name not in begun} == {name for name in ended if any(p in name for p in NEW)}
    assert any(".item_head." in name for name in ended)
    layers = {name for name in begun if name.endswith("_proj.weight")}
    assert layers
    assert {name for name in begun if not torch.equal(begun[name], ended[name])} == layers
    with safe_open(forms / "beside" / "lora" / "adapter_model.safetensors", "pt") as file:
        parts = (".lora_A.", ".lora_B.", *NEW)
        assert [name for name in file.keys() if not any(part in name for part in parts)] == []  # noqa: SIM118
    for path in (forms / "beside").rglob("*.json"):
        assert str(forms) not in path.read_text(), path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("auto", [AutoModelForCausalLM, RegenForCausalLM])
def test_both_forms_load_in_half_precision_with_the_adapter_in_float32(forms, auto, dtype):
    merged, beside = (auto.from_pretrained(forms / form, dtype=dtype) for form in ("merged", "beside"))
    assert same(merged.state_dict(), beside.state_dict())
    assert merged.dtype == beside.dtype == dtype
    for model in (merged, beside):
        assert {value.dtype for value in model.model.adapter.state_dict().values()} == {torch.float32}


def test_a_model_folder_is_complete_and_holds_no_pickle(forms):
    for form in ("merged", "beside"):
        names = {path.name for path in (forms / form).rglob("*") if path.is_file()}
        assert {
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "training_config.json",
            "loading.py",
            LOG,
        } <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
        settings = json.loads((forms / form / "training_config.json").read_text())
        assert settings["lora"] == {"r": 4}
        assert settings["batch_size"] == TINY["training"]["batch_size"]


@pytest.mark.parametrize("damage", ["folder", "file", "tensor", "adapter", "shape"])
def test_an_adapter_form_that_lacks_a_weight_does_not_load(forms, tmp_path, damage):
    folder = Path(shutil.copytree(forms / "beside", tmp_path / "model"))
    file = folder / "lora" / "adapter_model.safetensors"
    tensors = load_file(file)
    if damage == "folder":
        shutil.rmtree(folder / "lora")
    elif damage == "file":
        file.unlink()
    else:
        part = ".adapter." if damage == "adapter" else "lora_A"
        name = next(name for name in tensors if part in name)
        changed = tensors.pop(name)
        save_file(tensors if damage != "shape" else tensors | {name: changed[:1].contiguous()}, file)
    with pytest.raises(ValueError, match=r"lacks .* weights"):
        RegenForCausalLM.from_pretrained(folder)


def test_an_adapter_form_with_weights_that_its_configuration_does_not_name_does_not_load(forms, tmp_path):
    folder = Path(shutil.copytree(forms / "beside", tmp_path / "model"))
    file = folder / "lora" / "adapter_config.json"
    settings = json.loads(file.read_text())
    settings["target_modules"] = [name for name in settings["target_modules"] if not name.endswith("q_proj")]
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"weights that its adapter_config.json does not name: .*q_proj"):
        RegenForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_model_that_lacks_a_weight_does_not_load(forms, tmp_path, damage):
    folder = Path(shutil.copytree(forms / "merged", tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("_proj.weight"))
    changed = tensors.pop(name)
    save_file(
        tensors if damage == "missing" else tensors | {name: changed[:-1].contiguous()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        RegenForCausalLM.from_pretrained(folder)


def test_the_adapter_form_loads_where_regen_hf_is_not_installed(forms, tmp_path):
    code = """
import sys
sys.modules["regen_hf"] = None
from transformers import AutoModelForCausalLM
import torch
found = [AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True).state_dict() for path in sys.argv[1:]]
assert found[0].keys() == found[1].keys()
assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
print("same")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(forms / "merged"), str(forms / "beside")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "same"


def test_a_value_of_lora_that_peft_rejects_is_an_error(train):
    with pytest.raises(ConfigError, match=r"rejects the settings of the training: No modules were targeted"):
        train("bad", config(lora={"target_modules": ["no_such_module"]}))
    with pytest.raises(ValueError, match=r"lora\.r was given -1, expected at least 1"):
        config(lora={"r": -1})


def test_task_weights_repeat_examples_and_leave_some_out(processor, load):
    def count(**weights):
        examples = load(processor, config(task_weights=weights))
        tasks = [row["task"] for row in examples.rows if row["critique"] == NONE]
        return {name: tasks.count(number) for number, name in enumerate(examples.config.tasks)}

    plain = count()
    users = plain["user_profile"]
    assert set(plain.values()) == {users}
    weighted = count(user_profile=2, purchase_reason=0, long_user_summary=0.5)
    assert weighted["user_profile"] == 2 * users
    assert weighted["purchase_reason"] == 0
    assert 0.3 * users < weighted["long_user_summary"] < 0.7 * users
    assert weighted["product_endorsement"] == users


def test_training_stops_when_the_validation_loss_no_longer_falls_and_the_best_checkpoint_is_kept(train, tmp_path):
    settings = config(
        max_steps=40, save_steps=2, patience=2, validation_users=8, learning_rate=2.0, warmup_ratio=0, optimizer="adamw"
    )
    stopped = train("stopped", settings)
    log = json.loads((stopped / LOG).read_text())
    measured = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert len(measured) > 2
    best = min(measured, key=measured.get)
    assert max(measured) == best + 4 < 40
    # Killed between the stop and the end: it stays stopped, and the best checkpoint is still the model.
    kept = weights(stopped)
    shutil.rmtree(tmp_path / "stopped.work" / "stage-0")
    assert same(weights(train("stopped", settings, out="again")), kept)


def test_tensorboard_and_trackio_hold_what_the_log_holds(finished_run, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for module in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, module)  # it reads the variable once
    from trackio.sqlite_storage import SQLiteStorage

    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    shutil.rmtree(run / "tensorboard")
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    build(run, out, work, config(report_to=["tensorboard", "trackio"]))
    board = EventAccumulator(str(run / "tensorboard" / "work")).Reload()
    log = {e["step"]: e["loss"] for e in json.loads((out / LOG).read_text()) if "loss" in e}
    assert {event.step: pytest.approx(event.value) for event in board.Scalars("train/loss")} == log
    project = "huggingface"  # the default of SFTConfig
    (name,) = SQLiteStorage.get_runs(project)
    logged = [entry["train/loss"] for entry in SQLiteStorage.get_logs(project, name) if "train/loss" in entry]
    assert logged == pytest.approx(list(log.values()))
    assert (tmp_path / "trackio" / "huggingface.db").exists()  # and nothing elsewhere
    none = tmp_path / "none"
    none.mkdir()
    shutil.rmtree(run / "tensorboard")
    build(run, none, tmp_path / "other", config())
    assert not (run / "tensorboard").exists()


def test_a_training_that_logs_no_step_reports_the_total_loss(train, tmp_path, finished_run):
    settings = config(max_steps=2)
    (tmp_path / "out").mkdir()
    quiet = dataclasses.replace(settings, sft=settings.sft | {"logging_strategy": "no"})
    counts = build(finished_run, tmp_path / "out", tmp_path / "work", quiet)
    log = json.loads((tmp_path / "out" / LOG).read_text())
    assert not [entry for entry in log if "loss" in entry]
    assert counts["first_loss"] == counts["last_loss"] == log[-1]["train_loss"] > 0


def test_the_attention_that_was_asked_for_stays_in_every_stage(finished_run, train, tmp_path, monkeypatch):
    backbone = tmp_path / "backbone"
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    seen, make = [], phases.make_trainer
    monkeypatch.setattr(phases, "make_trainer", lambda model, *given: seen.append(model) or make(model, *given))
    settings = config(
        backbone=str(backbone), max_steps=1, stages=({"freeze": "backbone"}, {"lora": {"r": 2}}), learning_rate=1e-3
    )
    values = {"model_init_kwargs": {"attn_implementation": "eager"}}
    train("eager", dataclasses.replace(settings, sft=settings.sft | values))
    assert [model.model.language_model.config._attn_implementation for model in seen] == ["eager", "eager"]


KILLED = """
import os, signal, sys
from pathlib import Path
from transformers import TrainerCallback
from regen_hf.stages.training import phases
from regen_hf.stages.training.build import build
from tests.stages.training.test_phases import hundred

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 70:
            os.kill(os.getpid(), signal.SIGKILL)

make = phases.make_trainer
def make_and_kill(*arguments):
    trainer = make(*arguments)
    trainer.add_callback(Kill())
    return trainer
phases.make_trainer = make_and_kill
run, out, work = map(Path, sys.argv[1:])
build(run, out, work, hundred())
"""


def hundred():
    return config(max_steps=100, save_steps=20, history_dropout=0.2, cf_dropout=0.2, lr_scheduler_type="constant")


def test_a_training_killed_at_step_70_of_100_and_resumed_ends_with_the_same_weights(finished_run, train, tmp_path):
    whole = train("whole", hundred())
    work, out = tmp_path / "killed.work", tmp_path / "out"
    for folder in (work, out):
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(finished_run), str(out), str(work)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == -9, done.stderr[-3000:]
    left = sorted(path.name for path in (work / "stage-0.checkpoints").glob("checkpoint-*"))
    assert left == ["checkpoint-40", "checkpoint-60"]
    resumed = train("killed", hundred())
    assert steps(resumed) == steps(whole)
    assert same(weights(resumed), weights(whole))
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
