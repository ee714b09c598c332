"""One shopper of a run: purchases, narratives and scores."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import outputs
from ..errors import RunError
from ..schema import RATED, SPLITS, offered_narratives, written_narratives
from .terminal import clean, columns, cut, one_line, usable_width, wrapped

REVIEW_LINES = 3
"""Lines shown of the text of a review."""
SOURCES = ("dataset", "release", "sequences")
"""The stages whose rows are shown, the most complete one first."""


def inspect(run: Path, user: str | None = None, width: int | None = None) -> Iterator[str]:
    """Lines about one shopper of the run in the folder `run`.

    Args:
        run: the run folder, with at least its sequences.
        user: the `reviewer_id` of the shopper; by default the first one of the test split.
        width: width in columns; by default that of the terminal.

    Raises:
        RunError: the run has no histories yet, or no such user; the message names some users.
    """
    width = usable_width(width)
    split, row = find_user(run, user)
    if user is None:
        others = ", ".join(clean(other) for other in _ids(run)[1:])
        yield from wrapped(f"The first shopper of the split; --user ID shows another, for example: {others}", width)
        yield ""
    history = row["purchase_history"] or []
    times = [_date(purchase["review"]["unix_time"]) for purchase in history]
    purchases = f"{len(history)} purchase{'s' if len(history) != 1 else ''}"
    period = ", " + " to ".join(dict.fromkeys([times[0], times[-1]])) if times else ""
    yield from wrapped(f"{one_line(row['reviewer_id'])} · {split} · {purchases}{period}", width)
    yield "═" * width
    for number, (date, purchase) in enumerate(zip(times, history, strict=True), 1):
        yield from _purchase(number, date, purchase, width, last=number == len(history))
    yield from _narratives(row, _votes(run, row["reviewer_id"]), width)


def _purchase(number: int, date: str, purchase: dict[str, Any], width: int, last: bool) -> Iterator[str]:
    item, review = purchase["item"], purchase["review"]
    rating = review["rating"]
    stars = "★" * rating + "☆" * (5 - rating) if rating else "  –  "
    price = f"  ${item['price']:,.2f}" if item["price"] is not None else ""
    head = f"{number:>3}  {date}  {stars}  "
    title = cut(one_line(item["title"] or f"(no title: {item['asin']})"), width - len(head) - len(price))
    yield head + title + " " * (width - len(head) - len(price) - columns(title)) * bool(price) + price
    if item["category"]:
        yield " " * 5 + cut(one_line(item["category"]), width - 5)
    opinion = ": ".join(one_line(review[name]) for name in ("summary", "text") if review[name])
    if opinion:
        lines = list(wrapped(f"“{opinion}”", width, " " * 5))
        if len(lines) > REVIEW_LINES:
            lines = [*lines[: REVIEW_LINES - 1], cut(lines[REVIEW_LINES - 1], width - 1) + "…"]
        yield from lines
    if last:
        yield " " * 5 + "└ the last purchase"


Votes = dict[tuple[str, str], list[int | None]]
"""The scores of all votes, by part of `metadata` and attribute; None is a failed vote."""


def _narratives(row: dict[str, Any], votes: Votes, width: int) -> Iterator[str]:
    written = [task for task in written_narratives() if task.text(row)]
    yield ""
    if not written and row.get("narrator"):
        cause = "no request is sent for an empty history" if not row["purchase_history"] else "every answer failed"
        yield from wrapped(f"No narratives by {_writer(row['narrator'])}: {cause}.", width)
        return
    if not written:
        yield "No narratives yet: regen narratives RUN"
        return
    rated = f", rated 1 to 7 by {_writer(row['rater'])}" if row.get("rater") else ", not rated yet"
    most = max(map(len, votes.values()), default=0)
    if most > 1:
        rated += f" in {most} votes (in brackets the lowest and the highest, where they differ)"
    yield from wrapped(f"Narratives by {_writer(row.get('narrator'))}{rated}", width)
    yield "─" * width
    scores = row.get("metadata") or {}
    checks = row.get("checks") or {}
    failed = [*(checks.get("failed") or ()), *(f"{check} (warning)" for check in checks.get("warnings") or ())]
    yield from _scores("history", "example", scores, votes, width)
    for task in offered_narratives().values():
        text = task.text(row)
        yield ""
        part = task.rated_in
        yield from _scores(task.name.replace("_", " "), part, scores if text else {}, votes, width)
        yield from wrapped(clean(text) if text else "(none)", width, "  ")
        kinds = [check.partition(".")[2] for check in failed if check.partition(".")[0] == task.field[-1]]
        if kinds:
            yield from wrapped(f"! failed checks: {', '.join(map(clean, kinds))}", width, "  ")


def _writer(name: str | None) -> str:
    return "reference (fixed rules, no language model)" if name == "reference" else clean(name or "an unknown writer")


def _scores(title: str, part: str | None, scores: dict[str, Any], votes: Votes, width: int) -> Iterator[str]:
    """Lines with a title and the scores of a part of `metadata`."""
    rated = scores.get(part or "") or {}
    shown = [
        f"{name} {rated[name]}{_spread(votes.get((part or '', name), []))}"
        for name in RATED.get(part or "", ())
        if rated.get(name)
    ]
    yield from wrapped(title + (f"  [{' · '.join(shown)}]" if shown else ""), width)


def _spread(votes: list[int | None]) -> str:
    """The lowest and highest vote, and the number of failed ones.

    >>> _spread([4, 6, None]), _spread([5, 5])
    (' (4-6, 1 failed)', '')
    """
    scores = [vote for vote in votes if vote is not None]
    parts = [f"{min(scores)}-{max(scores)}"] if len(set(scores)) > 1 else []
    parts += [f"{len(votes) - len(scores)} failed"] if len(scores) < len(votes) else []
    return f" ({', '.join(parts)})" if parts else ""


def _votes(run: Path, user: str) -> Votes:
    votes: Votes = {}
    path = outputs.path(run, "ratings", outputs.VOTES)
    if path.exists():
        for row in sorted(_user_rows(path, user), key=lambda row: row["vote"]):
            votes.setdefault((row["stage"], row["attribute"]), []).append(row["score"])
    return votes


def _user_rows(path: Path, user: str | None) -> list[dict[str, Any]]:
    """The rows of a user in a parquet file."""
    import duckdb

    relation: Any = duckdb.sql(
        "SELECT * FROM read_parquet($path) WHERE reviewer_id = $user",
        params={"path": glob.escape(str(path)), "user": user},
    )
    rows: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
    return rows


def find_user(run: Path, user: str | None) -> tuple[str, dict[str, Any]]:
    """The split and the row of a user, with the narratives and scores that the run has; None for the first user.

    Raises:
        RunError: the run has no histories yet, or no such user.
    """
    user = next(iter(_ids(run)), None) if user is None else user
    for source in _sources(run):  # of a preview, the sequences have more users than the dataset
        for split in SPLITS:
            row = user_row(outputs.split_files(source, split), user)
            if row and source == outputs.folder(run, "sequences"):
                further = (("narratives", outputs.NARRATIVES), ("ratings", outputs.RATINGS))
                row |= user_row([outputs.path(run, stage, name) for stage, name in further], user)
            if row:
                return split, row
    raise unknown_user(run, user or "", _ids(run, limit=None))


def unknown_user(run: Path, user: str, known: list[str]) -> RunError:
    """The error for an id that is not among the `known` ones, which names close ones."""
    close = difflib.get_close_matches(user, known, n=3) or known[:3]
    return RunError(
        f"There is no user {clean(user)!r} among the {len(known):,} of {run}. Users of this run are, for example: "
        f"{', '.join(map(clean, close))}."
    )


def _sources(run: Path) -> list[Path]:
    sources = [folder for stage in SOURCES if (folder := outputs.folder(run, stage)).exists()]
    if not sources:
        raise RunError(f"There are no histories in {run} yet. Run first: regen run {run} …")
    return sources


def user_row(files: list[Path], user: str | None) -> dict[str, Any]:
    """The columns of all `files` for a user; a file that does not exist is skipped."""
    row: dict[str, Any] = {}
    for path in files:
        for found in _user_rows(path, user) if path.exists() else []:
            row |= found
    return row


def _ids(run: Path, limit: int | None = 5) -> list[str]:
    """Ids of users of the run, the test split first; all of them without a `limit`."""
    source = _sources(run)[0 if limit else -1]
    files = [path for split in reversed(SPLITS) for path in outputs.split_files(source, split)]
    return [row["reviewer_id"] for row in outputs.rows(files, ["reviewer_id"], limit=limit)]


def _date(time: int | None) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d") if time is not None else "????-??-??"
    except (ValueError, OverflowError, OSError):
        return "????-??-??"
