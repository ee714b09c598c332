"""Write narratives for held-out users, by the model and its controls, and score them (section 5)."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState

from ... import outputs
from ...config import fingerprint
from ...errors import ConfigError, InputError
from ...metrics.scoring import PREDICTION_SCHEMA, score, similarity_encoder
from ...metrics.tables import write_tables
from ...metrics.text_metrics import signatures
from ...progress import Bar
from ...schema import TASKS, metadata_only_tasks
from ...vectors.histories import derangement
from .controls import CONTROLS, nearest, train_narratives
from .generation import Writer, describe_decoding
from .settings import PACKAGES, EvaluationConfig

PART = 1024
"""Narratives per part; an interrupted evaluation loses at most one part."""


def build(run: Path, out: Path, work: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write and score narratives; predictions, scores, results and tables go into `out`.

    Of several processes, each writes a share of the narratives, and the first scores them.

    Raises:
        InputError: the split has no users.
        ConfigError: the model was trained without tasks.
    """
    files = outputs.dataset_files(run, config.split)
    users = [{"row": row, **user} for row, user in enumerate(outputs.rows(files, limit=config.users or None))]
    if not users:
        raise InputError(
            f"The {config.split} split contains no users."
            + (outputs.preview(run) or " Provide more reviews, or a larger share for the split.")
        )
    trained = outputs.manifest(run, "train")["config"]
    if not trained["tasks"]:
        raise ConfigError(
            f"The model of {run} was trained to rank items only (training.tasks is empty), expected one that writes "
            f"narratives. Evaluate its ranking with `regen next-item {run}`, or train it with tasks."
        )
    signatures()  # raises for a missing library before anything is written
    encoder_name, encoder = similarity_encoder(run, config.encoder)
    predictions = predict(run, users, work, config, trained)
    if not PartialState().is_main_process:
        return {}
    outputs.write_parquet(out / outputs.PREDICTIONS, predictions)
    scores, statistics = score(predictions, list(CONTROLS), config.tasks, encoder, config.seed)
    outputs.write_parquet(out / outputs.SCORES, statistics)
    results = {
        "split": config.split,
        "n_users": len(users),
        "users": config.users,
        **scores,
        "about": describe_models(trained, config.text_users if 0 < config.text_users < len(users) else None),
        "missing_references": {task: sum(not TASKS[task].text(user) for user in users) for task in config.tasks},
        "encoder": encoder_name,
        "decoding": describe_decoding(config),
        "trained": {name: trained[name] for name in ("embedding_mode", "history", "adapter")},
        "seeds": {"training": trained["seed"], "evaluation": config.seed},
        "versions": outputs.versions(PACKAGES),
        "narrators": sorted({str(user["narrator"]) for user in users}),
    }
    outputs.write_results(out, results)
    write_tables(out, results)
    return {"users": len(users), "narratives": predictions.num_rows}


def source_of(model: str, trained: dict[str, Any]) -> str | None:
    """The model whose narratives are reported for `model`; None where the trained model cannot take its input.

    A model that was trained on CF vectors only is its own CF control and has no content vectors to show. A model that
    reads the history as text, or no history, has neither half.

    >>> source_of("cf", {"embedding_mode": "cf", "history": "own"})
    'fused'
    >>> source_of("content", {"embedding_mode": "cf", "history": "own"}) is None
    True
    """
    no_soft_tokens = trained["history"] in ("empty", "text")
    if model in ("cf", "content") and (no_soft_tokens or trained["embedding_mode"] != "both"):
        return "fused" if trained["embedding_mode"] == model and not no_soft_tokens else None
    if model == "shuffled_history" and trained["history"] == "empty":
        return None
    return "fused" if no_soft_tokens and model == f"{trained['history']}_history" else model


def describe_models(trained: dict[str, Any], text_users: int | None = None) -> dict[str, str]:
    """A description of each model in the results; `text_users` users have the control `text_history` (None: all)."""
    about = dict(CONTROLS)
    for model in CONTROLS:
        source = source_of(model, trained)
        if source is None:
            about[model] = "not available: the model does not read this input"
        elif source != model:
            about[model] = "the model itself, which was trained on this input"
        elif model == "text_history" and text_users:
            about[model] += f"; only the first {text_users} users"
    return about


