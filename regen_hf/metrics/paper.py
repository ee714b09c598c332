"""The figures of the paper (tables 1 and 4), for comparison with those of runs."""

from __future__ import annotations

from typing import NamedTuple


class PaperTable(NamedTuple):
    """A table of the paper: its name, and its scores."""

    name: str
    scores: dict[str, dict[str, tuple[float, float, float]]]
    """By task and metric, the scores of CF, content, and CF + content."""


OFFICE = PaperTable(
    "table 1, Office Products",
    {
        "purchase_reason": {
            "bleu": (17.71, 21.07, 21.92),
            "rougeLsum": (38.26, 42.63, 43.01),
            "similarity": (0.614, 0.664, 0.669),
        },
        "purchase_reason_explanation": {
            "bleu": (19.56, 21.68, 24.24),
            "rougeLsum": (37.26, 38.05, 41.11),
            "similarity": (0.783, 0.787, 0.851),
        },
        "brief_user_summary": {
            "bleu": (17.96, 19.3, 19.12),
            "rougeLsum": (36.5, 38.06, 38.16),
            "similarity": (0.861, 0.866, 0.864),
        },
        "long_user_summary": {
            "bleu": (16.96, 18.07, 18.09),
            "rougeLsum": (31.61, 33.35, 33.42),
            "similarity": (0.885, 0.895, 0.903),
        },
    },
)

CLOTHING = PaperTable(
    "table 4, Clothing, Shoes & Jewelry",
    {
        "purchase_reason_explanation": {
            "bleu": (17.81, 18.01, 18.96),
            "rougeLsum": (34.05, 34.73, 35.67),  # called ROUGE in the table
            "similarity": (0.795, 0.82, 0.838),
        },
        "long_user_summary": {
            "bleu": (19.18, 18.92, 19.49),
            "rougeLsum": (33.01, 33.23, 33.88),
            "similarity": (0.908, 0.91, 0.913),
        },
    },
)


def reference(dataset: str, released: bool) -> tuple[PaperTable, str]:
    """The table of the paper to show beside the scores on a dataset, and a note about it.

    Args:
        dataset: name of the dataset's config; table 4 for `clothing`, table 1 for all others.
        released: whether the dataset is the official release.
    """
    table = CLOTHING if dataset == "clothing" else OFFICE
    same = released and dataset in ("office", "clothing")
    source = "of the same dataset, but of other users and models" if same else "from other data and models"
    note = f"Paper: {table.name}, by PaLM 2 XXS with WALS and Gecko: figures {source}, not a target for these runs."
    return table, note
