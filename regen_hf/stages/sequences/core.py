"""The k-core: users and items that have at least k purchases of each other.

Taking out a user can leave an item with too few purchases, and the reverse, so it is repeated until nothing changes.
Only the items of the core are sought: a user is in it who has k purchases of them. Purchases lie on disk as the row
of their item in the catalogue, 4 bytes each, and are gone through range by range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa


def save_baskets(baskets: pa.Table, path: Path) -> None:
    """Write the lists `places` of some users to `path` (.npy): the length of each list, then all places.

    The first number is how many users there are.
    """
    places = baskets["places"].combine_chunks()
    lengths = np.diff(places.offsets.to_numpy())
    flat = places.flatten().to_numpy(zero_copy_only=False)
    with path.open("wb") as file:
        np.save(file, np.concatenate([[len(lengths)], lengths, flat]).astype(np.int32))


def core_items(files: Sequence[Path], k: int, items: int) -> np.ndarray:
    """Which of the items are in the k-core: a truth value for each row of the catalogue.

    Args:
        files: what `save_baskets` wrote, each for other users.
        k: purchases that a user and an item must have.
        items: rows of the catalogue.
    """
    inside = np.ones(items, bool)
    while True:
        counts = np.zeros(items, np.int64)
        for path in files:
            saved = np.load(path, mmap_mode="r")
            users = int(saved[0])
            lengths, places = saved[1 : 1 + users], saved[1 + users :]
            owner = np.repeat(np.arange(users), lengths)
            bought = np.bincount(owner, weights=inside[places], minlength=users)
            counts += np.bincount(places[(bought >= k)[owner]], minlength=items)
        kept = inside & (counts >= k)
        if (kept == inside).all():
            return kept
        inside = kept
