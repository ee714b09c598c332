"""What the reading of the model left (section 6): the map of soft tokens, norm shares, and purchases left out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ...schema import TASKS
from .style import COLOURS, MARKERS, caption, plain

KINDS = {
    "word": ("Word tokens of the language model", "#999999"),
    "soft": ("Soft tokens", COLOURS[0]),
    "cf": ("CF parts", COLOURS[1]),
    "content": ("Content parts", COLOURS[2]),
}
"""What is on the map, the crowd behind the others first: name and colour."""
HALVES = {"cf": ("CF", COLOURS[1]), "content": ("Content", COLOURS[2])}
ROWS = 25
"""Purchases of a history that are drawn, the latest."""


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures of this topic that the run has the data for, by name."""
    folder = run / "attribution"
    if not (folder / "results.json").exists():
        return
    told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    points = pq.read_table(folder / "map.parquet")
    places = {
        kind: np.stack([points.filter(chosen)[axis].to_numpy() for axis in "xy"], axis=1)
        for kind in KINDS
        if (chosen := np.equal(points["kind"].to_numpy(zero_copy_only=False), kind)).any()
    }
    parts = f"{told['adapter']} adapter; parts: {told['parts'].partition(':')[0]}"
    if told["history"] != "own":
        parts += f"; a control, trained with histories that are {told['history']}"
    drawn = ", ".join(f"{len(place):,} {kind}" for kind, place in places.items())
    for name, figure in (("soft_tokens", soft_tokens(places)), ("soft_token_parts", soft_token_parts(places))):
        caption(figure, run, f"{told['map']['method']}, points: {drawn}; {parts}\n{room(told)}")
        yield name, figure
    norms = pq.read_table(folder / "items.parquet", columns=["norms"])["norms"].combine_chunks()
    figure = norm_shares({name: norms.field(name).to_numpy() for name in ("soft", *told["shares"])}, told)
    caption(figure, run, f"{told['items']:,} items, {told['cold_items']:,} of them cold; {parts}")
    yield "norm_shares", figure
    effects: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(folder / "left_out.parquet").to_pylist():
        effects.setdefault(row["reviewer_id"], []).append(row)
    for number, (user, own) in enumerate(effects.items(), 1):
        figure = left_out(own)
        caption(figure, run, f"shopper {plain(user)}; narratives by the model itself")
        yield f"left_out_{number}", figure


def room(told: dict[str, Any]) -> str:
    """The remark on the kissing number (section 6.1): why soft tokens need not lie among the words."""
    power, words, width = int(told["room"]["log10_vectors_60_degrees_apart"]), told["words"], told["width"]
    return (
        f"In {width:,} dimensions more than 10^{power} vectors fit with 60° or more between any two (their kissing "
        f"number; Conway and Sloane 1999).\nThe language model has {words:,} word tokens there"
        + (": most of the space is empty, and the adapter is free to use it." if 10**power > words else ".")
    )


def soft_tokens(places: dict[str, Any]) -> Any:
    """Soft tokens, their parts and the word tokens on one map (figure 5 of the paper).

    Args:
        places: points (n, 2) by kind.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    panel = figure.subplots()
    for kind, place in places.items():
        _scatter(panel, kind, place)
    _bare(panel)
    legend: Any = figure.legend(loc="outside upper center", ncols=2, frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    return figure


def soft_token_parts(places: dict[str, Any]) -> Any:
    """The same map, a panel each for the soft tokens and their parts beside the word tokens (figure 8 of the paper)."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in places if kind != "word"]
    figure = Figure(figsize=(4.3 * len(kinds), 4.9), layout="constrained")
    for panel, kind in zip(
        figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0], kinds, strict=True
    ):
        for shown in ("word", kind):
            _scatter(panel, shown, places[shown])
        _bare(panel)
        panel.set_title(f"{KINDS[kind][0]} and word tokens", fontsize=10)
    return figure


