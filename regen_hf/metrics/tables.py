"""Scores as tables in Markdown and LaTeX, laid out as the paper's: a row for each task and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..intervals import format_interval, format_number

LABELS = {
    "bleu": ("BLEU", 1),
    "rouge1": ("ROUGE-1", 1),
    "rouge2": ("ROUGE-2", 1),
    "rougeL": ("ROUGE-L", 1),
    "rougeLsum": ("ROUGE-Lsum", 1),
    "similarity": ("Similarity", 3),
    "length_ratio": ("Length ratio", 2),
    "distinct1": ("Distinct-1", 3),
    "distinct2": ("Distinct-2", 3),
    "unique_share": ("Unique sentences", 3),
}
"""Name and digits of each metric, in the order of the tables."""

PAPER = ("bleu", "rougeLsum", "similarity")
"""The metrics of the paper's tables."""

SIGNS = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "_%&#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "<": "$<$",
        ">": "$>$",
    }
)
"""What stands for a sign in LaTeX."""

UNITS = "BLEU and ROUGE in percent, similarity as a cosine"


def scores(
    models: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metrics: Sequence[str] = tuple(LABELS),
    spans: Sequence[str] | None = None,
) -> list[list[str]]:
    """Header and rows of the scores of each model, as `results.json` holds them.

    Args:
        models: metrics by model and task.
        metrics: those shown.
        spans: models shown with their intervals; all of them by default.
    """
    grid = [["task", "metric", *models]]
    for task in next(iter(models.values())):
        for metric in metrics:
            label, digits = LABELS[metric]
            cells = []
            for model, tasks in models.items():
                found = tasks[task][metric]
                whole = spans is None or model in spans
                cells.append(format_interval(found, digits) if whole else format_number(found["mean"], digits))
            grid.append([task, label, *cells])
    return grid


def markdown(grid: Sequence[Sequence[str]]) -> str:
    """A table in Markdown of a header and rows.

    >>> print(markdown([["task", "CF"], ["user_profile", "1.0"]]))
    | task | CF |
    |---|---|
    | user_profile | 1.0 |
    """
    # Anybody's models are named as they like.
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in grid]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(grid[0]), *lines[1:]])


def latex(grid: Sequence[Sequence[str]], caption: str) -> str:
    r"""A table in LaTeX (package booktabs) of a header and rows; what stands in the first column is told once.

    >>> print(latex([["task", "% vs CF"], ["user_profile", "+1.0%"], ["user_profile", "–"]], "p < 0.1."))
    \begin{table}
    \centering
    \begin{tabular}{ll}
    \toprule
    task & \% vs CF \\
    \midrule
    user\_profile & +1.0\% \\
     & -- \\
    \bottomrule
    \end{tabular}
    \caption{p $<$ 0.1.}
    \end{table}
    """
    lines, before = [], ""
    for row in grid[1:]:
        if before and row[0] != before:
            lines.append(r"\midrule")
        lines.append(_latex_row(["" if row[0] == before else row[0], *row[1:]]))
        before = row[0]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\begin{tabular}{" + "ll" + "r" * (len(grid[0]) - 2) + "}",
            r"\toprule",
            _latex_row(grid[0]),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\caption{" + _latex_text(caption) + "}",
            r"\end{table}",
        ]
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    return " ".join(text.split()).translate(SIGNS)
