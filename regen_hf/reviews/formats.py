"""The releases whose raw files are understood: which key holds what, and how a file tells which one it is."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

SAMPLED = 1000
"""Lines of a file's beginning whose keys are looked at."""


@dataclass(frozen=True)
class Format:
    """Where a release keeps the canonical columns."""

    name: str
    fields: Mapping[str, str]
    """Canonical column -> key in the release's JSON objects."""
    required: tuple[str, ...]
    """Canonical columns by whose keys the format is recognised."""

    def fits(self, keys: set[str]) -> bool:
        """Whether objects with these keys can be of this format."""
        return all(self.fields[column] in keys for column in self.required)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.fields[column] for column in self.required)})"


REVIEW_COLUMNS = ("reviewer_id", "asin", "unix_time", "rating", "summary", "text")
REVIEWS = (
    Format(
        "Amazon reviews of 2014 and 2018",
        dict(
            zip(
                REVIEW_COLUMNS,
                ("reviewerID", "asin", "unixReviewTime", "overall", "summary", "reviewText"),
                strict=True,
            )
        ),
        required=("reviewer_id", "asin", "unix_time"),
    ),
    Format(
        "Amazon reviews of 2023",  # `asin` is the variant bought; items are described by their `parent_asin`
        dict(zip(REVIEW_COLUMNS, ("user_id", "parent_asin", "timestamp", "rating", "title", "text"), strict=True)),
        required=("reviewer_id", "asin", "unix_time"),
    ),
)
ITEMS = (
    Format(
        "Amazon items of 2018",
        {"asin": "asin", "title": "title", "category": "category", "description": "description", "price": "price"},
        required=("asin", "title", "category"),
    ),
    Format(
        "Amazon items of 2014",
        {"asin": "asin", "title": "title", "category": "categories", "description": "description", "price": "price"},
        required=("asin", "category"),
    ),
    Format(
        "Amazon items of 2023",
        {
            "asin": "parent_asin",
            "title": "title",
            "category": "categories",
            "description": "description",
            "price": "price",
        },
        required=("asin", "title"),
    ),
    Format(
        "items with a title",
        {"asin": "asin", "title": "title", "category": "category", "description": "description", "price": "price"},
        required=("asin", "title"),
    ),
)


def from_python_literal(line: str) -> str | None:
    r"""A line of the 2014 item files, which hold Python literals, as JSON; None where it is no dict.

    >>> from_python_literal("{'asin': 'B1', 'title': \"Owner's pen\"}")
    '{"asin": "B1", "title": "Owner\'s pen"}'
    """
    try:
        record = ast.literal_eval(line.strip())
        return json.dumps(record, ensure_ascii=False) if isinstance(record, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def recognise(path: Path, lines: Iterable[str | None], option: str) -> tuple[Format, bool]:
    """The format of the file at `path`, given as `option` (`--reviews` or `--items`), from its first lines.

    Returns:
        The format, and whether the lines are Python literals rather than JSON.

    Raises:
        InputError: no line is an object, the keys fit no format, or reviews were given as items or the reverse.
    """
    keys: set[str] = set()
    literals = False
    first = None
    for line in (line for line in lines if line and line.strip()):
        first = first or line
        try:
            record = json.loads(line)
        except ValueError:
            converted = from_python_literal(line) if line.startswith("{'") else None
            literals = literals or converted is not None
            record = json.loads(converted) if converted else None
        except RecursionError:
            record = None
        if isinstance(record, dict):
            keys.update(record)
    if first is None:
        raise InputError(f"{path}, given as {option}, holds no line of text, expected one JSON object per line.")
    if not keys:
        raise InputError(
            f"{path}, given as {option}, is not JSON lines: of its first lines none is a JSON object. "
            f"It begins with {first.strip()[:60]!r}. Expected one JSON object per line."
        )
    as_reviews = next((form for form in REVIEWS if form.fits(keys)), None)
    as_items = next((form for form in ITEMS if form.fits(keys)), None) if not as_reviews else None
    wanted, other = (as_reviews, as_items) if option == "--reviews" else (as_items, as_reviews)
    if wanted:
        return wanted, literals
    if other:
        raise InputError(
            f"{path}, given as {option}, looks like {other.name}; did you swap --reviews and --items? "
            f"Its columns: {', '.join(sorted(keys))}."
        )
    forms = "; ".join(map(str, REVIEWS if option == "--reviews" else ITEMS))
    raise InputError(
        f"{path}, given as {option}, has columns that are not recognised: {', '.join(sorted(keys))}. Expected: {forms}."
    )
