"""Figures of the attribution (section 6): map of the soft tokens, norm shares, effects of single purchases."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import PercentFormatter

from ... import outputs
from ...cards.facts import ranks_only
from ...schema import TASKS
from .style import COLOURS, MARKERS, caption, plain, subplots

KINDS = {
    "word": ("Word tokens of the language model", "#999999"),
    "soft": ("Soft tokens", COLOURS[0]),
    "cf": ("CF parts", COLOURS[1]),
    "content": ("Content parts", COLOURS[2]),
}
"""Label and colour of each kind of point, from the back of the map to the front."""
PARTS = {"cf": ("CF", COLOURS[1]), "content": ("Content", COLOURS[2])}
MAX_PURCHASES = 25
"""The latest purchases of a history that are drawn."""


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures for which the run has data, by name."""
    results = outputs.results(run, "attribution")
    if not results or ranks_only(run):  # such results are of an earlier model
        return
    table = pq.read_table(outputs.path(run, "attribution", outputs.TOKEN_MAP))
    points = {
        kind: np.stack([table.filter(chosen)[axis].to_numpy() for axis in "xy"], axis=1)
        for kind in KINDS
        if (chosen := np.equal(table["kind"].to_numpy(zero_copy_only=False), kind)).any()
    }
    parts = f"{results['adapter']} adapter; parts: {results['parts'].partition(':')[0]}"
    if results["history"] != "own":
        parts += f"; a control, trained with {results['history']} histories"
    numbers = ", ".join(f"{len(of_kind):,} {kind}" for kind, of_kind in points.items())
    for name, figure in (("soft_tokens", soft_tokens(points)), ("soft_token_parts", soft_token_parts(points))):
        caption(figure, run, f"{results['map']['method']}, points: {numbers}; {parts}\n{kissing_number(results)}")
        yield name, figure
    items = outputs.path(run, "attribution", outputs.EMBEDDED_ITEMS)
    norms = pq.read_table(items, columns=["norms"])["norms"].combine_chunks()
    figure = norm_shares({name: norms.field(name).to_numpy() for name in ("soft", *results["shares"])}, results)
    caption(figure, run, f"{results['items']:,} items, {results['cold_items']:,} of them cold; {parts}")
    yield "norm_shares", figure
    effects: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(outputs.path(run, "attribution", outputs.LEFT_OUT)).to_pylist():
        effects.setdefault(row["reviewer_id"], []).append(row)
    for number, (user, of_user) in enumerate(effects.items(), 1):
        figure = left_out(of_user)
        caption(figure, run, f"shopper {plain(user)}; narratives by the model")
        yield f"left_out_{number}", figure


def kissing_number(results: dict[str, Any]) -> str:
    """The remark on the kissing number (section 6.1): why soft tokens need not lie among the words."""
    power, words, width = int(results["room"]["log10_vectors_60_degrees_apart"]), results["words"], results["width"]
    return (
        f"In {width:,} dimensions more than 10^{power} vectors fit with 60° or more between any two (their kissing "
        f"number; Conway and Sloane 1999).\nThe language model has {words:,} word tokens there"
        + (": most of the space is empty and available to the adapter." if 10**power > words else ".")
    )


