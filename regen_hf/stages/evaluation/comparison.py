"""Several runs side by side, as the paper's tables 1 and 4: CF, content, and both, over seeds, with p-values.

Shapes:
    R   runs of one kind, which differ in their seed alone
    U   users
    S   statistics of a user
    B   resamples
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import InputError
from ...intervals import format_interval, format_number
from ...metrics.bootstrap import RESAMPLES, interval, p_value, resample
from ...metrics.controls import CONTROLS
from ...metrics.paper import TASK_NAMES, PaperTable, reference
from ...metrics.tables import LABELS, PAPER, UNITS, latex, markdown
from ...metrics.text_metrics import METRICS, STATISTICS, scores

COLUMNS = {"cf": "CF", "content": "Content", "fused": "CF + Content"}
CONTROL_COLUMNS = {
    "empty_history": "No history",
    "shuffled_history": "Another's history",
    "text_history": "Text history",
    "most_frequent": "Most frequent",
    "nearest": "Nearest user",
}
SETTING = ("embedding_mode", "history", "seed")
"""Settings of the training in which runs that are compared may differ: what they are, and their seed."""


@dataclass
class Evaluated:
    """A run with its evaluation."""

    run: Path
    results: dict[str, Any]
    training: dict[str, Any]
    encoder: str
    """What stands for the encoder behind `similarity`: its name, or the fingerprint of the run's own."""
    references: dict[tuple[str, str], str]
    """By user and task."""

    @property
    def name(self) -> str:
        """What the tables call the run: its folder and the one above, as they stand on the command line."""
        return "/".join(self.run.parts[-2:])

    @property
    def kind(self) -> str:
        """The model of the results whose place the run's model takes."""
        if self.training["history"] != "own":
            return f"{self.training['history']}_history"
        mode = self.training["embedding_mode"]
        return "fused" if mode == "both" else mode

    def table(self, model: str, task: str) -> tuple[list[str], NDArray[np.float64]]:
        """The users of a model and task in order, and their statistics, (U, S)."""
        found = pq.read_table(
            self.run / "evaluation" / "scores.parquet",
            filters=(pc.field("model") == model) & (pc.field("task") == task),
        ).sort_by("reviewer_id")
        columns = [found.column(name).to_numpy() for name in STATISTICS]
        return found.column("reviewer_id").to_pylist(), np.column_stack(columns).reshape(-1, len(STATISTICS))


