"""The collator: TRL's own, after tokenizing, plus the vectors of each example's history, read from the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ...vectors.histories import Histories, item_rows, padded_features
from .examples import Examples


@dataclass
class RegenCollator(DataCollatorForLanguageModeling):
    """Pads tokens as TRL does, and adds the history tensors.

    Args:
        tokenized: returns the examples of rows of an index, as `Examples.tokenized` does. Without it the collator
            receives such examples.
        next_item_weight: weight of a purchase in the loss; 0 for batches without the rows of the items.
    """

    histories: Histories = field(kw_only=True)
    n_features: int = field(default=0, kw_only=True)
    next_item_weight: float = field(default=0.0, kw_only=True)
    tokenized: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, examples: Examples, pad_to_multiple_of: int | None = None) -> RegenCollator:
        """The collator of the index of `examples`."""
        return cls(
            pad_token_id=examples.processor.tokenizer.pad_token_id,
            pad_to_multiple_of=pad_to_multiple_of,
            histories=examples.histories,
            n_features=len(examples.config.interaction_features),
            next_item_weight=examples.config.next_item_weight,
            tokenized=examples.tokenized,
        )

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples` as tensors."""
        if self.tokenized is not None:
            examples = self.tokenized(examples)
        batch = super().torch_call(examples)
        rows = [example["row"] if example["row"] >= 0 else None for example in examples]
        kept = [example["kept"] for example in examples]
        batch |= self.histories.batch(rows, [example["withheld"] for example in examples], kept)
        for number, example in enumerate(examples):
            if example.get("swapped"):
                pair = [example["kept"] - 3, example["kept"] - 2]
                for name in ("history_cf", "history_content"):
                    batch[name][number, pair] = batch[name][number, pair[::-1]]
        if self.n_features:
            batch["history_features"] = padded_features(
                [example["features"] for example in examples], batch["history_mask"], self.n_features
            )
        if self.next_item_weight:
            predicted = [example["predicted"] for example in examples]
            batch["item_labels"] = item_rows(self.histories, rows, batch["history_mask"], predicted)
            batch["next_item_weight"] = self.next_item_weight
        return batch
