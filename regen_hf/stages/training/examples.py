"""Training examples: a prompt with a history, followed by the narrative."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from ...model.interactions import interaction_features
from ...model.processing_regen import RegenProcessor
from ...outputs import rows
from ...schema import TASKS
from ...vectors.text_history import fit_text
from .settings import TrainingConfig

EXAMPLE = Features(
    {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "row": Value("int64"),
        "withheld": Value("bool"),
        "length": Value("int32"),  # in tokens; the trainer groups by it
        "kept": Value("int32"),
        "features": List(List(Value("float32"))),
    }
)


def tokenized(
    files: list[Path], processor: RegenProcessor, config: TrainingConfig, window: int | None, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """One tokenized example per user and task, with the loss on the completion and its end token only.

    A history that does not fit into the window beside prompt and completion keeps its latest purchases. An example
    that does not fit without a history is left out; a warning gives their number. `window` is in tokens, None for no
    limit; with a `limit`, only the first users are read.
    """
    yield from examples(users(files, config.history == "shuffled", limit), processor, config, window)


def window_of(processor: RegenProcessor) -> int | None:
    """The window of the backbone in tokens, None for no limit."""
    length = processor.tokenizer.model_max_length
    return length if length < 1_000_000 else None  # transformers' value for "not set" is above it


def examples(
    shown: Iterable[tuple[dict[str, Any], int, list[dict[str, Any]]]],
    processor: RegenProcessor,
    config: TrainingConfig,
    window: int | None,
) -> Iterator[dict[str, Any]]:
    """The examples of `tokenized` for rows, each with the row number and the purchases of the history to show."""
    rng = random.Random(config.seed)  # noqa: S311 (no secret)
    too_long = shortened = 0
    for row, number, history in shown:
        purchases = len(history)
        for name in sampled_tasks(config, rng):
            text = TASKS[name].text(row)
            if not text:
                continue
            dropped = rng.random() < config.history_dropout or config.history == "empty"
            completion = processor.tokenize_completion(text)
            room = None if window is None else window - len(completion)
            if room is not None and room < len(processor.tokenize_prompt(0, task=name)):
                too_long += 1
                continue
            if config.history == "text":
                kept, prompt = fit_text(processor, [] if dropped else history, name, room)
            else:
                kept, prompt = processor.fit(0 if dropped else purchases, task=name, max_length=room)
            shortened += not dropped and kept < min(purchases, processor.max_history)
            withheld = name in processor.metadata_only_tasks
            soft = 0 if config.history == "text" else kept
            yield {
                "input_ids": prompt + completion,
                "labels": [-100] * len(prompt) + completion,
                "row": number if soft else -1,
                "length": len(prompt) + len(completion),
                "withheld": withheld,
                "kept": soft,
                "features": interaction_features(history[purchases - soft :], config.interaction_features, withheld),
            }
    if shortened:
        logging.getLogger(__name__).warning(
            "%d examples keep only the latest purchases of their history, as many as fit into %s tokens.",
            shortened,
            window,
        )
    if too_long:
        logging.getLogger(__name__).warning(
            "%d examples are longer than the model's window of %s tokens and were left out.", too_long, window
        )


def users(
    files: list[Path], shuffled: bool, limit: int | None = None
) -> Iterator[tuple[dict[str, Any], int, list[dict[str, Any]]]]:
    """Each user's row, with the row number and the history to show: the user's own or, if `shuffled`, the next user's.

    Rows are in the order of a hash, so the next user is a random one.
    """
    first = previous = None
    for number, row in enumerate(rows(files, limit=limit)):
        if not shuffled:
            yield row, number, row["purchase_history"]
        elif previous is not None:
            yield previous, number, row["purchase_history"]
        first, previous = first or row, row
    if shuffled and first is not None and previous is not None:
        yield previous, 0, first["purchase_history"]


def sampled_tasks(config: TrainingConfig, rng: random.Random) -> Iterator[str]:
    """The tasks of one user's examples, each repeated by its weight; the fraction of a weight is a probability."""
    for name in config.tasks:
        weight = config.task_weights.get(name, 1.0)
        times = int(weight)
        if weight > times:  # without a fraction nothing is drawn, which keeps the order of all other draws
            times += rng.random() < weight - times
        yield from [name] * times
