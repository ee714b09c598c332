"""Tables of scores in Markdown and LaTeX, in the layout of the paper: a row for each task and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..intervals import format_interval, format_number
from ..outputs import TABLE_LATEX, TABLE_MARKDOWN, write_text

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
"""Name and decimals of each metric, in the order of the tables."""
PAPER_METRICS = ("bleu", "rougeLsum", "similarity")
"""The metrics of the paper's tables."""
LATEX_ESCAPES = str.maketrans(
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
UNITS = "BLEU and ROUGE in percent, similarity as a cosine"


def score_table(results: Mapping[str, Any]) -> str:
    """The paper's metrics in a `results.json` as a Markdown table; the first model has its intervals."""
    first = next(iter(results["models"]))
    head = (
        f"{_users(results)}. {UNITS}; `{first}` with its 95 % interval over the users. All metrics and intervals: "
        f"`{TABLE_MARKDOWN}` beside `results.json`."
    )
    return "\n\n".join([head, markdown(score_grid(results["models"], PAPER_METRICS, [first])), *_missing(results)])


def write_tables(out: Path, results: Mapping[str, Any]) -> None:
    """Write all metrics in a `results.json` with their intervals into the folder `out`, in Markdown and LaTeX."""
    grid = score_grid(results["models"])
    head = f"{_users(results)}. {UNITS}, each with its 95 % interval over the users."
    about = [f"- `{model}`: {text}" for model, text in results["about"].items() if model in results["models"]]
    text = "\n".join([head, "", markdown(grid), "", *about, *(f"- {line}" for line in _missing(results)), ""])
    write_text(out / TABLE_MARKDOWN, text)
    write_text(out / TABLE_LATEX, latex(grid, head) + "\n")


def score_grid(
    models: Mapping[str, Mapping[str, Mapping[str, Any]]],
    metrics: Sequence[str] = tuple(LABELS),
    with_intervals: Sequence[str] | None = None,
) -> list[list[str]]:
    """Header and rows of the scores of each model.

    Args:
        models: metrics by model and task, as in `results.json`.
        metrics: the metrics to show.
        with_intervals: models to show with their intervals; all of them by default.
    """
    grid = [["task", "metric", *models]]
    for task in next(iter(models.values())):
        for metric in metrics:
            label, digits = LABELS[metric]
            cells = []
            for model, tasks in models.items():
                score = tasks[task][metric]
                long = with_intervals is None or model in with_intervals
                cells.append(format_interval(score, digits) if long else format_number(score["mean"], digits))
            grid.append([task, label, *cells])
    return grid


def markdown(grid: Sequence[Sequence[str]]) -> str:
    """A header and rows as a Markdown table.

    >>> print(markdown([["task", "CF"], ["user_profile", "1.0"]]))
    | task | CF |
    |---|---|
    | user_profile | 1.0 |
    """
    # Names of models come from the user and may contain any character.
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in grid]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(grid[0]), *lines[1:]])


def latex(grid: Sequence[Sequence[str]], caption: str) -> str:
    r"""A header and rows as a LaTeX table (package booktabs); repeated cells of the first column are left blank.

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
    return " ".join(text.split()).translate(LATEX_ESCAPES)


def _users(results: Mapping[str, Any]) -> str:
    return f"{results['n_users']} {results['split']} users" if results["split"] else f"{results['n_users']} users"


def _missing(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each model that lacks predictions."""
    missing = {model: sum(by_task.values()) for model, by_task in (results.get("missing_predictions") or {}).items()}
    return [
        f"`{model}` lacks predictions for {number:,} narratives of the split; its scores cover only the others."
        for model, number in missing.items()
        if number
    ]
