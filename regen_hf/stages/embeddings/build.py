"""Compute CF and content vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import cf, content
from .settings import EmbeddingsConfig


def build(run: Path, out: Path, work: Path, config: EmbeddingsConfig) -> dict[str, Any]:
    """Fit CF on the train users, choose or train the content encoder, and encode every purchase of every user."""
    counts = cf.build(run / "dataset", out, config)
    counts |= content.build(run / "dataset", out, config)
    return counts
