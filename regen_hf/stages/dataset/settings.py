"""Settings of the dataset stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PACKAGES = ("datasets", "pyarrow")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class DatasetConfig:
    """Settings of `regen dataset`."""

    name: str = ""
    """Name of the config of the dataset, as in load_dataset(…, "office"). Default: the name of the run folder."""
    # It does not change the rows, so a change does not make them stale.
    partial: bool = field(default=False, metadata={"affects_output": False})
    """Leave missing narratives null."""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name is {self.name!r}, expected only letters, digits, '_', '-' and '.'")
