import gzip
import os
import resource
import shutil
import subprocess
import sys

import pytest

from regen_hf import __version__
from regen_hf.cli import main
from regen_hf.cli.help import STAGE_HELP as STAGE_COMMANDS


@pytest.mark.parametrize(
    "command",
    ["run", "quickstart", "compare", "score", "status", "report", "inspect", "push", "export", "demo", *STAGE_COMMANDS],
)
def test_every_command_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    usage, *description = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: regen {command}")
    assert any(line.startswith(f"  regen {command}") for text in description for line in text.splitlines())


@pytest.mark.parametrize("command", STAGE_COMMANDS)
def test_every_setting_of_a_stage_is_an_option_with_help(command, capsys):
    import dataclasses

    from regen_hf.run.stages import STAGES, config_class

    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    for field in dataclasses.fields(config_class(STAGES[command])):
        # A mapping comes from a file, in which it has its own name.
        assert field.name.replace("_", "-") in told or f"{field.name}: {{" in told


def test_no_command_prints_the_list_of_commands(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in ("quickstart", "run", "status", *STAGE_COMMANDS))


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_warnings_for_users_are_shown_and_those_for_developers_are_not():
    script = """
import contextlib, sys, warnings
from regen_hf.cli import main

sys.argv = ["regen", "--version"]
with contextlib.suppress(SystemExit):
    main()
for category in (UserWarning, RuntimeWarning, FutureWarning, DeprecationWarning, PendingDeprecationWarning):
    warnings.warn(f"a {category.__name__}", category)
warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old")
"""
    words = [sys.executable, "-c", script]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "warning: a UserWarning",
        "warning: a RuntimeWarning",
        "warning: CUDA initialization: The NVIDIA driver on your system is too old",
    ]


def test_help_takes_under_half_a_second_of_cpu():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "regen_hf.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.fixture
def raw(tmp_path, finished_run):
    """Raw files of the tiny world."""
    for name in ("reviews", "items"):
        shutil.copy(finished_run / "sample" / f"{name}.jsonl.gz", tmp_path / f"{name}.json.gz")
    return tmp_path


def damage(raw, case):
    """Break something a user could break; returns the words after `regen` and what must be told."""
    reviews, items, run = raw / "reviews.json.gz", raw / "items.json.gz", raw / "run"
    words = ["sequences", run, "--reviews", reviews, "--items", items]
    told = reviews.name
    if case == "missing file":
        reviews.unlink()
    elif case == "empty file":
        reviews.write_bytes(b"")
    elif case == "folder":
        reviews.unlink()
        reviews.mkdir()
    elif case == "truncated gzip":
        reviews.write_bytes(reviews.read_bytes()[:-2000])
    elif case == "altered gzip":
        content = bytearray(reviews.read_bytes())
        content[len(content) // 2] ^= 0xFF
        reviews.write_bytes(bytes(content))
    elif case == "no json at all":
        reviews.write_bytes(gzip.compress(b"<html><body>404</body></html>\n" * 20))
    elif case == "swapped":
        words[3], words[5] = items, reviews
        told = "swap"
    elif case == "no files":
        words, told = ["sequences", run], "--reviews"
    elif case == "both sources":
        words, told = [*words, "--sample"], "sample"
    elif case == "unknown key":
        (raw / "mine.yaml").write_text("sequences:\n  max_histori: 20\n")
        words, told = [*words, "--config", raw / "mine.yaml"], "max_history"
    elif case == "missing config":
        words, told = [*words, "--config", raw / "mine.yaml"], "mine.yaml does not exist"
    elif case == "wrong value":
        words, told = [*words, "--max-history", "many"], "max_history"
    elif case == "unknown task":
        words, told = ["train", run, "--tasks", "haiku"], "user_profile"
    elif case == "unknown stage":
        words, told = ["run", run, "--sample", "--until", "lunch"], "evaluate"
    elif case == "malformed --set":
        words, told = ["run", run, "--set", "training"], "SECTION.KEY=VALUE"
    elif case == "a number for files":
        words, told = ["sequences", run, "--set", "sequences.reviews=5"], "sequences.reviews was given 5"
    elif case == "yaml with a number as key":
        (raw / "mine.yaml").write_text("5: 6\n")
        words, told = [*words, "--config", raw / "mine.yaml"], "Section 5"
    elif case == "a section that is a number":
        run.mkdir()
        (run / "config.yaml").write_text("training: 5\n")
        words, told = [*words, "--set", "training.max_steps=5"], "Section 'training'"
    elif case == "training users evaluated":
        words, told = ["evaluate", run, "--split", "train"], "expected test or validation"
    elif case == "status of nothing":
        words, told = ["status", run], "not a run folder"
    elif case == "push of nothing":
        words, told = ["push", run, "--namespace", "me"], "no trained model"
    elif case == "demo of nothing":
        words, told = ["demo", run], "no trained model"
    return [str(word) for word in words], told


@pytest.mark.parametrize(
    "case",
    [
        "missing file",
        "empty file",
        "folder",
        "truncated gzip",
        "altered gzip",
        "no json at all",
        "swapped",
        "no files",
        "both sources",
        "unknown key",
        "missing config",
        "wrong value",
        "unknown task",
        "unknown stage",
        "malformed --set",
        "a number for files",
        "yaml with a number as key",
        "a section that is a number",
        "training users evaluated",
        "status of nothing",
        "push of nothing",
        "demo of nothing",
    ],
)
def test_a_users_mistake_is_told_in_a_sentence_with_exit_code_1_and_nothing_half_written(raw, case, capfd):
    words, told = damage(raw, case)
    assert main(words) == 1
    captured = capfd.readouterr()
    message = captured.err.strip().splitlines()[-1]
    assert message.startswith("regen: ")
    assert told in message
    assert "Traceback" not in captured.err
    left = [path.name for path in (raw / "run").glob("*")] if (raw / "run").exists() else []
    assert "sequences" not in left


@pytest.mark.parametrize(
    "words", [["run"], ["run", "--until", "narratives"], ["sequences"], ["sequences", "--memory", "1GB"]]
)
def test_a_run_of_nothing_is_told_and_leaves_no_folder(tmp_path, capsys, words):
    command, *options = words
    assert main([command, str(tmp_path / "new"), *options]) == 1
    assert "No reviews were given" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_mistake_leaves_the_output_before_it_alone(raw):
    words = [
        "sequences",
        str(raw / "run"),
        "--reviews",
        str(raw / "reviews.json.gz"),
        "--items",
        str(raw / "items.json.gz"),
    ]
    assert main(words) == 0
    before = (raw / "run" / "sequences" / "manifest.json").read_bytes()
    (raw / "reviews.json.gz").write_bytes(b"broken")
    assert main(words) == 1
    assert (raw / "run" / "sequences" / "manifest.json").read_bytes() == before
