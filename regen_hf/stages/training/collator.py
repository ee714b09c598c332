"""The collator: TRL's own, plus the vectors of each example's history, read from the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ...vectors.histories import Histories, padded_features


@dataclass
class RegenCollator(DataCollatorForLanguageModeling):
    """Pads tokens as TRL does, and adds the history tensors.

    Each example has `input_ids`, `labels`, `row` (the user's row, -1 for an empty history), `withheld`, `kept` (the
    number of latest purchases) and `features` (a list for each of these purchases).
    """

    histories: Histories = field(kw_only=True)
    n_features: int = field(default=0, kw_only=True)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of `examples` as tensors."""
        batch = super().torch_call(examples)
        rows = [example["row"] if example["row"] >= 0 else None for example in examples]
        kept = [example["kept"] for example in examples]
        batch |= self.histories.batch(rows, [example["withheld"] for example in examples], kept)
        if self.n_features:
            batch["history_features"] = padded_features(
                [example["features"] for example in examples], batch["history_mask"], self.n_features
            )
        return batch
