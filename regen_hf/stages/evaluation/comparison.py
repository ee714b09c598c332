"""Compare several runs as in tables 1 and 4 of the paper: CF, content, and both, over seeds, with p-values.

Shapes:
    R   runs in one column, which differ only in their seed
    U   users
    S   statistics of a user
    B   resamples
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...intervals import NO_INTERVAL, format_interval, format_number
from ...metrics.bootstrap import RESAMPLES, interval, p_value, resample
from ...metrics.paper import PaperTable, reference
from ...metrics.tables import LABELS, PAPER_METRICS, UNITS, latex, markdown
from ...metrics.text_metrics import METRICS, STATISTICS, scores
from ...schema import TASKS
from .controls import CONTROLS

COLUMNS = {"cf": "CF", "content": "Content", "fused": "CF + Content"}
CONTROL_COLUMNS = {
    "empty_history": "No history",
    "shuffled_history": "Another's history",
    "text_history": "Text history",
    "most_frequent": "Most frequent",
    "nearest": "Nearest user",
}
MAY_DIFFER = ("embedding_mode", "history", "seed")
"""Settings of the training in which compared runs may differ."""


@dataclass
class EvaluatedRun:
    """A run with its evaluation."""

    run: Path
    results: dict[str, Any]
    training: dict[str, Any]
    encoder: str
    """Identity of the encoder behind `similarity`: its name, or the fingerprint of the run's own."""
    references: dict[tuple[str, str], str]
    """Reference narratives by user and task."""

    @property
    def name(self) -> str:
        """Its name in the tables: the last two parts of its path."""
        return "/".join(self.run.parts[-2:])

    @property
    def column(self) -> str:
        """The column of the tables that its trained model belongs to, a key of `CONTROLS`."""
        if self.training["history"] != "own":
            return f"{self.training['history']}_history"
        mode: str = self.training["embedding_mode"]
        return "fused" if mode == "both" else mode

    def statistics(self, model: str, task: str) -> tuple[list[str], NDArray[np.float64]]:
        """The users of a model and task in order, and their statistics, (U, S)."""
        table = pq.read_table(
            outputs.path(self.run, "evaluate", outputs.SCORES),
            filters=(pc.field("model") == model) & (pc.field("task") == task),
        ).sort_by("reviewer_id")
        columns = [table.column(name).to_numpy() for name in STATISTICS]
        return table.column("reviewer_id").to_pylist(), np.column_stack(columns).reshape(-1, len(STATISTICS))


