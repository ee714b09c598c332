"""The tables of the tests of citations and of the profile, for the report and the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..intervals import format_interval

DELETIONS = {
    ("without", "cited"): "without the cited purchases",
    ("without", "random"): "without as many random purchases",
    ("only", "cited"): "with the cited purchases only",
    ("only", "random"): "with as many random purchases only",
}
CHANGES = {
    "neutral_purchase": "a random item without review is added",
    "two_swapped": "two adjacent purchases are swapped, of one day where there are any",
    "paraphrase": "one review is paraphrased by rules",
}


def tables_of_tests(results: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tests in the results of the attribution: a text, the head and the rows of each table."""
    tables = []
    if tested := results.get("citations"):
        tables.append(
            (
                f"Citations: {tested['cited']} of {tested['sentences']} sentences about {tested['users']} users cite "
                f"purchases; {tested['tested']} were tested by writing the text again. Share of the cited sentences "
                "that stay word for word, and overlap of words with the most similar new sentence (F1), with 95 % "
                "intervals over the users.",
                ["written again", "stays", "overlap"],
                [
                    [name, *(format_interval(tested[test][arm][measure]) for measure in ("stays", "overlap"))]
                    for (test, arm), name in DELETIONS.items()
                ],
            )
        )
    if changes := results.get("robustness"):
        tables.append(
            (
                "Robustness of the profile: how often it changes with the history.",
                ["change of the history", "users", "changed", "overlap"],
                [
                    [name, str(changes[key]["users"])]
                    + [format_interval(changes[key][measure]) for measure in ("changed", "overlap")]
                    for key, name in CHANGES.items()
                ],
            )
        )
    return tables