@dataclass
class Cells:
    """Statistics of one column and task over its runs."""

    users: list[str]
    tables: list[NDArray[np.float64]]
    """R of (U, S)."""
    seed: int
    """By which the runs are drawn."""

    def among(self, users: set[str]) -> Cells:
        """The same, of some of the users."""
        kept = np.array([user in users for user in self.users], dtype=bool)
        return Cells([u for u in self.users if u in users], [table[kept] for table in self.tables], self.seed)

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Every metric of each run, (R,)."""
        found = [scores(table.sum(axis=0), len(table)) for table in self.tables]
        return {name: np.array([float(one[name]) for one in found]) for name in METRICS}

    def drawn(self, seed: int) -> dict[str, NDArray[np.float64]]:
        """Every metric over the runs in each resample of users and of runs, (B,)."""
        found = [scores(resample(table, seed), len(table)) for table in self.tables]
        chosen = np.random.default_rng([seed, self.seed]).integers(0, len(found), (len(found), RESAMPLES))
        return {
            name: np.take_along_axis(np.stack([one[name] for one in found]), chosen, axis=0).mean(axis=0)
            for name in METRICS
        }


def compare(runs: Sequence[Path], out: Path, seed: int = 0) -> dict[str, Any]:
    """Compare evaluated runs; `comparison.json`, `.md` and `.tex` go into `out`, which is replaced as a whole.

    Args:
        runs: run folders with a fresh evaluation, of the same users, tasks, decoding and encoder.
        out: the folder.
        seed: of the bootstrap.

    Raises:
        InputError: the runs cannot be compared; the message names what differs.
    """
    evaluated = [_read(run) for run in runs]
    check(evaluated)
    kinds: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        kinds.setdefault(one.kind, []).append(one)
    whole = kinds.get("fused", [])
    sources: dict[str, tuple[list[Evaluated], str]] = {}
    for model in CONTROLS:
        if model in kinds:
            sources[model] = (kinds[model], "fused")  # as each run calls its own model
        elif whole or model in ("most_frequent", "nearest"):
            sources[model] = (whole or evaluated[:1], model)
    tasks = list(evaluated[0].results["models"]["fused"])
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        cells = {}
        for place, (model, (of, name)) in enumerate(sources.items()):
            pairs = [one.table(name, task) for one in of]
            for one, (users, _) in zip(of, pairs, strict=True):
                if users != pairs[0][0]:
                    raise InputError(
                        f"{of[0].run} and {one.run} cannot be compared, their narratives of {name} for {task} are of "
                        f"{len(pairs[0][0])} and {len(users)} users. Evaluate them alike, with the same --text-users "
                        "on one command line."
                    )
            cells[model] = Cells(pairs[0][0], [table for _, table in pairs], place)
        found[task] = _compared(cells, seed)
    first = evaluated[0].run
    name = next((path.name for path in sorted((first / "dataset").glob("*")) if list(path.glob("test*.parquet"))), "")
    paper, remark = reference(name, (first / "release").exists())
    result = {
        "split": evaluated[0].results["split"],
        "n_users": evaluated[0].results["n_users"],
        "columns": {
            model: {
                "runs": [one.name for one in of],
                "seeds": [one.training["seed"] for one in of],
                "about": "trained so" if model in kinds else of[0].results["about"][model],
            }
            for model, (of, _) in sources.items()
        },
        "tasks": found,
        "differences": differences(evaluated),
        "bootstrap": {"over": "users and seeds", "resamples": RESAMPLES, "seed": seed},
        "paper": {"about": remark, "scores": paper.scores},
        **{
            key: evaluated[0].results[key]
            for key in ("encoder", "bleu_signature", "rouge_signature", "decoding", "versions")
        },
    }
    _write(out, result, paper)
    return result


def check(runs: Sequence[Evaluated]) -> None:
    """Refuse runs whose scores do not stand on the same ground.

    Raises:
        InputError: names two runs and what differs.
    """
    first = runs[0]
    for one in runs[1:]:
        told = [
            ("splits", first.results["split"], one.results["split"]),
            ("tasks", list(first.results["models"]["fused"]), list(one.results["models"]["fused"])),
            ("numbers of users", first.results["n_users"], one.results["n_users"]),
            ("ways of decoding", first.results["decoding"], one.results["decoding"]),
        ]
        for what, here, there in told:
            if here != there:
                raise InputError(
                    f"{first.run} and {one.run} cannot be compared, their {what} differ: {here} and {there}. Evaluate "
                    "them alike, with the same settings on one command line."
                )
        if first.references != one.references:
            raise InputError(
                f"{first.run} and {one.run} cannot be compared, their users or reference narratives differ: they were "
                "evaluated on different datasets. Train all of them on one dataset."
            )
        if first.encoder != one.encoder:
            raise InputError(
                f"{first.run} and {one.run} cannot be compared, their similarity was measured by different encoders. "
                "Name one for all with --encoder."
            )
    for one, other in itertools.combinations(runs, 2):
        if one.kind != other.kind:
            continue
        if one.training["seed"] == other.training["seed"]:
            raise InputError(
                f"{one.run} and {other.run} are both {COLUMNS.get(one.kind, one.kind)} of seed {one.training['seed']}. "
                "Give runs of different seeds, or of different embedding_mode or history."
            )
        apart = [key for key, value in one.training.items() if key not in SETTING and value != other.training.get(key)]
        if apart:
            raise InputError(
                f"{one.run} and {other.run} are both {COLUMNS.get(one.kind, one.kind)} but differ in training."
                f"{apart[0]}: {one.training[apart[0]]} and {other.training.get(apart[0])}. Compare seeds of one "
                "setting."
            )


def differences(runs: Sequence[Evaluated]) -> dict[str, dict[str, Any]]:
    """Settings of the training that differ between the columns, beside those that make them: values by run."""
    keys = dict.fromkeys(key for one in runs for key in one.training if key not in SETTING)
    values = {key: {one.name: one.training.get(key) for one in runs} for key in keys}
    return {key: by for key, by in values.items() if len({json.dumps(value) for value in by.values()}) > 1}


def _read(run: Path) -> Evaluated:
    folder = run / "evaluation"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    training = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))["config"]
    own = results["encoder"].startswith("content_encoder of this run")
    kept = pq.read_table(folder / "predictions.parquet", columns=["reviewer_id", "task", "reference"]).to_pylist()
    return Evaluated(
        run,
        results,
        training,
        manifest["inputs"]["stages"]["embeddings"] if own else results["encoder"],
        {(row["reviewer_id"], row["task"]): row["reference"] for row in kept},
    )


def _compared(cells: dict[str, Cells], seed: int) -> dict[str, Any]:
    """By metric, the score of each model over its runs, and the fused model against each of the others."""
    means = {model: {name: float(v.mean()) for name, v in own.values().items()} for model, own in cells.items()}
    values = {model: own.values() for model, own in cells.items()}
    drawn = {model: own.drawn(seed) for model, own in cells.items() if own.users}
    found: dict[str, Any] = {}
    for metric in METRICS:
        models = {}
        for model, own in cells.items():
            told: dict[str, Any] = interval(means[model][metric], drawn[model][metric] if own.users else np.zeros(0))
            models[model] = told | {"n": len(own.users), "values": [_number(value) for value in values[model][metric]]}
        found[metric] = {"models": models, "versus": {}}
    if "fused" not in cells:
        return found
    for model, own in cells.items():
        if model == "fused" or not own.users or not cells["fused"].users:
            continue
        both, other, base = cells["fused"], own, drawn
        part = own.users != both.users
        if part:  # a control of the first users alone
            shared = {*own.users} & {*both.users}
            both, other = both.among(shared), own.among(shared)
            base = {"fused": both.drawn(seed), model: other.drawn(seed)}
        here, there = both.values(), other.values()
        for metric in METRICS:
            if part and metric in ("distinct1", "distinct2", "unique_share"):
                # How distinct a text is was counted among all users of its model: of more users it is less.
                nothing = {"mean": None, "low": None, "high": None}
                found[metric]["versus"][model] = {
                    "percent": None,
                    "difference": nothing,
                    "p": None,
                    "n": len(other.users),
                }
                continue
            difference = float(here[metric].mean() - there[metric].mean())
            change = base["fused"][metric] - base[model][metric]
            level = float(there[metric].mean())
            found[metric]["versus"][model] = {
                "percent": 100 * difference / level if level > 0 and not np.isnan(difference) else None,
                "difference": interval(difference, change),
                # One user tells nothing of others.
                "p": p_value(difference, change) if len(other.users) > 1 else None,
                "n": len(other.users),
            }
    return found


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _grid(result: dict[str, Any], metrics: Sequence[str], paper: PaperTable | None) -> list[list[str]]:
    """The table in the paper's layout."""
    head = ["Output Feature", "Metrics", *COLUMNS.values(), "(%) vs CF", "(%) vs Content", "p vs CF", "p vs Content"]
    grid = [[*head, *(["Paper: CF / Content / CF + Content"] if paper else [])]]
    for task, found in result["tasks"].items():
        for metric in metrics:
            label, digits = LABELS[metric]
            models, versus = found[metric]["models"], found[metric]["versus"]
            cells = [format_interval(models[model], digits) if model in models else "–" for model in COLUMNS]
            halves = [versus.get(model, {"percent": None, "p": None}) for model in ("cf", "content")]
            cells += ["–" if half["percent"] is None else f"{half['percent']:+.1f}%" for half in halves]
            cells += [_p(half["p"]) for half in halves]
            if paper:
                own = paper.scores.get(task, {}).get(metric)
                cells.append(
                    " / ".join(format_number(value, 3 if metric == "similarity" else 2) for value in own)
                    if own
                    else "–"
                )
            grid.append([TASK_NAMES[task], label, *cells])
    return grid


