"""A history as text in the prompt: what soft tokens are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..model.interactions import interaction_text
from ..model.processing_regen import RegenProcessor


def fit_text(
    processor: RegenProcessor, history: Sequence[Mapping[str, Any]], task: str, max_length: int | None
) -> tuple[int, list[int]]:
    """The prompt of `task` with the latest purchases of `history` before it as text, as many as fit.

    Each purchase reads as its content vector does (section 4.2), oldest first, and the last review is withheld where
    the task withholds it.

    Args:
        processor: tokenizes the prompt, and knows the tasks.
        history: purchases, oldest first.
        task: a key of `task_prompts`.
        max_length: tokens at most; None for no limit.

    Returns:
        How many purchases the prompt holds, and its token ids.

    Raises:
        ValueError: the prompt alone is longer than `max_length`.
    """
    history = history[len(history) - min(len(history), processor.max_history) :]
    withheld = task in processor.metadata_only_tasks
    texts = [
        interaction_text(purchase["item"], None if withheld and place == len(history) - 1 else purchase.get("review"))
        # A review is untrusted: what it says must not stand for a purchase.
        .replace(processor.item_token, " ")
        for place, purchase in enumerate(history)
    ]
    ending = processor.task_prompts[task]
    kept = len(texts)
    if max_length is not None and texts:
        # An estimate, as the tokens of a joint are counted apart; the prompts below are measured as they are.
        room = max_length - len(processor.tokenize_prompt(0, prompt=ending))
        lengths = map(len, reversed(processor.tokenizer(texts, add_special_tokens=False)["input_ids"]))
        kept = sum(total <= room for total in itertools.accumulate(lengths))
    while True:
        prompt = "\n\n".join([*texts[len(texts) - kept :], ending])
        if kept == 0:
            return processor.fit(0, prompt=prompt, max_length=max_length)
        ids = processor.tokenize_prompt(0, prompt=prompt)
        if max_length is None or len(ids) <= max_length:
            return kept, ids
        kept -= 1
