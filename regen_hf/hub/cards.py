"""Cards of model and Space; every number in them comes from a manifest or a results file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..run import read_manifest

PLACEHOLDER = "path/to/this/repository"
"""Stands in the cards on disk where the repository's name stands on the Hub."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).exists() else package.parent / name


def model_card(
    run: Path,
    repository: str = PLACEHOLDER,
    dataset: str | None = None,
    training: dict[str, Any] | None = None,
) -> str:
    """The card of a model repository; scores stand in it once this very model has been evaluated.

    Args:
        run: the run folder.
        repository: what the card's code loads.
        dataset: the dataset's name on the Hub.
        training: `config` and `counts` of the training, while the model's manifest is not there yet.
    """
    from huggingface_hub import ModelCard, ModelCardData

    from ..evaluation.report import table

    training = training or manifest(run, "model")
    sample = simulated(run)
    backbone = public_name(training["config"]["backbone"])
    evaluation = manifest(run, "evaluation")
    results = None
    if evaluation and evaluation["inputs"]["stages"]["train"] == training.get("fingerprint"):
        results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
        license="apache-2.0" if sample and not backbone else None,
        base_model=backbone if backbone and backbone == training["config"]["backbone"] else None,
        datasets=[dataset] if dataset else None,
        tags=[
            "recommendation",
            "conversational-recommendation",
            "custom_code",
            *(["simulated"] if sample else []),
        ],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(resource("model_card") / "template.md"),
        repository=repository,
        dataset=dataset,
        backbone=backbone,
        training=training,
        simulated=sample,
        results=results,
        scores=table(results) if results else None,
    )
    return str(card)


def manifest(run: Path, folder: str) -> dict[str, Any]:
    """The manifest of an output folder of a run, empty where there is none."""
    return read_manifest(run / folder) or {}


def simulated(run: Path) -> bool:
    """Whether the people of a run are those of the sample world."""
    return bool(manifest(run, "sequences").get("config", {}).get("sample"))


def public_name(model: str | None) -> str | None:
    """A model's name without the folders of this machine.

    >>> public_name("google/gemma-3-270m"), public_name("/data/models/gemma-3-270m")
    ('google/gemma-3-270m', 'gemma-3-270m')
    """
    return Path(model).name if model and (Path(model).is_absolute() or Path(model).exists()) else model


def space_card(app: Path, model: str, dataset: str) -> bytes:
    """The Space's card, linked to model and dataset."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(app / "README.md")
    card.data.models, card.data.datasets = [model], [dataset]
    return str(card).encode()
