"""CF and content vectors of histories, as padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import outputs
from .store import VectorStore

if TYPE_CHECKING:
    import torch


@dataclass
class Histories:
    """CF and content vectors of the histories of one split.

    Args:
        store: content vectors and item indices by user, U users.
        item_factors: raw CF vectors, shape (I, d_cf).
        content_items: content vectors of the items' metadata, shape (I, d_s).
    """

    store: VectorStore
    item_factors: NDArray[np.float32]
    content_items: NDArray[np.float16]

    @classmethod
    def of(cls, run: Path, split: str, items: outputs.ItemArrays | None = None) -> Histories:
        """The vectors of the users of `split` in `run`; `items` shares the item arrays between several splits."""
        items = items or outputs.item_vectors(run)
        return cls(VectorStore(outputs.folder(run, "embeddings") / split), items.item_factors, items.content)

    def purchases(
        self, start: int, stop: int, withheld: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """CF (n, d_cf) and content (n, d_s) vectors of users `start` to `stop`, and the first row of each user.

        The rows (stop - start + 1,) end with n. The content vectors of each user's last `withheld` purchases are those
        of the item's metadata (section 3.2).
        """
        offsets = self.store.offsets[start : stop + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        content, items = self.store.vectors[rows].astype(np.float32), self.store.items[rows]
        offsets = offsets - offsets[0]
        for number in range(withheld):
            last = offsets[1:][np.diff(offsets) > number] - 1 - number
            content[last] = self.content_items[items[last]]
        return self.item_factors[items], content, offsets

    def get(self, row: int, withheld: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """CF (n, d_cf) and content (n, d_s) vectors of user `row`; see `purchases`."""
        cf, content, _ = self.purchases(row, row + 1, withheld)
        return cf, content

    def batch(
        self, rows: list[int | None], withheld: Sequence[int], limits: list[int] | None = None
    ) -> dict[str, torch.Tensor]:
        """The histories of the users `rows` (None: an empty history) as padded tensors.

        `withheld` is as in `purchases`, for each user. `limits` is the maximum length of each history, of which the
        latest purchases are used.

        Returns:
            `history_cf` (B, N, d_cf), `history_content` (B, N, d_s), `history_mask` (B, N) bool; N is at least 1,
            because every process of a distributed run must use the adapter.
        """
        import torch

        d_cf, d_s = self.item_factors.shape[1], self.content_items.shape[1]
        empty = np.zeros((0, d_cf), np.float32), np.zeros((0, d_s), np.float32)
        vectors = [empty if row is None else self.get(row, hidden) for row, hidden in zip(rows, withheld, strict=True)]
        lengths = [len(row_cf) for row_cf, _ in vectors]
        if limits is not None:
            lengths = [min(pair) for pair in zip(lengths, limits, strict=True)]
        longest = max(1, *lengths)
        cf = np.zeros((len(rows), longest, d_cf), np.float32)  # (B, N, d_cf)
        content = np.zeros((len(rows), longest, d_s), np.float32)  # (B, N, d_s)
        mask = np.arange(longest) < np.array(lengths)[:, None]  # (B, N)
        for number, (length, (row_cf, row_content)) in enumerate(zip(lengths, vectors, strict=True)):
            cf[number, :length] = row_cf[len(row_cf) - length :]
            content[number, :length] = row_content[len(row_cf) - length :]
        self.store.release()  # the vectors are copied
        return {
            "history_cf": torch.from_numpy(cf),
            "history_content": torch.from_numpy(content),
            "history_mask": torch.from_numpy(mask),
        }


def item_rows(
    histories: Histories, rows: list[int | None], history_mask: torch.Tensor, limits: list[int] | None = None
) -> torch.Tensor:
    """The row in the catalogue of each purchase of the users `rows`, (B, N), -100 where `history_mask` is false.

    With `limits`, only that many of the latest purchases of each user have a row.
    """
    import torch

    labels = torch.full(history_mask.shape, -100, dtype=torch.long)  # (B, N)
    for number, (row, length) in enumerate(zip(rows, history_mask.sum(1).tolist(), strict=True)):
        if row is not None and length:
            stop = int(histories.store.offsets[row + 1])
            first = 0 if limits is None else max(0, length - limits[number])
            items = histories.store.items[stop - length + first : stop]
            labels[number, first:length] = torch.from_numpy(items.astype(np.int64))
    return labels


def derangement(number: int, seed: int) -> list[int]:
    """A random permutation of `number` indices that maps none to itself; a single index keeps its own.

    >>> sorted(derangement(5, 0)), any(other == own for own, other in enumerate(derangement(5, 0)))
    ([0, 1, 2, 3, 4], False)
    """
    order = np.random.default_rng(seed).permutation(number)
    others = np.empty(number, dtype=int)
    others[order] = np.roll(order, 1)
    return others.tolist()


def padded_features(rows: list[list[list[float]]], history_mask: torch.Tensor, width: int) -> torch.Tensor:
    """The features of several histories as one tensor, (B, N, F), zero where `history_mask` (B, N) is false."""
    import torch

    features = torch.zeros(*history_mask.shape, width)  # (B, N, F)
    features[history_mask] = torch.tensor([values for row in rows for values in row]).reshape(-1, width)
    return features
