"""The row, its narratives and the tasks: names, types, and every fact about a narrative.

A row is one user. Names and nesting are those of the official REGEN release, so that its files can be imported without
renaming; further fields, such as the endorsement and its scores, are added. Stages never import each other: they read
and write parquet files with the schemas below.

    sequences   reviewer_id, purchase_history
    items       asin, title, category, description, price
    narratives  reviewer_id, last_purchase, user, critiques, narrator and its prompts, checks
    ratings     reviewer_id, metadata, rater and its prompts
    row         all of these except critiques: the rows of `load_dataset`
    interactions  user, item, time, rating, summary, text, split: the purchases of the rows in one flat table
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Features

MAX_HISTORY = 50
"""Number of the latest purchases that are kept per user (section 3.2)."""

SPLITS = ("train", "validation", "test")
"""Splits hold distinct users (section 5.1)."""


def hash_bound(share: float) -> str:
    """The upper bound of the hashes of a `share` of the users: 8 hex digits of an md5, compared as text.

    Users below the bound of the test share are test users, the next ones up to the bound of both shares are validation
    users. So the split depends only on the user id.

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
LAST_PURCHASE = pa.struct(
    [(name, pa.string()) for name in ("reason", "explanation", "endorsement", "critique")]  # critique: see CRITIQUE
)
USER = pa.struct([("profile", pa.string()), ("brief_summary", pa.string()), ("long_summary", pa.string())])

# The result of the checks of each narrative; null without a narrative.
CHECK = pa.struct(
    [
        ("words", pa.int64()),
        ("verbatim", pa.int64()),  # longest run of words that it shares with one review, without product names
        ("language", pa.string()),  # ISO 639-1, by a classifier
        ("refusal", pa.bool_()),  # it looks like the refusal of a language model
    ]
)
CHECKS = pa.struct(
    [
        *((name, CHECK) for part in (LAST_PURCHASE, USER) for name in (field.name for field in part)),
        ("failed", pa.list_(pa.string())),  # errors, such as "profile.words"; empty = no check failed
        ("warnings", pa.list_(pa.string())),  # checks that may be false alarms
    ]
)

CHECK_KINDS = (
    "empty",
    "words",
    "verbatim",
    "language",
    "refusal",
    "cut",
    "markup",
    "wordless",
    "damaged",
    "repetition",
    "same",
    "instructions",
    "example",
    "copied",
    "product",
    "another_item",
    "names",
    "unknown_names",
    "sentence",
    "leak",
    "unmet",
)
"""The kinds of checks; a failed check is named `<text>.<kind>`."""
WARNINGS = frozenset({"another_item", "unknown_names"})
"""Kinds that may be false alarms; the others are errors."""

# The stages of the autorater (section 3.3) and the attributes of each (table 3). Scores are 1..7, null = not rated.
# High is good except for those of LOWER_IS_BETTER.
RATED = {
    "example": ("richness", "confidence"),
    "last_purchase": ("veracity", "grounding", "foresight", "clarity", "personalization", "confidence"),
    "user": ("veracity", "grounding", "clarity", "personalization", "confidence"),
    "endorsement": ("veracity", "grounding", "foresight", "clarity", "personalization", "confidence"),
    "critique": ("relevance", "specificity", "leak", "confidence"),
}
LOWER_IS_BETTER = frozenset({"foresight", "leak"})
"""Attributes of which a low score is good: foresight, the share of the text that became known only after the purchase,
and leak, how far a critique gives the last purchase away."""
METADATA = pa.struct(
    [(part, pa.struct([(attribute, pa.int64()) for attribute in attributes])) for part, attributes in RATED.items()]
)

