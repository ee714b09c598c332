"""Figures of the autorater: its scores (figures 1 to 3 of the paper) and the agreement of its votes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from ... import outputs
from .style import COLOURS, MARKERS, caption, subplots

TITLES = {
    "example": "History",
    "last_purchase": "Purchase reason and explanation",
    "user": "Profile and summaries of the user",
    "endorsement": "Product endorsement",
    "critique": "Critique",
}
SHORT_TITLES = {"example": "history", "last_purchase": "reason", "user": "user"}
"""Titles that are shorter than the name of the stage, or clearer."""
PALETTE = {
    "veracity": (0, 0),
    "grounding": (1, 1),
    "foresight": (2, 2),
    "clarity": (3, 3),
    "personalization": (4, 4),
    "richness": (5, 5),
    "relevance": (6, 6),
    "confidence": (7, 7),
    "specificity": (0, 3),
    "leak": (1, 4),
}
"""Indices in COLOURS and MARKERS of each attribute, the same in every figure."""
HIGH = {"foresight": "hindsight", "leak": "gives it away"}
"""What a high score means where a low one is better."""


def draw(run: Path) -> Iterator[tuple[str, Any]]:
    """The figures for which the run has data, by name."""
    results = outputs.agreement(run)
    if not results:
        return
    stages, votes = results["stages"], results["votes"]
    raters = ", ".join(results["raters"])
    by = "fixed rules (reference), no language model" if raters == "reference" else raters
    text = f"{votes} {'vote' if votes == 1 else 'votes'} on each of {results['users']:,} users by {by}"
    figures = {}
    for stage, name in (
        ("last_purchase", "rated_purchase_reason"),
        ("user", "rated_user_summaries"),
        ("endorsement", "rated_endorsement"),
        ("critique", "rated_critique"),
    ):
        if any(sum(attribute["scores"]) for attribute in stages[stage].values()):
            figures[name] = scores(stages[stage], TITLES[stage])
    if any(map(any, results["richness_by_confidence"])):
        figures["richness"] = richness(results["richness_by_confidence"])
    if votes > 1:
        figures["agreement"], figures["votes_needed"] = agreement(stages), settling(stages, votes)
    for name, figure in figures.items():
        caption(figure, run, text)
        yield name, figure


def scores(stage: dict[str, Any], title: str) -> Any:
    """Shares of the scores 1 to 7 with a panel for each attribute (figures 1 and 2 of the paper)."""
    rated = {name: attribute["scores"] for name, attribute in stage.items() if sum(attribute["scores"])}
    figure, grid = subplots(2.1 * len(rated) + 0.8, 3.2, columns=len(rated), sharey=True, squeeze=False)
    panels = grid[0]
    for panel, (name, counts) in zip(panels, rated.items(), strict=True):
        total = sum(counts)
        mean = sum(score * count for score, count in enumerate(counts, 1)) / total
        panel.bar(range(1, 8), [count / total for count in counts], color=_look(name)["color"], width=0.8)
        panel.axvline(mean, color="black", linewidth=1, linestyle=":", marker="")
        panel.set_title(name, fontsize=10, pad=18)
        note = f"mean {mean:.1f}" + (f" (high: {HIGH[name]})" if name in HIGH else "")
        panel.text(0.5, 1.02, note, transform=panel.transAxes, ha="center", fontsize=8, color="0.35")
        panel.set_xticks(range(1, 8))
        panel.grid(axis="y")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("Users")
    figure.suptitle(f"{title}, by rated attribute: 1 very low, 7 very high")
    return figure


def richness(table: list[list[int]]) -> Any:
    """Number of users by richness of the history (rows of `table`) and confidence (columns), figure 3 of the paper."""
    total = sum(map(sum, table))
    below = sum(count for row in table[:3] for count in row[3:]) / total
    figure, panel = subplots(6.2, 5.2)
    shares = [[count / total for count in row] for row in zip(*table, strict=True)]  # confidence upwards
    image = panel.imshow(shares, origin="lower", cmap="Blues", vmin=0, extent=(0.5, 7.5, 0.5, 7.5), aspect="equal")
    highest = max(map(max, shares))
    for confidence, row in enumerate(shares, 1):
        for score, share in enumerate(row, 1):
            if share:
                shown = f"{share:.0%}" if share >= 0.01 else "<1%"
                colour = "white" if share > 0.6 * highest else "black"
                panel.text(score, confidence, shown, ha="center", va="center", fontsize=9, color=colour)
    panel.set_xticks(range(1, 8))
    panel.set_yticks(range(1, 8))
    panel.set_xlabel("Richness of the history")
    panel.set_ylabel("Confidence of the rating")
    figure.colorbar(image, ax=panel, format=lambda share, _: f"{100 * share:.3g}%", shrink=0.8, label="Users")
    panel.set_title(
        f"{below:.0%} below the middle in richness, with a confidence of 4 or more", fontsize=9, color="0.35"
    )
    figure.suptitle("Richness of the histories, with its confidence")
    return figure


def agreement(stages: dict[str, Any]) -> Any:
    """Agreement of the votes: alpha, share of majority decisions and flip rate of every attribute."""
    rows = [
        (stage, name, attribute)
        for stage, attributes in stages.items()
        for name, attribute in attributes.items()
        if attribute.get("users")
    ]
    figure, panels = subplots(10.5, 0.27 * len(rows) + 1.8, columns=3, sharey=True)
    for panel, (key, label) in zip(
        panels,
        {
            "alpha": "Krippendorff's alpha (ordinal)",
            "majority": "Scores with a majority",
            "flip_rate": "Pairs of votes that differ",
        }.items(),
        strict=True,
    ):
        for number, stage in enumerate(TITLES):
            points = [
                (attribute[key], position)
                for position, (of, _, attribute) in enumerate(rows)
                if of == stage and attribute[key] is not None
            ]
            panel.plot(
                [value for value, _ in points],
                [position for _, position in points],
                linestyle="none",
                marker=MARKERS[number],
                color=COLOURS[number],
                clip_on=False,  # markers at the end of an axis are not cut
            )
        panel.set_xlabel(label)
        panel.grid()
        panel.set_xlim(min(-0.02, panel.get_xlim()[0]), 1.02)
    panels[0].set_yticks(range(len(rows)), [f"{SHORT_TITLES.get(stage, stage)}: {name}" for stage, name, _ in rows])
    panels[0].invert_yaxis()
    figure.suptitle("Agreement of the votes")
    return figure


def settling(stages: dict[str, Any], votes: int) -> Any:
    """Share of the scores that are the same after 1, 2, … votes as after all votes."""
    figure, panels = subplots(15, 3.6, columns=len(TITLES), sharey=True)
    drawn = {}
    for panel, (stage, title) in zip(panels, TITLES.items(), strict=True):
        for name, attribute in stages[stage].items():
            curve = attribute.get("settling") or []
            if curve:
                numbers, shares = zip(*((point["votes"], point["same"]) for point in curve), strict=True)
                (drawn[name],) = panel.plot(numbers, shares, label=name, markersize=4, **_look(name))
        panel.axhline(0.9, color="0.4", linewidth=1, linestyle=":", marker="")
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("Votes")
        panel.set_xlim(0.8, votes + 0.2)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid()
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylim(top=1.02)
    panels[0].set_ylabel(f"Same score as with {votes} votes")
    if drawn:
        figure.legend(handles=list(drawn.values()), fontsize=9, frameon=False, loc="outside right center")
    figure.suptitle("Scores by number of votes")
    return figure


def _look(attribute: str) -> dict[str, str]:
    colour, marker = PALETTE[attribute]
    return {"color": COLOURS[colour], "marker": MARKERS[marker]}
