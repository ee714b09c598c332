"""One HTML file that holds a run: data, narratives, scores, figures, shoppers, settings, time and cost.

    sections.py     what the report says of each part of a run, from the files that its stages left
    shoppers.py     some shoppers with their reference and the models' narratives
    making.py       how the run was made: stages, versions, settings, what can be made again
    blocks.py       what a section is built of
    template.html   how it looks

The file needs no network and runs no script. What strangers wrote (titles, reviews, narratives) is escaped text in it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..inspection import clean
from ..run import Run
from ..version import __version__
from . import reproduction as making
from . import sections, shoppers


def write(run: Run) -> Path:
    """Write `report.html` into the folder of `run`, of all that it has so far; returns its path.

    Raises:
        RunError: the run has nothing to report.
    """
    folder = run.folder
    parts = [*sections.sections(folder), shoppers.section(folder), *making.sections(run)]
    parts = [part for part in parts if part.blocks]
    if not any(part.name not in ("making", "again") for part in parts):
        raise RunError(f"There is nothing to report of {folder} yet. Run first: regen run {folder}")
    html = (
        _environment()
        .get_template("template.html")
        .render(
            name=folder.resolve().name,
            simulated=run.config["sequences"].sample,
            facts=sections.facts(folder),
            parts=parts,
            version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    path = folder / "report.html"
    new = path.with_name(path.name + ".new")
    new.write_text(html, encoding="utf-8")
    os.replace(new, path)
    return path


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Control characters and marks that turn the reading direction are shown, as at the terminal.
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
