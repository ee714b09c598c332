import json
import re
import runpy
import subprocess
import sys

import pytest

from regen_hf.cli import main
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_score_in_the_readme_and_on_its_page_comes_from_the_results_file():
    script = runpy.run_path(str(ROOT / "scripts" / "readme.py"))
    results = json.loads(script["RESULTS"].read_text(encoding="utf-8"))
    assert script["headlines"](results) in README
    assert script["page"](results) == script["PAGE"].read_text(encoding="utf-8")
    next_item = json.loads(script["NEXT_ITEM"].read_text(encoding="utf-8"))
    assert f"\n{script['recall'](next_item)}\n" in README  # else: python scripts/readme.py


def test_the_readme_is_short():
    assert len(README.split()) <= 900


def test_the_ten_lines_of_the_readme_generate_a_narrative(tiny_run, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace("runs/sample", str(tiny_run))
    done = subprocess.run(
        [sys.executable, "-c", 'import sys; sys.modules["regen_hf"] = None\n' + code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)  # written by scripts/readme.py
    assert len(shown.split()) > 20


@pytest.mark.parametrize("command", sorted(set(re.findall(r"regen ([a-z-]+) ", README))))
def test_every_command_that_the_readme_names_exists(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0


def test_every_make_target_that_is_documented_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    documented = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z]+)  ", documented)):
        assert f"\n{target}:" in makefile