def predict(
    run: Path, users: list[dict[str, Any]], work: Path, config: EvaluationConfig, trained: dict[str, Any]
) -> pa.Table:
    """The narratives of every model and task, for the users with a reference.

    Finished parts in `work` are reused. The last evaluation of the run is reused if model, users and decoding are the
    same; then no model is loaded. `users` are rows of the dataset with their `row` in the split.
    """
    tasks = config.tasks
    most_frequent, longest = train_narratives(run, tasks)
    withheld = metadata_only_tasks(tasks, trained["leak_safe"])
    of_nearest = nearest(run, config.split, len(users), tasks, withheld)
    selected = {task: [number for number, user in enumerate(users) if TASKS[task].text(user)] for task in tasks}
    texts: dict[tuple[str, str], list[str | None]] = {}
    for task in tasks:
        texts["most_frequent", task] = [most_frequent[task]] * len(selected[task])
        texts["nearest", task] = [of_nearest[task][number] for number in selected[task]]
    key = fingerprint(
        [outputs.manifest(run, stage)["fingerprint"] for stage in ("dataset", "embeddings", "train")]
        + [config.split, config.users, config.text_users, config.batch_size, describe_decoding(config), config.seed]
    )
    previous = _previous_texts(run, key)
    writer = Writer(run, config, longest)
    others = derangement(len(users), config.seed)
    language_models = [
        model
        for model in CONTROLS
        if model not in ("most_frequent", "nearest")
        and source_of(model, trained) == model
        and not (model == "shuffled_history" and len(users) == 1)  # there is no other user
    ]
    jobs = [
        (model, task, selected[task][: config.text_users or None] if model == "text_history" else selected[task])
        for model, task in itertools.product(language_models, tasks)
    ]
    parts: dict[tuple[str, str], list[Part]] = {}
    for model, task, numbers in jobs:
        keys = [(model, task, users[number]["reviewer_id"]) for number in numbers]
        if all(key in previous for key in keys):
            texts[model, task] = [previous[key] for key in keys]
            continue
        if model == "empty_history" or (model == "fused" and trained["history"] == "empty"):
            shown: list[dict[str, Any] | None] = [None] * len(numbers)
        else:
            shown = [users[others[number] if model == "shuffled_history" else number] for number in numbers]
        as_text = model == "text_history" or trained["history"] == "text"
        parts[model, task] = [
            Part(model, task, start, shown[start : start + PART], as_text, work) for start in range(0, len(shown), PART)
        ]
    write_parts([part for of_job in parts.values() for part in of_job], writer)
    for key_of_job, of_job in parts.items():
        texts[key_of_job] = [text for part in of_job for text in part.texts()]
    rows = [
        {
            "reviewer_id": users[number]["reviewer_id"],
            "task": task,
            "model": model,
            "prediction": text,
            "reference": TASKS[task].text(users[number]),
        }
        for model, task in itertools.product(CONTROLS, tasks)
        for number, text in zip(  # `text_history` may cover only the first users
            selected[task], texts.get((source_of(model, trained) or "", task), []), strict=False
        )
        if text is not None
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA.with_metadata({"generation": key}))


@dataclasses.dataclass
class Part:
    """Up to `PART` narratives of one model and task, from `start` on, for the histories `shown`."""

    model: str
    task: str
    start: int
    shown: list[dict[str, Any] | None]
    as_text: bool
    work: Path

    @property
    def file(self) -> Path:
        """The file of the finished part."""
        return self.work / f"{self.model}-{self.task}-{self.start}.parquet"

    def texts(self) -> list[str]:
        """The narratives of the finished part."""
        return pq.read_table(self.file).column("prediction").to_pylist()

    def distinct(self, writer: Writer) -> int:
        """The number of narratives to generate: one prompt, one narrative."""
        return len(self.shown) if any(self.shown) or writer.config.temperature else 1

    def write(self, writer: Writer, bar: Bar) -> None:
        """Write the part, unless it is finished."""
        number = self.distinct(writer)
        if self.file.exists():
            bar.update(number)
            return
        half: Literal["cf", "content"] | None = self.model if self.model in ("cf", "content") else None  # type: ignore[assignment]
        seed = int(fingerprint([writer.config.seed, self.model, self.task, self.start])[:8], 16)
        texts = writer.write(self.shown[:number], self.task, bar, half=half, as_text=self.as_text, seed=seed)
        texts *= len(self.shown) // number
        outputs.write_parquet(self.file, pa.table({"prediction": texts}))


def write_parts(parts: list[Part], writer: Writer) -> None:
    """Write all `parts` that are not finished; of several processes, each writes a share of similar cost."""
    state = PartialState()
    if state.num_processes > 1:
        longest = {task: max(map(len, texts), default=0) for task, texts in writer.longest.items()}
        parts = sorted(parts, key=lambda part: -part.distinct(writer) * longest[part.task])
    own = parts[state.process_index :: state.num_processes]
    total = sum(part.distinct(writer) for part in own)
    hidden = not state.is_main_process
    with Bar(about="writing", total=total, unit="narratives", disable=hidden) as bar:
        for part in own:
            part.write(writer, bar)
    state.wait_for_everyone()


def _previous_texts(run: Path, key: str) -> dict[tuple[str, str, str], str]:
    """The predictions of the run's last evaluation by model, task and user, empty unless they have the same `key`."""
    path = outputs.path(run, "evaluate", outputs.PREDICTIONS)
    if not path.exists() or (pq.read_schema(path).metadata or {}).get(b"generation") != key.encode():
        return {}
    rows = outputs.predictions(run).to_pylist()
    return {(row["model"], row["task"], row["reviewer_id"]): row["prediction"] for row in rows}
