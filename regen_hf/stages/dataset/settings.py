"""Settings of the dataset stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

PACKAGES = ("datasets", "pyarrow")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class DatasetConfig:
    """Settings of `regen dataset`."""

    name: str = ""
    """Name of the dataset's config, as in load_dataset(…, "office"); the run folder's name if not given."""
    # The same rows with or without it: it is no reason to make them again.
    partial: bool = field(default=False, metadata={"affects_output": False})
    """Go on where narratives are missing, and leave them null."""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name was given {self.name!r}, expected letters, digits, '_', '-' and '.' alone")
