"""A memory-mapped store of interaction vectors.

At the paper's Clothing size (11 M purchases of 768 numbers) the vectors are 17 GB on disk. A reader holds the pages
that it reads until it releases them; all readers share the system's cache of the file.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from ..outputs import STORE_ITEMS, STORE_OFFSETS, STORE_VECTORS


def allocate(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """An array of zeros in a new file (.npy), mapped for writing.

    Raises:
        OSError: the disk is full. Without the space, a later write to the map would kill the process (SIGBUS).
    """
    array = open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(error.errno, error.strerror, str(path)) from None
    return array


class VectorStore:
    """Content vectors and item indices of the purchases of one split, by user.

    Args:
        folder: contains vectors (N, D) float16, items (N,) int32 and offsets (U + 1,) int64, of N purchases in the
            order of the dataset's rows and U users.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.vectors: NDArray[np.float16] = np.load(folder / STORE_VECTORS, mmap_mode="r", allow_pickle=False)
        self.items: NDArray[np.int32] = np.load(folder / STORE_ITEMS, mmap_mode="r", allow_pickle=False)
        self.offsets: NDArray[np.int64] = np.load(folder / STORE_OFFSETS, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def user(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """The vectors (n, D) and item indices (n,) of the user in row `row`, oldest purchase first."""
        if not 0 <= row < len(self):
            raise IndexError(f"row is {row}, expected a user from 0 to {len(self) - 1}.")
        purchases = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return self.vectors[purchases], self.items[purchases]

    def release(self) -> None:
        """Release the memory of the pages that were read; the system may keep them cached."""
        for array in (self.vectors, self.items):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)


class VectorWriter:
    """Writes a `VectorStore` in batches, in order; use it as a context manager.

    Args:
        folder: created if it does not exist.
        lengths: purchases of each user, shape (U,).
        dim: width D of the vectors.
        create: False to write into the files of a store that another process has created.
    """

    def __init__(self, folder: Path, lengths: Iterable[int], dim: int, create: bool = True) -> None:
        offsets = np.concatenate([[0], np.cumsum(np.fromiter(lengths, dtype=np.int64))]).astype(np.int64)
        total = int(offsets[-1])
        if create:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / STORE_OFFSETS, offsets, allow_pickle=False)
            # An empty file cannot be mapped: a store without purchases has one unused row.
            allocate(folder / STORE_VECTORS, np.float16, (max(total, 1), dim))
            allocate(folder / STORE_ITEMS, np.int32, (max(total, 1),))
        self._vectors = np.load(folder / STORE_VECTORS, mmap_mode="r+", allow_pickle=False)
        self._items = np.load(folder / STORE_ITEMS, mmap_mode="r+", allow_pickle=False)
        self._total, self._filled = total, 0

    def append(self, vectors: NDArray[np.floating], items: NDArray[np.integer]) -> None:
        """Add the next purchases: `vectors` (n, D) and `items` (n,)."""
        target = slice(self._filled, self._filled + len(vectors))
        self.skip(len(vectors))
        self._vectors[target] = vectors
        self._items[target] = items

    def skip(self, number: int) -> None:
        """Leave the next `number` purchases to another process."""
        if self._filled + number > self._total:
            raise ValueError(f"{self._filled + number} purchases were written, expected {self._total} by the lengths.")
        self._filled += number

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._vectors.flush()
        self._items.flush()
        if kind is None and self._filled != self._total:
            raise ValueError(f"{self._filled} purchases were written, expected {self._total} by the lengths.")
