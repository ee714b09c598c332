"""Settings of the figures stage."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGES = ("matplotlib",)
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class FiguresConfig:
    """Settings of `regen figures`."""

    dpi: int = 150
    """Resolution in dots per inch, 10 to 1200."""

    def __post_init__(self) -> None:
        if not 10 <= self.dpi <= 1200:
            raise ValueError(f"dpi was given {self.dpi}, expected 10 to 1200")
