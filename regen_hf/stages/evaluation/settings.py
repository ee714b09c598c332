"""Settings of the evaluation stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least, check_seed
from ...metrics.controls import HELD_OUT
from ...schema import TASKS, check_tasks

PACKAGES = ("torch", "transformers", "sacrebleu", "rouge-score")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of `regen evaluate`."""

    split: str = "test"
    """Whose users are written about: `test` or `validation`."""
    max_users: int = 100
    """Users written about, the first of the split; 0 for all of them."""
    text_users: int = 25
    """Users with the control `text_history`, the first ones, as a history costs far more as text; 0 for all of them."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Narratives to write; all six by default."""
    max_new_tokens: int = 256
    """Longest narrative, in tokens; none is written longer than the longest one of the train users."""
    temperature: float = 0.0
    """0 for the likeliest token each time (greedy); above, tokens are drawn at this temperature."""
    top_p: float = 1.0
    """With a temperature, tokens are drawn from the likeliest ones that have this share of the probability."""
    num_beams: int = 1
    """Beams of a beam search, without a temperature; 1 for greedy."""
    batch_size: int = 64
    """Narratives written at once."""
    encoder: str | None = field(default=None, metadata={"reads": "model"})
    """The sentence-transformers model behind `similarity`; that of the run's own content vectors if not given."""
    seed: int = 0
    """Seed of the bootstrap, of the shuffled histories and of the drawn tokens."""

    def __post_init__(self) -> None:
        check_tasks(self.tasks)
        if self.split not in HELD_OUT:
            raise ValueError(
                f"split was given {self.split!r}, expected {' or '.join(HELD_OUT)}, which training has not seen"
            )
        at_least(self, 0, "max_users", "text_users", "temperature")
        at_least(self, 1, "max_new_tokens", "batch_size", "num_beams")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p was given {self.top_p}, expected a share above 0 and at most 1")
        if self.temperature == 0 and self.top_p < 1:
            raise ValueError(f"top_p was given {self.top_p} without a temperature: give both, or none to be greedy")
        if self.temperature > 0 and self.num_beams > 1:
            raise ValueError(
                f"temperature was given {self.temperature} and num_beams {self.num_beams}: give one of the two"
            )
        check_seed(self)
