"""Accounting of records: read = kept + dropped for each reason, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import progress


def account(read: int, kept: int, dropped: Mapping[str, int]) -> dict[str, Any]:
    """An entry of `accounting.json`: records read, kept, and dropped by reason.

    Raises:
        RuntimeError: the counts do not add up.

    >>> account(3, 2, {"not_json": 1, "duplicate": 0})
    {'read': 3, 'kept': 2, 'dropped': {'not_json': 1}}
    """
    reasons = {reason: count for reason, count in sorted(dropped.items()) if count}
    if read != kept + sum(reasons.values()):
        raise RuntimeError(f"The accounting does not add up: {read} read, {kept} kept, dropped {reasons}.")
    return {"read": read, "kept": kept, "dropped": reasons}


def show(name: str, entry: Mapping[str, Any], files: Mapping[str, Any] | None = None) -> None:
    """Print an entry of `accounting.json` and its counts of `files` on stderr."""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in entry["dropped"].items()) or "none"
    lines = [f"{name}: {entry['read']:,} lines read, {entry['kept']:,} kept, dropped: {dropped}"]
    if files:
        total = f"of {files['read']} files"
        if files["unquoted"]:
            lines.append(f"{name}: quotes are text in {files['unquoted']} {total}, where one swallowed records")
        lines += [f"{name}: no {column} in {count} {total}" for column, count in files["missing"].items()]
    progress.say("\n".join(lines))
