"""Write narratives for held-out users, by the model and its controls, and score them (section 5)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ... import outputs
from ...config import fingerprint
from ...errors import InputError
from ...metrics.controls import CONTROLS
from ...metrics.encoder import similarity_encoder
from ...metrics.results import write_tables
from ...metrics.scoring import PREDICTIONS, score
from ...metrics.text_metrics import signatures
from ...outputs import rows, split_files
from ...schema import TASKS, metadata_only_tasks
from .controls import derangement, nearest, train_narratives
from .generation import Writer, described
from .settings import PACKAGES, EvaluationConfig

PART = 1024
"""Narratives after which they are kept: what a killed evaluation loses at most."""


def build(run: Path, out: Path, work: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write and score narratives; predictions, scores, results and tables go into `out`."""
    users = [
        {"row": number, **row}
        for number, row in enumerate(rows(split_files(run / "dataset", config.split), limit=config.max_users or None))
    ]
    if not users:
        raise InputError(f"The {config.split} split holds no users. Give more reviews, or a larger share to the split.")
    signatures()  # told before anything is written that a library is missing
    encoder_name, encoder = similarity_encoder(run, config.encoder)
    trained = _manifest(run, "model")["config"]
    predictions = predict(run, users, work, config, trained)
    pq.write_table(predictions, out / "predictions.parquet")
    found, table = score(predictions, list(CONTROLS), config.tasks, encoder, config.seed)
    pq.write_table(table, out / "scores.parquet")
    results = {
        "split": config.split,
        "n_users": len(users),
        "max_users": config.max_users,
        **found,
        "about": about(trained, config.text_users if 0 < config.text_users < len(users) else None),
        "missing_references": {task: sum(not TASKS[task].text(user) for user in users) for task in config.tasks},
        "encoder": encoder_name,
        "decoding": described(config),
        "trained": {name: trained[name] for name in ("embedding_mode", "history", "adapter")},
        "seeds": {"training": trained["seed"], "evaluation": config.seed},
        "versions": outputs.versions(PACKAGES),
        "narrators": sorted({str(user["narrator"]) for user in users}),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_tables(out, results)
    return {"users": len(users), "narratives": predictions.num_rows}


def written_by(name: str, trained: dict[str, Any]) -> str | None:
    """The model whose narratives are those of `name`; None where the model reads nothing of the kind.

    A model that was trained on CF alone is its own CF control, and has no content to be shown; a model that reads
    the history as text, or none, has neither half. Each is judged as it was trained.

    >>> written_by("cf", {"embedding_mode": "cf", "history": "own"})
    'fused'
    >>> written_by("content", {"embedding_mode": "cf", "history": "own"}) is None
    True
    """
    without = trained["history"] in ("empty", "text")  # of soft tokens
    if name in ("cf", "content") and (without or trained["embedding_mode"] != "both"):
        return "fused" if trained["embedding_mode"] == name and not without else None
    if name == "shuffled_history" and trained["history"] == "empty":
        return None
    return "fused" if without and name == f"{trained['history']}_history" else name


def about(trained: dict[str, Any], text_users: int | None = None) -> dict[str, str]:
    """What each model of the results is, for a model trained as `trained`; the text control of some users alone."""
    told = dict(CONTROLS)
    for name in CONTROLS:
        by = written_by(name, trained)
        if by is None:
            told[name] = "nothing: the model does not read it"
        elif by != name:
            told[name] = "the model itself, which was trained so"
        elif name == "text_history" and text_users:
            told[name] += f"; the first {text_users} users alone"
    return told


def predict(
    run: Path, users: list[dict[str, Any]], work: Path, config: EvaluationConfig, trained: dict[str, Any]
) -> pa.Table:
    """The narratives of every model, task and user that has a reference.

    A finished part in `work` is kept, and so is what the run's last evaluation wrote with the same model, users and
    decoding: to score it anew, no model is loaded.

    Args:
        run: the run folder.
        users: rows of the dataset, each with its `row` in the split.
        work: where finished parts lie.
        config: what to write, and how.
        trained: settings of the training.
    """
    tasks = config.tasks
    frequent, longest = train_narratives(run, tasks)
    withheld = metadata_only_tasks(tasks, trained["leak_safe"])
    alike = nearest(run, config.split, len(users), tasks, withheld)
    asked = {task: [number for number, user in enumerate(users) if TASKS[task].text(user)] for task in tasks}
    as_text = trained["history"] == "text"
    writer = Writer(run, config, longest)
    others = derangement(len(users), config.seed)
    mark = fingerprint(
        [_manifest(run, folder)["fingerprint"] for folder in ("dataset", "embeddings", "model")]
        + [config.split, config.max_users, config.text_users, config.batch_size, described(config), config.seed]
    )
    before = _written_before(run, mark)
    texts: dict[tuple[str, str], list[str | None]] = {}
    for task in tasks:
        texts["most_frequent", task] = [frequent[task]] * len(asked[task])
        texts["nearest", task] = [alike[task][number] for number in asked[task]]
    language_models = [
        name
        for name in CONTROLS
        if name not in ("most_frequent", "nearest")
        and written_by(name, trained) == name
        and not (name == "shuffled_history" and len(users) == 1)  # there is no other
    ]
    total = sum(
        min(len(numbers), config.text_users or len(numbers)) if name == "text_history" else len(numbers)
        for name, numbers in itertools.product(language_models, asked.values())
    )
    with tqdm(total=total, desc="      writing", unit="narrative", leave=False) as bar:
        for name, task in itertools.product(language_models, tasks):
            chosen = asked[task][: config.text_users or None] if name == "text_history" else asked[task]
            ids = [users[number]["reviewer_id"] for number in chosen]
            if all((name, task, user) in before for user in ids):
                texts[name, task] = [before[name, task, user] for user in ids]
                bar.update(len(ids))
            else:
                blank = name == "empty_history" or (name == "fused" and trained["history"] == "empty")
                shown = [None if blank else _shown(name, number, users, others) for number in chosen]
                texts[name, task] = [*_in_parts(writer, name, task, shown, work, as_text, bar)]
    found = [
        {
            "reviewer_id": users[number]["reviewer_id"],
            "task": task,
            "model": name,
            "prediction": text,
            "reference": TASKS[task].text(users[number]),
        }
        for name, task in itertools.product(CONTROLS, tasks)
        if (written := texts.get((written_by(name, trained) or "", task)))
        for number, text in zip(asked[task], written, strict=False)  # a control may be of the first users alone
        if text is not None
    ]
    return pa.Table.from_pylist(found, schema=PREDICTIONS.with_metadata({"generation": mark}))


def _in_parts(
    writer: Writer,
    name: str,
    task: str,
    shown: list[dict[str, Any] | None],
    work: Path,
    as_text: bool,
    bar: tqdm,
) -> Iterator[str]:
    """What the language model writes as the model `name`, in parts, each kept in `work` once it is finished."""
    half: Literal["cf", "content"] | None = name if name in ("cf", "content") else None  # type: ignore[assignment]
    for start in range(0, len(shown), PART):
        part, histories = work / f"{name}-{task}-{start}.parquet", shown[start : start + PART]
        if part.exists():
            bar.update(len(histories))
        else:
            same = not any(histories) and not writer.config.temperature  # one prompt, one narrative
            texts = writer.write(
                histories[:1] if same else histories,
                task,
                bar,
                half=half,
                as_text=as_text or name == "text_history",
                seed=int(fingerprint([writer.config.seed, name, task, start])[:8], 16),
            )
            if same:
                texts *= len(histories)
                bar.update(len(histories) - 1)
            pq.write_table(pa.table({"prediction": texts}), part.with_suffix(".new"))
            part.with_suffix(".new").rename(part)
        yield from pq.read_table(part).column("prediction").to_pylist()


def _shown(name: str, number: int, users: list[dict[str, Any]], others: list[int]) -> dict[str, Any]:
    """The user whose history is shown in the place of that of user `number`."""
    return users[others[number] if name == "shuffled_history" else number]


def _written_before(run: Path, mark: str) -> dict[tuple[str, str, str], str]:
    """The run's last predictions by model, task and user, if they are those that `mark` stands for."""
    path = run / "evaluation" / "predictions.parquet"
    if not path.exists() or (pq.read_schema(path).metadata or {}).get(b"generation") != mark.encode():
        return {}
    kept = pq.read_table(path).to_pylist()
    return {(row["model"], row["task"], row["reviewer_id"]): row["prediction"] for row in kept}


def _manifest(run: Path, folder: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest
