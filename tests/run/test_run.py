import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regen_hf.cli import main
from regen_hf.run import Run, describe
from regen_hf.run.stages import STAGES
from tests.conftest import TINY


def regen(*words: str | Path) -> int:
    return main([str(word) for word in words])


def made(run: Path) -> dict[str, float]:
    """When each stage's folder was made."""
    return {
        stage.command: (run / stage.folder / "manifest.json").stat().st_mtime_ns
        for stage in STAGES.values()
        if (run / stage.folder).exists()
    }


def redone(before: dict[str, float], after: dict[str, float]) -> set[str]:
    return {name for name in after if after[name] != before.get(name)}


def test_every_stage_leaves_a_manifest_with_counts_seconds_and_versions(finished_run):
    for stage in Run(finished_run).stages:
        manifest = json.loads((finished_run / stage.folder / "manifest.json").read_text())
        assert set(manifest) == {"stage", "fingerprint", "config", "inputs", "counts", "seconds", "made", "versions"}
        assert manifest["stage"] == stage.command
        assert manifest["counts"]
        assert manifest["versions"]["regen-hf"]


def test_a_second_run_does_nothing(tiny_run, capfd):
    before = made(tiny_run)
    assert regen("run", tiny_run) == 0
    assert redone(before, made(tiny_run)) == set()
    assert capfd.readouterr().err.count("fresh") == len(Run(tiny_run).stages)


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("figures.dpi=40", {"figures"}),
        ("evaluation.max_new_tokens=8", {"evaluate", "attribution", "figures"}),
        ("ratings.votes=3", {"ratings", "dataset", "embeddings", "train", "evaluate", "attribution", "figures"}),
        ("sequences.memory=1GB", set()),
    ],
)
def test_an_edited_setting_redoes_exactly_what_depends_on_it(tiny_run, setting, stages):
    before = made(tiny_run)
    assert regen("run", tiny_run, "--set", setting) == 0
    assert redone(before, made(tiny_run)) == stages


def test_an_edited_config_file_of_the_run_counts_too(tiny_run):
    before = made(tiny_run)
    path = tiny_run / "config.yaml"
    assert "dpi: 50" in path.read_text()
    path.write_text(path.read_text().replace("dpi: 50", "dpi: 45"))
    assert regen("run", tiny_run) == 0
    assert redone(before, made(tiny_run)) == {"figures"}


def test_a_stage_refuses_stale_input_and_names_the_command(tiny_run, capsys):
    assert regen("figures", tiny_run, "--set", "evaluation.users=3") == 1
    told = capsys.readouterr().err
    assert f"regen evaluate {tiny_run}" in told
    assert "is stale" in told


def test_a_stage_without_its_input_names_the_command(tmp_path, capsys):
    assert regen("narratives", tmp_path / "new") == 1
    assert "is missing" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_figures_are_drawn_of_what_there_is_and_again_once_there_is_more(tiny_run, tmp_path, capsys):
    for stage in ("evaluation", "figures"):
        (tiny_run / stage).rename(tmp_path / stage)
    assert regen("figures", tiny_run) == 0
    assert "loss.png" in {path.name for path in (tiny_run / "figures").iterdir()}
    assert "scores.png" not in {path.name for path in (tiny_run / "figures").iterdir()}
    assert Run(tiny_run).is_fresh(STAGES["figures"])
    (tmp_path / "evaluation").rename(tiny_run / "evaluation")
    assert not Run(tiny_run).is_fresh(STAGES["figures"])
    assert regen("figures", tiny_run) == 0
    assert "scores.png" in {path.name for path in (tiny_run / "figures").iterdir()}
    assert regen("figures", tmp_path / "new") == 1
    assert "has no output that `figures` can read" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"format": 99, "version": "9.9"}', "layout 99"),
        ("not json", "damaged"),
        ("[1]", "damaged"),
    ],
)
def test_a_folder_of_another_version_is_refused_and_left_alone(tiny_run, capsys, content, told):
    (tiny_run / "run.json").write_text(content)
    before = made(tiny_run)
    assert regen("run", tiny_run) == 1
    assert told in capsys.readouterr().err
    assert made(tiny_run) == before


