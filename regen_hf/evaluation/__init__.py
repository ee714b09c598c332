"""Evaluation: narratives for users whom training has not seen, scored against the references, beside their controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schema import SPLITS, TASKS

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
    encoder: str | None = None
    """The sentence-transformers model behind `similarity`; that of the run's own content vectors if not given."""
    seed: int = 0
    """Seed of the bootstrap and of the shuffled histories."""

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise ValueError(f"tasks holds {unknown or 'nothing'}, expected some of {', '.join(TASKS)}")
        if self.split not in SPLITS:
            raise ValueError(f"split was given {self.split!r}, expected one of {', '.join(SPLITS)}")
        if self.max_users < 0:
            raise ValueError(f"max_users was given {self.max_users}, expected 0 for all or a number of users")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} was given {getattr(self, name)}, expected at least 1")


def build(run: Path, out: Path, work: Path, config: EvaluationConfig) -> dict[str, Any]:
    """Write and score narratives; `predictions.parquet` and `results.json` go into `out`."""
    from . import benchmark

    return benchmark.build(run, out, work, config)
