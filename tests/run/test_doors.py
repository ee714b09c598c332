"""Paths and settings that users mix up: run and model, patterns in paths, packages that a setting names."""

import re
import shutil

import pytest

import regen_hf
from regen_hf.cli import main
from tests.conftest import TINY


def test_a_run_given_for_its_model_is_named(finished_run):
    wanted = re.escape(f"It is a run folder: pass {str(finished_run / 'model')!r}.")
    for opens in (
        regen_hf.load,
        regen_hf.RegenForCausalLM.from_pretrained,
        regen_hf.RegenProcessor.from_pretrained,
    ):
        with pytest.raises(OSError, match=wanted):
            opens(str(finished_run))
    with pytest.raises(OSError, match=r"has no config\.json, expected the folder of a model\. Check the path"):
        regen_hf.load(str(finished_run / "dataset"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["report"],
        ["inspect"],
        ["demo"],
        ["export", "--to", "vllm"],
        ["push", "--namespace", "org", "--dry-run"],
        ["evaluate"],
        ["run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_model_given_for_its_run_is_named(finished_run, capsys, arguments):
    assert main([arguments[0], str(finished_run / "model"), *arguments[1:]]) == 1
    assert re.search(r"model is not a run folder\. It is a part of the run tiny", capsys.readouterr().err)


@pytest.mark.parametrize("setting", ["logging_strategy=no", "save_total_limit=3"])
def test_a_word_of_yaml_reaches_the_trainer_as_text(tiny_run, setting):
    assert main(["train", str(tiny_run), "--set", f"training.{setting}", "--max-steps", "2"]) == 0


@pytest.mark.parametrize(
    ("setting", "install"),
    [
        ("use_liger_kernel=true", "pip install liger-kernel"),
        ("optim=adamw_8bit", "pip install -U bitsandbytes"),
        ("optim=schedule_free_adamw", "pip install schedulefree"),
        ("report_to=wandb", "pip install wandb"),
        ("logging_steps=0", "logging_steps"),
    ],
)
def test_a_setting_that_needs_a_missing_package_is_refused_before_any_stage(tmp_path, capsys, setting, install):
    assert main(["run", str(tmp_path / "run"), "--sample", "--set", f"training.{setting}"]) == 1
    assert install in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_setting_that_the_trainer_rejects_is_not_saved(tiny_run, capsys):
    before = (tiny_run / "config.yaml").read_text()
    assert main(["train", str(tiny_run), "--set", "training.logging_strategy=maybe"]) == 1
    assert re.search(r"maybe is not a valid.*Given: training\.logging_strategy", capsys.readouterr().err, re.DOTALL)
    assert (tiny_run / "config.yaml").read_text() == before


def test_brackets_and_spaces_in_paths_are_no_patterns(finished_run, tmp_path, monkeypatch):
    folder = tmp_path / "a[1] b*"
    (folder / "raw [x]").mkdir(parents=True)
    monkeypatch.chdir(folder)
    settings = [f"--set={name}.{key}={value}" for name in ("sample",) for key, value in TINY[name].items()]
    assert main(["run", "run [2]?", "--sample", "--until", "dataset", *settings]) == 0
    for name in ("reviews.jsonl.gz", "items.jsonl.gz"):
        shutil.copy(finished_run / "sample" / name, folder / "raw [x]" / f"[2018] {name}")
    assert main(["sequences", "own", "--reviews", "raw [x]/[2018] reviews.jsonl.gz", "--items", "raw*/*items*"]) == 0
    for name in ("run [2]?", "own"):
        assert main(["status", name]) == 0
    shutil.copytree(finished_run, folder / "tiny [3]")
    for command in (["embeddings", "--seed", "1"], ["report"], ["inspect"], ["export", "--to", "vllm"]):
        assert main([command[0], "tiny [3]", *command[1:]]) == 0
