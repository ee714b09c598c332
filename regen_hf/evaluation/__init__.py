"""Evaluation: narratives for users whom training has not seen, scored against the references, beside their controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import at_least, check_seed
from ..schema import TASKS, check_tasks

HELD_OUT = ("test", "validation")

CONTROLS = {
    "fused": "the model",
    "empty_history": "the same model without any history",
    "shuffled_history": "the same model with another user's history",
    "most_frequent": "the most frequent narrative of the train users",
}


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of `regen evaluate`."""

    split: str = "test"
    """Whose users are written about: `test` or `validation`."""
    max_users: int = 100
    """Users written about, the first of the split; 0 for all of them."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Narratives to write; all six by default."""
    max_new_tokens: int = 256
    """Longest narrative, in tokens."""
    batch_size: int = 64
    """Narratives written at once."""
    encoder: str | None = field(default=None, metadata={"reads": "model"})
    """The sentence-transformers model behind `similarity`; that of the run's own content vectors if not given."""
    seed: int = 0
    """Seed of the bootstrap and of the shuffled histories."""

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        if self.split not in HELD_OUT:
            raise ValueError(
                f"split was given {self.split!r}, expected {' or '.join(HELD_OUT)}, which training has not seen"
            )
        at_least(self, 0, "max_users")
        at_least(self, 1, "max_new_tokens", "batch_size")
        check_seed(self)


def build(run: Path, out: Path, work: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write and score narratives; `predictions.parquet` and `results.json` go into `out`."""
    from . import benchmark

    return benchmark.build(run, out, work, config)
