"""The report of a run: one HTML file with data, narratives, scores, figures, shoppers, settings, time and cost.

The file loads nothing from the network and runs no script. Text from the data is escaped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import outputs
from ..errors import RunError
from ..inspection import clean
from ..run import Run
from ..version import __version__
from . import reproduction, sections, shoppers


def write(run: Run) -> Path:
    """Write `report.html` with the available outputs of `run` into its folder; returns the path.

    Raises:
        RunError: the run has no outputs yet.
    """
    folder = run.folder
    parts = [part for part in (*sections.sections(folder), shoppers.section(folder)) if part.blocks]
    if not parts:
        raise RunError(f"{folder} has no outputs to report yet. Run first: regen run {folder}")
    html = (
        _environment()
        .get_template("template.html")
        .render(
            name=folder.resolve().name,
            simulated=run.config["sequences"].sample,
            facts=sections.facts(folder),
            parts=[*parts, *reproduction.sections(run)],
            version=__version__,
            time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    path = folder / outputs.REPORT
    outputs.write_text(path, html)
    return path


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Shows control and direction characters as escapes, as `regen inspect` does.
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
