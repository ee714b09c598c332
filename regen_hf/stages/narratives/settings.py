"""Settings of the narratives stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ...config import at_least
from ...llm.settings import LLMConfig

PACKAGES = ("openai", "outlines", "transformers")
"""Libraries whose versions the output depends on."""

CHOICES = ("auto", "none", "run")
"""The values of `examples` that are no files."""


@dataclass(frozen=True)
class NarrativesConfig(LLMConfig):
    """The narrator and its settings."""

    REMOVED: ClassVar = {**LLMConfig.REMOVED, "zero_shot": "examples: none"}

    users: int = 0
    """Number of users for a preview, by a hash of their ids; 0 for all. More users include the same ones."""
    language: str = "en"
    """Language of the narratives, as ISO 639-1 (en, de, ja, …)."""
    examples: tuple[str, ...] = field(default=("auto",), metadata={"reads": "files", "words": CHOICES})
    """Few-shot examples: none; auto (those of this package for the simulated sample, none for a real log); run (the
    first users of the run whose answers pass all checks, kept in the run); or JSON files, as paths or globs, with one
    example or a list each, shaped as a row of a dataset."""
    critiques: int = 3
    """Critiques that the model writes in one more request about a user whose last two purchases are similar; one is
    chosen. 0 for none."""
    critique_levels: int = 2
    """Levels of the category that two purchases have to share to be similar; where a category has fewer, the words of
    the titles decide."""
    retry_model: str = ""
    """Model that requests without a usable answer are sent to again (retry_failed); by default the same one."""
    fix: int = 0
    """How often a request is repeated after an answer that fails a check, such as the length of the profile; the next
    request names the check. A dry run cannot count these requests; a budget limits them too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "users", "critiques")
        at_least(self, 1, "critique_levels")
        if len(self.language) != 2 or not self.language.islower():
            raise ValueError(f"language is {self.language!r}, expected two lower-case letters of ISO 639-1, such as en")
        if not self.examples or (len(self.examples) > 1 and set(self.examples) & set(CHOICES)):
            raise ValueError(
                f"examples is {', '.join(self.examples) or 'empty'}, expected one of {', '.join(CHOICES)}, or files"
            )
        if self.fix < 0:
            raise ValueError(f"fix is {self.fix}, expected 0 or more times")
        if self.retry_model and not self.retry_failed:
            raise ValueError(
                f"retry_model is {self.retry_model!r}, but retry_failed is 0; set retry_failed to 1 or more"
            )

    def further(self, model: str) -> tuple[str, ...]:
        """The models of the retries (retry_failed) of a request to `model`."""
        return (self.retry_model or model,) * self.retry_failed

    @property
    def repetitions(self) -> int:
        """How often a request is repeated at most, because its answer cannot be used or fails checks."""
        return super().repetitions + self.fix
