"""The influence of each purchase: the likelihood of the model's narratives without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ... import outputs

if TYPE_CHECKING:
    from ...model.modeling_regen import RegenForCausalLM
    from ...model.processing_regen import RegenProcessor

EFFECTS = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("task", pa.string()),
        ("prediction", pa.string()),  # the narrative, from the evaluation
        ("tokens", pa.int64()),  # of the narrative, including its end token
        ("place", pa.int64()),  # position of the purchase in the history, 1 for the oldest
        ("asin", pa.string()),
        ("title", pa.string()),
        ("effect", pa.float64()),  # decrease of the narrative's log-likelihood without this purchase, in nats
    ]
)


def build(run: Path, out: Path, model: RegenForCausalLM, processor: RegenProcessor, users: int) -> int:
    """Write the effects on the narratives of the first `users` of the evaluation into `out`; returns their number."""
    narratives: dict[str, dict[str, str]] = {}
    for row in outputs.predictions(run).to_pylist():
        if row["model"] == "fused" and row["prediction"]:
            narratives.setdefault(row["reviewer_id"], {})[row["task"]] = row["prediction"]
    selected = dict(list(narratives.items())[:users])
    by_user: dict[str, list[dict[str, Any]]] = {}
    for split in ("test", "validation"):  # the splits that `regen evaluate` can use
        if selected.keys() == by_user.keys():
            break
        for user in outputs.rows(outputs.dataset_files(run, split)):
            texts = selected.get(user["reviewer_id"], {})
            if texts:
                by_user[user["reviewer_id"]] = [
                    effect for task, text in texts.items() for effect in effects(model, processor, user, task, text)
                ]
    table = [effect for name in selected for effect in by_user.get(name, [])]
    outputs.write_parquet(out / outputs.LEFT_OUT, pa.Table.from_pylist(table, schema=EFFECTS))
    return len(table)


def effects(
    model: RegenForCausalLM, processor: RegenProcessor, user: dict[str, Any], task: str, narrative: str
) -> list[dict[str, Any]]:
    """The effect of each purchase that the model reads on a narrative of `task`, oldest first."""
    import torch

    # As in training: the tokens of the text, then the end token.
    tokens = processor.tokenize_completion(narrative)
    window = model.config.window
    max_length = None if window is None else window - len(tokens)
    inputs = processor(user["purchase_history"], task, max_length=max_length).to(model.device)
    number = int(inputs["history_mask"].sum())
    decreases = model.leave_one_out(torch.tensor([tokens], device=model.device), **inputs)[0, :number].tolist()
    first = len(user["purchase_history"]) - number
    return [
        {
            "reviewer_id": user["reviewer_id"],
            "task": task,
            "prediction": narrative,
            "tokens": len(tokens),
            "place": position,
            "asin": purchase["item"]["asin"],
            "title": purchase["item"]["title"],
            "effect": decrease,
        }
        for position, (purchase, decrease) in enumerate(
            zip(user["purchase_history"][first:], decreases, strict=True), first + 1
        )
    ]
