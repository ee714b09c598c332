"""The folders of the card templates and of the Spaces."""

from __future__ import annotations

from pathlib import Path

PLACEHOLDER = "path/to/this/repository"
"""The name of the repository in a card that has not been pushed."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).exists() else package.parent / name