def test_a_folder_of_other_files_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert regen("run", tmp_path, "--sample") == 1
    assert "is not a run folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_never_write_one_run(tiny_run, capsys):
    with Run(tiny_run).locked():
        done = subprocess.run(
            [sys.executable, "-m", "regen_hf.cli", "run", str(tiny_run)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "Another regen process is running" in done.stderr


def test_a_finished_stage_that_was_killed_before_its_rename_is_not_done_again(tiny_run):
    run = Run(tiny_run)
    (tiny_run / "model").rename(tiny_run / ".work" / "model.new")
    before = (tiny_run / ".work" / "model.new" / "manifest.json").stat().st_mtime_ns
    with run.locked():
        assert run.build(STAGES["train"])
    assert (tiny_run / "model" / "manifest.json").stat().st_mtime_ns == before


def test_status_tells_fresh_stale_and_missing(tiny_run, capsys):
    shutil.rmtree(tiny_run / "figures")
    path = tiny_run / "config.yaml"
    path.write_text(path.read_text().replace("users: 6", "users: 5"))
    assert regen("status", tiny_run) == 0
    states = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert states == {
        **dict.fromkeys(("sample", "sequences", "narratives", "ratings", "dataset", "embeddings", "train"), "fresh"),
        "evaluate": "stale",
        "attribution": "stale",
        "figures": "missing",
    }


def test_the_content_of_a_raw_file_counts_not_its_name_or_date(tmp_path, finished_run):
    raw = tmp_path / "raw"
    shutil.copytree(finished_run / "sample", raw)
    words = ["sequences", tmp_path / "run", "--reviews", raw / "reviews.jsonl.gz", "--items", raw / "items.jsonl.gz"]
    assert regen(*words) == 0
    before = made(tmp_path / "run")
    moved = raw / "elsewhere.jsonl.gz"
    (raw / "reviews.jsonl.gz").rename(moved)
    os.utime(moved)
    words[3] = moved
    assert regen(*words) == 0
    assert redone(before, made(tmp_path / "run")) == set()
    shutil.copy(raw / "items.jsonl.gz", raw / "more.jsonl.gz")
    assert regen(*words, raw / "more.jsonl.gz") == 0
    assert redone(before, made(tmp_path / "run")) == {"sequences"}


def test_the_run_remembers_its_raw_files_from_any_folder(tmp_path, finished_run, monkeypatch):
    shutil.copytree(finished_run / "sample", tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    assert regen("sequences", "run", "--reviews", "raw/reviews.jsonl.gz", "--items", "raw/items.jsonl.gz") == 0
    monkeypatch.chdir("/")
    assert regen("run", tmp_path / "run", "--until", "narratives") == 0


def test_a_run_stays_fresh_when_its_raw_files_are_gone(tmp_path, finished_run, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(finished_run / "sample", raw)
    assert regen("sequences", tmp_path / "run", "--reviews", raw / "rev*.gz", "--items", raw / "items.jsonl.gz") == 0
    before = made(tmp_path / "run")
    shutil.rmtree(raw)
    assert regen("run", tmp_path / "run", "--until", "narratives") == 0
    assert redone(before, made(tmp_path / "run")) == {"narratives"}
    # What would have to read them again says which file it misses.
    assert regen("sequences", tmp_path / "run", "--max-history", 3) == 1
    assert "items.jsonl.gz" in capsys.readouterr().err
    assert redone(before, made(tmp_path / "run")) == {"narratives"}


def test_a_folder_of_files_below_folders_counts_as_the_stage_reads_it(tmp_path, finished_run):
    deep = tmp_path / "raw" / "a" / "b"
    shutil.copytree(finished_run / "sample", deep)
    words = ["sequences", tmp_path / "run", "--items", deep / "items.jsonl.gz"]
    assert regen(*words, "--reviews", tmp_path / "raw" / "**" / "reviews.jsonl.gz") == 0
    manifest = json.loads((tmp_path / "run" / "sequences" / "manifest.json").read_text())
    assert str(deep / "reviews.jsonl.gz") in manifest["inputs"]["files"]


def test_missing_files_are_told_before_anything_is_written(tmp_path, capsys):
    assert regen("run", tmp_path / "new", "--reviews", tmp_path / "no.gz", "--items", tmp_path / "no.gz") == 1
    assert "no.gz" in capsys.readouterr().err
    assert regen("run", tmp_path / "new", "--sample", "--set", "embeddings.content_encoder=./none") == 1
    assert "There is no model at" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_local_model_counts_by_what_is_in_it(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run / "embeddings" / "content_encoder", "encoder")
    settings = ["--set", "evaluation.encoder=encoder"]
    assert regen("evaluate", tiny_run, *settings) == 0
    assert json.loads((tiny_run / "evaluation" / "results.json").read_text())["encoder"] == "encoder"
    before = made(tiny_run)
    monkeypatch.chdir("/")
    assert regen("evaluate", tiny_run) == 0
    shutil.move(tmp_path / "encoder", tmp_path / "moved")
    assert regen("evaluate", tiny_run, "--encoder", tmp_path / "moved") == 0
    assert redone(before, made(tiny_run)) == set()
    config = tmp_path / "moved" / "config_sentence_transformers.json"
    config.write_text(config.read_text() + "\n")
    assert regen("evaluate", tiny_run) == 0
    assert redone(before, made(tiny_run)) == {"evaluate"}


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"fingerprint": 1, "inputs": []}', "{"])
def test_a_damaged_manifest_is_no_finished_stage(tiny_run, capsys, content):
    (tiny_run / "figures" / "manifest.json").write_text(content)
    assert regen("status", tiny_run) == 0
    assert ["figures", "missing"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert regen("figures", tiny_run) == 0
    assert Run(tiny_run).is_fresh(STAGES["figures"])


def test_a_folder_that_cannot_be_written_is_told(tiny_run, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tiny_run / "config.yaml.new"))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert regen("run", tiny_run) == 1
    assert "Permission denied: " in capsys.readouterr().err


def wait_for(process: subprocess.Popen, seen, seconds: float = 120) -> None:
    """Wait until `seen()`; the process must still be at work then."""
    end = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "settings", "sign"),
    [
        # Enough work that the kill lands in the middle of it.
        ("sequences", {"sample": {"shoppers": 2500, "items": 64}}, "sequences.new"),
        ("embeddings", {"embeddings": {**TINY["embeddings"], "content_steps": 400}}, "embeddings.new/cf.safetensors"),
        ("train", {"training": {**TINY["training"], "max_steps": 80}}, "model.keep/*/stage-0.checkpoints/checkpoint-8"),
        (
            "evaluate",
            {"evaluation": {"users": 0, "max_new_tokens": 60}},
            "evaluation.keep/*/fused-user_profile-0.parquet",
        ),
    ],
)
def test_the_same_command_finishes_after_kill_9(finished_run, tmp_path, stage, settings, sign):
    run = tmp_path / "killed"
    shutil.copytree(finished_run, run)
    config = Run(run, settings)
    config.save()
    words = ["run", str(run), "--until", stage]
    killed = subprocess.Popen(
        [sys.executable, "-m", "regen_hf.cli", *words],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(killed, lambda: any((run / ".work").glob(sign)))
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    if stage == "train":  # the rest is short: what counts is that it goes on from the checkpoint
        steps = max(
            int(path.name.split("-")[1]) for path in run.glob(".work/model.keep/*/stage-0.checkpoints/checkpoint-*")
        )
        assert steps >= 8
    assert not Run(run).is_fresh(STAGES[stage])

    assert regen(*words) == 0
    assert Run(run).is_fresh(STAGES[stage])
    assert not list((run / ".work").glob("*.new"))
    if stage == "train":
        log = json.loads((run / "model" / "training_log.json").read_text())
        assert [entry["step"] for entry in log if "loss" in entry] == list(range(10, 81, 10))


def test_counts_read_well():
    assert describe({"users": 12345, "narrators": ["x"], "loss": 0.25}) == "users 12,345, loss 0.25"
