"""Settings of the judge stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least
from ...llm.settings import VotesConfig
from ...schema import TASKS, check_tasks

PACKAGES = ("numpy", "openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class JudgeConfig(VotesConfig):
    """Settings of `regen judge RUN --against OTHER`."""

    other: str | None = field(default=None, metadata={"reads": "files", "option": "against"})
    """The predictions.parquet to compare with: that of another run, of this one, or anybody's."""
    model_of_run: str = "fused"
    """Whose narratives of RUN are judged, by the name of the model in its predictions."""
    model_of_other: str = "fused"
    """Whose narratives they are compared with."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Narratives to compare; all six by default."""
    max_users: int = 100
    """Users whose narratives are compared, the first that both have; 0 for all of them."""
    votes: int = 3
    """Votes on each pair of texts, each asked in both orders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tasks(self.tasks)
        at_least(self, 0, "max_users")
