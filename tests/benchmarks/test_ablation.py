import importlib.util

import pyarrow.parquet as pq
import pytest

from regen_hf.outputs import rows, split_files
from regen_hf.schema import TASKS
from tests.paths import ROOT

PATH = ROOT / "benchmarks" / "ablation.py"


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("ablation", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_references_state_every_fact(ablation, finished_run):
    truths = {row["reviewer_id"]: row for row in pq.read_table(finished_run / "sample" / "truth.parquet").to_pylist()}
    items = {row["asin"]: row for row in pq.read_table(finished_run / "sample" / "item_truth.parquet").to_pylist()}
    for row in rows(split_files(finished_run / "dataset", "train")):
        for task, phrases in ablation.facts(truths[row["reviewer_id"]], items).items():
            for fact, phrase in phrases.items():
                assert phrase in TASKS[task].text(row), (task, fact)


def test_the_mean_over_seeds_has_an_interval_and_one_seed_has_none(ablation):
    found = ablation.interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["low"] == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)  # t of 2 degrees of freedom
    assert "low" not in ablation.interval([1.0])


def test_the_table_has_the_papers_columns(ablation):
    score = {"mean": 50.0, "values": [50.0], "low": 45.0, "high": 55.0}
    models = {name: {"user_profile": {"bleu": score}} for name in ("fused", "empty_history", "shuffled_history")}
    half = {"fused": {"user_profile": {"bleu": {"mean": 40.0, "values": [40.0]}}}}
    table = ablation.paper_table({"fused": {"models": models}, "cf": {"models": half}, "content": {"models": models}})
    row = table.splitlines()[2]
    with_text = ablation.paper_table(
        {"fused": {"models": models}, "cf": {"models": half}, "content": {"models": models}, "text": {"models": half}}
    )
    assert "| trained on text |" in with_text.splitlines()[0]
    assert with_text.splitlines()[2].endswith("| 40 |")
    assert row.startswith("| user_profile | bleu | 40 | 50 [45, 55] | 50 [45, 55] | +25.0% | +0.0% |")


def test_the_facts_have_a_row_each_and_a_column_for_each_setting(ablation):
    def of(share, rouge):
        return {"facts": {"user_profile: circle": share}, "all facts": share, "rougeLsum over tasks": rouge}

    found = {
        "default": of({"mean": 0.51}, {"mean": 70.0, "low": 65.0, "high": 75.0}),
        "MLP": of({"mean": 0.4}, {"mean": 6}),
    }
    assert ablation.facts_table(found).splitlines()[::2] == [
        "| task | fact | default | MLP |",
        "| user_profile | circle | 0.51 | 0.40 |",
        "| all | rougeLsum over tasks | 70 [65, 75] | 6 |",
    ]
