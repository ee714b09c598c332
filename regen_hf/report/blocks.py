"""The blocks of a section of the report."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .. import outputs

NUMBERS = re.compile(r"$|[–+-]?[\d.,]* ?(\[.*\]|%)?$")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A header and rows of cells; `folded` tables are closed at first."""

    kind: ClassVar[str] = "table"
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are aligned to the right."""
        return [bool(column) and all(map(NUMBERS.match, column)) for column in zip(*self.rows, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A figure of the run, inlined."""

    kind: ClassVar[str] = "figure"
    about: str
    source: str
    """A data URI."""
    width: int
    """Width in CSS pixels at the resolution of the figure."""
    height: int


@dataclass(frozen=True)
class Code:
    """Preformatted lines."""

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
    """`title`, `detail` (date, stars, price) and `review` of each, oldest first."""
    narratives: Sequence[Mapping[str, Any]]
    """`task`, `texts` shown side by side and `others` that are folded, both as pairs (author, text)."""


Block = Text | Table | Figure | Code | Shopper


@dataclass(frozen=True)
class Section:
    """A part of the report; a section without blocks is left out."""

    name: str
    """The id of its HTML element."""
    title: str
    blocks: list[Block] = field(default_factory=list)


def figures(run: Path, names: Mapping[str, str]) -> Iterable[Figure]:
    """The available figures of `run` whose names match the keys of `names`, with the values as captions, in order."""
    for name, about in names.items():
        for path in sorted(outputs.folder(run, "figures").glob(f"{name}.png")):
            content = path.read_bytes()
            # Width and height follow the 16 bytes of signature and chunk head of a PNG.
            width, height = (int.from_bytes(content[offset : offset + 4], "big") for offset in (16, 20))
            scale = 96 / _dots_per_inch(content)
            yield Figure(
                about=about,
                source="data:image/png;base64," + base64.b64encode(content).decode(),
                width=round(width * scale),
                height=round(height * scale),
            )


def grouped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """`rows` with blank first cells where they repeat the row before.

    >>> grouped([["a", "1"], ["a", "2"], ["b", "3"]])
    [['a', '1'], ['', '2'], ['b', '3']]
    """
    cells, before = [], None
    for first, *rest in rows:
        cells.append(["" if first == before else first, *rest])
        before = first
    return cells


def words(name: str) -> str:
    """A name in results files as words.

    >>> words("product_endorsement")
    'product endorsement'
    """
    return name.replace("_", " ")


def _dots_per_inch(png: bytes) -> float:
    offset = png.find(b"pHYs", 0, 4096)
    per_metre = int.from_bytes(png[offset + 4 : offset + 8], "big") if offset >= 0 else 0
    return per_metre * 0.0254 if per_metre else 150.0
