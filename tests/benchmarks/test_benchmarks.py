"""The benchmarks run at a tiny size and print one JSON line."""

import json
import runpy
import subprocess
import sys

import pytest

from tests.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


def test_the_benchmark_of_the_model_prints_its_ratios(tmp_path):
    call = [sys.executable, str(BENCHMARKS / "model.py"), "--size", "tiny", "--text-size", "tiny", "--device", "cpu"]
    call += ["--rounds", "2", "--text-rounds", "1", "--out", str(tmp_path / "model.json")]
    call += ["--texts", "20", "--als-scale", "0.0005", "--vector-rounds", "1"]
    call += ["--items", "60", "90", "--head-batch", "1"]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line == json.loads((tmp_path / "model.json").read_text())
    assert set(line["wrapper_over_bare"]) == {"training_step", "generation", "memory"}
    assert set(line["text_over_soft_tokens"]) == {"training_step", "generation", "memory"}
    for part in (line["wrapper_over_bare"], line["text_over_soft_tokens"]):
        assert all(each["ratio"] > 0 and each["model"] == "tiny" for each in part.values())
    wrapper = line["wrapper_over_bare"]["training_step"]
    assert wrapper["rounds"] == 2
    read = 4 * (50 + 64 + 128)
    assert wrapper["bare_tokens_per_second"] == pytest.approx(read / wrapper["bare_seconds"], rel=0.05)
    for name in ("step_over_feed", "encode_over_ours", "als_over_implicit"):
        assert line[name]["ratio"] > 0
    assert line["encode_over_ours"]["cosine"] > 0.999
    head = line["item_head"]
    assert head["step_over_no_head"]["head_60_seconds"] > 0 < head["sampled_step_over_step"]["head_90_seconds"]
    assert [each["items"] for each in head["ranking_over_product"]] == [60, 90]
    assert set(head["memory"]) == {"ratio", "head_90_mib", "head_60_mib", "fused_mib", "model", "batch"}


def test_the_attribution_benchmark_compares_two_libraries(tmp_path):
    call = [sys.executable, str(BENCHMARKS / "attribution.py"), "--items", "50", "--words", "60", "--width", "32"]
    call += ["--points", "20", "--out", str(tmp_path / "attribution.json")]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line == json.loads((tmp_path / "attribution.json").read_text())
    assert line["sizes"]["points"] == 80
    assert set(line["map"]) == {"openTSNE", "scikit-learn"}
    assert all(0 < drawn["kept"] <= 1 for drawn in line["map"].values())
    assert line["attribution"]["largest_error_of_the_sum"] < 1e-5


def test_the_benchmark_of_citations_compares_them_with_the_planted_truth(finished_run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "citations.json"
    monkeypatch.setattr(sys, "argv", ["x", str(finished_run), "--users", "3", "--runs", "1", "--out", str(file)])
    runpy.run_path(str(BENCHMARKS / "citations.py"), run_name="__main__")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == json.loads(file.read_text())
    assert {"one", "several", "first purchase", "last item"} <= line["facts"].keys()
    assert line["cost"]["with_citations_over_texts"] > 1
    assert line["threshold"] >= 0.5
