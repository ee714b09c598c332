"""The tables of a `results.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tables import PAPER, UNITS, latex, markdown, scores


def table(results: dict[str, Any]) -> str:
    """The main scores of each task by model, as a Markdown table; those of the first model with their intervals."""
    first = next(iter(results["models"]))
    head = (
        f"{_users(results)}. {UNITS}; `{first}` with its 95 % interval over the users. All metrics and intervals: "
        "`table.md` beside `results.json`."
    )
    return "\n\n".join([head, markdown(scores(results["models"], PAPER, spans=[first])), *_missing(results)])


def write_tables(out: Path, results: dict[str, Any]) -> None:
    """All metrics with their intervals as `table.md` and `table.tex` into the folder `out`."""
    grid = scores(results["models"])
    head = f"{_users(results)}. {UNITS}, each with its 95 % interval over the users."
    about = [f"- `{model}`: {text}" for model, text in results["about"].items() if model in results["models"]]
    text = "\n".join([head, "", markdown(grid), "", *about, *(f"- {line}" for line in _missing(results)), ""])
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "table.tex").write_text(latex(grid, head) + "\n", encoding="utf-8")


def _missing(results: dict[str, Any]) -> list[str]:
    """What is to be said of models that left users out: their scores are of those that they chose."""
    missing = {model: sum(by.values()) for model, by in (results.get("missing_predictions") or {}).items()}
    return [
        f"`{model}` has no prediction for {number:,} narratives that the split has, and is scored on the others alone."
        for model, number in missing.items()
        if number
    ]


def _users(results: dict[str, Any]) -> str:
    return f"{results['n_users']} {results['split']} users" if results["split"] else f"{results['n_users']} users"
