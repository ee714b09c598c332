"""The start of a new adapter on a pretrained backbone: soft tokens of the norm of word tokens.

Soft tokens of a larger norm change the hidden states of all later tokens so much that the language model first learns
to ignore them.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from ...model.modeling_regen import RegenForCausalLM
from .collator import RegenCollator

SAMPLE = 256
"""Examples whose words and purchases are measured."""


@torch.no_grad()
def scale_soft_tokens(model: RegenForCausalLM, collator: RegenCollator, examples: list[dict[str, Any]]) -> float | None:
    """Scale the adapter so that the mean norm of the soft tokens is that of the word tokens of the same examples.

    Both are measured where the language model reads them, as input embeddings; a model that multiplies its input
    embeddings (gemma) multiplies soft tokens too.

    Returns:
        The factor, None if no example has a history.
    """
    sample = [example for example in examples if example["row"] >= 0]
    if not sample:
        return None
    device = model.device
    words, total, purchases = torch.zeros(0, dtype=torch.long), 0.0, 0
    training = model.training
    model.eval()  # without the dropout of CF
    for start in range(0, len(sample), 32):
        batch = collator(sample[start : start + 32])
        words = torch.cat([words, batch["input_ids"][batch["attention_mask"].bool()]]).unique()
        history = {name: value.to(device) for name, value in batch.items() if name.startswith("history_")}
        soft, *_ = model.soft_tokens(**history)  # (B, N, D)
        total += float(soft.float().norm(dim=-1).sum())
        purchases += int(batch["history_mask"].sum())
    model.train(training)
    words = words[words != model.config.item_token_id].to(device)
    word = float(model.get_input_embeddings()(words).float().norm(dim=-1).mean())
    if not (total and word):
        return None
    factor = word / (total / purchases)
    model.model.adapter.rescale(factor)
    logging.getLogger(__name__).debug("Soft tokens start with a norm of %.3g, scaled by %.3g.", word, factor)
    return factor
