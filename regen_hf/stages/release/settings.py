"""Settings of the release stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...engines import memory_bytes
from ...errors import ConfigError
from ...schema import MAX_HISTORY

PACKAGES = ("duckdb",)
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class ReleaseConfig:
    """The files of the release, and the shares of the splits."""

    from_release: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """Files of the official release: paths or globs of JSON lines, plain, gzip or zstd."""
    max_history: int = MAX_HISTORY
    """Purchases kept per user, the latest ones."""
    validation: float = 0.1
    """Share of the users in the validation split."""
    test: float = 0.1
    """Share of the users in the test split."""
    memory: str = field(default="2GB", metadata={"affects_output": False})
    """Memory limit, such as 2GB; it does not change the result."""

    def __post_init__(self) -> None:
        if self.max_history < 1:
            raise ConfigError(f"max_history is {self.max_history}, expected at least 1.")
        if not (min(self.validation, self.test) >= 0 and self.validation + self.test < 1):  # NaN fails too
            raise ConfigError(
                f"validation is {self.validation} and test is {self.test}, expected shares of the users that add up to "
                "below 1."
            )
        memory_bytes(self.memory)
