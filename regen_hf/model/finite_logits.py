"""Stops on logits that are NaN or infinite: transformers would generate the first token of the vocabulary."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor


class FiniteLogits(LogitsProcessor):
    """Raises an error for logits that are NaN or infinite; minus infinity suppresses a token."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`, unchanged."""
        check_finite(scores)
        return scores


def check_finite(values: torch.Tensor) -> None:
    """Check that logits or likelihoods have no NaN and no infinity; minus infinity is allowed.

    Raises:
        FloatingPointError: they have.
    """
    if (values.isnan() | values.isposinf()).any():
        raise FloatingPointError(
            "The model's logits contain NaN or infinity, expected finite numbers. Load it in float32 or bfloat16, or "
            "train it again with a lower learning rate."
        )


__all__ = ["FiniteLogits", "check_finite"]
