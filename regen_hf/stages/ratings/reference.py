"""A rater of fixed rules, without a language model, for tests and a first look: it counts words.

Each attribute of table 3 is a measure from 0 to 1 over the content words of a narrative and of the history, divided
into seven equal steps. Vote 0 is that score. Each further vote shifts the measure by up to `JITTER` in either
direction, by a checksum of seed, user, attribute and vote, so that votes differ where a measure is close to a step.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

from ...metrics.stop_words import STOP_WORDS
from ...schema import RATED, rated_narratives

JITTER = 0.1
WORD = re.compile(r"[a-z0-9][a-z0-9'.-]*[a-z0-9]")


def rate(
    reviewer_id: str, history: Sequence[dict[str, Any]], narratives: dict[str, Any], vote: int = 0, seed: int = 0
) -> dict[str, dict[str, tuple[int, int]]]:
    """One vote on one user: (score, confidence), each 1..7, by stage and attribute.

    Stages without any narrative and empty histories are left out.
    """
    if not history:
        return {}
    items = [_item_words(purchase["item"] or {}) for purchase in history]
    reviews = [_review_words(purchase["review"] or {}) for purchase in history]
    review_length = sum(len(_review_text(purchase["review"] or {}).split()) for purchase in history)
    measures = {"example": {"richness": richness(len(history), review_length)}}
    for stage, text in texts(narratives).items():
        if text:
            measured = narrative_measures(text, items, reviews) | critique_measures(text, items)
            measures[stage] = {
                attribute: measure for attribute, measure in measured.items() if attribute in RATED[stage]
            }

    def point(measure: float, *key: str) -> int:
        if vote:
            checksum = zlib.crc32("\t".join([str(seed), reviewer_id, str(vote), *key]).encode())
            measure += JITTER * (2 * checksum / 0xFFFFFFFF - 1)
        return 1 + min(6, max(0, int(7 * measure)))

    # More evidence gives more confidence; without any review it is low.
    confidence = (1 + measures["example"]["richness"]) / 2 if review_length else 0.2
    return {
        stage: {
            attribute: (point(measure, stage, attribute), point(confidence, stage, attribute, "confidence"))
            for attribute, measure in attributes.items()
        }
        for stage, attributes in measures.items()
    }


def texts(narratives: dict[str, Any]) -> dict[str, str]:
    """The narratives that each stage rates, as one text."""
    return {
        stage: " ".join(text for task in rated_narratives(stage) if (text := task.text(narratives))) for stage in RATED
    }


def richness(purchases: int, review_length: int) -> float:
    """How much the history shows of the user: half for 20 purchases, half for 1,000 words of reviews.

    >>> richness(20, 1000), richness(5, 0)
    (1.0, 0.125)
    """
    return (min(1.0, purchases / 20) + min(1.0, review_length / 1000)) / 2


def narrative_measures(
    text: str, items: Sequence[frozenset[str]], reviews: Sequence[frozenset[str]]
) -> dict[str, float]:
    """The measures of a narrative against the content words of each item and each review, oldest first.

    - veracity: share of its words that occur in the history
    - grounding: share of its sentences with at least half of their words in the history
    - personalization: share of its known words that occur in a review or in an earlier purchase, not only in the text
      of the last product
    - foresight: words that occur only in the last review; a quarter of all words gives the full score, and high means
      more information from after the purchase
    - clarity: long enough to be specific (20 words), in sentences short enough to follow (25 words)
    """
    own = frozenset().union(*reviews, *items[:-1])
    known = own | items[-1]
    before = frozenset().union(*items, *reviews[:-1])
    words = content(text)
    shared = words & known
    sentences = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if content(sentence)]
    grounded = sum(2 * len(content(sentence) & known) >= len(content(sentence)) for sentence in sentences)
    length = len(text.split())
    return {
        "veracity": len(shared) / len(words) if words else 0.0,
        "grounding": grounded / len(sentences) if sentences else 0.0,
        "personalization": len(shared & own) / len(shared) if shared else 0.0,
        "foresight": min(1.0, 4 * len(words & (reviews[-1] - before)) / len(words)) if words else 0.0,
        "clarity": min(1.0, length / 20) * min(1.0, 25 * max(1, len(sentences)) / max(1, length)),
    }


def critique_measures(text: str, items: Sequence[frozenset[str]]) -> dict[str, float]:
    """The measures of a critique against the content words of each item, oldest first.

    - relevance: share of its words that occur in one of the last two items only; half of them gives the full score
    - specificity: number of its words; six give the full score
    - leak: words that occur in the last item and not in the one before; five give the full score
    """
    before, last = (items[0], *items)[-2:]
    words = content(text)
    return {
        "relevance": min(1.0, 2 * len(words & (before ^ last)) / len(words)) if words else 0.0,
        "specificity": min(1.0, len(words) / 6),
        "leak": min(1.0, len(words & (last - before)) / 5),
    }


def content(text: str) -> frozenset[str]:
    """The words of a text with content.

    >>> sorted(content("The customer bought a red pen for $4.50."))
    ['4.50', 'pen', 'red']
    """
    return frozenset(word for word in WORD.findall(text.lower()) if len(word) > 2 and word not in STOP_WORDS)


def _item_words(item: dict[str, Any]) -> frozenset[str]:
    price = f"{item['price']:.2f}" if item.get("price") else ""
    return content(" ".join(filter(None, (item.get("title"), item.get("category"), item.get("description"), price))))


def _review_text(review: dict[str, Any]) -> str:
    return f"{review.get('summary') or ''} {review.get('text') or ''}"


def _review_words(review: dict[str, Any]) -> frozenset[str]:
    return content(_review_text(review))
