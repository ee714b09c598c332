"""The style of all figures: colours that colour-blind readers can distinguish, and a caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""The palette of Okabe and Ito (2008), the darker colours first."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A marker for each colour, so that no difference is shown by colour only."""
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}
"""Settings for matplotlib."""


def subplots(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches, and its panels; `options` are those of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def plain(text: str) -> str:
    r"""Text from the data in one line; characters that the font of the figures lacks become a box.

    >>> plain("Gel\npen \u4f60 $5")
    'Gel pen □ $5'
    """
    from matplotlib import font_manager, ft2font

    known = ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(character if ord(character) in known else "□" for character in " ".join(text.split()))


def caption(figure: Any, run: Path, text: str) -> None:
    """Add a line under `figure` with the name of the run and a description of the data."""
    figure.supxlabel(f"{run.resolve().name}: {text}", x=0.01, ha="left", fontsize=8.5, color="0.35", parse_math=False)
