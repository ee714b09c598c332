"""Settings of the embeddings stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import at_least, check_seed

PACKAGES = ("implicit", "sentence-transformers", "torch")
"""Libraries whose versions the output depends on."""

NOT_STATED = "not stated"
WITHOUT_ASINS = (".npy", ".safetensors")
"""Files of vectors that do not hold the asins."""


@dataclass(frozen=True)
class EmbeddingsConfig:
    """Settings of `regen embeddings`."""

    cf_dim: int = 128
    """Width of the CF vectors of ALS (128 in the paper); those of a file have a width of their own."""
    cf_iterations: int = 15
    """Sweeps of alternating least squares."""
    cf_regularization: float = 0.05
    """Weight of the L2 penalty of ALS."""
    cf_alpha: float = 1.0
    """Confidence per rating star: 1 + cf_alpha * r for a purchase rated r, 1 for none (Hu et al. 2008)."""
    cf_vectors: str | None = field(default=None, metadata={"reads": "files"})
    """Item vectors of another recommender in place of ALS: parquet with asin and vector, or .npy or .safetensors with
    --cf-asins."""
    cf_asins: str | None = field(default=None, metadata={"reads": "files"})
    """The asins of the rows of --cf-vectors, in their order: text with one per line, a JSON list, .npy, or parquet with
    asin."""
    cf_fitted_on: str = field(default=NOT_STATED, metadata={"affects_output": False, "about": "cf_vectors"})
    """On whom --cf-vectors was fitted, for the card of the model, such as 'the train users'."""
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
        if self.cf_asins and not self.cf_vectors:
            unset = "remove it with --set embeddings.cf_asins=null"
            raise ValueError(f"cf_asins was given {self.cf_asins} without cf_vectors, expected both or none: {unset}")
        needs_asins = bool(self.cf_vectors and self.cf_vectors.lower().endswith(WITHOUT_ASINS))
        if self.cf_vectors and needs_asins != bool(self.cf_asins):
            unset = "no cf_asins: remove it with --set embeddings.cf_asins=null"
            expected = "cf_asins too, a file with the asin of each row" if needs_asins else unset
            raise ValueError(f"cf_vectors was given {self.cf_vectors}, expected {expected}")
        if not self.cf_fitted_on.strip() or not self.cf_fitted_on.isprintable():
            raise ValueError(f"cf_fitted_on was given {self.cf_fitted_on!r}, expected words in one line")
