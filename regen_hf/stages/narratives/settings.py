"""Settings of the narratives stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...llm.settings import LLMConfig

PACKAGES = ("openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class NarrativesConfig(LLMConfig):
    """The narrator and its settings."""

    language: str = "en"
    """Language of the narratives, as ISO 639-1 (en, de, ja, …)."""
    examples: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """JSON files of few-shot examples, as paths or globs; each contains one example or a list, shaped as a row of a
    dataset. Default: the examples of this package."""
    zero_shot: bool = False
    """Send no examples, for a model with a small window."""
    retry_model: str = ""
    """Model that requests without a usable answer are sent to again (retry_failed); by default the same one."""
    fix: int = 0
    """How often a request is repeated after an answer that fails a check, such as the length of the profile; the next
    request names the check. A dry run cannot count these requests; a budget limits them too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.language) != 2 or not self.language.islower():
            raise ValueError(f"language is {self.language!r}, expected two lower-case letters of ISO 639-1, such as en")
        if self.fix < 0:
            raise ValueError(f"fix is {self.fix}, expected 0 or more times")
        if self.retry_model and not self.retry_failed:
            raise ValueError(
                f"retry_model is {self.retry_model!r}, but retry_failed is 0; set retry_failed to 1 or more"
            )

    def further(self, model: str) -> tuple[str, ...]:
        """The models of the retries (retry_failed) of a request to `model`."""
        return (self.retry_model or model,) * self.retry_failed
