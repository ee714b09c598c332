"""What all cards share: their templates, and the manifests that their numbers come from."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..run import EXTRAS, STAGES, read_manifest

PLACEHOLDER = "path/to/this/repository"
"""Stands in the cards on disk where the repository's name stands on the Hub."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).exists() else package.parent / name


def manifest(run: Path, folder: str) -> dict[str, Any]:
    """The manifest of an output folder of a run, empty where there is none."""
    return read_manifest(run / folder) or {}


def simulated(run: Path) -> bool:
    """Whether the people of a run are those of the sample world."""
    return bool(manifest(run, "sequences").get("config", {}).get("sample"))


def language(run: Path) -> str | None:
    """The language of the narratives as ISO 639-1, None where there are none; release and rules are English."""
    if (run / "release").exists():
        return "en"
    config = manifest(run, "narratives").get("config", {})
    return "en" if config.get("backend") == "reference" else config.get("language")


def public_name(model: str | None) -> str | None:
    """A model's name without the folders of this machine.

    >>> public_name("google/gemma-3-270m"), public_name("/data/models/gemma-3-270m")
    ('google/gemma-3-270m', 'gemma-3-270m')
    """
    return Path(model).name if model and (Path(model).is_absolute() or Path(model).exists()) else model


def further(run: Path, options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Heading and text of each further evaluation that the run has, of what it holds now.

    Args:
        run: the run folder.
        options: their options of `regen evaluate`, some of `EXTRAS`.
    """
    for option in options:
        stage = EXTRAS[option]
        made = manifest(run, stage.folder)
        if made and all(
            manifest(run, STAGES[other].folder).get("fingerprint") == fingerprint
            for other, fingerprint in made["inputs"]["stages"].items()
        ):
            yield option.replace("-", " ").capitalize(), importlib.import_module(stage.code).summary(run / stage.folder)