def soft_tokens(points: dict[str, Any]) -> Any:
    """Soft tokens, their parts and the word tokens, (n, 2) each, on one map (figure 5 of the paper)."""
    figure, panel = subplots(7.5, 6.4)
    for kind in points:
        _scatter(panel, kind, points[kind])
    _hide_axes(panel)
    legend: Any = figure.legend(loc="outside upper center", ncols=2, frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    return figure


def soft_token_parts(points: dict[str, Any]) -> Any:
    """The same map with a panel for the soft tokens and for each part (figure 8 of the paper)."""
    kinds = [kind for kind in points if kind != "word"]
    figure, panels = subplots(4.3 * len(kinds), 4.9, columns=len(kinds), sharex=True, sharey=True, squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for shown in ("word", kind):
            _scatter(panel, shown, points[shown])
        _hide_axes(panel)
        panel.set_title(f"{KINDS[kind][0]} and word tokens", fontsize=10)
    return figure


def norm_shares(norms: dict[str, Any], results: dict[str, Any]) -> Any:
    """Norms of the CF and content parts over those of the soft tokens, (I,) each (figure 6), also by popularity."""
    figure, (left, right) = subplots(11, 4.2, columns=2, width_ratios=(1.1, 1))
    parts = {name: PARTS[name] for name in results["shares"]}
    shares = {name: norms[name] / np.maximum(norms["soft"], 1e-12) for name in parts}
    top = max(float(np.quantile(values, 0.999)) for values in shares.values()) * 1.02
    for name, (label, colour) in parts.items():
        left.hist(
            np.minimum(shares[name], top),
            bins=np.linspace(0, top, 50),
            color=colour,
            alpha=0.6,
            label=f"{label}, median {results['shares'][name]['median']:.0%}",
        )
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.set(xlabel="Norm of the part over norm of the soft token", ylabel="Items", title="All items")
    left.legend(frameon=False)
    groups = results["shares_by_popularity"]
    step = 0.3
    for number, (name, (label, colour)) in enumerate(parts.items()):
        right.errorbar(
            [group[name]["median"] for group in groups],
            np.arange(len(groups)) + (number - (len(parts) - 1) / 2) * step,
            xerr=[
                [group[name]["median"] - group[name]["p05"] for group in groups],
                [group[name]["p95"] - group[name]["median"] for group in groups],
            ],
            linestyle="none",
            marker=MARKERS[number + 1],
            color=colour,
            label=label,
        )
    right.set_yticks(range(len(groups)), [_group_label(group) for group in groups])
    right.invert_yaxis()
    right.xaxis.set_major_formatter(PercentFormatter(1))
    right.set_xlim(left=0)
    right.grid(axis="x")
    right.set(xlabel="Median; lines from the 5th to the 95th percentile", title="By purchases of the item in train")
    figure.suptitle("Shares of CF and content in a soft token")
    return figure


def left_out(effects: list[dict[str, Any]]) -> Any:
    """Effect of each purchase of one shopper (rows) on the log-likelihood of each narrative (columns)."""
    tasks = [task for task in TASKS if any(effect["task"] == task for effect in effects)]
    titles = {effect["place"]: effect["title"] or effect["asin"] for effect in effects}
    shown = sorted(titles)[-MAX_PURCHASES:]
    table = np.full((len(shown), len(tasks)), np.nan)
    for effect in effects:
        if effect["place"] in shown:
            table[shown.index(effect["place"]), tasks.index(effect["task"])] = effect["effect"]
    figure, panel = subplots(10.5, 0.3 * len(shown) + 2.4)
    most = max(float(np.nanmax(np.abs(table))), 1e-6)
    image = panel.imshow(table, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    for row, column in np.ndindex(table.shape):
        if not np.isnan(table[row, column]):
            colour = "white" if abs(table[row, column]) > 0.7 * most else "black"
            panel.text(column, row, f"{table[row, column]:+z.1f}", ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(tasks)), [textwrap.fill(task.replace("_", " "), 14) for task in tasks], fontsize=9)
    # Titles come from the data: no formulas, no characters that the font lacks.
    labels = [f"{index}  {textwrap.shorten(plain(titles[index]), 52, placeholder='…')}" for index in shown]
    panel.set_yticks(range(len(shown)), labels, fontsize=9, parse_math=False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    figure.colorbar(image, ax=panel, shrink=0.8, label="Log-likelihood lost without the purchase (nats)")
    cut = f", the latest {len(shown)} of {len(titles)}" if len(shown) < len(titles) else ""
    figure.suptitle(f"Purchases that make a narrative more likely (above 0), oldest first{cut}")
    return figure


def _scatter(panel: Any, kind: str, points: Any) -> None:
    label, colour = KINDS[kind]
    size = 2 if len(points) > 1000 else 8
    panel.scatter(points[:, 0], points[:, 1], s=size, alpha=0.5, color=colour, marker="o", linewidths=0, label=label)


def _hide_axes(panel: Any) -> None:
    """Remove the axes, as the coordinates of t-SNE have no meaning."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def _group_label(group: dict[str, Any]) -> str:
    low, high = group["from"], group["to"]
    name = "cold" if not high else f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{name}\n({group['items']:,} items)"
