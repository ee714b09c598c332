"""Settings of the next item stage."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import at_least, check_seed

PACKAGES = ("implicit", "numpy")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class NextItemConfig:
    """Settings of `regen next-item RUN`."""

    users: int = 0
    """Number of test users, the first of the split; 0 for all."""
    endorsed_users: int = 100
    """Number of these users for whom the model also endorses its own first choice, the first with a reference; 0 for
    none. Only for a model that has an item head and learnt the endorsement."""
    critiques: bool = False
    """Also rank with the critiques of the test users, for a model that was trained with critiques: with the own one,
    another user's, the own one without the words of the item's title, and none."""
    neighbours: int = 100
    """Neighbours of each item in item kNN."""
    seed: int = 0
    """Seed of the bootstrap and of the order among ties."""

    def __post_init__(self) -> None:
        at_least(self, 0, "users", "endorsed_users")
        at_least(self, 1, "neighbours")
        check_seed(self)
