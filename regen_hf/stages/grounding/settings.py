"""Settings of the grounding stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least
from ...errors import require
from ...llm.settings import LLMConfig

PACKAGES = ("numpy", "openai", "outlines", "sentence-transformers", "torch", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class GroundingConfig(LLMConfig):
    """Settings of `regen grounding RUN`."""

    temperature: float = 0.0
    """Sampling temperature of a language model, 0 to 2."""
    nli: str | None = field(default=None, metadata={"reads": "model"})
    """Name or folder of a sentence-transformers cross-encoder for natural language inference, which judges the claims
    that the rules cannot check. None: no cross-encoder."""
    nli_threshold: float = 0.5
    """Least probability of entailment for a supported claim (nli)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "nli_threshold")
        if self.nli_threshold > 1:
            raise ValueError(f"nli_threshold was given {self.nli_threshold}, expected a probability, at most 1")
        if self.nli is not None and self.backend != "reference":
            raise ValueError(f"nli and the backend {self.backend!r} are both given, expected only one of them")

    def check_packages(self) -> None:
        """Check that the optional packages of the backend and of `nli` are installed; raises MissingPackageError."""
        super().check_packages()
        if self.nli is not None:
            require("sentence-transformers", "torch", "transformers")
