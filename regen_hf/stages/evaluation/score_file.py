"""Score the narratives of any model, from a file of predictions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import outputs
from ...errors import InputError
from ...metrics.scoring import PREDICTION_SCHEMA, score, similarity_encoder
from ...metrics.tables import write_tables
from ...schema import TASKS, text_columns
from .settings import PACKAGES

REQUIRED = ("reviewer_id", "task", "prediction")


def score_file(
    path: Path,
    out: Path,
    run: Path | None = None,
    encoder: str | None = None,
    split: str = "test",
    seed: int = 0,
) -> dict[str, Any]:
    """Score the predictions in the parquet file `path`; results, scores and tables go into `out`.

    Args:
        path: columns `reviewer_id`, `task`, `prediction`; `model`, by default the file's name; and `reference`,
            unless `run` is given.
        out: a folder, created if it does not exist.
        run: the run whose dataset contains the references and whose encoder computes `similarity`.
        encoder: the sentence-transformers model behind `similarity`; without it and without a run, the score is null.
        split: the split of `run` that the predictions belong to.
        seed: seed of the bootstrap.

    Returns:
        The content of `results.json`.

    Raises:
        InputError: the file cannot be scored.
    """
    table = read_predictions(path, references=run is None)
    missing_predictions = None
    if run is not None:
        table, missing_predictions = _add_references(table, path, run, split)
    models, tasks = (list(dict.fromkeys(table.column(name).to_pylist())) for name in ("model", "task"))
    tasks = [task for task in TASKS if task in tasks]
    with_reference = pc.greater(pc.fill_null(pc.utf8_length(table.column("reference")), 0), 0)
    missing = Counter(table.filter(pc.invert(with_reference)).column("task").to_pylist())
    table = table.filter(with_reference)
    if not table.num_rows:
        raise InputError(
            f"No prediction in {path} has a reference, so there is nothing to score. Fill the column reference, or "
            "take the references from the dataset of a run: regen score FILE --references RUN."
        )
    encoder_name, model = similarity_encoder(run, encoder)
    scores, statistics = score(table, models, tasks, model, seed)
    results = {
        "split": split if run is not None else None,
        "n_users": len(pc.unique(table.column("reviewer_id"))),
        **scores,
        "about": dict.fromkeys(models, f"predictions from {path.name}"),
        "missing_references": {task: missing[task] for task in tasks},
        "missing_predictions": missing_predictions,
        "encoder": encoder_name,
        "seeds": {"evaluation": seed},
        "versions": outputs.versions(PACKAGES),
    }
    out.mkdir(parents=True, exist_ok=True)
    outputs.write_parquet(out / outputs.SCORES, statistics)
    outputs.write_results(out, results)
    write_tables(out, results)
    return results


def read_predictions(path: Path, references: bool) -> pa.Table:
    """The checked predictions in a parquet file, as `PREDICTION_SCHEMA`; a null prediction becomes an empty text.

    Without `references` the file need not contain them, and they are null in the result.

    Raises:
        InputError: the file is missing or unreadable, or its content is invalid.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}. `regen score` expects a parquet file of predictions.")
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
        raise InputError(f"{path} is not readable as parquet: {error}. Give a parquet file of predictions.") from None
    required = (*REQUIRED, *(["reference"] if references else []))
    if missing := [name for name in required if name not in table.column_names]:
        hint = " A run can provide the references: regen score FILE --references RUN." if "reference" in missing else ""
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.column_names) or 'none'}. "
            f"Expected: {', '.join(PREDICTION_SCHEMA.names)}.{hint}"
        )
    if not table.num_rows:
        raise InputError(f"{path} contains no predictions. Give a row for each user and task.")
    columns = {}
    for name in PREDICTION_SCHEMA.names:
        if name == "model" and name not in table.column_names:
            columns[name] = pa.array([path.stem] * table.num_rows, pa.string())
        elif name == "reference" and not references:
            columns[name] = pa.nulls(table.num_rows, pa.string())
        else:
            columns[name] = _texts(table.column(name), name, path)
    columns["prediction"] = pc.fill_null(columns["prediction"], "")
    table = pa.table(columns, schema=PREDICTION_SCHEMA)
    for name in ("reviewer_id", "task", "model"):
        if nulls := table.column(name).null_count:
            raise InputError(f"{path} contains {nulls} rows without a {name}, expected one in each row.")
    unknown = [task for task in pc.unique(table.column("task")).to_pylist() if task not in TASKS]
    if unknown:
        raise InputError(f"{path} contains the tasks {', '.join(unknown)}, expected some of {', '.join(TASKS)}.")
    counts = table.group_by(["reviewer_id", "task", "model"]).aggregate([([], "count_all")])
    duplicates = counts.filter(pc.greater(counts.column("count_all"), 1)).to_pylist()
    if duplicates:
        first = duplicates[0]
        raise InputError(
            f"{path} contains {first['count_all']} predictions of {first['model']!r} for user {first['reviewer_id']!r} "
            f"and {first['task']}, and {len(duplicates) - 1} more duplicates; expected one prediction each."
        )
    return table


def _add_references(table: pa.Table, path: Path, run: Path, split: str) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """The predictions with the references of `run`, and by model and task the number of missing predictions."""
    tasks = set(table.column("task").to_pylist())
    references = {
        (user["reviewer_id"], name): task.text(user)
        for user in outputs.rows(outputs.dataset_files(run, split), text_columns(tasks, "reviewer_id"))
        for name, task in TASKS.items()
        if name in tasks
    }
    keys = list(zip(table.column("reviewer_id").to_pylist(), table.column("task").to_pylist(), strict=True))
    if unknown := [user for user, task in keys if (user, task) not in references]:
        raise InputError(
            f"{path} contains predictions for {len(set(unknown))} users who are not in the {split} split of {run}, "
            f"such as {unknown[0]!r}. Predict for the users of that split, or select another split with --split."
        )
    column = pa.array([references[key] for key in keys], pa.string())
    models = table.column("model").to_pylist()
    given = Counter((model, key[1]) for model, key in zip(models, keys, strict=True) if references[key])
    expected = Counter(task for (_, task), text in references.items() if text)
    missing = {
        model: {
            task: expected[task] - given[model, task]
            for task in TASKS
            if task in tasks and given[model, task] < expected[task]
        }
        for model in dict.fromkeys(models)
    }
    return table.set_column(table.schema.get_field_index("reference"), "reference", column), missing


def _texts(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """`column` as strings."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise InputError(f"The column {name} of {path} contains {column.type}, expected text.")
    return column.cast(pa.string())
