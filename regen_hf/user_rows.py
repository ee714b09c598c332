"""Rows of users in parquet files: of all users, of a preview with the first of them, or of given ids."""

from __future__ import annotations

import bisect
import hashlib
import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from . import outputs
from .errors import RunError

IDS = 65_536
"""Ids per batch."""


@dataclass(frozen=True)
class UserRows:
    """The rows of some users, or of all."""

    files: Sequence[Path]
    positions: array[int] | None = None
    """The ascending positions of the rows in all files; None for all rows."""

    @classmethod
    def first(cls, files: Sequence[Path], users: int) -> UserRows:
        """The first `users` users, 0 for all, by a hash of their ids.

        They do not depend on the order of the rows. More users include the same ones, and each split has about its
        share of them, since the hash is not the one behind the splits. Memory holds `users` hashes.
        """
        if not 0 < users < outputs.count(files):
            return cls(files)
        hashes = ((hashlib.sha256(user.encode()).digest(), position) for position, user in enumerate(cls(files).ids()))
        return cls(files, array("q", sorted(position for _, position in heapq.nsmallest(users, hashes))))

    @classmethod
    def of(cls, files: Sequence[Path], ids: Iterable[str]) -> UserRows:
        """The users `ids`, which are in the order of the rows.

        Raises:
            RunError: a user is not in the files, or in another order.
        """
        rows = enumerate(cls(files).ids())
        positions = array("q")
        for user in ids:
            position = next((position for position, other in rows if other == user), None)
            if position is None:
                raise RunError(
                    f"User {user!r} is not among the {outputs.count(files):,} users of the sequences, or in another "
                    "order, expected the users of the sequences in the same order. Write the narratives again."
                )
            positions.append(position)
        return cls(files, None if len(positions) == outputs.count(files) else positions)

    def __len__(self) -> int:
        return outputs.count(self.files) if self.positions is None else len(self.positions)

    def ids(self) -> Iterator[str]:
        """The ids of the users; no other column is read."""
        return (row["reviewer_id"] for row in self.rows(["reviewer_id"], IDS))

    def rows(self, columns: list[str] | None = None, batch_size: int = 512) -> Iterator[dict[str, Any]]:
        """The rows in order; row groups without a user are not read."""
        if self.positions is None:
            yield from outputs.rows(self.files, columns, batch_size)
            return
        start = next_user = 0
        for file in self.files:
            with pq.ParquetFile(file) as opened:
                for group in range(opened.num_row_groups):
                    end = start + opened.metadata.row_group(group).num_rows
                    last = bisect.bisect_left(self.positions, end, next_user)
                    batches = opened.iter_batches(batch_size, [group], columns) if last > next_user else ()
                    for batch in batches:
                        stop = bisect.bisect_left(self.positions, start + len(batch), next_user)
                        for position in self.positions[next_user:stop]:
                            yield from batch.slice(position - start, 1).to_pylist()
                        start, next_user = start + len(batch), stop
                    start = end
