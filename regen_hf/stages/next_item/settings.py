"""Settings of the next item stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...config import at_least, check_seed

if TYPE_CHECKING:
    pass

PACKAGES = ("implicit", "numpy")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class NextItemConfig:
    """Settings of `regen next-item RUN`."""

    max_users: int = 0
    """Test users whose last purchase is predicted, the first of the split; 0 for all of them."""
    neighbours: int = 100
    """Similar items that item kNN keeps for each item."""
    seed: int = 0
    """Seed of the bootstrap and of the order among equal scores."""

    def __post_init__(self) -> None:
        at_least(self, 0, "max_users")
        at_least(self, 1, "neighbours")
        check_seed(self)
