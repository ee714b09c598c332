"""Figures of evaluation and training: scores with their intervals, and the loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import outputs
from ...cards.facts import ranks_only
from .style import COLOURS, caption, subplots

METRICS = {"bleu": "BLEU (%)", "rougeLsum": "ROUGE-Lsum (%)", "similarity": "Similarity (cosine)"}


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures for which the run has data, by name."""
    if (results := outputs.results(run)) and not ranks_only(run):  # else they are of an earlier model
        figure = scores(results)
        users = f"{results['n_users']:,} {results['split']} users"
        caption(figure, run, f"narratives of {users} against their references; lines are 95 % intervals")
        yield "scores", figure
    if log := outputs.read_json(outputs.path(run, "train", outputs.TRAINING_LOG)):
        figure = loss(log)
        counts = outputs.manifest(run, "train")["counts"]
        caption(figure, run, f"{counts['examples']:,} examples, {counts['parameters']:,} parameters")
        yield "loss", figure


def scores(results: dict[str, Any]) -> Any:
    """Scores of each task and model with 95 % intervals, with a panel for each metric."""
    models = list(results["models"])
    tasks = list(results["models"][models[0]])
    figure, panels = subplots(13, 0.13 * len(models) * len(tasks) + 1.6, columns=len(METRICS), sharey=True)
    step = 0.8 / len(models)
    for panel, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for number, model in enumerate(models):
            drawn = [
                (position, interval)
                for position, task in enumerate(tasks)
                if (interval := results["models"][model][task][metric])["mean"] is not None
            ]
            panel.errorbar(
                [interval["mean"] for _, interval in drawn],
                [position + (number - (len(models) - 1) / 2) * step for position, _ in drawn],
                # The bootstrap interval of a very small sample may lie slightly beside its score.
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
    """Loss of training by step, and of the validation users where it was measured."""
    figure, panel = subplots(7, 3.6)
    for key, label, colour in (("loss", "training", COLOURS[0]), ("eval_loss", "validation", COLOURS[1])):
        steps, losses = [entry["step"] for entry in log if key in entry], [entry[key] for entry in log if key in entry]
        if losses:
            marker = "o" if len(losses) < 20 else "none"
            panel.plot(
                steps, losses, marker=marker, markersize=4, color=colour, label=f"{label}, last {losses[-1]:.3g}"
            )
    panel.set_xlabel("Optimiser step")
    panel.set_ylabel("Loss (nats per prediction)")  # of a token, or of a purchase by the item head
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    if panel.lines:
        panel.legend(frameon=False)
    panel.set_title("Loss by step")
    return figure
