"""The look that all figures share: colours that colour-blind readers can tell apart, and a caption under each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cycler import cycler

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""The palette of Okabe and Ito (2008), the darker ones first."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One for each colour, so that no difference rests on colour alone."""
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}
"""Settings of matplotlib."""


def plain(text: str) -> str:
    r"""What a stranger wrote, in one line and in signs that the font of the figures has; others become a box.

    >>> plain("Gel\npen \u4f60 $5")
    'Gel pen □ $5'
    """
    from matplotlib import font_manager, ft2font

    known = ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(sign if ord(sign) in known else "□" for sign in " ".join(text.split()))


def caption(figure: Any, run: Path, text: str) -> None:
    """Put a line under `figure` that names the run and says what its data are."""
    figure.supxlabel(f"{run.resolve().name}: {text}", x=0.01, ha="left", fontsize=8.5, color="0.35", parse_math=False)
