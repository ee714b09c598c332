"""Tasks over a field that a row has already, one added from outside and one off by default, through every stage."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq

from regen_hf import outputs
from tests.conftest import TINY

OUTSIDER = """
import json, sys
from regen_hf.schema import TASKS, Task

TASKS["last_title"] = Task(
    "last_title",
    ("purchase_history", -1, "item", "title"),
    title="Last title",
    prompt="Name the last product.",
    question="What was the last product?",
    description="the title of the last product",
)

from regen_hf.run import Run

run = Run(sys.argv[1], json.loads(sys.argv[2]))
with run.locked():
    run.save()
    run.build_all(until="evaluate")
"""


def test_tasks_over_existing_fields_are_trained_and_evaluated(tmp_path):
    run = tmp_path / "run"
    tasks = ["user_profile", "last_title", "last_review"]
    settings = {
        **TINY,
        "training": {**TINY["training"], "tasks": tasks, "max_steps": 6},
        "evaluation": {"tasks": tasks, "users": 4, "max_new_tokens": 8},
    }
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDER, str(run), json.dumps(settings)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    titles = {
        row["reviewer_id"]: row["purchase_history"][-1]["item"]["title"]
        for row in outputs.rows(outputs.dataset_files(run, "test"))
    }
    predictions = outputs.predictions(run).to_pylist()
    rows = [row for row in predictions if row["task"] == "last_title"]
    fused = [row for row in rows if row["model"] == "fused"]
    assert len({row["reviewer_id"] for row in fused}) == len(fused) == 4
    assert {row["reviewer_id"]: row["reference"] for row in rows} == {
        row["reviewer_id"]: titles[row["reviewer_id"]] for row in fused
    }
    models = outputs.results(run)["models"]
    assert {tuple(scores) for scores in models.values()} == {tuple(tasks)}
    assert models["fused"]["last_title"]["bleu"]["mean"] is not None

    texts = {
        row["reviewer_id"]: row["purchase_history"][-1]["review"]["text"]
        for row in outputs.rows(outputs.dataset_files(run, "test"))
    }
    reviews = {row["reviewer_id"]: row["reference"] for row in predictions if row["task"] == "last_review"}
    assert reviews
    assert reviews.items() <= texts.items()
    processor = json.loads((outputs.folder(run, "train") / "processor_config.json").read_text())
    assert processor["metadata_only_tasks"] == ["product_endorsement", "last_review"]

    written = pq.read_table(outputs.path(run, "narratives", outputs.NARRATIVES))
    assert written["last_purchase"].type.names == ["reason", "explanation", "endorsement", "critique"]
    card = (outputs.folder(run, "dataset") / outputs.CARD).read_text()
    assert "| last_title |" in card
    assert "| last_review |" not in card
