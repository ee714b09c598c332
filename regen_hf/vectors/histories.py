"""CF and content vectors of histories, as padded batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .store import VectorStore


@dataclass
class Histories:
    """CF and content vectors of the histories of one split.

    Args:
        store: content vectors and item indices by user, U users.
        item_factors: raw CF vectors, shape (I, d_cf).
        content_items: content vectors of metadata alone, shape (I, d_s).
    """

    store: VectorStore
    item_factors: NDArray[np.float32]
    content_items: NDArray[np.float16]

    def get(self, row: int, withheld: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """CF (n, d_cf) and content (n, d_s) vectors of user `row`; `withheld` leaves out the last purchase's review."""
        stored, items = self.store.user(row)
        content = stored.astype(np.float32)  # a copy: the store is read-only
        if withheld and len(items):
            content[-1] = self.content_items[items[-1]]
        return self.item_factors[items], content

    def batch(
        self, rows: list[int | None], withheld: list[bool], kept: list[int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Padded tensors of several histories, None for an empty one; of each the latest `kept` purchases, or all.

        Returns:
            `history_cf` (B, N, d_cf), `history_content` (B, N, d_s), `history_mask` (B, N) bool; N is at least 1,
            because every process of a distributed run must pass the adapter.
        """
        empty = (
            np.zeros((0, self.item_factors.shape[1]), np.float32),
            np.zeros((0, self.content_items.shape[1]), np.float32),
        )
        histories = [
            empty if row is None else self.get(row, hidden) for row, hidden in zip(rows, withheld, strict=True)
        ]
        if kept is not None:
            histories = [
                (cf[len(cf) - n :], content[len(cf) - n :]) for (cf, content), n in zip(histories, kept, strict=True)
            ]
        longest = max(1, max(len(cf) for cf, _ in histories))
        cf = np.zeros((len(rows), longest, empty[0].shape[1]), np.float32)  # (B, N, d_cf)
        content = np.zeros((len(rows), longest, empty[1].shape[1]), np.float32)  # (B, N, d_s)
        mask = np.zeros((len(rows), longest), bool)  # (B, N)
        for number, (of_cf, of_content) in enumerate(histories):
            cf[number, : len(of_cf)] = of_cf
            content[number, : len(of_content)] = of_content
            mask[number, : len(of_cf)] = True
        self.store.release()  # all is copied: a process that reads the whole store holds little of it
        return {
            "history_cf": torch.from_numpy(cf),
            "history_content": torch.from_numpy(content),
            "history_mask": torch.from_numpy(mask),
        }


def padded_features(rows: list[list[list[float]]], history_mask: torch.Tensor, width: int) -> torch.Tensor:
    """The features of several histories as one tensor, (B, N, F), zero where `history_mask` (B, N) is false."""
    features = torch.zeros(*history_mask.shape, width)  # (B, N, F)
    features[history_mask] = torch.tensor([values for row in rows for values in row]).reshape(-1, width)
    return features
