"""The benchmark of the sequences at a tiny size, and the page with its results."""

import json
import runpy
import subprocess
import sys

import pytest

from tests.paths import ROOT


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The last line of the benchmark at a size that takes seconds; it fails where rows differ."""
    command = [sys.executable, str(ROOT / "benchmarks" / "sequences.py"), "--reviews", "3000", "--rounds", "1"]
    command += ["--contestants", "polars", "--logs", str(tmp_path_factory.mktemp("logs"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_benchmark_produces_the_rows_of_a_hand_written_script_and_prints_ratios(result):
    assert result["3000"]["runs"] == 1
    assert result["3000"]["cpu_polars_to_regen"] > 0
    assert result["3000"]["memory_polars_to_regen"] > 0
    assert 0 < result["3000"]["memory_to_limit"] < 1.2


def test_every_table_of_the_page_on_scale_comes_from_a_results_file():
    script = runpy.run_path(str(ROOT / "scripts" / "scale.py"))
    page = script["DOCS"].read_text(encoding="utf-8")
    tables = script["tables"]()
    assert len(tables) == 2
    assert [name for name, text in tables.items() if text not in page] == []
