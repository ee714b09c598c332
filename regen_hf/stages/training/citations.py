"""The threshold of citations, such that a sentence that rests on nothing cites nothing.

Sentences of other users' narratives rest on nothing in a history. The threshold is the value with which at most
one in a hundred of them cites purchases, one by one or together, measured on validation users.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import outputs
from ...model import RegenForCausalLM, RegenProcessor
from ...model.citations import Citer
from ...schema import TASKS
from ...vectors.histories import derangement
from .settings import TrainingConfig

USERS = 64
"""Validation users, with one narrative of their own and one of another user each."""
SHARE = 0.01
"""Largest share of the sentences of others that cite something."""
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
    for number, user in enumerate(outputs.rows(outputs.dataset_files(run, "validation"), columns, limit=USERS)):
        name = config.tasks[number % len(config.tasks)]
        if user["purchase_history"] and (text := TASKS[name].text(user)):
            narrated.append((user["purchase_history"], name, text))
    if len(narrated) < 2:
        return {}
    model = RegenForCausalLM.from_pretrained(folder).eval()
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model.to(torch.device("cuda"))
    processor = RegenProcessor.from_pretrained(folder)
    model.config.citation_threshold = LEAST  # of the groups of purchases that are read one by one
    own, others = [], []
    for (history, _, _), other in zip(narrated, derangement(len(narrated), config.seed), strict=True):
        others += _highest(model, processor, history, *narrated[other][1:])
    for history, name, text in narrated[:: max(1, len(narrated) // 16)]:
        own += _highest(model, processor, history, name, text)
    if not own or not others:  # no narrative fits into the window
        return {}
    threshold = threshold_of(others)
    model.config.citation_threshold = threshold
    model.config.save_pretrained(folder)
    return {
        "citation_threshold": threshold,
        "cited_sentences": round(float(np.mean(np.array(own) >= threshold)), 4),
        "cited_sentences_of_others": round(float(np.mean(np.array(others) >= threshold)), 4),
    }


def threshold_of(highest: list[float]) -> float:
    """The lowest threshold, to four digits and at least LEAST, that at most SHARE of the values reach.

    >>> threshold_of([0.1] * 99 + [3.0]), threshold_of([0.1] * 99 + [3.0, 7.0, 8.0]), threshold_of([2.0, 3.0])
    (0.5, 7.0001, 3.0001)
    """
    first = sorted(highest, reverse=True)[int(SHARE * len(highest))]  # the first value that may not reach it
    return max(LEAST, (math.floor(first * 1e4) + 1) / 1e4)


def _highest(
    model: RegenForCausalLM, processor: RegenProcessor, history: list[dict[str, Any]], task: str, text: str
) -> list[float]:
    """The highest threshold with which each sentence of `text` cites purchases of `history`."""
    tokens = processor.tokenize_completion(text)
    window = model.config.window
    room = None if window is None else window - len(tokens)
    if room is not None and room < len(processor.tokenize_prompt(0, task)):
        return []
    inputs = processor(history, task, max_length=room).to(model.device)
    citer = Citer(model, processor.tokenizer, inputs)
    sentences = citer.evidence(tokens, last=True)
    return [citer.highest(evidence) if evidence.strength >= LEAST else 0.0 for evidence in sentences]
