"""What the sample world plants must be found: the histories carry the narratives, and only their own."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from regen_hf.metrics.text_metrics import ROUGE, rouge
from regen_hf.run import Run
from regen_hf.schema import offered_tasks

TASKS = offered_tasks()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The default sample world with a sixth of its shoppers, and a short training."""
    run = Run(
        tmp_path_factory.mktemp("planted") / "world",
        {
            "sequences": {"sample": True},
            "sample": {"shoppers": 1000, "items": 240},
            "training": {"max_steps": 100},
            "evaluation": {"users": 50, "text_users": 1},
        },
    )
    with run.locked():
        run.save()
        run.build_all(until="evaluate")
    return run.folder


def rouge_lsum(run, model, task):
    predictions = pq.read_table(run / "evaluation" / "predictions.parquet").to_pylist()
    chosen = [row for row in predictions if (row["model"], row["task"]) == (model, task)]
    scores = rouge([row["prediction"] for row in chosen], [row["reference"] for row in chosen])
    return scores[:, ROUGE.index("rougeLsum")]


def gain(run, model):
    """ROUGE-Lsum of `model` above that of an empty history, over all tasks."""
    return np.mean(
        [rouge_lsum(run, model, task).mean() - rouge_lsum(run, "empty_history", task).mean() for task in TASKS]
    )


@pytest.mark.slow
def test_the_fused_model_beats_an_empty_history_by_a_wide_margin(world):
    results = json.loads((world / "evaluation" / "results.json").read_text())["models"]
    for task in TASKS:
        fused, empty = (results[model][task]["rougeLsum"] for model in ("fused", "empty_history"))
        assert fused["low"] > empty["high"], task
    assert gain(world, "fused") > 20


@pytest.mark.slow
def test_another_shoppers_history_is_worth_no_more_than_none(world):
    """Next to what the own history is worth: two wrong narratives differ by chance, the more the fewer users."""
    assert gain(world, "shuffled_history") < 0.15 * gain(world, "fused")
