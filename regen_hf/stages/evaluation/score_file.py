"""Scores for anybody's narratives: a file of predictions in, the same scores as those of a run's own model out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import outputs
from ...errors import InputError
from ...metrics.encoder import similarity_encoder
from ...metrics.results import write_tables
from ...metrics.scoring import PREDICTIONS, score
from ...outputs import rows, split_files
from ...schema import TASKS
from ...vectors.encoder import load_encoder
from .settings import PACKAGES

NEEDED = ("reviewer_id", "task", "prediction")


def score_file(
    path: Path,
    out: Path,
    run: Path | None = None,
    encoder: str | None = None,
    split: str = "test",
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions in the parquet file `path`; `results.json`, `scores.parquet` and tables go into `out`.

    Args:
        path: columns `reviewer_id`, `task`, `prediction`; `model`, or else the file's name stands for it; and
            `reference`, or else a run must be given.
        out: a folder, made if it does not exist.
        run: the run whose dataset has the references and whose encoder `similarity` uses.
        encoder: the sentence-transformers model behind `similarity`; without one and without a run it is null.
        split: with a run, whose users the predictions are of.
        seed: of the bootstrap.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: the file cannot be scored; the message tells why.
    """
    table = read_predictions(path, references=run is None)
    models, tasks = (list(dict.fromkeys(table.column(name).to_pylist())) for name in ("model", "task"))
    tasks = [task for task in TASKS if task in tasks]
    missing_predictions = None
    if run is not None:
        known = {
            (user["reviewer_id"], task): TASKS[task].text(user)
            for user in rows(split_files(run / "dataset", split), ["reviewer_id", "last_purchase", "user"])
            for task in tasks
        }
        pairs = list(zip(table.column("reviewer_id").to_pylist(), table.column("task").to_pylist(), strict=True))
        strangers = [user for user, task in pairs if (user, task) not in known]
        if strangers:
            raise InputError(
                f"{path} holds predictions for {len(set(strangers))} users who are not in the {split} split of {run}, "
                f"such as {strangers[0]!r}. Predict for the users of that split, or name another with --split."
            )
        references = pa.array([known[pair] for pair in pairs], pa.string())
        table = table.set_column(table.schema.get_field_index("reference"), "reference", references)
        given = Counter(
            (model, task)
            for model, (user, task) in zip(table.column("model").to_pylist(), pairs, strict=True)
            if known[user, task]
        )
        wanted = Counter(task for (_, task), text in known.items() if text)
        missing_predictions = {
            model: {task: wanted[task] - given[model, task] for task in tasks if given[model, task] < wanted[task]}
            for model in models
        }
    with_reference = pc.greater(pc.fill_null(pc.utf8_length(table.column("reference")), 0), 0)
    missing = Counter(table.filter(pc.invert(with_reference)).column("task").to_pylist())
    table = table.filter(with_reference)
    if not table.num_rows:
        raise InputError(
            f"No prediction in {path} has a reference, so there is nothing to score. Fill the column reference, or "
            "name a run whose dataset has the references: regen score FILE --references RUN."
        )
    name, loaded = None, None
    if run is not None:
        name, loaded = similarity_encoder(run, encoder)
    elif encoder is not None:
        name, loaded = Path(encoder).name if Path(encoder).is_absolute() else encoder, load_encoder(encoder)
    found, statistics = score(table, models, tasks, loaded, seed)
    results = {
        "split": split if run is not None else None,
        "n_users": len(pc.unique(table.column("reviewer_id"))),
        **found,
        "about": dict.fromkeys(models, f"predictions from {path.name}"),
        "missing_references": {task: missing[task] for task in tasks},
        "missing_predictions": missing_predictions,
        "encoder": name,
        "seeds": {"evaluation": seed},
        "versions": outputs.versions(PACKAGES),
    }
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(statistics, out / "scores.parquet")
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_tables(out, results)
    return results


def read_predictions(path: Path, references: bool) -> pa.Table:
    """The predictions in a parquet file as `scoring.PREDICTIONS`, checked; a null prediction is an empty text.

    Args:
        path: the file.
        references: whether it must hold the references itself; if not, its own are passed over.

    Raises:
        InputError: the file is not what was expected.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}, given to `regen score`. Give a parquet file of predictions.")
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise InputError(f"{path} is not readable as parquet: {error}. Give a parquet file of predictions.") from None
    lacking = [name for name in (*NEEDED, *(["reference"] if references else [])) if name not in table.column_names]
    if lacking:
        hint = " References can come from a run: regen score FILE --references RUN." if "reference" in lacking else ""
        raise InputError(
            f"{path} lacks the columns {', '.join(lacking)}; it has {', '.join(table.column_names) or 'none'}. "
            f"Expected: {', '.join(PREDICTIONS.names)}.{hint}"
        )
    if not table.num_rows:
        raise InputError(f"{path} holds no predictions. Give a row for each user and task.")
    columns = {}
    for name in PREDICTIONS.names:
        if name == "model" and name not in table.column_names:
            columns[name] = pa.array([path.stem] * table.num_rows, pa.string())
        elif name == "reference" and not references:
            columns[name] = pa.nulls(table.num_rows, pa.string())
        else:
            columns[name] = _texts(table.column(name), name, path)
    columns["prediction"] = pc.fill_null(columns["prediction"], "")
    table = pa.table(columns, schema=PREDICTIONS)
    for name in ("reviewer_id", "task", "model"):
        if table.column(name).null_count:
            raise InputError(
                f"{path} holds {table.column(name).null_count} rows without a {name}, expected one in each."
            )
    unknown = [task for task in pc.unique(table.column("task")).to_pylist() if task not in TASKS]
    if unknown:
        raise InputError(f"{path} holds the tasks {', '.join(unknown)}, expected some of {', '.join(TASKS)}.")
    times = table.group_by(["reviewer_id", "task", "model"]).aggregate([([], "count_all")])
    twice = times.filter(pc.greater(times.column("count_all"), 1)).to_pylist()
    if twice:
        raise InputError(
            f"{path} holds {twice[0]['count_all']} predictions of {twice[0]['model']!r} for user "
            f"{twice[0]['reviewer_id']!r} and {twice[0]['task']}, and {len(twice) - 1} more such; expected one each."
        )
    return table


def _texts(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise InputError(f"The column {name} of {path} holds {column.type}, expected text.")
    return column.cast(pa.string())
