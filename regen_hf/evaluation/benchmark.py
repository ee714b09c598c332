"""The benchmark of section 5: one narrative per user and task, by the model and by its controls, then their scores."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..errors import ConfigError, InputError, missing_extra
from ..run.stages import STAGES, versions
from ..schema import TASKS, rows, split_files
from . import CONTROLS
from .metrics import signatures
from .report import write_tables
from .scoring import PREDICTIONS, score

if TYPE_CHECKING:
    from ..model import RegenForCausalLM, RegenProcessor
    from ..training.collator import Histories
    from . import EvaluationConfig


def build(run: Path, out: Path, work: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write and score narratives; see `regen_hf.evaluation.build`."""
    users = [
        {"row": number, **row}
        for number, row in enumerate(rows(split_files(run / "dataset", config.split), limit=config.max_users or None))
    ]
    if not users:
        raise InputError(f"The {config.split} split holds no users. Give more reviews, or a larger share to the split.")
    signatures()  # told before anything is written that a library is missing
    encoder_name, encoder = similarity_encoder(run, config)
    trained = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))["config"]
    predictions = predict(run, users, work, config, as_text=trained["history"] == "text")
    pq.write_table(predictions, out / "predictions.parquet")
    found, table = score(predictions, list(CONTROLS), config.tasks, encoder, config.seed)
    pq.write_table(table, out / "scores.parquet")
    results = {
        "split": config.split,
        "n_users": len(users),
        "max_users": config.max_users,
        **found,
        "about": CONTROLS,
        "missing_references": {task: sum(not TASKS[task].text(user) for user in users) for task in config.tasks},
        "encoder": encoder_name,
        "decoding": {"method": "greedy", "max_new_tokens": config.max_new_tokens},
        "seeds": {"training": trained["seed"], "evaluation": config.seed},
        "versions": versions(STAGES["evaluate"]),
        "narrators": sorted({str(user["narrator"]) for user in users}),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_tables(out, results)
    return {"users": len(users), "narratives": predictions.num_rows}


def predict(
    run: Path, users: list[dict[str, Any]], work: Path, config: EvaluationConfig, as_text: bool = False
) -> pa.Table:
    """The narratives of every model, task and user that has a reference; a finished part in `work` is kept.

    `as_text`: the model reads a history as text in the prompt, as it was trained to.
    """
    try:
        import torch

        from ..model import RegenForCausalLM, RegenProcessor
        from ..training.collator import Histories
    except ImportError as error:
        raise missing_extra(error.name or "transformers", "train") from None
    from safetensors.numpy import load_file

    from ..embeddings import VectorStore

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = RegenForCausalLM.from_pretrained(run / "model").eval()
    model.to(torch.device(device))
    processor = RegenProcessor.from_pretrained(run / "model")
    embeddings = run / "embeddings"
    histories = Histories(
        VectorStore(embeddings / config.split),
        load_file(embeddings / "cf.safetensors")["item_factors"],
        np.load(embeddings / "content_items.npy", mmap_mode="r", allow_pickle=False),
    )
    others = derangement(len(users), config.seed)
    frequent = most_frequent(run, config.tasks)
    parts = []
    total = sum(1 for task in config.tasks for user in users if TASKS[task].text(user)) * (len(CONTROLS) - 1)
    with tqdm(total=total, desc="      writing", unit="narrative", leave=False) as bar:
        for name in CONTROLS:
            for task in config.tasks:
                part = work / f"{name}-{task}.parquet"
                asked = [number for number, user in enumerate(users) if TASKS[task].text(user)]
                if not part.exists():
                    if name == "most_frequent":
                        texts = [frequent[task]] * len(asked)
                    else:
                        shown: list[dict[str, Any] | None] = [
                            None if name == "empty_history" else users[others[n] if name == "shuffled_history" else n]
                            for n in asked
                        ]
                        texts = write(model, processor, histories, shown, task, config, bar, as_text)
                    table = pa.table(
                        {
                            "reviewer_id": [users[number]["reviewer_id"] for number in asked],
                            "task": [task] * len(asked),
                            "model": [name] * len(asked),
                            "prediction": texts,
                            "reference": [TASKS[task].text(users[number]) for number in asked],
                        },
                        schema=PREDICTIONS,
                    )
                    pq.write_table(table, part.with_suffix(".new"))
                    part.with_suffix(".new").rename(part)
                elif name != "most_frequent":
                    bar.update(len(asked))
                parts.append(pq.read_table(part))
    return pa.concat_tables(parts)


def write(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    histories: Histories,
    users: list[dict[str, Any] | None],
    task: str,
    config: EvaluationConfig,
    bar: tqdm,
    as_text: bool = False,
) -> list[str]:
    """One narrative of `task` per user by greedy decoding; None stands for an empty history."""
    import torch

    from ..model import interaction_features
    from ..training.collator import padded_features
    from ..training.text_history import fit_text

    window = model.config.window
    room = None if window is None else window - config.max_new_tokens
    lengths = [len(user["purchase_history"]) if user else 0 for user in users]
    texts = [""] * len(users)
    withheld = task in processor.metadata_only_tasks
    # Histories of one length need no padding, so the batches are of neighbours in length.
    order = sorted(range(len(users)), key=lambda number: lengths[number])
    for start in range(0, len(order), config.batch_size):
        batch = order[start : start + config.batch_size]
        try:
            if as_text:
                shown = [user["purchase_history"] if (user := users[number]) else [] for number in batch]
                fitted = [(0, fit_text(processor, history, task, room)[1]) for history in shown]
            else:
                fitted = [processor.fit(lengths[number], task=task, max_length=room) for number in batch]
        except ValueError as error:
            raise ConfigError(
                f"The model's window of {window} tokens leaves {room} beside the {config.max_new_tokens} of "
                f"max_new_tokens: {error} Lower evaluation.max_new_tokens."
            ) from None
        kept = [n for n, _ in fitted]
        inputs = processor.tokenizer.pad(
            {"input_ids": [prompt for _, prompt in fitted]}, padding_side="left", return_tensors="pt"
        )
        chosen = [users[number] for number in batch]
        vectors = histories.batch([user["row"] if user else None for user in chosen], [withheld] * len(batch), kept)
        if processor.interaction_features:
            features = [
                interaction_features(
                    user["purchase_history"][len(user["purchase_history"]) - n :],
                    processor.interaction_features,
                    withheld,
                )
                if user
                else []
                for user, n in zip(chosen, kept, strict=True)
            ]
            vectors["history_features"] = padded_features(
                features, vectors["history_mask"], len(processor.interaction_features)
            )
        inputs = {key: value.to(model.device) for key, value in {**inputs, **vectors}.items()}
        with torch.inference_mode():
            tokens = model.generate(  # type: ignore[misc]
                **inputs, max_new_tokens=config.max_new_tokens, do_sample=False
            )
        written = processor.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for number, text in zip(batch, written, strict=True):
            texts[number] = text.strip()
        bar.update(len(batch))
    return texts


def derangement(number: int, seed: int) -> list[int]:
    """Another index for each of `number`; a single one has no other and keeps its own.

    >>> sorted(derangement(5, 0)), any(other == own for own, other in enumerate(derangement(5, 0)))
    ([0, 1, 2, 3, 4], False)
    """
    order = np.random.default_rng(seed).permutation(number)
    others = np.empty(number, dtype=int)
    others[order] = np.roll(order, 1)
    return others.tolist()


def most_frequent(run: Path, tasks: tuple[str, ...]) -> dict[str, str]:
    """The narrative that most train users share, by task; of equals the first in the alphabet."""
    counts: dict[str, Counter[str]] = {task: Counter() for task in tasks}
    for row in rows(split_files(run / "dataset", "train"), ["last_purchase", "user"]):
        for task in tasks:
            if text := TASKS[task].text(row):
                counts[task][text] += 1
    return {task: min(found, key=lambda text: (-found[text], text)) if found else "" for task, found in counts.items()}


def similarity_encoder(run: Path, config: EvaluationConfig) -> tuple[str, Any]:
    """The name to report of the encoder behind `similarity`, and the encoder."""
    from ..embeddings.content import load_encoder

    manifest = json.loads((run / "embeddings" / "manifest.json").read_text(encoding="utf-8"))
    named = config.encoder or manifest["config"]["content_encoder"]
    if named is not None:
        return Path(named).name if Path(named).is_absolute() else named, load_encoder(named)
    own = "content_encoder of this run (static, trained on its train users)"
    return own, load_encoder(str(run / "embeddings" / "content_encoder"))
