"""Settings of the evaluation stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least, check_seed
from ...schema import DEFAULT_TASKS, check_tasks

PACKAGES = ("torch", "transformers", "sacrebleu", "rouge-score")
"""Libraries whose versions the output depends on."""

HELD_OUT = ("test", "validation")
"""Splits whose users training has not seen."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of `regen evaluate`."""

    split: str = "test"
    """Split of the users: `test` or `validation`."""
    users: int = 100
    """Number of users, the first of the split; 0 for all."""
    text_users: int = 25
    """Number of users for the control `text_history`, the first ones; 0 for all. A history as text is slow to read."""
    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Narratives to write."""
    max_new_tokens: int = 256
    """Longest narrative, in tokens; at most the length of the longest one of the train users."""
    temperature: float = 0.0
    """Sampling temperature; 0 for greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling, with a temperature: sample from the most likely tokens with this total probability."""
    num_beams: int = 1
    """Beams of beam search, without a temperature; 1 for greedy decoding."""
    batch_size: int = 64
    """Narratives per batch."""
    encoder: str | None = field(default=None, metadata={"reads": "model"})
    """The sentence-transformers model behind `similarity`; by default that of the run's content vectors."""
    seed: int = 0
    """Seed of the bootstrap, the shuffled histories and the sampling."""

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        if self.split not in HELD_OUT:
            raise ValueError(
                f"split was given {self.split!r}, expected {' or '.join(HELD_OUT)}: training has not seen their users"
            )
        at_least(self, 0, "users", "text_users", "temperature")
        at_least(self, 1, "max_new_tokens", "batch_size", "num_beams")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p was given {self.top_p}, expected a probability above 0 and at most 1")
        if self.temperature == 0 and self.top_p < 1:
            raise ValueError(f"top_p was given {self.top_p} without a temperature; set both, or neither")
        if self.temperature > 0 and self.num_beams > 1:
            raise ValueError(
                f"temperature was given {self.temperature} and num_beams {self.num_beams}; set only one of the two"
            )
        check_seed(self)
