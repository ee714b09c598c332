"""Draw the available outputs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import RunError
from .settings import FiguresConfig


def build(run: Path, out: Path, work: Path, config: FiguresConfig) -> dict[str, Any]:
    """Draw every figure for which `run` has data into `out`.

    Raises:
        RunError: the run has no data yet.
    """
    import matplotlib as mpl

    from . import attribution, data, ratings, results
    from .style import STYLE

    count = 0
    with mpl.rc_context({**STYLE, "figure.dpi": config.dpi}):
        for topic in (data, ratings, results, attribution):
            for name, figure in topic.draw(run):
                figure.savefig(out / f"{name}.png", bbox_inches="tight")
                count += 1
    if not count:
        raise RunError(f"{run} has no outputs to draw yet. Run first: regen run {run}")
    return {"figures": count}
