"""A history as text in the prompt, the baseline of soft tokens."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..model.interactions import interaction_text, without_last_review
from ..model.processing_regen import RegenProcessor


def fit_text(
    processor: RegenProcessor, history: Sequence[Mapping[str, Any]], task: str, max_length: int | None
) -> tuple[int, list[int]]:
    """The prompt of `task` after the latest purchases of `history` that fit, as text.

    The text of a purchase is that of its content vector (section 4.2); metadata-only tasks omit the last review.

    Args:
        processor: the tokenizer and the prompts of the tasks.
        history: purchases, oldest first.
        task: a key of `task_prompts`.
        max_length: maximum tokens; None for no limit.

    Returns:
        The number of purchases in the prompt, and its token ids.

    Raises:
        ValueError: the prompt without purchases is longer than `max_length`.
    """
    history = history[len(history) - min(len(history), processor.max_history) :]
    if task in processor.metadata_only_tasks:
        history = without_last_review(history)
    texts = [
        # A review is untrusted and must not contain the placeholder.
        interaction_text(purchase["item"], purchase.get("review")).replace(processor.item_token, " ")
        for purchase in history
    ]
    instruction = processor.task_prompts[task]
    number = len(texts)
    if max_length is not None and texts:
        # An estimate, because the texts are tokenized separately; the loop below measures the joined prompts.
        room = max_length - len(processor.tokenize_prompt(0, prompt=instruction))
        lengths = map(len, reversed(processor.tokenizer(texts, add_special_tokens=False)["input_ids"]))
        number = sum(total <= room for total in itertools.accumulate(lengths))
    while True:
        prompt = "\n\n".join([*texts[len(texts) - number :], instruction])
        if number == 0:
            return processor.fit(0, prompt=prompt, max_length=max_length)
        ids = processor.tokenize_prompt(0, prompt=prompt)
        if max_length is None or len(ids) <= max_length:
            return number, ids
        number -= 1
