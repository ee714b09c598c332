"""Settings of the judge stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least
from ...llm.settings import VotesConfig
from ...schema import DEFAULT_TASKS, check_tasks

PACKAGES = ("numpy", "openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class JudgeConfig(VotesConfig):
    """Settings of `regen judge RUN --against OTHER`."""

    other: str | None = field(default=None, metadata={"reads": "files", "option": "against"})
    """The predictions.parquet to compare with: of another run, of this one, or of any other model."""
    model_of_run: str = "fused"
    """Name of the model in the predictions of RUN."""
    model_of_other: str = "fused"
    """Name of the model in the other predictions."""
    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Narratives to compare."""
    users: int = 100
    """Number of users, the first that both predictions contain; 0 for all."""
    votes: int = 3
    """Votes on each pair of texts, each in both orders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tasks(self.tasks)
        at_least(self, 0, "users")
