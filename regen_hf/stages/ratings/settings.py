"""Settings of the ratings stage."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import at_least
from ...llm.settings import VotesConfig

PACKAGES = ("openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class RatingsConfig(VotesConfig):
    """The raters and their settings."""

    users: int = 0
    """Number of users for a preview, by the same hash as that of the narratives; 0 for all who have narratives."""
    votes: int = 1
    """Votes on each user; the paper uses 10 to 15."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "users")

    @property
    def raters(self) -> tuple[str, ...]:
        """The names of the raters in the rows; a local model without its folder."""
        from ...outputs import public_name

        return ("reference",) if self.backend == "reference" else tuple(public_name(name) or "" for name in self.models)