@dataclass
class Cells:
    """Statistics of one column and task over its runs."""

    users: list[str]
    tables: list[NDArray[np.float64]]
    """R of (U, S)."""
    seed: int
    """Seed of the resampling of runs."""

    def of_users(self, users: set[str]) -> Cells:
        """The same statistics for a subset of the users."""
        selected = np.array([user in users for user in self.users], dtype=bool)
        return Cells([u for u in self.users if u in users], [table[selected] for table in self.tables], self.seed)

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every metric of each run, (R,)."""
        by_run = [scores(table.sum(axis=0), len(table)) for table in self.tables]
        return {name: np.array([float(run[name]) for run in by_run]) for name in METRICS}

    def drawn(self, seed: int) -> dict[str, NDArray[np.float64]]:
        """Every metric, averaged over runs, in each resample of users and of runs, (B,)."""
        by_run = [scores(resample(table, seed), len(table)) for table in self.tables]
        runs = np.random.default_rng([seed, self.seed]).integers(0, len(by_run), (len(by_run), RESAMPLES))
        return {
            name: np.take_along_axis(np.stack([run[name] for run in by_run]), runs, axis=0).mean(axis=0)
            for name in METRICS
        }


def compare(runs: Sequence[Path], out: Path, seed: int = 0) -> dict[str, Any]:
    """Compare evaluated runs; the comparison goes into the folder `out` as JSON, Markdown and LaTeX.

    Args:
        runs: run folders with evaluations of the same users, tasks, decoding and encoder.
        out: the folder, created if it does not exist.
        seed: seed of the bootstrap.

    Raises:
        InputError: the runs cannot be compared; the message names what differs.
    """
    evaluated = [_read(run) for run in runs]
    check(evaluated)
    first = evaluated[0]
    sources = _sources(evaluated)
    tasks = {}
    for task in first.results["models"]["fused"]:
        cells = {
            column: _cells(members, model, task, number)
            for number, (column, (members, model)) in enumerate(sources.items())
        }
        tasks[task] = _compare_columns(cells, seed)
    files = outputs.dataset_files(first.run, "test")
    released = outputs.folder(first.run, "release").exists()
    paper, note = reference(files[0].parent.name if files else "", released)
    trained = {run.column for run in evaluated}
    result = {
        "split": first.results["split"],
        "n_users": first.results["n_users"],
        "columns": {
            column: {
                "runs": [run.name for run in members],
                "seeds": [run.training["seed"] for run in members],
                "about": "trained on this input" if column in trained else members[0].results["about"][column],
            }
            for column, (members, _) in sources.items()
        },
        "tasks": tasks,
        "differences": differences(evaluated),
        "bootstrap": {"over": "users and seeds", "resamples": RESAMPLES, "seed": seed},
        "paper": {"about": note, "scores": paper.scores},
        **{key: first.results[key] for key in ("encoder", "bleu_signature", "rouge_signature", "decoding", "versions")},
    }
    _write(out, result, paper)
    return result


def check(runs: Sequence[EvaluatedRun]) -> None:
    """Check that the scores of the runs are comparable.

    Raises:
        InputError: they are not; the message names two runs and what differs.
    """
    first = runs[0]
    for run in runs[1:]:
        prefix = f"{first.run} and {run.run} cannot be compared:"
        for name, left, right in (
            ("splits", first.results["split"], run.results["split"]),
            ("tasks", list(first.results["models"]["fused"]), list(run.results["models"]["fused"])),
            ("numbers of users", first.results["n_users"], run.results["n_users"]),
            ("decoding settings", first.results["decoding"], run.results["decoding"]),
        ):
            if left != right:
                raise InputError(
                    f"{prefix} their {name} differ, {left} and {right}. Evaluate both with equal settings."
                )
        if first.references != run.references:
            raise InputError(
                f"{prefix} their users or reference narratives differ, so they were evaluated on different datasets. "
                "Train and evaluate all runs on one dataset."
            )
        if first.encoder != run.encoder:
            raise InputError(
                f"{prefix} their similarity was measured by different encoders. Evaluate all runs with one --encoder."
            )
    for run, other in itertools.combinations(runs, 2):
        if run.column != other.column:
            continue
        prefix = f"{run.run} and {other.run} are both {COLUMNS.get(run.column, run.column)}"
        if run.training["seed"] == other.training["seed"]:
            raise InputError(
                f"{prefix} of seed {run.training['seed']}. Give runs of different seeds, or of different "
                "embedding_mode or history."
            )
        for key, value in run.training.items():
            if key not in MAY_DIFFER and value != other.training.get(key):
                raise InputError(
                    f"{prefix} but differ in training.{key}: {value} and {other.training.get(key)}. Runs of one column "
                    "may differ only in their seed."
                )


def differences(runs: Sequence[EvaluatedRun]) -> dict[str, dict[str, Any]]:
    """Settings of the training that differ between columns, besides `MAY_DIFFER`: values by run."""
    keys = dict.fromkeys(key for run in runs for key in run.training if key not in MAY_DIFFER)
    values = {key: {run.name: run.training.get(key) for run in runs} for key in keys}
    return {key: by_run for key, by_run in values.items() if len(set(map(json.dumps, by_run.values()))) > 1}


def _read(run: Path) -> EvaluatedRun:
    results = outputs.results(run)
    own = results["encoder"].startswith("content_encoder of this run")
    rows = outputs.predictions(run, ["reviewer_id", "task", "reference"]).to_pylist()
    return EvaluatedRun(
        run,
        results,
        outputs.manifest(run, "train")["config"],
        outputs.manifest(run, "evaluate")["inputs"]["stages"]["embeddings"] if own else results["encoder"],
        {(row["reviewer_id"], row["task"]): row["reference"] for row in rows},
    )


def _sources(evaluated: Sequence[EvaluatedRun]) -> dict[str, tuple[list[EvaluatedRun], str]]:
    """By column of the tables, its runs and the name of its model in their results."""
    columns: dict[str, list[EvaluatedRun]] = {}
    for run in evaluated:
        columns.setdefault(run.column, []).append(run)
    fused = columns.get("fused", [])
    sources = {}
    for column in CONTROLS:
        if column in columns:
            sources[column] = (columns[column], "fused")  # the name of the trained model in every run
        elif fused or column in ("most_frequent", "nearest"):
            sources[column] = (fused or list(evaluated[:1]), column)
    return sources


def _cells(runs: Sequence[EvaluatedRun], model: str, task: str, seed: int) -> Cells:
    pairs = [run.statistics(model, task) for run in runs]
    for run, (users, _) in zip(runs, pairs, strict=True):
        if users != pairs[0][0]:
            raise InputError(
                f"{runs[0].run} and {run.run} cannot be compared: their narratives of {model} for {task} are of "
                f"{len(pairs[0][0])} and {len(users)} users. Evaluate both with equal --text-users."
            )
    return Cells(pairs[0][0], [table for _, table in pairs], seed)


def _compare_columns(cells: dict[str, Cells], seed: int) -> dict[str, Any]:
    """By metric, the score of each column over its runs, and the fused model against each of the others."""
    values = {column: own.values() for column, own in cells.items()}
    drawn = {column: own.drawn(seed) for column, own in cells.items() if own.users}
    result: dict[str, Any] = {metric: {"models": {}, "versus": {}} for metric in METRICS}
    for metric, (column, own) in itertools.product(METRICS, cells.items()):
        of_runs = values[column][metric]
        score = interval(float(of_runs.mean()), drawn[column][metric] if own.users else np.zeros(0))
        result[metric]["models"][column] = {
            **score,
            "n": len(own.users),
            "values": [None if np.isnan(value) else float(value) for value in of_runs],
        }
    fused = cells.get("fused")
    for column, own in cells.items():
        if fused is None or column == "fused" or not own.users or not fused.users:
            continue
        pair = (fused, own)
        resamples = drawn["fused"], drawn[column]
        if subset := own.users != fused.users:  # `text_history` may cover only the first users
            shared = {*own.users} & {*fused.users}
            pair = (fused.of_users(shared), own.of_users(shared))
            resamples = pair[0].drawn(seed), pair[1].drawn(seed)
        for metric, versus in _versus(pair, resamples, subset).items():
            result[metric]["versus"][column] = versus
    return result


def _versus(
    pair: tuple[Cells, Cells],
    resamples: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    subset: bool,
) -> dict[str, dict[str, Any]]:
    """By metric, the difference between the two of a pair; `subset` means that the pair covers only some users."""
    ours, theirs = (cells.values() for cells in pair)
    users = len(pair[1].users)
    result: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        if subset and metric in ("distinct1", "distinct2", "unique_share"):
            # Distinctness was counted among all users of each model, and it falls with their number.
            result[metric] = {"percent": None, "difference": dict(NO_INTERVAL), "p": None, "n": users}
            continue
        difference = float(ours[metric].mean() - theirs[metric].mean())
        change = resamples[0][metric] - resamples[1][metric]
        level = float(theirs[metric].mean())
        result[metric] = {
            "percent": 100 * difference / level if level > 0 and not np.isnan(difference) else None,
            "difference": interval(difference, change),
            "p": p_value(difference, change) if users > 1 else None,  # one user has no variance
            "n": users,
        }
    return result


def _grid(result: dict[str, Any], metrics: Sequence[str], paper: PaperTable | None) -> list[list[str]]:
    """Header and rows in the layout of the paper."""
    head = ["Output Feature", "Metrics", *COLUMNS.values(), "(%) vs CF", "(%) vs Content", "p vs CF", "p vs Content"]
    grid = [[*head, *(["Paper: CF / Content / CF + Content"] if paper else [])]]
    for (task, by_metric), metric in itertools.product(result["tasks"].items(), metrics):
        label, digits = LABELS[metric]
        models, versus = by_metric[metric]["models"], by_metric[metric]["versus"]
        cells = [format_interval(models[column], digits) if column in models else "–" for column in COLUMNS]
        halves = [versus.get(column, {"percent": None, "p": None}) for column in ("cf", "content")]
        cells += ["–" if half["percent"] is None else f"{half['percent']:+.1f}%" for half in halves]
        cells += [_p(half["p"]) for half in halves]
        if paper:
            published = paper.scores.get(task, {}).get(metric, ())
            paper_digits = 3 if metric == "similarity" else 2
            cells.append(" / ".join(format_number(value, paper_digits) for value in published) or "–")
        grid.append([TASKS[task].title, label, *cells])
    return grid


def _control_grid(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows of the controls of the fused model, each with the p-value of its difference from it."""
    columns = [column for column in CONTROL_COLUMNS if column in result["columns"]]
    grid = [["Output Feature", "Metrics", COLUMNS["fused"], *(CONTROL_COLUMNS[column] for column in columns)]]
    for (task, by_metric), metric in itertools.product(result["tasks"].items(), PAPER_METRICS):
        label, digits = LABELS[metric]
        models, versus = by_metric[metric]["models"], by_metric[metric]["versus"]
        cells = [format_number(models["fused"]["mean"], digits) if "fused" in models else "–"]
        for column in columns:
            p = versus.get(column, {}).get("p")
            cells.append(format_number(models[column]["mean"], digits) + (f" (p {_p(p)})" if p is not None else ""))
        grid.append([TASKS[task].title, label, *cells])
    return grid


