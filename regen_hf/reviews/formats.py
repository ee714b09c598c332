"""Supported formats of files: their columns, and how a file is recognised by them."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import read_yaml
from ..errors import ConfigError, InputError

SAMPLED = 1000
"""Lines at the beginning of a file whose keys are examined."""


@dataclass(frozen=True)
class Format:
    """The columns of a kind of file."""

    name: str
    fields: Mapping[str, str]
    """Canonical column -> column of the file, or key of its JSON objects."""
    required: tuple[str, ...]
    """Canonical columns that a file of this format must have."""
    flat: tuple[str, ...]
    """Canonical columns with a single value: a record with a list or an object there is rejected."""
    mapped: tuple[str, ...] = ()
    """Canonical columns that at least one of the files must have."""

    def missing(self, columns: Collection[str]) -> list[str]:
        """The required canonical columns that a file with these columns lacks."""
        return [name for name in self.required if self.fields[name] not in columns]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.fields[column] for column in self.required)})"


@dataclass(frozen=True)
class Dialect:
    """How text files are read, where the file itself does not show it."""

    delimiter: str = ""
    """Delimiter of CSV files; empty to recognise it."""
    header: str = ""
    """Names of the columns, separated by commas, of files without a header."""
    encoding: str = "utf-8"
    """Name of a Python codec."""


def is_utf8(encoding: str) -> bool:
    """Whether `encoding`, the name of a Python codec of text, is UTF-8.

    Raises:
        ConfigError: there is no such codec.
    """
    try:
        "".encode(encoding)  # a codec that is not one of text fails
        codecs.getincrementaldecoder(encoding)
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except (LookupError, ValueError):
        raise ConfigError(
            f"encoding is {encoding!r}, which Python does not know, expected the name of a Python codec such as utf-8, "
            "latin-1, cp1252 or utf-16."
        ) from None


USER_COLUMNS = {"user": "reviewer_id", "item": "asin", "time": "unix_time"}
"""Names that a mapping of own columns must have, and the canonical column of each."""
IDS = ("reviewer_id", "asin")
"""Canonical columns in which the number 17.0 is the id 17."""
REVIEW_COLUMNS = {**USER_COLUMNS, "rating": "rating", "summary": "summary", "text": "text"}
ITEM_COLUMNS = {name: name for name in ("title", "category", "description", "price")}
FLAT_ITEM = ("asin", "title", "price")


def _reviews(name: str, *keys: str) -> Format:
    columns = tuple(REVIEW_COLUMNS.values())
    return Format(name, dict(zip(columns, keys, strict=True)), tuple(USER_COLUMNS.values()), columns)


def _items(name: str, asin: str, category: str, required: tuple[str, ...]) -> Format:
    fields = {"asin": asin, "title": "title", "category": category, "description": "description", "price": "price"}
    return Format(name, fields, required, FLAT_ITEM)


OLD_REVIEWS = ("reviewerID", "asin", "unixReviewTime", "overall", "summary", "reviewText")
# In 2023, `asin` is the variant that was bought; the item files describe the `parent_asin`.
REVIEWS_2023 = _reviews("Amazon reviews of 2023", "user_id", "parent_asin", "timestamp", "rating", "title", "text")
ITEMS_2018 = _items("Amazon items of 2018", "asin", "category", ("asin", "title", "category"))
ITEMS_2014 = _items("Amazon items of 2014", "asin", "categories", ("asin", "category"))
ITEMS_2023 = _items("Amazon items of 2023", "parent_asin", "categories", ("asin", "title"))
REVIEWS = (_reviews("Amazon reviews of 2014 and 2018", *OLD_REVIEWS), REVIEWS_2023)
ITEMS = (ITEMS_2018, ITEMS_2014, ITEMS_2023, _items("items with a title", "asin", "category", ("asin", "title")))
"""Formats in the order in which they are tried."""

RELEASES = {
    "amazon-2014": {"reviews": _reviews("Amazon reviews of 2014", *OLD_REVIEWS), "items": ITEMS_2014},
    "amazon-2018": {"reviews": _reviews("Amazon reviews of 2018", *OLD_REVIEWS), "items": ITEMS_2018},
    "amazon-2023": {"reviews": REVIEWS_2023, "items": ITEMS_2023},
}
FORMATS = ("auto", *RELEASES, "own")


def named(header: str) -> dict[str, str]:
    """The mapping of columns that the names in a `header` given by the user mean; other names map nothing.

    >>> named("user,item,rating,time,helpful")
    {'user': 'user', 'item': 'item', 'rating': 'rating', 'time': 'time'}
    """
    known = ("user", "item", "time", "rating", "summary", "text", *ITEM_COLUMNS)
    return {name: name for name in (part.strip() for part in header.split(",")) if name in known}


def read_mapping(path: Path) -> dict[str, dict[str, str]]:
    """The settings `columns` and `item_columns` from a YAML file with one or both.

    Raises:
        ConfigError: the file is missing, is not YAML, or has other content.
    """
    mapping = read_yaml(path)
    known = ("columns", "item_columns")
    for name, value in mapping.items():
        if name not in known or not isinstance(value, dict):
            raise ConfigError(
                f"{path} contains {name!r}: {value!r}, expected 'columns: {{user: COLUMN, item: COLUMN, time: COLUMN}}'"
                " for the reviews, and 'item_columns: {item: COLUMN, title: COLUMN}' for the items. Correct the file."
            )
    return {name: mapping.get(name, {}) for name in known}


def chosen(kind: str, name: str, columns: Mapping[str, str], item_columns: Mapping[str, str]) -> Format | None:
    """The format of the files according to the settings; None where each file has to be recognised.

    The `kind` is `reviews`, `items`, or `items of reviews`: the items that the review files describe.

    Raises:
        ConfigError: the settings contradict each other, or a mapping has an unknown name or lacks a required one.
    """
    if name not in FORMATS:
        raise ConfigError(f"format is {name!r}, expected one of {', '.join(FORMATS)}.")
    if name == "own" and not columns:
        raise ConfigError("format is own, but columns is empty. Map the columns with --columns FILE.yaml.")
    if name in RELEASES and (columns or item_columns):
        raise ConfigError(f"format is {name}, but columns were given too, expected only one of them. Omit one.")
    if name in RELEASES:
        return RELEASES[name]["reviews" if kind == "reviews" else "items"]
    if kind == "reviews":
        return _own("columns", columns, REVIEW_COLUMNS, tuple(USER_COLUMNS), ITEM_COLUMNS) if columns else None
    if kind == "items":
        known = {"item": "asin", **ITEM_COLUMNS}
        return _own("item_columns", item_columns, known, ("item", "title"), {}) if item_columns else None
    known = {"item": "asin", **ITEM_COLUMNS}
    return _own("columns", columns, known, ("item", "title"), REVIEW_COLUMNS)


def _own(
    setting: str,
    columns: Mapping[str, str],
    known: Mapping[str, str],
    required: tuple[str, ...],
    other: Mapping[str, str],
) -> Format:
    names = [*known, *(name for name in other if name not in known)]
    for name in columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{setting} maps {name!r}, which is unknown, expected some of {', '.join(names)}.{hint}")
    missing = [name for name in required if not columns.get(name)]
    if missing:
        raise ConfigError(
            f"{setting} maps no column to {', '.join(missing)}, "
            f"expected at least {', '.join(f'{name}: COLUMN' for name in required)}. Add the missing ones."
        )
    mapped = {canonical: columns[name] for name, canonical in known.items() if columns.get(name)}
    flat = tuple(name for name in mapped if name not in ("category", "description"))
    if twice := [column for column in mapped.values() if list(mapped.values()).count(column) > 1]:
        same = " and ".join(name for name, canonical in known.items() if mapped.get(canonical) == twice[0])
        raise ConfigError(f"{setting} maps the column {twice[0]!r} to {same}, expected one name per column. Omit one.")
    needed = tuple(known[name] for name in required)
    return Format(f"own columns ({setting})", mapped, needed, flat, tuple(mapped))


def recognise(path: Path, columns: Collection[str], option: str, form: Format | None) -> Format:
    """The format of the file at `path`, given as `option` (`--reviews` or `--items`), from its columns or JSON keys.

    `form` is the format that it must have; None to recognise it.

    Raises:
        InputError: the columns match no format or not `form`, or reviews were given as items or the reverse.
    """
    if form:
        missing = [form.fields[name] for name in form.missing(columns)]
        if missing:
            raise InputError(no_column(str(path), option, missing, form, columns))
        return form
    listed = f"Its columns: {_names(columns)}."
    as_reviews = next((form for form in REVIEWS if not form.missing(columns)), None)
    as_items = next((form for form in ITEMS if not form.missing(columns)), None) if not as_reviews else None
    wanted, other = (as_reviews, as_items) if option == "--reviews" else (as_items, as_reviews)
    if wanted:
        return wanted
    if other:
        raise InputError(
            f"{path}, given as {option}, looks like {other.name}; did you swap --reviews and --items? {listed}"
        )
    forms = "; ".join(map(str, REVIEWS if option == "--reviews" else ITEMS))
    raise InputError(
        f"{path}, given as {option}, has columns that are not recognised. {listed} Expected: {forms}. "
        "Map columns of other names with --columns FILE.yaml."
    )


def no_column(files: str, option: str, missing: Sequence[str], form: Format, columns: Collection[str]) -> str:
    """The error message for `files` that lack columns of `form`; `columns` are those that a file has."""
    close = [match for name in missing for match in difflib.get_close_matches(name, columns, n=1)]
    hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
    return (
        f"{files}, given as {option}, has no column {', '.join(map(repr, missing))}, expected by {form.name}. "
        f"Its columns: {_names(columns)}.{hint}"
    )


def _names(columns: Collection[str]) -> str:
    return ", ".join(sorted(columns))
