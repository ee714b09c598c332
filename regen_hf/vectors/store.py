"""A memory-mapped store of interaction vectors.

At the paper's Clothing size (11 M purchases of 768 numbers) the vectors are 17 GB on disk. A reader holds the pages
that it touches until it gives them back; the system's cache of the file is one for all readers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray


class VectorStore:
    """Content vectors and item indices of the purchases of one split, by user.

    Args:
        folder: where `vectors.npy` (N, D) float16, `items.npy` (N,) int32 and `offsets.npy` (U + 1,) int64 lie, with N
            purchases in the order of the dataset's rows and U users.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.vectors: NDArray[np.float16] = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        self.items: NDArray[np.int32] = np.load(folder / "items.npy", mmap_mode="r", allow_pickle=False)
        self.offsets: NDArray[np.int64] = np.load(folder / "offsets.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def user(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """The vectors (n, D) and item indices (n,) of the user in row `row`, oldest purchase first."""
        if not 0 <= row < len(self):
            raise IndexError(f"User row {row} was asked for, the store holds {len(self)} users.")
        purchases = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return self.vectors[purchases], self.items[purchases]

    def release(self) -> None:
        """Give the pages that were read back to the system, which may still have them cached for the next reader."""
        for array in (self.vectors, self.items):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)


class VectorWriter:
    """Write a `VectorStore` piece by piece, in order; use as a context manager.

    Args:
        folder: made if it does not exist.
        lengths: purchases of each user, shape (U,).
        dim: width D of the vectors.
    """

    def __init__(self, folder: Path, lengths: Iterable[int], dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)
        np.save(folder / "offsets.npy", offsets, allow_pickle=False)
        total = int(offsets[-1])
        # An empty file cannot be mapped: one spare row stands for no purchases at all.
        self._vectors = open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(max(total, 1), dim))
        self._items = open_memmap(folder / "items.npy", mode="w+", dtype=np.int32, shape=(max(total, 1),))
        self._total, self._filled = total, 0

    def append(self, vectors: NDArray[np.floating], items: NDArray[np.integer]) -> None:
        """Add the next purchases: `vectors` (n, D) and `items` (n,)."""
        place = slice(self._filled, self._filled + len(vectors))
        if place.stop > self._total:
            raise ValueError(f"{place.stop} purchases were written into a store made for {self._total}.")
        self._vectors[place] = vectors
        self._items[place] = items
        self._filled = place.stop

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._vectors.flush()
        self._items.flush()
        if kind is None and self._filled != self._total:
            raise ValueError(f"{self._filled} purchases were written into a store made for {self._total}.")