def _control_grid(result: dict[str, Any]) -> list[list[str]]:
    """What the model with both halves has to beat, each with the p-value of its difference from it."""
    shown = [model for model in CONTROL_COLUMNS if model in result["columns"]]
    grid = [["Output Feature", "Metrics", COLUMNS["fused"], *(CONTROL_COLUMNS[model] for model in shown)]]
    for task, found in result["tasks"].items():
        for metric in PAPER:
            label, digits = LABELS[metric]
            models, versus = found[metric]["models"], found[metric]["versus"]
            cells = [format_number(models["fused"]["mean"], digits) if "fused" in models else "–"]
            for model in shown:
                p = versus.get(model, {}).get("p")
                cells.append(format_number(models[model]["mean"], digits) + (f" (p {_p(p)})" if p is not None else ""))
            grid.append([TASK_NAMES[task], label, *cells])
    return grid


def _p(value: float | None) -> str:
    """A p-value of a table; the smallest one that the resamples can tell is 1 / (B + 1).

    >>> _p(0.25), _p(1 / 1001), _p(None)
    ('0.250', '<0.001', '–')
    """
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _write(out: Path, result: dict[str, Any], paper: PaperTable) -> None:
    columns, seeds = result["columns"], {len(column["seeds"]) for column in result["columns"].values()}
    names = COLUMNS | CONTROL_COLUMNS
    head = (
        f"{result['n_users']} {result['split']} users. {UNITS}, each the mean over its seeds with a 95 % interval over "
        "users and seeds. p-values: paired bootstrap of the difference between CF + Content and the other, two-sided, "
        "not corrected for their number."
    )
    notes = [
        f"- {names[model]}: {column['about']} ({', '.join(column['runs'])}; "
        f"{'seeds' if len(column['seeds']) > 1 else 'seed'} {', '.join(map(str, column['seeds']))})"
        for model, column in columns.items()
    ]
    if seeds == {1}:
        notes.append("- One seed each: the intervals tell nothing of how much another training would differ.")
    for key, by in result["differences"].items():
        notes.append(f"- The runs differ in training.{key} too: {', '.join(f'{run} {v}' for run, v in by.items())}.")
    notes += [f"- {result['paper']['about']}", f"- Similarity by: {result['encoder']}"]
    further = [metric for metric in METRICS if metric not in PAPER]
    table, controls = _grid(result, PAPER, paper), _control_grid(result)
    text = [head, "", markdown(table), "", *notes, "", "## Controls", "", markdown(controls), ""]
    text += ["## Further metrics", "", markdown(_grid(result, further, None)), ""]
    new, old = (out.with_name(f".{out.name}.{state}") for state in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir(parents=True)
    (new / "comparison.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (new / "comparison.md").write_text("\n".join(text), encoding="utf-8")
    caption = f"{head} {result['paper']['about']}"
    (new / "comparison.tex").write_text(
        f"{latex(table, caption)}\n\n{latex(controls, 'Controls. ' + head)}\n", encoding="utf-8"
    )
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
