"""Progress on a terminal and in a log."""

import ast
import io
import subprocess
from pathlib import Path

import pytest

import regen_hf
from regen_hf import progress
from tests import terminal

SCRIPT = """
import logging, time
from regen_hf import progress

progress.LOG_SECONDS = {seconds}
with progress.stage("[1/3] count", "count to twenty") as finish:
    for number in progress.Bar(range(20), "counting", unit="numbers"):
        time.sleep(0.03)
        if number == 10:
            logging.getLogger("regen_hf.counting").warning("%s is even", "ten")
    finish("done in 1 s, " + "numbers 20, " * 12)
with progress.stage("[2/3] copy", "copy the numbers") as finish:
    progress.say("7 lines read")
    finish("fresh, numbers 20")
try:
    with progress.stage("[3/3] fail", "divide"):
        for number in progress.Bar(range(2), "dividing"):
            number / 0
except ZeroDivisionError:
    progress.say("stopped")
"""
LINES = [
    "[1/3] count: count to twenty",
    "[1/3] count: warning: ten is even",
    "[1/3] count: done in 1 s, " + "numbers 20, " * 12,
    "[2/3] copy: copy the numbers",
    "[2/3] copy: 7 lines read",
    "[2/3] copy: fresh, numbers 20",
    "[3/3] fail: divide",
    "stopped",
]


def test_a_terminal_keeps_one_line_of_each_stage():
    command, environment = terminal.python(SCRIPT.format(seconds=10))
    code, written = terminal.run(command, env=environment)
    assert code == 0
    assert "[1/3] count: counting:  " in written
    assert "/20 [00:00<00:00" in written
    assert terminal.screen(written) == [
        LINES[1],
        f"{LINES[2][:98]}…",
        *LINES[4:],
        "",
    ]


@pytest.mark.parametrize("where", ["pipe", "NO_COLOR", "CI"])
def test_a_log_has_plain_lines_and_few_of_a_bar(where):
    seconds = 0.2 if where == "pipe" else 10
    command, environment = terminal.python(SCRIPT.format(seconds=seconds), **({} if where == "pipe" else {where: "1"}))
    if where == "pipe":
        written = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        assert "\r" not in written
    else:
        code, written = terminal.run(command, env=environment)
        assert code == 0
        written = written.replace("\r\n", "\n")
    lines = written.split("\n")
    bars = [line for line in lines if "counting: " in line]
    assert [line for line in lines if line not in bars] == [*LINES, ""]
    assert 1 <= len(bars) <= 4 if where == "pipe" else not bars
    assert all(line.startswith("[1/3] count: counting: ") and line.endswith(" numbers/s]") for line in bars)


NESTED = """
import logging, sys, time
from regen_hf import progress

progress.LOG_SECONDS = 0.1
with progress.stage("[1/1] outer", "count") as finish:
    for _ in progress.Bar(range(2), "rounds", unit="rounds"):
        for _ in progress.Bar(range(8), "inner", unit="numbers", delay=0.01):
            time.sleep(0.03)
    with progress.stage("world", "draw"):
        logging.getLogger("regen_hf.world").warning("small")
    progress.say("after it")
    finish("done")


class Plain:
    def write(self, text):
        written.append(text)


written = []
for sys.stderr in (None, Plain()):
    with progress.stage("quiet", "count") as finish:
        for _ in progress.Bar(range(8), "counting", unit="numbers"):
            time.sleep(0.03)
        progress.say("7 lines")
        finish("done")
sys.stderr = sys.__stderr__
sys.stdout.write("".join(written))
"""


def test_nested_bars_and_stages_are_plain_lines_in_a_log_and_stderr_may_be_missing():
    command, environment = terminal.python(NESTED)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    bars = [line for line in lines if line.endswith("/s]")]
    assert {line.split(": ")[1] for line in bars} == {"inner", "rounds"}
    assert "\x1b" not in done.stderr
    assert len(bars) <= 2 * 3 + 2
    assert [line for line in lines if line not in bars] == [
        "[1/1] outer: count",
        "world: draw",
        "world: warning: small",
        "[1/1] outer: after it",
        "[1/1] outer: done",
    ]
    lines = [line for line in done.stdout.splitlines() if not line.startswith("quiet: counting")]
    assert lines == ["quiet: count", "quiet: 7 lines", "quiet: done"]


@pytest.mark.parametrize("value", ["", "0", "false", "False"])
def test_no_ci_is_not_ci(monkeypatch, value):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("CI", value)
    assert progress.on_terminal()


def test_no_other_module_makes_a_bar():
    package = Path(regen_hf.__file__).parent
    for path in package.rglob("*.py"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert path.parent.name == "progress" or "tqdm" not in [node.module for node in imports], path
