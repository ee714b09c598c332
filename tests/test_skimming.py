"""What people and programs read first: llms.txt and the notebook."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.paths import ROOT


def test_llms_txt_has_its_format_and_links_to_files():
    lines = (ROOT / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# regen-hf"
    assert lines[2].startswith("> ")
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(lines))
    assert all((ROOT / link).exists() for link in links)
    assert len(links) > 15


@pytest.mark.slow
def test_the_notebook_runs(finished_run, tmp_path, monkeypatch):
    """On a finished run, so that `regen quickstart` only adds what is missing."""
    shutil.copytree(finished_run, tmp_path / "runs" / "sample")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # of `!regen`
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = ["".join(str(output.get("text", "")) for output in cell.get("outputs", [])) for cell in notebook.cells]
    assert "[11/11] next-item: " in outputs[3]
    assert "recall@10" in outputs[-2]
    assert all(cell.get("outputs") for cell in notebook.cells[2:] if cell.cell_type == "code")
