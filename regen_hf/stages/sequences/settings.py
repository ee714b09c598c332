"""Settings of the sequences stage."""

from __future__ import annotations

import calendar
import datetime
import sys
import time
from dataclasses import dataclass, field

from ...engines import memory_bytes
from ...errors import ConfigError, InputError
from ...reviews.formats import ITEM_COLUMNS, chosen
from ...schema import MAX_HISTORY

PACKAGES = ("duckdb", "ibis-framework")
"""Libraries whose versions the output depends on."""

DAY = 86400
"""Seconds."""


@dataclass(frozen=True)
class SequencesConfig:
    """The raw files, and which users and purchases are kept."""

    reviews: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """Raw review files: paths or globs of JSON lines, CSV, TSV (plain, gzip or zstd) or parquet."""
    items: tuple[str, ...] = field(default=(), metadata={"reads": "files"})
    """Raw item files, in the same forms; not needed where a column of the reviews contains the title."""
    format: str = "auto"
    """Format of all files: amazon-2014, amazon-2018, amazon-2023 or own (with columns); auto recognises each."""
    columns: dict[str, str] = field(default_factory=dict)
    """Own columns of review files, as {user: COLUMN}: user, item, time, and optionally rating, summary, text, title,
    category, description, price."""
    item_columns: dict[str, str] = field(default_factory=dict)
    """Own columns of item files, as {item: COLUMN}: item, title, and optionally category, description, price."""
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
            chosen(kind, self.format, self.columns, self.item_columns)
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

    @property
    def seconds(self) -> tuple[int, int]:
        """The first second whose reviews are kept, and the first second after the last, in unix time."""
        first = _midnight(self.since) if self.since else 0
        return first, _midnight(self.until) + DAY if self.until else sys.maxsize


def check_sources(config: SequencesConfig) -> None:
    """Check that the settings name the files to read.

    Raises:
        InputError: they name no reviews, or no source of the items' titles.
    """
    if not config.sample and not (config.reviews and (config.items or "title" in config.columns)):
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
