"""Settings of the attribution stage."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import at_least, check_seed

PACKAGES = ("torch", "transformers", "openTSNE")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class AttributionConfig:
    """Settings of `regen attribution`."""

    points: int = 5000
    """Random points of each kind on the map of soft tokens, their parts and word tokens; 0 for all of them."""
    users: int = 3
    """Users whose purchases are left out one by one: the first users of the evaluation."""
    seed: int = 0
    """Seed of the map and of its random points."""

    def __post_init__(self) -> None:
        at_least(self, 0, "points", "users")
        check_seed(self)
