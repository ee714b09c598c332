"""Settings of the sample stage."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import check_seed

PACKAGES = ("numpy",)
"""Libraries whose versions the output depends on."""
MIN_PURCHASES = 5
CIRCLES = (
    "beekeeper",
    "schoolteacher",
    "choir singer",
    "night nurse",
    "stargazer",
    "bike courier",
    "potter",
    "chess player",
)
"""The hidden trait: shown by co-purchases and narratives, stated in no item text and no review."""


@dataclass(frozen=True)
class SampleConfig:
    """The size and seed of the sample world."""

    shoppers: int = 6000
    """Simulated shoppers, each with 5 to 20 purchases (about 8.5 on average)."""
    items: int = 800
    """Items on sale; with far fewer than 7 shoppers per item, co-purchases carry little information."""
    seed: int = 0
    """Another seed draws another world."""

    def __post_init__(self) -> None:
        if self.shoppers < 1:
            raise ValueError(f"shoppers is {self.shoppers}, expected at least 1: raise it.")
        least = MIN_PURCHASES * len(CIRCLES)
        if self.items < least:
            raise ValueError(
                f"items is {self.items}, expected at least {least}, so that a basket can be filled: raise it."
            )
        check_seed(self)
