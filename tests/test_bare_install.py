"""Every command and every public name without extras and with each extra alone: it works, or names what to install."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

import regen_hf
from regen_hf import errors
from regen_hf.cli.parser import make_parser
from tests import terminal
from tests.bare_install import EXTRAS, PROJECT, canonical
from tests.conftest import TINY as TINY_WORLD
from tests.paths import ROOT

TINY = "--set sample.shoppers=60 --set sample.items=48"
SERVER = "--backend openai --model m --base-url http://127.0.0.1:9/v1 --retries 0 --timeout 2"
LOCAL = "--backend transformers --model missing_folder/m"
COMMANDS = {
    "quickstart": ["train eval", f"{{new}} {TINY}"],
    "run": ["train eval", f"{{new}} --sample {TINY}"],
    "run until dataset": ["", f"{{new}} --sample {TINY} --until dataset"],
    "sequences": ["", f"{{new}} --sample {TINY}"],
    "sequences on Spark": ["spark", f"{{new}} --sample {TINY} --engine spark"],
    "narratives": ["", "{run} --seed 1"],
    "narratives of a server": ["", f"{{run}} {SERVER}"],
    "narratives of the Batch API": ["llm", f"{{run}} {SERVER.replace('openai', 'openai-batch')}"],
    "narratives of a local model": ["llm train", f"{{run}} {LOCAL}"],
    "narratives counted": ["", f"{{run}} {SERVER} --dry-run"],
    "ratings": ["", "{run} --seed 1"],
    "ratings of a local model": ["llm train", f"{{run}} {LOCAL}"],
    "dataset": ["", "{run} --name other"],
    "embeddings": ["train", "{run} --seed 1"],
    "train": ["train", "{run} --seed 1 --max-steps 2"],
    "evaluate": ["train eval", "{run} --seed 1"],
    "attribution": ["train eval", "{run} --seed 1"],
    "figures": ["eval", "{run} --dpi 51"],
    "next-item": ["train", "{run} --seed 1"],
    "grounding": ["", "{run}"],
    "grounding by a server": ["", f"{{run}} {SERVER}"],
    "grounding by a cross-encoder": ["train", "{run} --nli missing_folder/m"],
    "judge by a server": ["", f"{{run}} --against {{other}} {SERVER}"],
    "compare": ["", "{run} {other}"],
    "score": ["eval", "{run}/evaluation/predictions.parquet --out {new}"],
    "score with a run": ["train eval", "{run}/evaluation/predictions.parquet --references {run} --out {new}"],
    "status": ["", "{run}"],
    "report": ["", "{run}"],
    "inspect": ["", "{run}"],
    "push": ["", "{run} --namespace somebody --dry-run"],
    "push and verify": ["train eval", "{run} --namespace somebody --verify"],
    "export": ["train", "{run} --to vllm"],
    "demo": ["space", "{run} --port {port}"],
}
"""What each command needs, and its arguments; the first word is the command."""
NAMES = {
    **dict.fromkeys(("RegenBuilder", "RegenError", "__version__", "load_dataset", "record_check"), ""),
    **dict.fromkeys(("RegenConfig", "RegenForCausalLM", "RegenProcessor", "load"), "train"),
}
PROGRAM = """
import contextlib, io, json, shutil, socket, sys

hidden, source, folder, commands, names = json.load(sys.stdin)
if hidden is not None:
    from tests.bare_install import hide

    hide(*hidden)
import regen_hf
from regen_hf.cli import main

blocker = socket.socket()
blocker.bind(("127.0.0.1", 0))  # the port of the demo is in use, so that it ends
blocker.listen()
outcomes = {}
for number, (name, arguments) in enumerate(commands.items()):
    paths = {key: f"{folder}/{number}/{key}" for key in ("run", "other", "new")} | {"port": blocker.getsockname()[1]}
    for key in ("run", "other"):
        if f"{{{key}}}" in arguments:
            shutil.copytree(source, paths[key])
    errors = io.StringIO()
    output = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            code = main([name.split()[0], *arguments.format(**paths).split()])
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:
            code = repr(error)
    shutil.rmtree(f"{folder}/{number}", ignore_errors=True)
    outcomes[name] = [code, errors.getvalue()]
for name in names:
    try:
        if name == "load":
            regen_hf.load(f"{source}/model")
        elif name == "load_dataset":
            from datasets import load_dataset

            load_dataset("regen", shoppers=60, items=48)
        else:
            getattr(regen_hf, name)
    except Exception as error:
        outcomes[name] = [isinstance(error, (regen_hf.RegenError, ImportError)), str(error)]
    else:
        outcomes[name] = [0, ""]
