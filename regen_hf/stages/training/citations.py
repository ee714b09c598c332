"""The threshold of citations, such that a sentence that rests on nothing cites nothing.

Sentences of other users' narratives rest on nothing in a history. The threshold is the value that all but one in a
hundred of them stay below, measured on validation users.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import outputs
from ...model import RegenForCausalLM, RegenProcessor
from ...model.citations import Citer, Evidence
from ...schema import TASKS
from ...vectors.histories import derangement
from .settings import TrainingConfig

USERS = 64
"""Validation users, with one narrative of their own and one of another user each."""
QUANTILE = 0.99
LEAST = 0.5
"""Minimum threshold in nats: a sentence that is 1.6 times as likely with a purchase as without it."""


def calibrate(run: Path, folder: Path, config: TrainingConfig) -> dict[str, Any]:
    """Write the threshold of the model in `folder` into its configuration; returns it, with the shares that cite.

    Empty for a control, a model without tasks, and with fewer than two validation users with a narrative.
    """
    if config.history != "own" or not config.tasks:
        return {}
    columns = list(dict.fromkeys(["purchase_history", *(str(TASKS[name].field[0]) for name in config.tasks)]))
    narrated = []  # history, task and narrative of each user, of the tasks in turn
    for number, user in enumerate(islice(outputs.rows(outputs.dataset_files(run, "validation"), columns), USERS)):
        name = config.tasks[number % len(config.tasks)]
        if user["purchase_history"] and (text := TASKS[name].text(user)):
            narrated.append((user["purchase_history"], name, text))
    if len(narrated) < 2:
        return {}
    model = RegenForCausalLM.from_pretrained(folder).eval()
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model.to(torch.device("cuda"))
    processor = RegenProcessor.from_pretrained(folder)
    own, others = [], []
    for (history, _, _), other in zip(narrated, derangement(len(narrated), config.seed), strict=True):
        others += _evidence(model, processor, history, *narrated[other][1:])
    for history, name, text in narrated[:: max(1, len(narrated) // 16)]:
        own += _evidence(model, processor, history, name, text)
    if not own or not others:  # no narrative fits into the window
        return {}
    null = np.array([evidence.largest for evidence in others])
    threshold = max(LEAST, float(np.quantile(null, QUANTILE)))
    model.config.citation_threshold = round(threshold, 4)
    model.config.save_pretrained(folder)
    return {
        "citation_threshold": model.config.citation_threshold,
        "cited_sentences": round(float(np.mean([evidence.largest >= threshold for evidence in own])), 4),
        "cited_sentences_of_others": round(float((null >= threshold).mean()), 4),
    }


def _evidence(
    model: RegenForCausalLM, processor: RegenProcessor, history: list[dict[str, Any]], task: str, text: str
) -> list[Evidence]:
    tokens = processor.tokenize_completion(text)
    window = model.config.window
    room = None if window is None else window - len(tokens)
    if room is not None and room < len(processor.tokenize_prompt(0, task)):
        return []
    inputs = processor(history, task, max_length=room).to(model.device)
    return list(Citer(model, processor.tokenizer, inputs).evidence(tokens, last=True))