def _p(value: float | None) -> str:
    """A p-value for a table; the smallest possible value is 1 / (B + 1).

    >>> _p(0.25), _p(1 / 1001), _p(None)
    ('0.250', '<0.001', '–')
    """
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _write(out: Path, result: dict[str, Any], paper: PaperTable) -> None:
    names = COLUMNS | CONTROL_COLUMNS
    head = (
        f"{result['n_users']} {result['split']} users. {UNITS}, each the mean over seeds with a 95 % interval over "
        "users and seeds. p-values: two-sided paired bootstrap of the difference between CF + Content and the other "
        "column, not corrected for multiple comparisons."
    )
    notes = [
        f"- {names[column]}: {facts['about']} ({', '.join(facts['runs'])}; "
        f"{'seeds' if len(facts['seeds']) > 1 else 'seed'} {', '.join(map(str, facts['seeds']))})"
        for column, facts in result["columns"].items()
    ]
    if all(len(facts["seeds"]) == 1 for facts in result["columns"].values()):
        notes.append("- One seed each: the intervals do not include the variance between trainings.")
    for key, by_run in result["differences"].items():
        values = ", ".join(f"{run} {value}" for run, value in by_run.items())
        notes.append(f"- The runs also differ in training.{key}: {values}.")
    notes += [f"- {result['paper']['about']}", f"- Similarity by: {result['encoder']}"]
    further = [metric for metric in METRICS if metric not in PAPER_METRICS]
    table, controls = _grid(result, PAPER_METRICS, paper), _control_grid(result)
    text = [head, "", markdown(table), "", *notes, "", "## Controls", "", markdown(controls), ""]
    text += ["## Further metrics", "", markdown(_grid(result, further, None)), ""]
    tables = [latex(table, f"{head} {result['paper']['about']}"), latex(controls, f"Controls. {head}")]
    out.mkdir(parents=True, exist_ok=True)
    outputs.write_json(out / outputs.COMPARISON_JSON, result)
    outputs.write_text(out / outputs.COMPARISON_MARKDOWN, "\n".join(text))
    outputs.write_text(out / outputs.COMPARISON_LATEX, "\n\n".join(tables) + "\n")
