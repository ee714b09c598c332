"""Draw the idea at a glance into docs/images/idea.png: purchases become soft tokens, and soft tokens become words.

    python scripts/figure.py

The example is an illustration in the style of the sample world, not the output of a model.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).parents[1] / "docs" / "images" / "idea.png"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # of Okabe and Ito, for readers who are colour-blind
PURCHASES = (
    ("Olive kitchen pen case", "★★★★", "“Zips well, holds every pen.”"),
    ("Red camping tote bag", "★★★★", "“Took it to the lake.”"),
    ("Navy lunch box, two tiers", "★★", "“Too small for a night shift.”"),
    ("Navy office blanket", "★★★★★", "“Warm at three in the morning.”"),
)
SENTENCES = (
    ("A night nurse who rests between double shifts.", (2, 3)),
    ("Navy always pleases.", (2, 3)),
    ("What keeps its contents together is praised.", (0, 1)),
)


def box(axes, x: float, y: float, width: float, height: float, color: str, fill: str = "white") -> None:
    """A rounded box with the lower left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, ec=color, fc=fill, lw=1.6))


def arrow(axes, start: tuple[float, float], end: tuple[float, float], color: str = "#666666") -> None:
    """An arrow from `start` to `end`."""
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 0, "shrinkB": 2}
    axes.add_patch(FancyArrowPatch(start, end, color=color, lw=1.3, **style))


def main() -> None:
    """Draw the figure."""
    figure, axes = plt.subplots(figsize=(12, 4.6))
    axes.set(xlim=(0, 24), ylim=(0, 9.2))
    axes.axis("off")
    for x, heading, about in (
        (0, "Purchases with reviews", "CF vector of the item, content vector of item and review"),
        (9.3, "One soft token each", "in the prompt of any causal language model"),
        (15.6, "Words", "each sentence with the purchases that it rests on"),
    ):
        axes.text(x, 8.75, heading, fontsize=13, weight="bold", va="center")
        axes.text(x, 8.1, about, fontsize=8.5, color="#555555", va="center")
    for number, ((title, stars, review), color) in enumerate(zip(PURCHASES, COLORS, strict=True)):
        y = 5.9 - 1.9 * number
        box(axes, 0, y, 7.6, 1.55, color)
        axes.text(0.3, y + 1.08, title, fontsize=10.5, weight="bold", va="center", color=color)
        axes.text(7.35, y + 1.08, stars, fontsize=9, va="center", ha="right", color="#444444")
        axes.text(0.3, y + 0.45, review, fontsize=9.5, va="center", style="italic", color="#333333")
        arrow(axes, (7.7, y + 0.78), (9.25, y + 0.78), color)
        box(axes, 9.35, y + 0.38, 0.8, 0.8, color, color)
        axes.text(9.75, y + 0.78, str(number + 1), color="white", weight="bold", ha="center", va="center", fontsize=10)
        arrow(axes, (10.25, y + 0.78), (11.3, 4.05 + 0.25 * (1.5 - number)), color)
    box(axes, 11.4, 2.6, 2.9, 2.9, "#444444", "#f2f2f2")
    axes.text(12.85, 4.45, "language\nmodel", ha="center", va="center", fontsize=11, weight="bold")
    axes.text(12.85, 3.3, "“Summarize this\ncustomer.”", ha="center", va="center", fontsize=8.5, style="italic")
    arrow(axes, (14.4, 4.05), (15.4, 4.05))
    for line, (text, cited) in enumerate(SENTENCES):
        y = 5.9 - 1.5 * line
        axes.text(15.6, y, text, fontsize=10.5, va="center")
        for place, purchase in enumerate(cited):
            x = 15.75 + 0.62 * place
            box(axes, x - 0.15, y - 0.73, 0.46, 0.42, COLORS[purchase], COLORS[purchase])
            style = {"color": "white", "weight": "bold", "ha": "center", "va": "center", "fontsize": 7}
            axes.text(x + 0.08, y - 0.53, str(purchase + 1), **style)
    axes.text(15.6, 0.55, "Illustration", fontsize=8, color="#888888", va="center")
    figure.subplots_adjust(0.01, 0.01, 0.995, 0.99)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
