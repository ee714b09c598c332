"""Pictures of a run, drawn from the files that its stages left; a stage that is not there has none.

    data.py      item_counts.png, history_lengths.png, ratings_over_time.png, split_sizes.png
    ratings.py   rated_….png, richness.png, agreement.png, votes_needed.png   the autorater
    results.py   scores.png, loss.png   evaluation and training
    reading.py   soft_tokens.png, soft_token_parts.png, norm_shares.png, left_out_….png   the model, read

A topic is a module with `draw(run)`, which yields (file name without suffix, figure) for all that the run has of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, missing_extra


@dataclass(frozen=True)
class FiguresConfig:
    """Settings of `regen figures`."""

    dpi: int = 150
    """Dots per inch."""

    def __post_init__(self) -> None:
        if not 10 <= self.dpi <= 1200:
            raise ValueError(f"dpi was given {self.dpi}, expected 10 to 1200")


def build(run: Path, out: Path, work: Path, config: FiguresConfig) -> dict[str, Any]:
    """Draw every figure that the run has the data for into `out`.

    Raises:
        RunError: the run holds nothing to draw yet.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise missing_extra("matplotlib", "eval") from None
    from . import data, ratings, reading, results
    from .style import STYLE

    drawn = 0
    with mpl.rc_context({**STYLE, "figure.dpi": config.dpi}):
        for topic in (data, ratings, results, reading):
            for name, figure in topic.draw(run):
                figure.savefig(out / f"{name}.png", bbox_inches="tight")
                drawn += 1
    if not drawn:
        raise RunError(f"There is nothing to draw in {run} yet. Run first: regen run {run}")
    return {"figures": drawn}
