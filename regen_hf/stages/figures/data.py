"""Figures of the data: purchases per item, lengths of histories, ratings over time, sizes of the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ... import outputs
from ...metrics.counts import Purchases, purchases, quantile
from ...schema import SPLITS
from .style import COLOURS, caption, subplots

STARS = ("#00204D", "#404F7A", "#7C7B78", "#BCAF6F", "#FFEA46")
"""Colours of 1 to 5 stars: steps of the colour map cividis, from dark to light for every reader."""


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures by name, from the dataset, or from the release or sequences of a run without one."""
    folders = [outputs.folder(run, stage) for stage in ("dataset", "release", "sequences")]
    source = next((folder for folder in folders if folder.exists()), None)
    if source is None:
        return
    splits = {split: purchases(outputs.split_files(source, split)) for split in SPLITS}
    total = sum(splits.values(), Purchases())
    if not total.total:
        return
    users, bought = total.lengths.total(), f"{total.total:,} purchases"
    for name, figure, text in (
        ("item_counts", item_counts(total), f"{bought} of {len(total.items):,} items"),
        ("history_lengths", history_lengths(total), f"{bought} of {users:,} users"),
        ("ratings_over_time", ratings_over_time(total), f"{total.months.total():,} dated purchases"),
        ("split_sizes", split_sizes(splits), f"{users:,} users with {bought}"),
    ):
        caption(figure, run, text)
        yield name, figure


def item_counts(counts: Purchases) -> Any:
    """Histogram of the purchases per item (figure 7 of the paper), with bins that grow with the number."""
    numbers = Counter(counts.items.values())
    least, most = min(numbers), max(numbers)
    growth = ((most + 1) / least) ** (1 / 25)
    edges = [least]
    while edges[-1] <= most:  # integer edges and no bin narrower than the one before, which would add false peaks
        edges.append(edges[-1] + max(1, int(edges[-1] * (growth - 1))))
    figure, panel = subplots(7, 4)
    panel.hist(list(numbers), bins=edges, weights=list(numbers.values()), color=COLOURS[0], edgecolor="white")
    panel.set_xscale("log")
    ticks = [number for number in _round_numbers(most) if number >= least] or [least]
    panel.set_xticks(ticks, [f"{number:,}" for number in ticks])
    panel.minorticks_off()
    panel.yaxis.get_major_locator().set_params(integer=True)
    _median(panel, quantile(numbers, 0.5), "purchases")
    panel.set(xlabel="Purchases of an item (log scale)", ylabel="Items", title="How often an item is bought\n")
    return figure


def history_lengths(counts: Purchases) -> Any:
    """Number of users by length of history."""
    figure, panel = subplots(7, 4)
    panel.bar(list(counts.lengths), list(counts.lengths.values()), width=0.9, color=COLOURS[0])
    _median(panel, quantile(counts.lengths, 0.5), "purchases")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set(xlabel="Purchases of a user", ylabel="Users", title="How long histories are\n")
    return figure


def ratings_over_time(counts: Purchases) -> Any:
    """Purchases by month and rating, with their mean rating by year below."""
    months = sorted({month for month, _ in counts.months})
    figure, (panel, below) = subplots(8, 5, rows=2, sharex=True, height_ratios=(3, 1.4))
    bottom = np.zeros(len(months))
    for rating in (1, 2, 3, 4, 5, None):
        bars = np.array([counts.months[month, rating] for month in months])
        if bars.any():
            label = f"{rating} star{'s' if rating != 1 else ''}" if rating else "no rating"
            colour = STARS[rating - 1] if rating else "#D9D9D9"
            panel.bar(months, bars, width=31, bottom=bottom, color=colour, label=label)
            bottom += bars
    panel.legend(*(part[::-1] for part in panel.get_legend_handles_labels()), frameon=False, loc="upper left")
    panel.set(ylabel="Purchases in a month", title="Ratings over time")
    years: dict[int, Counter[int]] = {}
    for (month, rating), number in counts.months.items():
        if rating:
            years.setdefault(month.year, Counter())[rating] += number
    middle = [np.datetime64(f"{year}-07-01") for year in sorted(years)]
    mean = [sum(r * n for r, n in years[year].items()) / years[year].total() for year in sorted(years)]
    below.plot(middle, mean, color=COLOURS[0], marker="o", markersize=4)
    below.set(ylabel="Mean of a year", ylim=(1, 5.2), yticks=range(1, 6))
    below.grid(axis="y")
    return figure


def split_sizes(splits: Mapping[str, Purchases]) -> Any:
    """Users and purchases of each split."""
    figure, panels = subplots(8, 2.4, columns=2, sharey=True)
    totals = {
        "Users": [counts.lengths.total() for counts in splits.values()],
        "Purchases": [counts.total for counts in splits.values()],
    }
    for panel, (label, numbers) in zip(panels, totals.items(), strict=True):
        bars = panel.barh(list(splits), numbers, color=COLOURS[: len(splits)])
        shares = [f"{number:,} ({number / sum(numbers):.0%})" for number in numbers]
        panel.bar_label(bars, shares, padding=3)
        panel.set(xlabel=label, xlim=(0, max(numbers) * 1.35))
        panel.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    panels[0].invert_yaxis()
    figure.suptitle("Sizes of the splits, which hold distinct users")
    return figure


def _median(panel: Any, value: float, unit: str) -> None:
    panel.axvline(value, color=COLOURS[1], linestyle="--", marker="none")
    # Above the panel, where it covers no bar.
    panel.annotate(
        f"median: {value:,} {unit}", (value, 1.02), xycoords=("data", "axes fraction"), color=COLOURS[1], ha="center"
    )


def _round_numbers(most: int) -> list[int]:
    """1, 2, 5, 10, 20, … up to `most`."""
    return [step * 10**power for power in range(len(str(most))) for step in (1, 2, 5) if step * 10**power <= most]
