import json

import pytest

from regen_hf.evaluation import CONTROLS
from regen_hf.figures import results
from regen_hf.schema import TASKS


@pytest.fixture(scope="module")
def scored(finished_run):
    return json.loads((finished_run / "evaluation" / "results.json").read_text())


def test_scores_show_every_metric_model_and_task(scored, finished_run):
    figure = results.scores(scored)
    assert [panel.get_xlabel() for panel in figure.axes] == list(results.METRICS.values())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        task.replace("_", " ") for task in TASKS
    ]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [model.replace("_", " ") for model in CONTROLS]
    dots = [line.get_xdata()[0] for line in figure.axes[0].containers[0].get_children()[:1]]
    assert dots == [scored["models"]["fused"]["purchase_reason"]["bleu"]["mean"]]
    for name in ("scores", "loss"):
        assert (finished_run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_every_figure_names_its_run_and_its_counts(finished_run):
    captions = {name: figure.get_supxlabel() for name, figure in results.draw(finished_run)}
    assert captions["scores"].startswith("tiny: narratives of 6 test users")
    counts = json.loads((finished_run / "model" / "manifest.json").read_text())["counts"]
    assert captions["loss"].startswith(f"tiny: {counts['examples']} examples")