print(json.dumps(outcomes))
"""


def ask(extras, source, folder, commands, names=(), python=None):
    """Exit code and messages of each command and name where only `extras` are installed, or in the real `python`."""
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "none"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python or sys.executable, "-c", PROGRAM],
        input=json.dumps([None if python else extras, str(source), str(folder), commands, list(names)]),
        cwd=folder if python else ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def expected(needs, extras):
    """The extras that the message names."""
    contained = {"train"} if "space" in extras else set()
    missing = set(needs.split()) - set(extras) - contained
    return f'pip install "regen-hf[{",".join(sorted(missing))}]"' if missing else None


@pytest.mark.parametrize(
    "extras",
    [[], *(pytest.param([one], marks=[pytest.mark.spark] if one == "spark" else []) for one in EXTRAS)],
    ids=lambda extras: "-".join(extras) or "bare",
)
def test_every_command_and_public_name_works_or_names_the_extra(finished_run, tmp_path, extras):
    assert not wrong(extras, finished_run, tmp_path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    if subprocess.run([*pip, "download", "--no-deps", "-d", folder, "hatchling"], check=False).returncode:
        pytest.skip("no package index can be reached")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    return next(folder.glob("regen_hf-*.whl"))


def new_environment(folder):
    """The python of a new environment in `folder`, and the pip command that installs into it."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return python, [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "-q"]


@pytest.mark.slow
def test_a_wheel_runs_the_quickstart_away_from_the_checkout_and_shows_a_line_per_stage(wheel, tmp_path):
    """Its dependencies are those of this environment: installing them takes minutes."""
    python, pip = new_environment(tmp_path / "venv")
    subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
    dependencies = sysconfig.get_paths()["purelib"]  # without its .pth files, so without this checkout
    next((tmp_path / "venv").glob("lib/*/site-packages")).joinpath("dependencies.pth").write_text(dependencies)
    settings = [f"--set={name}.{key}={value}" for name in TINY_WORLD for key, value in TINY_WORLD[name].items()]
    _, environment = terminal.python("", HF_HOME=str(tmp_path / "hf"))
    code, written = terminal.run(
        [python.with_name("regen"), "quickstart", "world", *settings], cwd=tmp_path, env=environment
    )
    lines = terminal.screen(written)[:-1]
    assert code == 0, lines
    stages = [line for line in lines if ": done in " in line]
    assert all(f"[{number}/11] " in line for number, line in enumerate(stages, 1)), stages
    assert len(stages) == 11
    assert "dataset" in stages[4]
    assert len(lines) <= 17  # with the results
    assert all(lines)
    where = [python, "-c", "import regen_hf; print(regen_hf.__file__)"]
    file = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert file.startswith(str(tmp_path))


@pytest.mark.slow
def test_real_environments_do_as_the_hidden_packages(finished_run, wheel, tmp_path):
    """A wheel of this checkout in new environments: without extras, then with `llm`; the others take minutes."""
    python, pip = new_environment(tmp_path / "venv")
    for extras in ([], ["llm"]):
        project = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        # Compiling every module takes longer than compiling those that are imported.
        subprocess.run([*pip, "install", "--no-compile", "-c", ROOT / "constraints.txt", project], check=True)
        (tmp_path / "_".join(["walk", *extras])).mkdir()
        assert not wrong(extras, finished_run, tmp_path / "_".join(["walk", *extras]), python)


def wrong(extras, finished_run, folder, python=None):
    """Commands and names with another outcome than expected, with their messages."""
    source = shutil.copytree(finished_run, folder / "source")
    # What needs no extra is tried in a bare install only, and what needs only `train` not again in `space`.
    known = {"": (), "space": ("", "train")}.get("-".join(extras), ("",))
    commands = {name: text for name, (needs, text) in COMMANDS.items() if needs not in known}
    names = [name for name, needs in NAMES.items() if needs not in known]
    outcomes = ask(extras, source, folder, commands, names, python)
    found = []
    for name, (code, message) in outcomes.items():
        install = expected(NAMES.get(name) or COMMANDS.get(name, [""])[0], extras)
        if install:
            right = code == 1 and install in message
        else:
            # These end with another error: no server, model, network or free port, and two runs of one seed.
            ends = "server", "Batch", "local model", "cross-encoder", "demo", "push and verify", "compare"
            right = "pip install" not in message and code in ((0, 1) if any(end in name for end in ends) else (0,))
        if not right:
            found.append(f"{name}: {code}: {message[-600:]}")
    return "\n\n".join(found)


def test_the_help_of_every_command_needs_no_extra(tmp_path):
    commands = dict.fromkeys(subcommands(), "--help")
    outcomes = ask([], tmp_path, tmp_path, commands)
    assert outcomes == {name: [0, ""] for name in commands}


def subcommands():
    parser = make_parser([])
    (choices,) = [action.choices for action in parser._actions if action.dest != "help" and action.choices]
    return list(choices)


def test_every_command_and_name_is_tried():
    assert {name.split()[0] for name in COMMANDS} == set(subcommands())
    assert set(NAMES) - {"load_dataset"} == set(regen_hf.__all__)


def test_the_extras_in_messages_are_those_of_the_project():
    def packages(extra):
        texts = PROJECT["optional-dependencies"][extra]
        names = [re.match(r"[\w.-]+", text)[0] for text in texts]
        return {name for name in names if canonical(name) != "regen-hf"}.union(
            *(packages(other) for text in texts for other in re.findall(r"^regen-hf\[(\w+)\]", text))
        )

    assert {extra: packages(extra) for extra in EXTRAS} == errors.EXTRAS
