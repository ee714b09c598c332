"""What all cards share: their templates, and the manifests that their numbers come from."""

from __future__ import annotations

from pathlib import Path

from ..outputs import manifest

PLACEHOLDER = "path/to/this/repository"
"""Stands in the cards on disk where the repository's name stands on the Hub."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).exists() else package.parent / name


def simulated(run: Path) -> bool:
    """Whether the people of a run are those of the sample world."""
    return bool(manifest(run, "sequences").get("config", {}).get("sample"))


def language(run: Path) -> str | None:
    """The language of the narratives as ISO 639-1, None where there are none; release and rules are English."""
    if (run / "release").exists():
        return "en"
    config = manifest(run, "narratives").get("config", {})
    return "en" if config.get("backend") == "reference" else config.get("language")
