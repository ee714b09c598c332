"""Settings of the sequences stage."""

from __future__ import annotations

import calendar
import datetime
import math
import time
from dataclasses import dataclass, field

from ...engines import memory_bytes
from ...errors import ConfigError, InputError
from ...reviews.formats import ITEM_COLUMNS, Dialect, Format, chosen, is_utf8, named
from ...reviews.times import END, SECOND
from ...schema import MAX_HISTORY

PACKAGES = ("duckdb", "ibis-framework")
"""Libraries whose versions the output depends on."""

DAY = 86400
"""Seconds."""


@dataclass(frozen=True)
class SequencesConfig:
    """The raw files, and which users and purchases are kept."""

    reviews: tuple[str, ...] = field(default=(), metadata={"reads": "files", "urls": True})
    """Raw review files: paths, globs or URLs of JSON lines, CSV, TSV (plain, gzip or zstd) or parquet."""
    items: tuple[str, ...] = field(default=(), metadata={"reads": "files", "urls": True})
    """Raw item files, in the same forms; not needed where a column of the reviews contains the title."""
    format: str = "auto"
    """Format of all files: amazon-2014, amazon-2018, amazon-2023 or own (with columns); auto recognises each."""
    columns: dict[str, str] = field(default_factory=dict)
    """Own columns of review files, as {user: COLUMN}: user, item, time, and optionally rating, summary, text, title,
    category, description, price."""
    item_columns: dict[str, str] = field(default_factory=dict)
    """Own columns of item files, as {item: COLUMN}: item, title, and optionally category, description, price."""
    delimiter: str = ""
    """Delimiter of CSV review files, such as ';', '|' or '::'; empty to recognise a comma, tab or semicolon."""
    header: str = ""
    """Names of the columns of review files without a header, such as user,item,rating,time."""
    item_delimiter: str = ""
    """Delimiter of CSV item files; empty to recognise it."""
    item_header: str = ""
    """Names of the columns of item files without a header, such as item,title,category."""
    encoding: str = "utf-8"
    """Encoding of text files, such as latin-1, cp1252 or utf-16."""
    item_encoding: str = ""
    """Encoding of item files, if it is another one."""
    rating_scale: tuple[float, ...] = ()
    """Lowest and highest rating of the log, such as 1 10, mapped to 1 to 5; without it, ratings are 0.5 to 5."""
    rating_missing: tuple[float, ...] = ()
    """Ratings that mean unrated, such as 0 or -1; the purchase is kept."""
    sample: bool = False
    """Use the simulated sample world instead of raw files."""
    since: str | datetime.date = ""
    """First day (UTC) whose reviews are kept, such as 2015-01-31."""
    until: str | datetime.date = ""
    """Last day (UTC) whose reviews are kept."""
    k_core: int = 0
    """Keep the users and the items that have at least this many purchases of each other (0: all)."""
    max_history: int = MAX_HISTORY
    """Purchases kept per user, the latest ones."""
    min_history: int = 1
    """Users with fewer purchases are dropped."""
    validation: float = 0.1
    """Share of the users in the validation split."""
    test: float = 0.1
    """Share of the users in the test split."""
    scrub: bool = False
    """Replace e-mail addresses, phone numbers, URLs and card numbers in reviews by markers."""
    strict: bool = False
    """Stop at the first line without a valid review or item, instead of counting it."""
    memory: str = field(default="2GB", metadata={"affects_output": False})
    """Memory limit, such as 2GB; it does not change the result."""
    engine: str = field(default="duckdb", metadata={"affects_output": False})
    """Engine that joins and sorts the reviews: duckdb, or spark for a cluster; the result is the same."""
    master: str = field(default="local[*]", metadata={"affects_output": False})
    """Master URL of Spark: local[*], spark://HOST:7077, yarn. All of its machines must see the run folder."""

    def __post_init__(self) -> None:
        if self.sample and (self.reviews or self.items):
            raise ConfigError("sample was given together with reviews or items: choose the sample world or raw files.")
        if self.sample and (self.columns or self.item_columns or self.format != "auto"):
            raise ConfigError("sample was given together with format or columns: those are for raw files.")
        for kind in ("reviews", "items"):
            self.form(kind)
        self._check_text()
        is_finite = all(map(math.isfinite, self.rating_scale))
        if self.rating_scale and not (
            is_finite and len(self.rating_scale) == 2 and self.rating_scale[0] < self.rating_scale[1]
        ):
            given = " ".join(f"{value:g}" for value in self.rating_scale)
            raise ConfigError(f"rating_scale is {given}, expected the lowest and the highest rating, such as 1 10.")
        mapped = ", ".join(name for name in ITEM_COLUMNS if name in self.columns)
        if mapped and self.items:
            raise ConfigError(f"columns maps {mapped} to columns of the reviews, but items were given too. Omit one.")
        if not self.items and self.item_columns and self.reviews:
            raise ConfigError("item_columns was given, but no items. Give the item files, or omit it.")
        for name in ("since", "until"):
            # As text, so that settings are plain data; YAML reads a day as a date.
            object.__setattr__(self, name, _day(name, getattr(self, name)))
        if self.since and self.until and self.since > self.until:  # type: ignore[operator]
            raise ConfigError(f"since is {self.since}, which is after until, {self.until}.")
        if self.k_core < 0:
            raise ConfigError(f"k_core is {self.k_core}, expected at least 0.")
        if self.min_history < 1:
            raise ConfigError(f"min_history is {self.min_history}, expected at least 1.")
        if self.max_history < self.min_history:
            raise ConfigError(
                f"max_history is {self.max_history}, expected at least min_history, which is {self.min_history}."
            )
        for name in ("validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a share of the users from 0 to below 1.")
        if self.validation + self.test >= 1:
            raise ConfigError(
                f"validation and test add up to {self.validation + self.test:g}, expected below 1: "
                "the train split must not be empty."
            )
        memory_bytes(self.memory)
        if self.engine not in ("duckdb", "spark"):
            raise ConfigError(f"engine is {self.engine!r}, expected duckdb or spark.")

    def _check_text(self) -> None:
        for encoding in (self.encoding, self.item_encoding or self.encoding):
            is_utf8(encoding)
        for name in ("delimiter", "item_delimiter"):
            value = getattr(self, name).replace("\\t", "\t")  # as typed in a shell
            if '"' in value or "\n" in value or "\r" in value:
                raise ConfigError(f"{name} is {value!r}, expected characters without a quote or line end.")
            object.__setattr__(self, name, value)

    def form(self, kind: str) -> Format | None:
        """The format that files of a `kind` of `formats.chosen` must have; None to recognise each file."""
        return chosen(kind, self.format, self.review_columns, self.item_columns or named(self.item_header))

    @property
    def review_columns(self) -> dict[str, str]:
        """`columns`, or what the names in `header` map."""
        return self.columns or named(self.header)

    def dialect(self, kind: str) -> Dialect:
        """How text files of `reviews` or `items` are read."""
        if kind == "items":
            return Dialect(self.item_delimiter, self.item_header, self.item_encoding or self.encoding)
        return Dialect(self.delimiter, self.header, self.encoding)

    @property
    def nanoseconds(self) -> tuple[int, int]:
        """The first time of the reviews that are kept, and the first after the last, in nanoseconds since 1970."""
        first = _midnight(self.since) if self.since else 0
        after = _midnight(self.until) + DAY if self.until else END
        return min(max(first, 0), END) * SECOND, min(max(after, 0), END) * SECOND


def check_sources(config: SequencesConfig) -> None:
    """Check that the settings name the files to read.

    Raises:
        InputError: they name no reviews, or no source of the items' titles.
    """
    if not config.sample and not (config.reviews and (config.items or "title" in config.review_columns)):
        raise InputError(
            f"No {'items' if config.reviews else 'reviews'} were given. Give the raw files (--reviews FILE… "
            "--items FILE…), or --sample for the simulated sample world. Reviews are enough where columns maps their "
            "title."
        )


def _day(name: str, given: str | datetime.date) -> str:
    """The day `given` as YYYY-MM-DD, empty for an empty text.

    >>> _day("since", datetime.date(2015, 1, 31)), _day("since", "2015-01-31"), _day("since", "")
    ('2015-01-31', '2015-01-31', '')
    """
    text = given.strftime("%Y-%m-%d") if isinstance(given, datetime.date) else given.strip()
    if text:
        try:
            datetime.datetime.strptime(text, "%Y-%m-%d")
        except ValueError:
            raise ConfigError(f"{name} is {given!r}, expected a day such as 2015-01-31.") from None
    return text


def _midnight(day: str | datetime.date) -> int:
    return calendar.timegm(time.strptime(str(day), "%Y-%m-%d"))
