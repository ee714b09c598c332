"""Agreement of the votes of an ensemble, and the number of votes that a score needs: for `agreement.json`.

For each attribute of each stage:

- `alpha`: Krippendorff's alpha, ordinal: 1 = all votes on a text agree, 0 = no better than chance
- `majority`: share of the scores that are the vote of more than half of the votes; the others are means
- `flip_rate`: probability that two votes on the same text differ
- `settling`: for 1, 2, … votes, the share of users whose score is the `same` as with all votes, and the mean
  `difference` in points. Vote number n does not depend on later votes, so these are the scores of fewer votes
- `votes_needed`: the least number of votes at and above which 90 % and 95 % of the scores are those of all votes; null
  if only all votes reach it, as the scores had not settled
- `scores`: number of users with the score 1, 2, … 7

A number is null if it cannot be computed from one vote, or from votes without any difference.

`warnings` names raters that give every text the same score, and attributes whose scores do not settle with the votes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ...metrics.agreement import POINTS, alpha
from ...schema import RATED
from . import aggregation

LEAST_VOTES = 10
"""Votes of a rater on one attribute from which equal scores are a warning."""


class Agreement:
    """Counts votes and scores user by user; memory grows with the patterns of disagreement, not with users."""

    def __init__(self, votes: int) -> None:
        self.votes = votes
        self.users = 0
        self.tallies = {
            (stage, attribute): Tally(votes)
            for stage, attributes in RATED.items()
            for attribute in attributes
            if attribute != "confidence"
        }
        self.scores = {
            (stage, attribute): [0] * POINTS for stage, attributes in RATED.items() for attribute in attributes
        }
        self.richness_by_confidence = [[0] * POINTS for _ in range(POINTS)]
        self.by_rater: dict[tuple[str, str], Counter[int]] = {}

    def add(self, metadata: dict[str, dict[str, int | None]], rows: Sequence[dict[str, Any]]) -> None:
        """Count one user: `metadata` as in schema.RATINGS, and the rows of VOTES behind it, in order."""
        self.users += 1
        by_attribute: dict[tuple[str, str], list[int | None]] = {}
        for row in rows:
            by_attribute.setdefault((row["stage"], row["attribute"]), []).append(row["score"])
            if row["score"] is not None:
                named = (row["rater"], f"{row['stage']}.{row['attribute']}")
                self.by_rater.setdefault(named, Counter())[row["score"]] += 1
        for key, votes in by_attribute.items():
            self.tallies[key].add(votes)
        for (stage, attribute), counts in self.scores.items():
            score = metadata[stage][attribute]
            if score is not None:
                counts[score - 1] += 1
        richness, confidence = metadata["example"]["richness"], metadata["example"]["confidence"]
        if richness is not None and confidence is not None:
            self.richness_by_confidence[richness - 1][confidence - 1] += 1

    def report(self, raters: Sequence[str]) -> dict[str, Any]:
        """The content of `agreement.json`."""
        stages = self._stages()
        return {
            "raters": list(raters),
            "votes": self.votes,
            "users": self.users,
            "warnings": [*self._constant_raters(), *self._unsettled(stages)],
            "stages": stages,
            "richness_by_confidence": self.richness_by_confidence,
        }

    def _constant_raters(self) -> Iterator[dict[str, Any]]:
        for rater in dict.fromkeys(rater for rater, _ in self.by_rater):
            constant = {
                attribute: next(iter(scores))
                for (name, attribute), scores in self.by_rater.items()
                if name == rater and len(scores) == 1 and scores.total() >= LEAST_VOTES
            }
            if constant:
                given = ", ".join(f"{attribute} {score}" for attribute, score in constant.items())
                yield {
                    "kind": "constant_rater",
                    "rater": rater,
                    "attributes": list(constant),
                    "message": f"{rater} gives all texts the same score ({given}): it does not distinguish them.",
                }

    def _unsettled(self, stages: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
        unsettled = [
            f"{stage}.{attribute}"
            for stage, attributes in stages.items()
            for attribute, figures in attributes.items()
            if figures.get("settling") and figures["votes_needed"]["90%"] is None
        ]
        if unsettled:
            yield {
                "kind": "unsettled",
                "attributes": unsettled,
                "message": f"More than 10 % of the scores of {', '.join(unsettled)} change with the last of the "
                f"{self.votes} votes. Rate with more votes, or with another model.",
            }

    def _stages(self) -> dict[str, dict[str, Any]]:
        return {
            stage: {
                attribute: {
                    "scores": self.scores[stage, attribute],
                    **(self.tallies[stage, attribute].report() if attribute != "confidence" else {}),
                }
                for attribute in attributes
            }
            for stage, attributes in RATED.items()
        }


class Tally:
    """The votes on one attribute."""

    def __init__(self, votes: int) -> None:
        self.patterns: Counter[tuple[int, ...]] = Counter()
        self.same = [0] * votes
        self.difference = [0] * votes
        self.scored = [0] * votes

    def add(self, votes: Sequence[int | None]) -> None:
        """Count the votes on one text, in their order; None is a failed vote."""
        final = aggregation.score(votes)
        if final is None:
            return
        cast = Counter(votes)
        self.patterns[tuple(cast[point] for point in range(1, POINTS + 1))] += 1
        for number in range(len(votes)):
            early = aggregation.score(votes[: number + 1])
            if early is not None:
                self.scored[number] += 1
                self.same[number] += early == final
                self.difference[number] += abs(early - final)

    def report(self) -> dict[str, Any]:
        """The figures listed at the top of this module, without `scores`."""
        users = self.patterns.total()
        several = {pattern: count for pattern, count in self.patterns.items() if sum(pattern) > 1}
        settling = [
            {"votes": number, "same": same / users, "difference": difference / scored}
            for number, (same, difference, scored) in enumerate(
                zip(self.same, self.difference, self.scored, strict=True), 1
            )
            if scored and len(self.same) > 1
        ]
        total = sum(several.values())
        return {
            "users": users,
            "alpha": alpha(several),
            "majority": (
                sum(count for pattern, count in several.items() if 2 * max(pattern) > sum(pattern)) / total
                if total
                else None
            ),
            "flip_rate": (
                sum(count * flip_rate(pattern) for pattern, count in several.items()) / total if total else None
            ),
            "settling": settling,
            "votes_needed": {f"{share:.0%}": votes_needed(settling, share) for share in (0.9, 0.95)},
        }


def flip_rate(pattern: Sequence[int]) -> float:
    """The probability that two of these votes differ.

    Args:
        pattern: the number of votes for each point of the scale, at least two in total.

    >>> flip_rate([0, 0, 0, 2, 0, 0, 0]), flip_rate([1, 1, 0, 0, 0, 0, 0]), flip_rate([3, 1, 0, 0, 0, 0, 0])
    (0.0, 1.0, 0.5)
    """
    votes = sum(pattern)
    return 1 - sum(count * (count - 1) for count in pattern) / (votes * (votes - 1))


def votes_needed(settling: Sequence[dict[str, Any]], share: float) -> int | None:
    """The least number of votes at and above which at least `share` of the scores are those of all votes.

    With all votes the scores are the same by definition; None if fewer votes do not suffice.

    >>> curve = [{"votes": 1, "same": 0.6}, {"votes": 2, "same": 0.91}, {"votes": 3, "same": 0.8}]
    >>> votes_needed([*curve, {"votes": 4, "same": 0.95}, {"votes": 5, "same": 1.0}], 0.9)
    4
    >>> votes_needed([{"votes": 1, "same": 0.6}, {"votes": 2, "same": 1.0}], 0.9) is None, votes_needed([], 0.9) is None
    (True, True)
    """
    needed = None
    for point in reversed(settling[:-1]):
        if point["same"] < share:
            break
        needed = point["votes"]
    return needed
