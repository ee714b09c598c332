"""The items that another system recommends to a shopper, each with the reason that the model of the run writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import outputs
from ..errors import InputError
from .shopper import find_user
from .terminal import clean, cut, one_line, usable_width, wrapped

USER, ASIN, RANK = "reviewer_id", "asin", "rank"
"""Columns of a file of recommendations."""
READERS = {".parquet": "read_parquet($path)", ".csv": "read_csv($path, all_varchar=true)"}
MOST = 10
"""Items that are shown for a shopper, the first ones: each reason is a text of the model."""


def inspect_recommendations(run: Path, file: Path, user: str | None = None, width: int | None = None) -> Iterator[str]:
    """Lines with the recommended items of a shopper and their reasons.

    Args:
        run: the run folder, with the history of the shopper, and with a model for the reasons.
        file: parquet or CSV with the columns reviewer_id, asin and rank (1 is the best).
        user: the `reviewer_id`; by default the first one of the file.
        width: width in columns; by default that of the terminal.

    Raises:
        InputError: the file cannot be read, or has no list for the user.
        RunError: the run has no histories, or no such user.
    """
    width = usable_width(width)
    user, asins = _read(file, user)
    split, row = find_user(run, user)
    history, shown = row["purchase_history"] or [], asins[:MOST]
    number = f"{len(shown)} of {len(asins)}" if len(asins) > len(shown) else str(len(asins))
    yield from wrapped(f"{one_line(user)} · {split} · {len(history)} purchases · {number} items of {file.name}", width)
    yield "═" * width
    items = _items(run, shown)
    reasons, missing = _reasons(run, history, [items[asin] for asin in shown if asin in items])
    if missing:
        yield from wrapped(missing, width)
    bought = {purchase["item"]["asin"] for purchase in history}
    for rank, asin in enumerate(shown, 1):
        item = items.get(asin)
        head, more = f"{rank:>3}  ", "  (bought before)" if asin in bought else ""
        title = one_line((item or {}).get("title") or f"(no title: {clean(asin)})")
        yield head + cut(title, width - len(head) - len(more)) + more
        if item is None:
            yield from wrapped("This item is not in the catalogue of the run, so there is no reason.", width, " " * 5)
        elif asin in reasons:
            yield from wrapped(clean(reasons[asin]) or "(no text)", width, " " * 5)


def _read(file: Path, user: str | None) -> tuple[str, list[str]]:
    """The user and the recommended asins, the best first and each once."""
    import duckdb

    if file.suffix not in READERS:
        raise InputError(f"--recommendations was given {file}, expected a file of {' or '.join(READERS)}.")
    if not file.is_file():
        raise InputError(f"There is no file {file}, given as --recommendations. Check the path.")
    try:
        table: Any = duckdb.sql(f"SELECT * FROM {READERS[file.suffix]}", params={"path": str(file)})  # noqa: S608
        if missing := [name for name in (USER, ASIN, RANK) if name not in table.columns]:
            raise InputError(
                f"{file.name} has the columns {', '.join(table.columns)}, but not {' and '.join(missing)}, expected "
                f"{USER}, {ASIN} and {RANK}."
            )
        if user is None:
            first = table.limit(1).project(USER).fetchall()
            user = str(first[0][0]) if first else ""
        columns = f"CAST({ASIN} AS VARCHAR), CAST({RANK} AS DOUBLE)"
        lists: Any = duckdb.sql(
            f"SELECT {columns} FROM {READERS[file.suffix]} WHERE CAST({USER} AS VARCHAR) = $user",  # noqa: S608
            params={"path": str(file), "user": user},
        )
        rows = lists.fetchall()
    except duckdb.Error as error:
        raise InputError(f"{file.name} cannot be read: {str(error).partition(chr(10))[0]}") from None
    if not rows:
        raise InputError(
            f"{file.name} has no recommendations for {clean(user)!r}. Name a user of the file with --user."
        )
    if any(value is None for row in rows for value in row):
        raise InputError(f"{file.name} has a missing {ASIN} or {RANK} for {clean(user)!r}, expected both in each row.")
    ordered = sorted(rows, key=lambda row: float(row[1]))
    return user, list(dict.fromkeys(asin for asin, _ in ordered))


def _items(run: Path, asins: list[str]) -> dict[str, dict[str, Any]]:
    """The items among `asins` that are in the catalogue of the run."""
    wanted = set(asins)
    files = outputs.catalogue_files(run) or [outputs.path(run, outputs.source(run), outputs.CATALOGUE)]
    return {item["asin"]: item for item in outputs.rows(files) if item["asin"] in wanted}


def _reasons(run: Path, history: list[Any], items: list[dict[str, Any]]) -> tuple[dict[str, str], str]:
    """The reason for each item by asin, and a sentence where there are none."""
    from ..model.pipeline import ENDORSEMENT

    trained = outputs.manifest(run, "train")
    if not trained:
        return {}, f"There are no reasons: the run has no trained model. Run `regen train {run}`."
    if ENDORSEMENT not in trained["config"]["tasks"]:
        return {}, f"There are no reasons: the model was trained without {ENDORSEMENT}. Add it to training.tasks."
    from ..model import load

    regen = load(str(outputs.folder(run, "train")))
    return {entry["asin"]: entry["reason"] for entry in regen.explain(history, items)}, ""
