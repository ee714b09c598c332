"""Whether the model uses the history: its loss with the own history, with another user's, and without any.

The three differ only in the history, and each user counts once. The gap is the loss with another user's history minus
that with the own one: 0 for a model that ignores the history.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ... import outputs
from ...intervals import Interval, format_interval
from ...metrics.bootstrap import mean_interval
from ...model.processing_regen import RegenProcessor
from ...schema import TASKS
from ...vectors.histories import Histories, derangement
from .collator import RegenCollator
from .examples import examples, window_of
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


def history_gap(run: Path, processor: RegenProcessor, config: TrainingConfig) -> HistoryGap | None:
    """The measurement on the first validation users with a history; None with fewer than two, or for a control."""
    if config.history not in ("own", "text"):
        return None
    users = [
        (number, row)
        for number, row in enumerate(outputs.rows(outputs.dataset_files(run, "validation"), limit=USERS))
        if row["purchase_history"] and any(TASKS[task].text(row) for task in config.tasks)
    ]
    others = derangement(len(users), config.seed)
    if len(users) < 2:
        return None
    by_kind = [list(_of_kind(kind, users, others, processor, config)) for kind in KINDS]
    fit = [number for number in range(len(users)) if all(kind[number] for kind in by_kind)]
    if len(fit) < 2:
        return None
    rows: list[Any] = [kind[number] for kind in by_kind for number in fit]
    collator = RegenCollator(
        pad_token_id=processor.tokenizer.pad_token_id,
        histories=Histories.of(run, "validation"),
        n_features=len(config.interaction_features),
    )
    order = sorted(range(len(rows)), key=lambda index: rows[index]["length"])
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    return HistoryGap([(chunk, collator([rows[index] for index in chunk])) for chunk in chunks], len(fit))


def _of_kind(
    kind: str,
    users: list[tuple[int, dict[str, Any]]],
    others: list[int],
    processor: RegenProcessor,
    config: TrainingConfig,
) -> Iterator[dict[str, Any] | None]:
    """One example per user, of the tasks in turn, with the history of `kind`; None where the window is too small."""
    shown = "empty" if kind == "empty" else config.history
    for number, (_, row) in enumerate(users):
        tasks = [task for task in config.tasks if TASKS[task].text(row)]
        one = dataclasses.replace(
            config, tasks=(tasks[number % len(tasks)],), task_weights={}, history=shown, history_dropout=0.0, stages=()
        )
        index, other = users[others[number] if kind == "shuffled" else number]
        yield next(examples([(row, index, other["purchase_history"])], processor, one, window_of(processor)), None)


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
