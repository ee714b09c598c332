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
    tested_users: int = 32
    """Users on whose narratives the citations are tested by deletion, and the profile by small changes of the history:
    the first of the evaluated split. 0 for no test."""
    seed: int = 0
    """Seed of the map and of its random points, and of the random purchases of the tests."""

    def __post_init__(self) -> None:
        at_least(self, 0, "points", "users", "tested_users")
        check_seed(self)
