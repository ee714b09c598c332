"""Whether the model uses the history: its loss with the own history, with another user's, and without any.

The three differ only in the history, and each user counts once. The gap is the loss with another user's history minus
that with the own one: 0 for a model that ignores the history.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ...errors import InputError
from ...intervals import Interval, format_interval
from ...metrics.bootstrap import mean_interval
from ...model.processing_regen import RegenProcessor
from ...vectors.histories import derangement
from .collator import RegenCollator
from .examples import Examples, learns
from .settings import TrainingConfig

USERS = 32
"""Validation users, with one narrative each."""
KINDS = ("own", "shuffled", "empty")
BATCH = 8
"""Examples per forward pass."""


class HistoryGap(TrainerCallback):
    """Measures the gap every `save_steps` and at the last step, and adds it to the trainer's log.

    All processes compute the same losses, because a sharded model needs all of them for a forward pass.

    Args:
        batches: examples of `users`, each batch with the indices of its examples in the three kinds of all users.
        users: number of users.
    """

    def __init__(self, batches: list[tuple[list[int], dict[str, torch.Tensor]]], users: int) -> None:
        self.batches, self.users = batches, users
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure at a checkpoint and at the last step."""
        if state.global_step % args.save_steps == 0 or state.global_step >= state.max_steps:
            self.trainer.log_plain(self.measure())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The mean losses `own_loss`, `shuffled_loss` and `empty_loss`, and `history_gap` with its 95 % interval."""
        model = self.trainer.model
        losses = np.zeros(len(KINDS) * self.users)
        training = model.training
        model.eval()
        for indices, batch in self.batches:
            inputs = {name: value.to(self.trainer.args.device) for name, value in batch.items()}
            labels = inputs.pop("labels")[:, 1:]  # (B, T - 1)
            with self.trainer.compute_loss_context_manager():
                logits = model(**inputs, use_cache=False).logits
            for index, row, row_labels in zip(indices, logits, labels, strict=True):
                learnt = row_labels >= 0
                losses[index] = torch.nn.functional.cross_entropy(row[:-1][learnt].float(), row_labels[learnt])
        model.train(training)
        own, shuffled, empty = losses.reshape(len(KINDS), self.users)
        gap = mean_interval(shuffled - own)
        values = {f"{kind}_loss": float(part.mean()) for kind, part in zip(KINDS, (own, shuffled, empty), strict=True)}
        bounds = {"history_gap": gap["mean"], "history_gap_low": gap["low"], "history_gap_high": gap["high"]}
        return values | {name: float(bound or 0.0) for name, bound in bounds.items()}


def history_gap(run: Path, processor: RegenProcessor, folder: Path, config: TrainingConfig) -> HistoryGap | None:
    """The measurement on the first validation users with a history; None with fewer than two, or for a control.

    Each user has one narrative, of the tasks in turn. The files of the examples are written into `folder`.
    """
    if config.history not in ("own", "text") or not config.tasks:
        return None
    plain = dataclasses.replace(config, task_weights={}, history_dropout=0.0, next_item_weight=0.0, stages=())
    try:
        examples = Examples.of(run, "validation", processor, folder, plain, USERS, critiques=False)
    except InputError:
        return None
    narratives: dict[int, list[dict[str, Any]]] = {}
    for row in examples.rows:
        if row["row"] >= 0:
            narratives.setdefault(row["user"], []).append(row)
    own = [rows[number % len(rows)] for number, rows in enumerate(narratives.values())]
    own = [row for row, example in zip(own, examples.tokenized(own), strict=True) if learns(example)]
    if len(own) < 2:
        return None
    others = derangement(len(own), config.seed)
    shuffled = [{**row, "row": own[other]["row"]} for row, other in zip(own, others, strict=True)]
    rows = [*own, *shuffled, *({**row, "row": -1} for row in own)]  # in the order of KINDS
    collator = RegenCollator.of(examples)
    order = sorted(range(len(rows)), key=lambda index: rows[index]["length"])
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return HistoryGap([(chunk, collator([rows[index] for index in chunk])) for chunk in chunks], len(own))


def interval_of(entry: dict[str, Any]) -> Interval:
    """The gap in an entry of the log, with its interval."""
    return {"mean": entry["history_gap"], "low": entry["history_gap_low"], "high": entry["history_gap_high"]}


def warn_of_unused_history(gap: Interval, config: TrainingConfig) -> None:
    """Log a warning if the interval of the gap is not above 0."""
    if gap["low"] is not None and gap["low"] <= 0:
        settings = "more max_steps, a higher adapter_learning_rate"
        if config.backbone:
            settings += ", or LoRA after a stage that trains only the adapter (stages)"
        logging.getLogger(__name__).warning(
            "The model does not use the history: on validation users, another user's history changes the loss by %s, "
            "expected an interval above 0. Try %s.",
            format_interval(gap),
            settings,
        )
