"""Settings of the ratings stage."""

from __future__ import annotations

from dataclasses import dataclass

from ...llm.settings import VotesConfig

PACKAGES = ("openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class RatingsConfig(VotesConfig):
    """The raters and their settings."""

    votes: int = 1
    """Votes on each user; the paper uses 10 to 15."""

    @property
    def raters(self) -> tuple[str, ...]:
        """The names of the raters in the rows; a local model without its folder."""
        from ...outputs import public_name

        return ("reference",) if self.backend == "reference" else tuple(public_name(name) or "" for name in self.models)