def norm_shares(norms: dict[str, Any], told: dict[str, Any]) -> Any:
    """Norms of the CF and the content part over that of the soft token (figure 6), and by popularity of the item.

    Args:
        norms: of the soft tokens and the parts, (I,) each.
        told: `results.json` of the reading.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    halves = {name: HALVES[name] for name in told["shares"]}
    shares = {name: norms[name] / np.maximum(norms["soft"], 1e-12) for name in halves}
    top = max(float(np.quantile(values, 0.999)) for values in shares.values()) * 1.02
    for name, (label, colour) in halves.items():
        left.hist(
            np.minimum(shares[name], top),
            bins=np.linspace(0, top, 50),
            color=colour,
            alpha=0.6,
            label=f"{label}, median {told['shares'][name]['median']:.0%}",
        )
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.set(xlabel="Norm of the part, of that of the soft token", ylabel="Items", title="All items")
    left.legend(frameon=False)
    layers = told["shares_by_popularity"]
    step = 0.3
    for number, (name, (label, colour)) in enumerate(halves.items()):
        place = np.arange(len(layers)) + (number - (len(halves) - 1) / 2) * step
        middle = [layer[name]["median"] for layer in layers]
        right.errorbar(
            middle,
            place,
            xerr=[
                [m - layer[name]["p05"] for m, layer in zip(middle, layers, strict=True)],
                [layer[name]["p95"] - m for m, layer in zip(middle, layers, strict=True)],
            ],
            linestyle="none",
            marker=MARKERS[number + 1],
            color=colour,
            label=label,
        )
    right.set_yticks(range(len(layers)), [_layer(layer) for layer in layers])
    right.invert_yaxis()
    right.xaxis.set_major_formatter(PercentFormatter(1))
    right.set_xlim(left=0)
    right.grid(axis="x")
    right.set(xlabel="Median; lines from the 5th to the 95th of 100", title="By purchases of the item in train")
    figure.suptitle("How much of a soft token is CF, and how much content")
    return figure


def left_out(effects: list[dict[str, Any]]) -> Any:
    """What each purchase of one shopper does to the likelihood of each narrative: rows of purchases, columns of tasks.

    Args:
        effects: rows of `left_out.parquet` of one user.
    """
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if any(effect["task"] == task for effect in effects)]
    titles = {effect["place"]: effect["title"] or effect["asin"] for effect in effects}
    shown = sorted(titles)[-ROWS:]
    table = np.full((len(shown), len(tasks)), np.nan)
    for effect in effects:
        if effect["place"] in shown:
            table[shown.index(effect["place"]), tasks.index(effect["task"])] = effect["effect"]
    figure = Figure(figsize=(10.5, 0.3 * len(shown) + 2.4), layout="constrained")
    panel = figure.subplots()
    most = max(float(np.nanmax(np.abs(table))), 1e-6)
    image = panel.imshow(table, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    for row, column in np.ndindex(table.shape):
        if not np.isnan(table[row, column]):
            colour = "white" if abs(table[row, column]) > 0.7 * most else "black"
            panel.text(column, row, f"{table[row, column]:+z.1f}", ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(tasks)), [textwrap.fill(task.replace("_", " "), 14) for task in tasks], fontsize=9)
    # Titles are what strangers wrote: no formulas, no signs that the font lacks.
    labels = [f"{place}  {textwrap.shorten(plain(titles[place]), 52, placeholder='…')}" for place in shown]
    panel.set_yticks(range(len(shown)), labels, fontsize=9, parse_math=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    figure.colorbar(image, ax=panel, shrink=0.8, label="Nats lost without the purchase")
    cut = f", the latest {len(shown)} of {len(titles)}" if len(shown) < len(titles) else ""
    figure.suptitle(f"Which purchases speak for a narrative (above 0), oldest first{cut}")
    return figure


def _scatter(panel: Any, kind: str, place: Any) -> None:
    label, colour = KINDS[kind]
    size = 2 if len(place) > 1000 else 8
    panel.scatter(place[:, 0], place[:, 1], s=size, alpha=0.5, color=colour, marker="o", linewidths=0, label=label)


def _bare(panel: Any) -> None:
    """No numbers at the axes: those of t-SNE mean nothing."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def _layer(layer: dict[str, Any]) -> str:
    low, high = layer["from"], layer["to"]
    name = "cold" if not high else f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{name}\n({layer['items']:,} items)"
