"""What evaluation and training left: scores with their intervals, and the loss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .style import COLOURS, caption

METRICS = {"bleu": "BLEU (%)", "rougeLsum": "ROUGE-Lsum (%)", "similarity": "Similarity (cosine)"}


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures of this topic that the run has the data for, by name."""
    results, log = run / "evaluation" / "results.json", run / "model" / "training_log.json"
    if results.exists():
        scored = json.loads(results.read_text(encoding="utf-8"))
        figure = scores(scored)
        users = f"{scored['n_users']:,} {scored['split']} users"
        caption(figure, run, f"narratives of {users} against their references; lines are 95 % intervals")
        yield "scores", figure
    if log.exists():
        figure = loss(json.loads(log.read_text(encoding="utf-8")))
        counts = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))["counts"]
        caption(figure, run, f"{counts['examples']:,} examples, {counts['parameters']:,} parameters")
        yield "loss", figure


def scores(results: dict[str, Any]) -> Any:
    """One row of dots per task and model with 95 % intervals, one panel per metric."""
    from matplotlib.figure import Figure

    models = list(results["models"])
    tasks = list(results["models"][models[0]])
    figure = Figure(figsize=(13, 0.13 * len(models) * len(tasks) + 1.6), layout="constrained")
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
                linestyle="none",
                markersize=5,
                label=model.replace("_", " "),
            )
        panel.set_xlabel(label)
        panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(tasks)), [task.replace("_", " ") for task in tasks])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(models), frameon=False)
    return figure


def loss(log: list[dict[str, Any]]) -> Any:
    """Loss by step: of training, and of the validation users where it was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel = figure.subplots()
    for key, label, colour in (("loss", "training", COLOURS[0]), ("eval_loss", "validation", COLOURS[1])):
        steps, losses = [entry["step"] for entry in log if key in entry], [entry[key] for entry in log if key in entry]
        if losses:
            marker = "o" if len(losses) < 20 else "none"
            panel.plot(
                steps, losses, marker=marker, markersize=4, color=colour, label=f"{label}, last {losses[-1]:.3g}"
            )
    panel.set_xlabel("Optimiser step")
    panel.set_ylabel("Loss (nats per token)")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    if panel.lines:
        panel.legend(frameon=False)
    panel.set_title("Loss on the narratives")
    return figure
