"""Settings of the training stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...config import at_least, check_seed, section, unknown
from ...errors import require
from ...schema import DEFAULT_TASKS, check_tasks

PACKAGES = ("torch", "transformers", "trl", "accelerate")
"""Libraries whose versions the output depends on."""

OF_PHASE = (
    "freeze",
    "lora",
    "max_steps",
    "batch_size",
    "length_groups",
    "optimizer",
    "learning_rate",
    "adapter_learning_rate",
    "warmup_ratio",
    "patience",
    "save_steps",
)
"""Settings that an entry of `stages` may set, in addition to SFTConfig's fields."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `regen train`."""

    backbone: str | None = field(default=None, metadata={"reads": "model"})
    """A causal language model, by Hub name or path; if not given, a small one is trained offline."""
    embedding_mode: Literal["both", "cf", "content"] = "both"
    """The embeddings in a soft token: `both`, `cf` or `content` (the columns of the paper's table 1)."""
    adapter: Literal["linear", "mlp", "transformer"] = "linear"
    """Maps the two embeddings to a soft token: `linear` (section 6), or `mlp` as in the paper's tables; in the paper
    their scores differ by at most 5 %. `transformer` also reads the other purchases and the position of each."""
    recency: int = 8
    """Number of the latest purchases that a learned vector per position marks; 0 for none (section 4.2)."""
    whitening: float = 0.5
    """Strength of the whitening of the content vectors, fitted on the train users' purchases: 1 gives every direction
    the same variance, before `between_users`; 0 keeps the vectors of the encoder, with their mean (section 4.2)."""
    between_users: float = 2.0
    """Stretches the directions of the whitened content vectors that differ more between users than between purchases
    of one user: 0 for no stretch, 2 for up to three times the length. Ignored without whitening."""
    interaction_features: tuple[Literal["rating", "age"], ...] = ()
    """Further inputs for each purchase: its `rating`, and its `age` in days."""
    cf_dropout: float = 0.0
    """Probability in training that CF is hidden, for each purchase and again for each history, as for cold items."""
    history: Literal["own", "empty", "shuffled", "text"] = "own"
    """The history in each example: the user's `own`, or for controls none (`empty`), that of another train user
    (`shuffled`), or the purchases as `text` in the prompt, as many of the latest as fit into the window."""
    max_history: int = 0
    """Purchases shown to the model, the latest ones, as soft tokens or as text; 0 for all that the sequences keep."""
    next_item_weight: float = 0.0
    """Weight of a purchase in the loss, where a word counts as 1: trains the item head, which ranks the catalogue; 0
    for a model without it. With `tasks: []` the model learns only that."""
    item_dim: int = 128
    """Width of the item head."""
    item_dropout: float = 0.3
    """Dropout of the item head's inputs in training."""
    leak_safe: bool = False
    """Withhold the review of the last purchase in all tasks, not only in the endorsement."""
    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Narratives to learn."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often an epoch repeats the examples of a task, by task: 2 for twice, 0.5 for half of them; 1 if not given."""
    max_steps: int = 1200
    """Optimiser steps."""
    batch_size: int = 32
    """Examples per optimiser step, over all processes."""
    length_groups: int = 4
    """Groups of similar length into which the examples of a step are split, over all processes, to reduce padding."""
    optimizer: Literal["adamw", "muon"] | None = None
    """`adamw`, or `muon` for the matrices of the language model; if not given, Muon only without a backbone."""
    learning_rate: float | None = None
    """Peak learning rate. If not given, 0.015 for the small backbone (5e-3 without Muon); for a named one 2e-5, 2e-4
    with LoRA, or 1e-3 if only the adapter is trained."""
    adapter_learning_rate: float | None = None
    """Peak learning rate of the adapter, which is always new. If not given, 2e-3 beside a named backbone, with LoRA or
    without; otherwise `learning_rate`."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the learning rate rises."""
    history_dropout: float = 0.05
    """Share of the training examples without their history, which makes an empty history a fair control."""
    save_steps: int = 100
    """Steps between checkpoints: an interrupted run loses at most these."""
    patience: int = 0
    """Checkpoints without a lower validation loss after which training stops and the best one is kept; 0 to disable."""
    validation_users: int = 256
    """Users of the validation split on which the validation loss is measured, with patience only."""
    freeze: Literal["backbone"] | None = None
    """`backbone` to train only the adapter: cheap, and a good first stage for a pretrained language model."""
    lora: dict[str, Any] | None = None
    """Fields of PEFT's LoraConfig, such as {r: 16}: LoRA for the language model; the adapter is fully trained."""
    merge: bool = True
    """Merge LoRA weights into the written model; otherwise they are written beside the unchanged language model."""
    stages: tuple[dict[str, Any], ...] = ()
    """Phases of the training in order, each a mapping of the settings that it changes: freeze, lora, max_steps, …"""
    sft: dict[str, Any] = field(default_factory=dict, metadata={"rest": True})
    """Fields of TRL's SFTConfig; in YAML they can be written beside the other settings."""
    vocab_size: int = 2048
    """Tokens of the small backbone's tokenizer."""
    hidden_size: int = 128
    """Width of the small backbone."""
    num_layers: int = 3
    """Layers of the small backbone."""
    seed: int = 0
    """Seed of the weights, of the order of the examples and of the history dropout."""

    def __post_init__(self) -> None:
        if self.tasks or not self.next_item_weight:
            check_tasks(self.tasks)
        at_least(self, 1, "max_steps", "batch_size", "length_groups", "save_steps", "num_layers", "validation_users")
        at_least(self, 0, "recency", "max_history", "learning_rate", "adapter_learning_rate", "patience")
        at_least(self, 300, "vocab_size")  # 256 bytes, the special tokens and some merges
        at_least(self, 1, "item_dim")
        check_seed(self)
        self._check_item_head()
        if self.hidden_size < 1 or self.hidden_size % 32:
            raise ValueError(f"hidden_size was given {self.hidden_size}, expected a multiple of 32 (one head)")
        for name, bound in {"warmup_ratio": 1, "whitening": 1, "between_users": 100}.items():
            if not 0 <= getattr(self, name) <= bound:
                raise ValueError(f"{name} was given {getattr(self, name)}, expected a number from 0 to {bound}")
        for name in ("history_dropout", "cf_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} was given {getattr(self, name)}, expected a number from 0 to below 1")
        for task, weight in self.task_weights.items():
            if task not in self.tasks:
                raise ValueError(unknown(f"task_weights.{task}", [f"task_weights.{name}" for name in self.tasks]))
            if not 0 <= weight <= 100:
                raise ValueError(f"task_weights.{task} was given {weight}, expected a number from 0 to 100")
        if self.tasks and not any(self.task_weights.get(task, 1) for task in self.tasks):
            raise ValueError("task_weights leave no task to learn, expected one above 0")
        if self.freeze and self.lora is not None:
            raise ValueError("freeze and lora were given together, expected at most one of them. Use stages for both")
        if self.optimizer == "muon" and (self.freeze or self.lora is not None or "optim" in self.sft):
            raise ValueError("optimizer was given muon, expected no freeze, lora or optim with it")
        if self.optimizer == "muon" and self.backbone and self.learning_rate is None and not self.stages:
            raise ValueError("learning_rate was not given, expected a number: Muon has no default rate for a backbone")
        if self.sft or self.lora is not None:
            from .library_fields import checked_lora, checked_sft

            checked_sft(self.sft, [one.name for one in dataclasses.fields(self)])
            checked_lora(self.lora or {})
        if self.stages:
            phases(self)

    def _check_item_head(self) -> None:
        """Check that the query of a purchase cannot read what comes after it."""
        at_least(self, 0, "next_item_weight", "item_dropout")
        if self.item_dropout >= 1:
            raise ValueError(f"item_dropout was given {self.item_dropout}, expected a probability below 1")
        given = {
            "adapter": self.adapter if self.adapter == "transformer" else None,
            "interaction_features": "age" if "age" in self.interaction_features else None,
            "history": self.history if self.history != "own" else None,
        }
        wrong = [f"{name} {value}" for name, value in given.items() if value]
        if self.next_item_weight and wrong:
            raise ValueError(
                f"next_item_weight was given {self.next_item_weight} together with {wrong[0]}, expected purchases as "
                "soft tokens that do not depend on later ones: set next_item_weight to 0, or change the other"
            )

    def check_packages(self) -> None:
        """Check that the optional packages of the stage, and those that its settings name, are installed.

        Raises:
            MissingPackageError: a package of this stage is not installed.
            ConfigError: one that a setting names is not installed, or SFTConfig rejects a field.
        """
        require(*PACKAGES, *(() if "report_to" in self.sft else ("tensorboard",)))
        for phase in phases(self):
            if phase.sft:
                from .library_fields import check_sft_packages

                check_sft_packages(phase.sft)


def phases(config: TrainingConfig) -> list[TrainingConfig]:
    """The settings of each phase of the training: one per entry of `config.stages`, or `config` itself without any.

    Raises:
        ConfigError: an entry has a setting that does not exist or has an invalid value.
        ValueError: an entry has a setting that applies to the complete training.
    """
    if not config.stages:
        return [config]
    settings = {one.name for one in dataclasses.fields(config)}
    common = {**dataclasses.asdict(config), "stages": ()}
    result = []
    for number, entry in enumerate(config.stages):
        fields = entry.keys() | (entry.get("sft") or {}).keys()
        if misplaced := sorted(((settings | {"model_init_kwargs"}) & fields) - {*OF_PHASE, "sft"}):
            raise ValueError(
                f"stages.{number} was given {misplaced[0]}, which applies to the complete training. Expected "
                f"{', '.join(OF_PHASE)}, or fields of SFTConfig"
            )
        changes: Mapping[str, Any] = entry
        if entry.get("freeze") and "lora" not in entry:
            changes = {**entry, "lora": None}  # a `lora` beside `stages` is for the phases without `freeze`
        result.append(section(TrainingConfig, {**common, **changes}, f"stages.{number}"))
    return result
