"""Settings of the training stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...config import at_least, check_seed, section, unknown
from ...schema import TASKS, check_tasks

PACKAGES = ("torch", "transformers", "trl", "accelerate")
"""Libraries whose versions the output depends on."""


IN_STAGES = (
    "freeze",
    "lora",
    "max_steps",
    "batch_size",
    "length_groups",
    "optimizer",
    "learning_rate",
    "warmup_ratio",
    "patience",
    "save_steps",
)
"""Settings that a stage of the training may have of its own, beside SFTConfig's fields."""


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
    whitening: float = 0.5
    """How far the content vectors are whitened, by the train users' purchases: 1 brings every direction to the same
    variance, before `between_users`; 0 leaves the vectors as the encoder makes them (section 4.2), and does not take
    away their mean either."""
    between_users: float = 2.0
    """How much more a direction of the whitened content vectors counts in which users differ from each other more than
    their own purchases do: 0 for no more, 2 for up to three times as much. Without whitening it is not used."""
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
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often an epoch shows the examples of a task, by task: 2 for twice, 0.5 for a half of them; 1 if not given."""
    max_steps: int = 1200
    """Optimiser steps."""
    batch_size: int = 32
    """Examples per optimiser step, over all processes."""
    length_groups: int = 4
    """Groups of like length into which the examples of a step are cut, over all processes, so that less is padded."""
    optimizer: Literal["adamw", "muon"] | None = None
    """`adamw`, or `muon` for the matrices of the language model; Muon if not given and there is no backbone."""
    learning_rate: float | None = None
    """Peak learning rate. If not given, 0.015 for the small backbone (5e-3 without Muon); for a named one 2e-5, or 2e-4
    where it learns through LoRA, or 1e-3 where the adapter learns alone."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the learning rate rises."""
    history_dropout: float = 0.05
    """Share of the training examples shown without their history, so that an empty history is a fair control."""
    save_steps: int = 100
    """Steps between checkpoints: what a killed run loses at most."""
    patience: int = 0
    """Checkpoints without a lower validation loss after which training stops, and the best one is kept; 0 for none."""
    validation_users: int = 256
    """Users of the validation split on whose narratives the validation loss is measured, where there is patience."""
    freeze: Literal["backbone"] | None = None
    """`backbone` to train the adapter alone: cheap, and a good start for a pretrained language model."""
    lora: dict[str, Any] | None = None
    """Fields of PEFT's LoraConfig, as {r: 16}: the language model learns through LoRA, the adapter as a whole."""
    merge: bool = True
    """Write a model trained with LoRA merged; else the language model as it was, with the LoRA weights beside it."""
    stages: tuple[dict[str, Any], ...] = ()
    """Trainings that follow one another, each a mapping of what it has of its own: freeze, lora, max_steps, …"""
    sft: dict[str, Any] = field(default_factory=dict, metadata={"rest": True})
    """Fields of TRL's SFTConfig; in YAML they may stand beside the other settings."""
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
        at_least(self, 1, "max_steps", "batch_size", "length_groups", "save_steps", "num_layers", "validation_users")
        at_least(self, 0, "recency", "learning_rate", "patience")
        at_least(self, 300, "vocab_size")  # 256 bytes, the special tokens, and something to learn
        check_seed(self)
        if self.hidden_size < 1 or self.hidden_size % 32:
            raise ValueError(f"hidden_size was given {self.hidden_size}, expected a multiple of 32 (one head)")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio was given {self.warmup_ratio}, expected a share from 0 to 1")
        if not 0 <= self.history_dropout < 1:
            raise ValueError(f"history_dropout was given {self.history_dropout}, expected a share from 0 to under 1")
        if not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening was given {self.whitening}, expected a number from 0 to 1")
        if not 0 <= self.between_users <= 100:
            raise ValueError(f"between_users was given {self.between_users}, expected a number from 0 to 100")
        if not 0 <= self.cf_dropout < 1:
            raise ValueError(f"cf_dropout was given {self.cf_dropout}, expected a share from 0 to under 1")
        for task, weight in self.task_weights.items():
            if task not in self.tasks:
                raise ValueError(unknown(f"task_weights.{task}", [f"task_weights.{name}" for name in self.tasks]))
            if not 0 <= weight <= 100:
                raise ValueError(f"task_weights.{task} was given {weight}, expected a number from 0 to 100")
        if not any(self.task_weights.get(task, 1) for task in self.tasks):
            raise ValueError("task_weights leave no task to learn, expected one above 0")
        if self.freeze and self.lora is not None:
            raise ValueError("freeze and lora were given together: what is frozen learns nothing. Use stages for both")
        if self.optimizer == "muon" and (self.freeze or self.lora is not None or "optim" in self.sft):
            raise ValueError(
                "optimizer was given muon, which trains a whole language model: not with freeze, lora, optim"
            )
        if self.optimizer == "muon" and self.backbone and self.learning_rate is None and not self.stages:
            raise ValueError("learning_rate was not given, expected a number: there is none that suits Muon everywhere")
        if self.sft:
            from .arguments import checked_sft

            checked_sft(self.sft, [one.name for one in dataclasses.fields(self)])
        if self.lora is not None:
            from .arguments import checked_lora

            checked_lora(self.lora)
        if self.stages:
            in_stages(self)


def in_stages(config: TrainingConfig) -> list[TrainingConfig]:
    """The settings of each stage of the training in turn; `config` alone where it names no stages.

    Raises:
        ConfigError: a stage has a setting that does not exist or is refused.
        ValueError: a stage has a setting that holds for the whole training.
    """
    if not config.stages:
        return [config]
    settings = {one.name for one in dataclasses.fields(config)}
    common = {**dataclasses.asdict(config), "stages": ()}
    found = []
    for number, given in enumerate(config.stages):
        fields = given.keys() | (given.get("sft") or {}).keys()
        if whole := sorted(((settings | {"model_init_kwargs"}) & fields) - {*IN_STAGES, "sft"}):
            raise ValueError(
                f"stages.{number} was given {whole[0]}, which holds for the whole training. A stage has of its own: "
                f"{', '.join(IN_STAGES)}, and fields of SFTConfig"
            )
        own: Mapping[str, Any] = given
        if given.get("freeze") and "lora" not in given:
            own = {**given, "lora": None}  # the LoRA of the training is for the stages that train the language model
        found.append(section(TrainingConfig, {**common, **own}, f"stages.{number}"))
    return found
