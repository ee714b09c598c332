"""The stages with a language model on SmolLM2-135M-Instruct, in process."""

import json

import pyarrow.parquet as pq
import pytest

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.schema import RATED, TASKS
from tests.paths import SMOLLM2

pytestmark = [
    pytest.mark.real_lm,
    pytest.mark.slow,
    pytest.mark.skipif(not SMOLLM2.exists(), reason="the model is not downloaded (make models)"),
    # Importing the guide's kernels imports torch.compile, whose own modules use what torch has deprecated.
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
MODEL = ["--backend", "transformers", "--model", str(SMOLLM2), "--max-tokens", "120", "--max-failed", "1"]


def counts(run, stage):
    return json.loads(outputs.path(run, stage, outputs.MANIFEST).read_text())["counts"]


def test_a_real_model_writes_and_rates_a_preview(tmp_path, capsys):
    run = tmp_path / "run"
    sample = ["--sample", "--set", "sample.shoppers=60", "--set", "sample.items=64", "--max-history", "6"]
    assert main(["sequences", str(run), *sample]) == 0
    assert main(["narratives", str(run), *MODEL, "--users", "2", "--examples", "none"]) == 0
    narrated = counts(run, "narratives")
    assert narrated["users"] == 2
    assert 4 <= narrated["replies"] <= 8  # an answer that cannot be used is repeated once
    assert narrated["failed"] < 4
    assert narrated["window"] == 8192
    rows = pq.read_table(outputs.path(run, "narratives", outputs.NARRATIVES)).to_pylist()
    texts = [
        task.text(row) for row in rows for task in TASKS.values() if not task.may_be_null and task.name != "critique"
    ]
    assert any(text and len(text.split()) > 3 for text in texts)

    assert main(["ratings", str(run), *MODEL, "--users", "1", "--votes", "1"]) == 0
    (votes,) = pq.read_table(outputs.path(run, "ratings", outputs.RATINGS)).to_pylist()
    scores = [votes["metadata"][part][attribute] for part in RATED for attribute in RATED[part]]
    assert any(score is not None for score in scores)
    assert all(score in range(1, 8) for score in scores if score is not None)

    # The stored answers are read, not written again.
    assert main(["narratives", str(run), *MODEL, "--users", "1", "--examples", "none"]) == 0
    assert counts(run, "narratives")["replies"] == narrated["replies"]
    capsys.readouterr()
    user = pq.read_table(outputs.path(run, "narratives", outputs.NARRATIVES))["reviewer_id"][0].as_py()
    assert main(["inspect", str(run), "--request", user]) == 0
    printed = capsys.readouterr().out
    assert "purchase_reason" in printed
    assert "Final item: yes" in printed
