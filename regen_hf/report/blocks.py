"""What a section of the report is built of, and numbers as they stand in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

NUMBER = re.compile(r"$|[–+-]?[\d.,]* ?(\[.*\]|%)?$")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A header and rows of cells; folded away until a reader asks for it where `folded`."""

    kind: ClassVar[str] = "table"
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers: they stand on the right."""
        return [bool(column) and all(map(NUMBER.match, column)) for column in zip(*self.rows, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A picture of `RUN/figures`, inlined."""

    kind: ClassVar[str] = "figure"
    about: str
    source: str
    """As a data URI."""
    width: int
    """Pixels of a page at which its text has the size of a page's."""
    height: int


@dataclass(frozen=True)
class Code:
    """Lines that are shown as they are."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    name: str


@dataclass(frozen=True)
class Shopper:
    """A customer's purchases and narratives."""

    kind: ClassVar[str] = "shopper"
    name: str
    about: str
    purchases: Sequence[Mapping[str, str]]
    """Title, detail (date, stars, price) and review of each, oldest first."""
    narratives: Sequence[Mapping[str, Any]]
    """Task, `texts` (who, text) to stand side by side, `others` (who, text) that are folded away."""


@dataclass(frozen=True)
class Section:
    """A part of the report; one without blocks is left out."""

    name: str
    title: str
    blocks: list[Text | Table | Figure | Code | Shopper] = field(default_factory=list)


def figures(run: Path, names: Mapping[str, str]) -> Iterable[Figure]:
    """Those of the figures `names` (with what they show) that the run has, in this order."""
    for name, about in names.items():
        for path in sorted((run / "figures").glob(f"{name}.png")):
            content = path.read_bytes()
            # A PNG begins with 16 bytes of signature and chunk head; its width and height follow.
            width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
            scale = 96 / _dots_per_inch(content)
            yield Figure(
                about=about,
                source="data:image/png;base64," + base64.b64encode(content).decode(),
                width=round(width * scale),
                height=round(height * scale),
            )


def grouped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Rows in which the first cell stands once for all that follow with the same.

    >>> grouped([["a", "1"], ["a", "2"], ["b", "3"]])
    [['a', '1'], ['', '2'], ['b', '3']]
    """
    found, before = [], None
    for first, *rest in rows:
        found.append(["" if first == before else first, *rest])
        before = first
    return found


def words(name: str) -> str:
    """A name of the results files as words.

    >>> words("product_endorsement")
    'product endorsement'
    """
    return name.replace("_", " ")


def _dots_per_inch(png: bytes) -> float:
    place = png.find(b"pHYs", 0, 4096)
    per_metre = int.from_bytes(png[place + 4 : place + 8], "big") if place >= 0 else 0
    return per_metre * 0.0254 if per_metre else 150.0
