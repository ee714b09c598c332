"""Facts about a run that several cards state: whether it is simulated, its language, its name and its figures."""

from __future__ import annotations

from pathlib import Path

from ..outputs import CARD, folder, manifest, source

DATASET_FIGURES = (
    "item_counts",
    "history_lengths",
    "ratings_over_time",
    "split_sizes",
    "rated_",
    "richness",
    "agreement",
    "votes_needed",
)
"""First parts of the file names of figures in the card of the dataset; the others are in the card of the model."""

USER_FIGURES = "left_out_"
"""First part of the file names of figures that show the purchases of one user."""


def simulated(run: Path) -> bool:
    """Whether the users of `run` are simulated shoppers of the sample world."""
    return bool(manifest(run, "sequences").get("config", {}).get("sample"))


def ranks_only(run: Path) -> bool:
    """Whether the model of `run` was trained to rank items only, so that text it generates means nothing."""
    return manifest(run, "train").get("config", {}).get("tasks") == []


def language(run: Path) -> str | None:
    """The language of the narratives as ISO 639-1, None without narratives; the release and the rules are English."""
    if source(run) == "release":
        return "en"
    config = manifest(run, "narratives").get("config", {})
    return "en" if config.get("backend") == "reference" else config.get("language")


def config_name(run: Path) -> str:
    """The config name of the dataset of `run`, as its card states it."""
    from huggingface_hub import DatasetCard

    name: str = DatasetCard.load(folder(run, "dataset") / CARD).data.configs[0]["config_name"]
    return name


def figures(run: Path, part: str, users: bool = True) -> list[Path]:
    """The figures of `part` (`dataset` or `model`); none if they were drawn from outputs that have changed since.

    Args:
        run: the run folder.
        part: the card that shows them.
        users: include figures of single users.
    """
    drawn_from = manifest(run, "figures").get("inputs", {}).get("stages", {})
    stages = {"dataset": ("dataset",), "model": ("train", "evaluate")}[part]
    if any(drawn_from.get(stage) != manifest(run, stage).get("fingerprint") for stage in stages):
        return []
    return [
        path
        for path in sorted(folder(run, "figures").glob("*.png"))
        if path.stem.startswith(DATASET_FIGURES) == (part == "dataset")
        and (users or not path.stem.startswith(USER_FIGURES))
    ]


def caption(path: str) -> str:
    """The caption of a figure, from its file name.

    >>> caption("figures/tiny/ratings_over_time.png")
    'Ratings over time'
    """
    return Path(path).stem.replace("_", " ").capitalize()
