"""Which purchases made the model say so: the likelihood of its narratives without each of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...outputs import rows, split_files

if TYPE_CHECKING:
    from ...model.modeling_regen import RegenForCausalLM
    from ...model.processing_regen import RegenProcessor

EFFECTS = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("task", pa.string()),
        ("prediction", pa.string()),  # the narrative, as the evaluation has it
        ("tokens", pa.int64()),  # of the narrative, its end among them
        ("place", pa.int64()),  # 1 for the oldest purchase of the history
        ("asin", pa.string()),
        ("title", pa.string()),
        ("effect", pa.float64()),  # nats of log-likelihood that the narrative loses without this purchase
    ]
)


def build(run: Path, out: Path, model: RegenForCausalLM, processor: RegenProcessor, users: int) -> int:
    """Write `left_out.parquet` into `out`: the narratives of the first `users` that the evaluation wrote about.

    Returns:
        The number of effects measured.
    """
    written: dict[str, dict[str, str]] = {}
    for row in pq.read_table(run / "evaluation" / "predictions.parquet").to_pylist():
        if row["model"] == "fused" and row["prediction"]:
            written.setdefault(row["reviewer_id"], {})[row["task"]] = row["prediction"]
    chosen = dict(list(written.items())[:users])
    found: dict[str, list[dict[str, Any]]] = {}
    # The ids tell the split: users are in one alone.
    for split in ("test", "validation"):
        for user in rows(split_files(run / "dataset", split)) if chosen.keys() - found.keys() else ():
            name = user["reviewer_id"]
            if name in chosen:
                found[name] = [
                    effect
                    for task, narrative in chosen[name].items()
                    for effect in effects(model, processor, user, task, narrative)
                ]
    table = [effect for name in chosen for effect in found.get(name, [])]
    pq.write_table(pa.Table.from_pylist(table, schema=EFFECTS), out / "left_out.parquet")
    return len(table)


def effects(
    model: RegenForCausalLM, processor: RegenProcessor, user: dict[str, Any], task: str, narrative: str
) -> list[dict[str, Any]]:
    """The effect of each purchase that the model reads on a narrative of `task`, oldest first."""
    import torch

    # As training had it: the text's tokens, then the end.
    tokens = [*processor.tokenizer(narrative, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]
    window = model.config.window
    inputs = processor(
        history=user["purchase_history"], task=task, max_length=None if window is None else window - len(tokens)
    )
    inputs = inputs.to(model.device)
    kept = int(inputs["history_mask"].sum())
    lost = model.leave_one_out(torch.tensor([tokens], device=model.device), **inputs)[0, :kept].tolist()
    first = len(user["purchase_history"]) - kept
    return [
        {
            "reviewer_id": user["reviewer_id"],
            "task": task,
            "prediction": narrative,
            "tokens": len(tokens),
            "place": place,
            "asin": purchase["item"]["asin"],
            "title": purchase["item"]["title"],
            "effect": effect,
        }
        for place, (purchase, effect) in enumerate(zip(user["purchase_history"][first:], lost, strict=True), first + 1)
    ]
