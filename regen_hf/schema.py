"""The row: the names and types by which the stages meet, and nothing else.

One row is one user. Names and nesting are those of the official REGEN release, so that its files import without
renaming; what the release lacks (the endorsement, its scores) stands beside it. Stages never import each other: each
reads and writes parquet of the schemas below.

    sequences   reviewer_id, purchase_history
    items       asin, title, category, description, price
    narratives  reviewer_id, last_purchase, user, narrator and how it was asked, checks
    ratings     reviewer_id, metadata, rater and how it was asked
    row         all of it: what `load_dataset` gives
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from datasets import Features

MAX_HISTORY = 50
"""Purchases kept per user, the latest ones (section 3.2)."""

SPLITS = ("train", "validation", "test")
"""Splits hold distinct users (section 5.1)."""


def hash_bound(share: float) -> str:
    """The first 8 hex digits of the md5 of a user id below which a share of the users lies, to be compared as text.

    Below the bound of the test share a user is a test user, from there to that of both shares a validation user: the
    split depends on nothing but the id.

    >>> hash_bound(0.0), hash_bound(0.5)
    ('00000000', '80000000')
    """
    return f"{min(int(share * 2**32), 2**32 - 1):08x}"


ITEM = pa.struct(
    [
        ("asin", pa.string()),
        ("title", pa.string()),
        ("category", pa.string()),  # one string: "Office Products - Pens - Gel Pens"
        ("description", pa.string()),
        ("price", pa.float64()),  # USD; null where unknown
    ]
)
REVIEW = pa.struct(
    [
        ("summary", pa.string()),
        ("rating", pa.int64()),  # 1..5; null where the log has none
        ("text", pa.string()),
        ("unix_time", pa.int64()),  # seconds
    ]
)
PURCHASE_HISTORY = pa.list_(pa.struct([("item", ITEM), ("review", REVIEW)]))  # oldest first, at most MAX_HISTORY
LAST_PURCHASE = pa.struct([("reason", pa.string()), ("explanation", pa.string()), ("endorsement", pa.string())])
USER = pa.struct([("profile", pa.string()), ("brief_summary", pa.string()), ("long_summary", pa.string())])

# What was found in each narrative after it was written; null where there is none.
CHECK = pa.struct(
    [
        ("words", pa.int64()),
        ("verbatim", pa.int64()),  # longest run of words that it shares with one review, names of products aside
        ("language", pa.string()),  # ISO 639-1, as a classifier takes it
        ("refusal", pa.bool_()),  # it reads as the refusal of a language model
    ]
)
CHECKS = pa.struct(
    [
        *((name, CHECK) for part in (LAST_PURCHASE, USER) for name in (field.name for field in part)),
        ("failed", pa.list_(pa.string())),  # such as "profile.words"; empty = all is well
    ]
)

# The stages of the autorater (section 3.3) and the attributes of each (table 3). Scores are 1..7, null = not rated.
# High is good but for foresight: the higher it is, the more of the text became known only after the purchase.
RATED = {
    "example": ("richness", "confidence"),
    "last_purchase": ("veracity", "grounding", "foresight", "clarity", "personalization", "confidence"),
    "user": ("veracity", "grounding", "clarity", "personalization", "confidence"),
    "endorsement": ("veracity", "grounding", "foresight", "clarity", "personalization", "confidence"),
}
METADATA = pa.struct(
    [(part, pa.struct([(attribute, pa.int64()) for attribute in attributes])) for part, attributes in RATED.items()]
)

SEQUENCES = pa.schema([("reviewer_id", pa.string()), ("purchase_history", PURCHASE_HISTORY)])
ITEMS = pa.schema(list(ITEM))
# Who wrote or rated: a language model's name, or `reference` for the fixed rules, which are no language model. Beside
# it the prompts, as "narratives 2 (1f0c94ab), …" with a hash of all that they hold, null for the rules; and the number
# of reviews that were not shown because the history would not have fitted the model's window.
NARRATOR = [("narrator", pa.string()), ("narrator_prompt", pa.string()), ("narrator_left_out", pa.int64())]
RATER = [("rater", pa.string()), ("rater_prompt", pa.string()), ("rater_left_out", pa.int64())]
NARRATIVES = pa.schema(
    [("reviewer_id", pa.string()), ("last_purchase", LAST_PURCHASE), ("user", USER), *NARRATOR, ("checks", CHECKS)]
)
RATINGS = pa.schema([("reviewer_id", pa.string()), ("metadata", METADATA), *RATER])
ROW = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("purchase_history", PURCHASE_HISTORY),
        ("last_purchase", LAST_PURCHASE),
        ("user", USER),
        ("metadata", METADATA),
        *NARRATOR,
        *RATER,
        ("checks", CHECKS),
    ]
)


def features(schema: pa.Schema) -> Features:
    """The same columns as `datasets.Features`."""
    from datasets import Features

    return Features.from_arrow_schema(schema)


@dataclass(frozen=True)
class Task:
    """One narrative to write: where its text stands in the row, and what the model is told to do."""

    name: str
    field: tuple[str, str]
    """Path of the text in the row: `row["user"]["profile"]`."""
    prompt: str
    last_review_withheld: bool = False
    """The text was written without the review of the last purchase, so the model must not see it either."""

    def text(self, row: dict[str, Any]) -> str | None:
        """The reference text of `row`, None where the row has none."""
        part = row[self.field[0]]
        return part[self.field[1]] if part else None


TASKS = {
    task.name: task
    for task in (
        Task("purchase_reason", ("last_purchase", "reason"), "Write the reason for the last purchase."),
        Task(
            "purchase_reason_explanation",
            ("last_purchase", "explanation"),
            "Explain the last purchase from the whole history.",
        ),
        Task(
            "product_endorsement",
            ("last_purchase", "endorsement"),
            "Recommend the last product to this customer.",
            last_review_withheld=True,
        ),
        Task("brief_user_summary", ("user", "brief_summary"), "Summarize this customer briefly."),
        Task("long_user_summary", ("user", "long_summary"), "Summarize this customer in detail."),
        Task("user_profile", ("user", "profile"), "Describe this customer in a short phrase."),
    )
}


def check_tasks(names: tuple[str, ...]) -> None:
    """Refuse tasks that do not exist, that are named twice, or none at all.

    Raises:
        ValueError: with the tasks that there are.
    """
    wrong = [name for place, name in enumerate(names) if name not in TASKS or name in names[:place]]
    if wrong or not names:
        raise ValueError(f"tasks holds {wrong or 'nothing'}, expected some of {', '.join(TASKS)}, each once")
