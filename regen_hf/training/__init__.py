"""Training: six tasks, one fused model, through TRL's SFTTrainer (section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..config import at_least, check_seed
from ..schema import TASKS, check_tasks


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `regen train`."""

    backbone: str | None = field(default=None, metadata={"reads": "model"})
    """A causal language model, by Hub name or path; with none, a small one is trained from nothing, offline."""
    embedding_mode: Literal["both", "cf", "content"] = "both"
    """What a soft token is made of: `both`, `cf` or `content` (the columns of the paper's table 1)."""
    adapter: Literal["linear", "mlp", "transformer"] = "linear"
    """From the two embeddings to a soft token: `linear` (section 6), or `mlp` as in the paper's tables; the paper finds
    them within 5 % of each other. `transformer` also reads the other purchases and the place of each."""
    recency: int = 8
    """Learned vectors that mark the latest purchases, one per place; 0 for the two embeddings alone (section 4.2)."""
    interaction_features: tuple[Literal["rating", "age"], ...] = ()
    """What the model reads of a purchase beside its two embeddings: its `rating`, and its `age` in days."""
    cf_dropout: float = 0.0
    """Chance in training that a purchase, and once more that a whole history, is shown without CF: for cold items."""
    history: Literal["own", "empty", "shuffled", "text"] = "own"
    """What is shown of a shopper: the `own` history, or for a control none (`empty`), that of another train shopper
    (`shuffled`), or the purchases as `text` in the prompt, as many of the latest as fit into the window."""
    leak_safe: bool = False
    """Withhold the review of the last purchase in every task, not in the endorsement alone."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Narratives to learn; all six by default."""
    max_steps: int = 600
    """Optimiser steps."""
    batch_size: int = 32
    """Examples per optimiser step, over all processes."""
    length_groups: int = 4
    """Groups of like length into which the examples of a step are cut, over all processes, so that less is padded."""
    optimizer: Literal["adamw", "muon"] | None = None
    """`adamw`, or `muon` for the matrices of the language model; Muon if not given and there is no backbone."""
    learning_rate: float = 5e-3
    """Peak learning rate; 2e-5 to 2e-4 suits a pretrained backbone, the default the small one."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the learning rate rises."""
    history_dropout: float = 0.05
    """Share of the training examples shown without their history, so that an empty history is a fair control."""
    save_steps: int = 100
    """Steps between checkpoints: what a killed run loses at most."""
    vocab_size: int = 2048
    """Tokens of the small backbone's tokenizer."""
    hidden_size: int = 128
    """Width of the small backbone."""
    num_layers: int = 3
    """Layers of the small backbone."""
    seed: int = 0
    """Seed of the weights, of the order of the examples and of the history dropout."""

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        at_least(self, 1, "max_steps", "batch_size", "length_groups", "save_steps", "num_layers")
        at_least(self, 0, "recency", "learning_rate")
        at_least(self, 300, "vocab_size")  # 256 bytes, the special tokens, and something to learn
        check_seed(self)
        if self.hidden_size < 1 or self.hidden_size % 32:
            raise ValueError(f"hidden_size was given {self.hidden_size}, expected a multiple of 32 (one head)")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio was given {self.warmup_ratio}, expected a share from 0 to 1")
        if not 0 <= self.history_dropout < 1:
            raise ValueError(f"history_dropout was given {self.history_dropout}, expected a share from 0 to under 1")
        if not 0 <= self.cf_dropout < 1:
            raise ValueError(f"cf_dropout was given {self.cf_dropout}, expected a share from 0 to under 1")


def build(run: Path, out: Path, work: Path, config: TrainingConfig) -> dict[str, Any]:
    """Train on the train split and write a model repository into `out`; checkpoints lie in `work`."""
    from . import sft

    return sft.build(run, out, work, config)
