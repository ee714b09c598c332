"""Summaries of the optional evaluations of a run, for the cards of its dataset and its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..outputs import folder, manifest
from ..run import STAGES


def further(run: Path, commands: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Heading and text of each optional evaluation of the run whose inputs have not changed since.

    Args:
        run: the run folder.
        commands: the commands of the evaluations, such as `next-item`.
    """
    for command in commands:
        done = manifest(run, command)
        if done and all(
            manifest(run, other).get("fingerprint") == fingerprint
            for other, fingerprint in done["inputs"]["stages"].items()
        ):
            yield command.replace("-", " ").capitalize(), STAGES[command].code.summary(folder(run, command))
