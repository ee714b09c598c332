"""Settings of the embeddings stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least, check_seed

PACKAGES = ("implicit", "sentence-transformers", "torch")
"""Libraries whose versions the output depends on."""


@dataclass(frozen=True)
class EmbeddingsConfig:
    """Settings of `regen embeddings`."""

    cf_dim: int = 128
    """Width of the CF vectors (128 in the paper)."""
    cf_iterations: int = 15
    """Sweeps of alternating least squares."""
    cf_regularization: float = 0.05
    """Weight of the L2 penalty of ALS."""
    cf_alpha: float = 1.0
    """Confidence per rating star: 1 + cf_alpha * r for a purchase rated r, 1 for none (Hu et al. 2008)."""
    content_encoder: str | None = field(default=None, metadata={"reads": "model"})
    """A sentence-transformers model, by name or path; if not given, a small one is trained on the train split."""
    content_dim: int = 256
    """Width of the vectors of the trained encoder; a named encoder has a width of its own."""
    content_steps: int = 200
    """Training steps of the trained encoder."""
    batch_size: int | None = None
    """Texts encoded per batch; if not given, 16 with a transformer on a CPU, otherwise 256."""
    seed: int = 0
    """Seed of ALS and of the trained encoder."""

    def __post_init__(self) -> None:
        at_least(self, 1, "cf_dim", "cf_iterations", "content_dim", "content_steps", "batch_size")
        at_least(self, 0, "cf_regularization", "cf_alpha")
        check_seed(self)
