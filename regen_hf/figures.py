"""Pictures of a run, drawn from its results files alone; nothing is computed again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import missing_extra

METRICS = {"bleu": "BLEU (%)", "rougeLsum": "ROUGE-Lsum (%)", "similarity": "Similarity (cosine)"}


@dataclass(frozen=True)
class FiguresConfig:
    """Settings of `regen figures`."""

    dpi: int = 150
    """Dots per inch."""

    def __post_init__(self) -> None:
        if self.dpi < 1:
            raise ValueError(f"dpi was given {self.dpi}, expected at least 1")


def build(run: Path, out: Path, work: Path, config: FiguresConfig) -> dict[str, Any]:
    """Draw `scores.png` and `loss.png` into `out`."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise missing_extra("matplotlib", "eval") from None

    with mpl.rc_context({"figure.dpi": config.dpi, "axes.spines.top": False, "axes.spines.right": False}):
        results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
        scores(results).savefig(out / "scores.png", bbox_inches="tight")
        log = json.loads((run / "model" / "training_log.json").read_text(encoding="utf-8"))
        loss(log).savefig(out / "loss.png", bbox_inches="tight")
    return {"figures": 2}


def scores(results: dict[str, Any]) -> Any:
    """One row of dots per task and model with 95 % intervals, one panel per metric."""
    from matplotlib.figure import Figure

    models = list(results["models"])
    tasks = list(results["models"][models[0]])
    figure = Figure(figsize=(13, 0.75 * len(tasks) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    step = 0.8 / len(models)
    for panel, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for number, model in enumerate(models):
            drawn = [
                (place, interval)
                for place, task in enumerate(tasks)
                if (interval := results["models"][model][task][metric])["mean"] is not None
            ]
            middle = [interval["mean"] for _, interval in drawn]
            panel.errorbar(
                middle,
                [place + (number - (len(models) - 1) / 2) * step for place, _ in drawn],
                # A bootstrap interval may lie a hair beside the score of a very small sample.
                xerr=[
                    [max(0.0, interval["mean"] - interval["low"]) for _, interval in drawn],
                    [max(0.0, interval["high"] - interval["mean"]) for _, interval in drawn],
                ],
                fmt="o",
                markersize=5,
                label=model.replace("_", " "),
            )
        panel.set_xlabel(label)
        panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(tasks)), [task.replace("_", " ") for task in tasks])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models), frameon=False)
    figure.suptitle(f"Narratives of {results['n_users']} {results['split']} users against the references")
    return figure


def loss(log: list[dict[str, Any]]) -> Any:
    """Training loss by step."""
    from matplotlib.figure import Figure

    entries = [entry for entry in log if "loss" in entry]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.plot([entry["step"] for entry in entries], [entry["loss"] for entry in entries])
    panel.set_xlabel("Optimiser step")
    panel.set_ylabel("Loss (nats per token)")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    figure.suptitle("Training loss on the narratives")
    return figure
