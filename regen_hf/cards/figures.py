"""Which pictures of a run stand in the card of its dataset, and which in that of its model."""

from __future__ import annotations

from pathlib import Path

from ..outputs import manifest

OF_THE_DATASET = (
    "item_counts",
    "history_lengths",
    "ratings_over_time",
    "split_sizes",
    "rated_",
    "richness",
    "agreement",
    "votes_needed",
)
"""How the names of pictures begin that show the data; the others show the model."""


OF_USERS = ("left_out_",)
"""Those of the model that show purchases of single users: for a model whose dataset is there to be seen."""


def figures(run: Path, part: str, users: bool = True) -> list[Path]:
    """The pictures of `part`, `dataset` or `model`, as far as they were drawn of what the run holds now.

    Args:
        run: the run folder.
        part: whose card they are for.
        users: with those that show single users.
    """
    drawn_of = manifest(run, "figures").get("inputs", {}).get("stages", {})
    shows = {"dataset": ("dataset",), "model": ("train", "evaluate")}[part]
    if any(drawn_of.get(stage) != manifest(run, stage).get("fingerprint") for stage in shows):
        return []
    return [
        path
        for path in sorted((run / "figures").glob("*.png"))
        if path.stem.startswith(OF_THE_DATASET) == (part == "dataset") and (users or not path.stem.startswith(OF_USERS))
    ]


def caption(path: str) -> str:
    """What stands under a picture, from the name of its file.

    >>> caption("figures/tiny/ratings_over_time.png")
    'Ratings over time'
    """
    return Path(path).stem.replace("_", " ").capitalize()