SEQUENCES = pa.schema([("reviewer_id", pa.string()), ("purchase_history", PURCHASE_HISTORY)])
ITEMS = pa.schema(list(ITEM))
# The narrator or rater: the name of a language model, or `reference` for the fixed rules. Then its prompts with a hash
# of their content, such as "narratives 2 (1f0c94ab), …", null for the rules; and the number of reviews that were left
# out of the prompt, or cut, to fit the window of the model.
NARRATOR = [("narrator", pa.string()), ("narrator_prompt", pa.string()), ("narrator_left_out", pa.int64())]
RATER = [("rater", pa.string()), ("rater_prompt", pa.string()), ("rater_left_out", pa.int64())]
NARRATIVES = pa.schema(
    [
        ("reviewer_id", pa.string()),
        ("last_purchase", LAST_PURCHASE),
        ("user", USER),
        ("critiques", pa.list_(pa.string())),  # the candidates for last_purchase.critique
        *NARRATOR,
        ("checks", CHECKS),
    ]
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

INTERACTIONS = pa.schema(
    [
        ("user", pa.string()),  # reviewer_id
        ("item", pa.string()),  # asin
        ("time", pa.int64()),  # seconds
        ("rating", pa.int64()),  # 1..5; null where the log has none
        ("summary", pa.string()),
        ("text", pa.string()),
        ("split", pa.string()),  # of the user
    ]
)
"""The purchases of all rows, one row each, as most recommender libraries read them."""

CONFIGS = {"": ROW, "-items": ITEMS, "-interactions": INTERACTIONS}
"""The configs of a dataset, by the end of their name after that of the dataset."""


def is_second_config(name: str) -> bool:
    """Whether `name` ends like the catalogue or the flat table of a dataset.

    >>> is_second_config("office-items"), is_second_config("office")
    (True, False)
    """
    return name.endswith(tuple(filter(None, CONFIGS)))


def features(schema: pa.Schema) -> Features:
    """`schema` as `datasets.Features`."""
    from datasets import Features

    return Features.from_arrow_schema(schema)


@dataclass(frozen=True)
class Narrative:
    """One text of the row: its field, and every fact about it. Only `TASKS` and `CRITIQUE` state them."""

    name: str
    field: tuple[str | int, ...]
    """Path of the text in the row, such as `("user", "profile")`; an integer is an index of a list, -1 for its end."""
    title: str
    """Its name in tables, as in the paper."""
    description: str
    """What the text is, for a judge."""
    label: str | None = None
    """Its name in the prompt of the autorater; None for the title."""
    written_by: str | None = None
    """The prompt file by which a language model writes it; None if `field` contains a text of another task or of the
    history."""
    words: tuple[int, int] | None = None
    """Minimum and maximum number of words (table 5); None for no limit."""
    rated_in: str | None = None
    """The stage of the autorater that rates it, a key of `RATED`; None if it is not rated."""
    may_be_null: bool = False
    """Whether a user may lack this text without a failure (table 2)."""
    states_reason: bool = False
    """Whether it states why the customer made the last purchase."""
    metadata_only: bool = False
    """Whether it sees the last purchase without its review, which was withheld from the narrator (section 3.2)."""
    steers: bool = False
    """Whether it asks for a difference from the purchase before the last, and must not give the last one away."""

    def text(self, row: Mapping[str, Any]) -> str | None:
        """The reference text of `row`, None where the row has none."""
        value: Any = row
        for key in self.field:
            if value is None or (isinstance(key, int) and not -len(value) <= key < len(value)):
                return None
            value = value.get(key) if isinstance(key, str) else value[key]
        return value

    def column(self, table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
        """The reference texts of all rows of `table`, null where a row has none."""
        if any(isinstance(key, int) for key in self.field):
            return pa.array([self.text(row) for row in table.select([self.field[0]]).to_pylist()], pa.string())
        if not self.is_in(table.schema):
            return pa.nulls(len(table), pa.string())
        return pc.struct_field(table.column(self.field[0]), list(self.field[1:]))

    def is_in(self, columns: pa.Schema) -> bool:
        """Whether rows with these `columns` have its field, which files of earlier versions can lack."""
        column, name = map(str, self.field[:2])
        if isinstance(self.field[1], int):
            return True
        return column in columns.names and columns.field(column).type.get_field_index(name) >= 0

    @property
    def sql(self) -> str:
        """The text as an SQL expression over the columns of a row; not for a path with an index."""
        return ".".join(map(str, self.field))


@dataclass(frozen=True, kw_only=True)
class Task(Narrative):
    """A narrative that the fused model writes."""

    prompt: str
    """The request that the fused model sees."""
    question: str
    """The same request as a question of a visitor of the demo."""
    default: bool = True
    """Whether it is trained and evaluated unless the settings say otherwise."""


TASKS = {
    task.name: task
    for task in (
        Task(
            "purchase_reason",
            ("last_purchase", "reason"),
            title="Purchase reason",
            prompt="Write the reason for the last purchase.",
            question="Why the last purchase?",
            description="the reason for the last purchase, as it was before the product was used",
            states_reason=True,
            written_by="narratives",
            rated_in="last_purchase",
            may_be_null=True,
        ),
        Task(
            "purchase_reason_explanation",
            ("last_purchase", "explanation"),
            title="Purchase reason explanation",
            prompt="Explain the last purchase from the whole history.",
            question="How does it fit the others?",
            description="an explanation of the last purchase from the whole history",
            label="Explanation",
            written_by="narratives",
            rated_in="last_purchase",
            may_be_null=True,
        ),
        Task(
            "product_endorsement",
            ("last_purchase", "endorsement"),
            title="Product endorsement",
            prompt="Recommend the last product to this customer.",
            question="How to recommend it? (their review is hidden)",
            description="a recommendation of the last product to this customer, as if it had not been bought yet",
            label="Endorsement",
            written_by="endorsement",
            rated_in="endorsement",
            metadata_only=True,
        ),
        Task(
            "brief_user_summary",
            ("user", "brief_summary"),
            title="User Summary (Brief)",
            prompt="Summarize this customer briefly.",
            question="Who, briefly?",
            description="a brief summary of the customer",
            label="Brief summary",
            written_by="narratives",
            rated_in="user",
        ),
        Task(
            "long_user_summary",
            ("user", "long_summary"),
            title="User Summary (Long)",
            prompt="Summarize this customer in detail.",
            question="Who, in detail?",
            description="a detailed summary of the customer",
            label="Long summary",
            written_by="narratives",
            rated_in="user",
        ),
        Task(
            "user_profile",
            ("user", "profile"),
            title="User profile",
            prompt="Describe this customer in a short phrase.",
            question="Who is this, in a phrase?",
            description="a short phrase that describes the customer as a shopper",
            written_by="narratives",
            words=(4, 6),
            rated_in="user",
        ),
        Task(
            "last_review",
            ("purchase_history", -1, "review", "text"),
            title="Last review",
            prompt="Write this customer's review of the last product.",
            question="What will they write about the last product?",
            description="the customer's own review of the last product",
            may_be_null=True,
            metadata_only=True,
            default=False,
        ),
    )
}

CRITIQUE = Narrative(
    "critique",
    ("last_purchase", "critique"),
    title="Critique",
    description="what the customer, shown the purchase before the last, asks to be different, which the last one meets",
    written_by="critique",
    rated_in="critique",
    may_be_null=True,
    metadata_only=True,
    steers=True,
)
"""The narrative that is not a task: no model of this package writes it."""

DEFAULT_TASKS = tuple(name for name, task in TASKS.items() if task.default)
"""Tasks that are trained and evaluated unless the settings say otherwise."""


def offered_tasks(names: Iterable[str] = ()) -> dict[str, Task]:
    """The default tasks and those of `names`, in the order of `TASKS`."""
    further = set(names)
    return {name: task for name, task in TASKS.items() if task.default or name in further}


def narratives() -> dict[str, Narrative]:
    """All texts of a row by name: those of the tasks, then the critique."""
    return {**TASKS, CRITIQUE.name: CRITIQUE}


def offered_narratives() -> dict[str, Narrative]:
    """The texts of the default tasks, then the critique."""
    return {**offered_tasks(), CRITIQUE.name: CRITIQUE}


def text_columns(names: Iterable[str], *others: str) -> list[str]:
    """`others` and the columns of a row that contain the narratives `names`, without duplicates."""
    return list(dict.fromkeys((*others, *(str(narratives()[name].field[0]) for name in names))))


def purchase_columns(*fields: str) -> list[str]:
    """The columns of a parquet file of rows that contain these `fields` of the purchases, such as "review.rating"."""
    return [f"purchase_history.list.element.{field}" for field in fields]


def written_narratives() -> list[Narrative]:
    """The texts that the narratives stage writes, in the order of their fields in a row."""
    texts = {text.field: text for text in narratives().values() if text.written_by}
    fields = [
        (name, field.name) for name, struct in (("last_purchase", LAST_PURCHASE), ("user", USER)) for field in struct
    ]
    return [texts[field] for field in fields if field in texts]


def rated_narratives(stage: str) -> list[Narrative]:
    """The texts that a stage of the autorater rates, in the order of their fields in a row."""
    return [text for text in written_narratives() if text.rated_in == stage]


def narrative_prompts() -> dict[str, list[Narrative]]:
    """The prompt files of the narratives, each with the texts that a language model writes in one answer."""
    texts: dict[str, list[Narrative]] = {}
    for text in narratives().values():
        if text.written_by:
            texts.setdefault(text.written_by, []).append(text)
    return texts


def in_row(texts: Mapping[str, str | None]) -> dict[str, dict[str, str | None]]:
    """The columns `last_purchase` and `user` of a row with `texts` (by name), null where a text is missing."""
    columns: dict[str, dict[str, str | None]] = {}
    for narrative in written_narratives():
        column, name = map(str, narrative.field)
        columns.setdefault(column, {})[name] = texts.get(narrative.name)
    return columns


def metadata_only_tasks(names: Iterable[str], leak_safe: bool) -> list[str]:
    """The tasks among `names` that read the last purchase without its review; with `leak_safe` all of them."""
    return [name for name in names if leak_safe or TASKS[name].metadata_only]


def check_tasks(names: tuple[str, ...]) -> None:
    """Check names of tasks.

    Raises:
        ValueError: a task does not exist or is named twice, or there is none.
    """
    wrong = [name for index, name in enumerate(names) if name not in TASKS or name in names[:index]]
    if wrong or not names:
        raise ValueError(f"tasks contains {wrong or 'nothing'}, expected some of {', '.join(TASKS)}, each once")
