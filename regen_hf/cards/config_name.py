"""The config name of a dataset repository."""

from __future__ import annotations

from pathlib import Path


def config_name(run: Path) -> str:
    """The name under which the run's dataset is loaded."""
    from huggingface_hub import DatasetCard

    name: str = DatasetCard.load(run / "dataset" / "README.md").data.configs[0]["config_name"]
    return name
