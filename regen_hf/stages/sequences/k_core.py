"""The k-core: users and items with at least k purchases of each other.

Removing a user can leave an item with too few purchases, and the reverse, so this is repeated until nothing changes.
Only the items of the core are computed: a user with k purchases of them is in the core. Purchases are on disk as row
numbers of the catalogue, 4 bytes each, and are read range by range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa


def save_baskets(baskets: pa.Table, path: Path) -> None:
    """Write the column `items` (lists of rows of the catalogue, one list per user) to `path` (.npy).

    The array contains the number of users, the length of each list, and the elements of all lists.
    """
    lists = baskets["items"].combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    items = lists.flatten().to_numpy(zero_copy_only=False)
    with path.open("wb") as file:
        np.save(file, np.concatenate([[len(lengths)], lengths, items]).astype(np.int32))


def core_items(files: Sequence[Path], k: int, count: int) -> np.ndarray:
    """Which of the `count` items of the catalogue are in the k-core; `files` are the baskets of disjoint users."""
    core = np.ones(count, bool)
    while True:
        purchases = np.zeros(count, np.int64)
        for path in files:
            saved = np.load(path, mmap_mode="r")
            users = int(saved[0])
            lengths, items = saved[1 : 1 + users], saved[1 + users :]
            owner = np.repeat(np.arange(users), lengths)
            per_user = np.bincount(owner, weights=core[items], minlength=users)
            purchases += np.bincount(items[(per_user >= k)[owner]], minlength=count)
        kept = core & (purchases >= k)
        if (kept == core).all():
            return kept
        core = kept
