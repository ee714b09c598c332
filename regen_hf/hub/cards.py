"""Cards of dataset, model and Space; every number in them comes from a manifest or a results file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PLACEHOLDER = "path/to/this/repository"
"""Stands in the cards on disk where the repository's name stands on the Hub."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).exists() else package.parent / name


def dataset_card(run: Path, name: str, counts: dict[str, int]) -> str:
    """The card of a dataset repository, with the YAML that tells `load_dataset` its files."""
    from huggingface_hub import DatasetCard, DatasetCardData

    from ..schema import SPLITS, TASKS

    manifests = {stage: manifest(run, stage) for stage in ("sequences", "narratives", "ratings")}
    simulated = manifests["sequences"]["config"]["sample"]
    data = DatasetCardData(
        pretty_name="REGEN",
        language="en",
        license="apache-2.0" if simulated else None,
        task_categories=["text-generation"],
        tags=["recommendation", "conversational-recommendation", "synthetic", *(["simulated"] if simulated else [])],
        configs=[
            {
                "config_name": name,
                "default": True,
                "data_files": [
                    {"split": split, "path": f"{name}/{split}.parquet"} for split in SPLITS if counts[split]
                ],
            },
            {"config_name": f"{name}-items", "data_files": [{"split": "train", "path": f"{name}-items/items.parquet"}]},
        ],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(resource("dataset_card") / "template.md"),
        repository=PLACEHOLDER,
        name=name,
        split=next((split for split in SPLITS if counts[split]), SPLITS[0]),
        simulated=simulated,
        counts=counts,
        splits=SPLITS,
        tasks=list(TASKS.values()),
        accounting=json.loads((run / "sequences" / "accounting.json").read_text(encoding="utf-8")),
        narrator=_writer(manifests["narratives"]["config"]),
        rater=_writer(manifests["ratings"]["config"]),
    )
    return str(card)


def merged_card(card: str, other: str) -> str:
    """A dataset card with what another one, already on the Hub, says of further configs; its default stays default.

    A card holds one section per dataset, under `# REGEN: <name>`; a section of the same name is replaced.
    """
    from huggingface_hub import DatasetCard

    ours, theirs = DatasetCard(card), DatasetCard(other)
    before, own = theirs.data.get("configs") or [], {config["config_name"]: config for config in ours.data["configs"]}
    configs = [own.pop(config["config_name"], config) for config in before] + list(own.values())
    default = next((config for config in before if config.get("default")), configs[0])["config_name"]
    ours.data["configs"] = [
        {"config_name": config["config_name"]}
        | ({"default": True} if config["config_name"] == default else {})
        | {key: value for key, value in config.items() if key not in ("config_name", "default")}
        for config in configs
    ]
    ours.data["tags"] = list(dict.fromkeys([*(theirs.data.get("tags") or []), *ours.data["tags"]]))
    if before and theirs.data.get("license") != ours.data.get("license"):
        ours.data["license"] = None  # each section tells its own
    sections = {}
    for text in (theirs.text, ours.text):
        for section in re.split(r"(?m)^(?=# REGEN: )", text):
            if section.strip():
                sections[section.splitlines()[0]] = section.strip()
    ours.text = "\n" + "\n\n".join(sections.values()) + "\n"
    return str(ours)


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
    simulated = manifest(run, "sequences")["config"]["sample"]
    backbone = _public_name(training["config"]["backbone"])
    evaluation = manifest(run, "evaluation")
    results = None
    if evaluation and evaluation["inputs"]["stages"]["train"] == training.get("fingerprint"):
        results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
        license="apache-2.0" if simulated and not backbone else None,
        base_model=backbone if backbone and backbone == training["config"]["backbone"] else None,
        datasets=[dataset] if dataset else None,
        tags=[
            "recommendation",
            "conversational-recommendation",
            "custom_code",
            *(["simulated"] if simulated else []),
        ],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(resource("model_card") / "template.md"),
        repository=repository,
        dataset=dataset,
        backbone=backbone,
        training=training,
        simulated=simulated,
        results=results,
        scores=table(results) if results else None,
    )
    return str(card)


def manifest(run: Path, folder: str) -> dict[str, Any]:
    """The manifest of an output folder of a run, empty where there is none."""
    path = run / folder / "manifest.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _writer(config: dict[str, Any]) -> str | None:
    """The model that wrote or rated, None for the fixed rules."""
    return None if config["backend"] == "reference" else _public_name(config["model"])


def _public_name(model: str | None) -> str | None:
    """A model's name without the folders of this machine.

    >>> _public_name("google/gemma-3-270m"), _public_name("/data/models/gemma-3-270m")
    ('google/gemma-3-270m', 'gemma-3-270m')
    """
    return Path(model).name if model and (Path(model).is_absolute() or Path(model).exists()) else model


def space_card(app: Path, model: str, dataset: str) -> bytes:
    """The Space's card, linked to model and dataset."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(app / "README.md")
    card.data.models, card.data.datasets = [model], [dataset]
    return str(card).encode()
