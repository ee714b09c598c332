"""Controls that need no language model: another user's history, the train users' narratives.

Shapes:
    U   users written about
    T   train users of a chunk
    D   width of a user's vector: of CF and content together
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...outputs import rows, split_files
from ...schema import TASKS
from ...vectors.store import VectorStore

CHUNK = 4096
"""Train users compared at once."""


def derangement(number: int, seed: int) -> list[int]:
    """Another index for each of `number`; a single one has no other and keeps its own.

    >>> sorted(derangement(5, 0)), any(other == own for own, other in enumerate(derangement(5, 0)))
    ([0, 1, 2, 3, 4], False)
    """
    order = np.random.default_rng(seed).permutation(number)
    others = np.empty(number, dtype=int)
    others[order] = np.roll(order, 1)
    return others.tolist()


def train_narratives(run: Path, tasks: Collection[str]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """What the train users' narratives are like.

    Returns:
        By task, the narrative that most train users share (of equals the first in the alphabet), None where there is
        none; and the 16 longest ones, in characters.
    """
    counts: dict[str, Counter[str]] = {task: Counter() for task in tasks}
    for row in rows(split_files(run / "dataset", "train"), ["last_purchase", "user"]):
        for task in tasks:
            if text := TASKS[task].text(row):
                counts[task][text] += 1
    frequent = {
        task: min(found, key=lambda text: (-found[text], text)) if found else None for task, found in counts.items()
    }
    return frequent, {task: heapq.nlargest(16, found, key=len) for task, found in counts.items()}


def nearest(
    run: Path, split: str, number: int, tasks: Collection[str], withheld: Collection[str]
) -> dict[str, list[str | None]]:
    """For each of the first `number` users of `split`, the narrative of the train user whose history is most alike.

    Alike is the cosine of the mean CF vectors plus that of the mean content vectors (section 4.2). Of equals the first.

    Args:
        run: the run folder.
        split: whose users are asked about.
        number: U.
        tasks: the narratives asked for; a train user without one is passed over.
        withheld: tasks for which the review of the last purchase counts on neither side (section 3.2).

    Returns:
        By task, a text per user, None where no train user has one.

    Raises:
        InputError: a vector is not finite.
    """
    views = {task in withheld for task in tasks}
    asked, train = VectorStore(run / "embeddings" / split), VectorStore(run / "embeddings" / "train")
    items = _item_vectors(run)
    queries = {view: user_vectors(asked, 0, number, items, view, f"{split} user") for view in views}
    best = {task: np.full(number, -np.inf, np.float32) for task in tasks}
    texts: dict[str, list[str | None]] = {task: [None] * number for task in tasks}
    step = max(1, min(CHUNK, 32_000_000 // max(1, number)))
    source = rows(split_files(run / "dataset", "train"), ["last_purchase", "user"])
    start = 0
    while chunk := list(itertools.islice(source, step)):
        alike = {
            view: queries[view] @ user_vectors(train, start, start + len(chunk), items, view, "train user").T
            for view in views
        }  # (U, T)
        for task in tasks:
            written = [TASKS[task].text(row) for row in chunk]
            scores = np.where([bool(text) for text in written], alike[task in withheld], -np.inf)  # (U, T)
            place = scores.argmax(axis=1)  # (U,)
            found = scores[np.arange(number), place]
            for user in np.flatnonzero(found > best[task]):
                texts[task][user] = written[place[user]]
            best[task] = np.maximum(best[task], found)
        start += len(chunk)
    return texts


def user_vectors(
    store: VectorStore,
    start: int,
    stop: int,
    items: tuple[NDArray[Any], NDArray[Any]],
    withheld: bool,
    whose: str = "user",
) -> NDArray[np.float32]:
    """The mean CF vector and the mean content vector of each history, both of norm 1, side by side: (users, D).

    Args:
        store: the vectors of a split.
        start: the first user.
        stop: the user after the last one.
        items: CF vectors (I, d_cf) and content vectors of metadata alone (I, d_s) of the catalogue.
        withheld: take the last purchase without its review.
        whose: what an error calls the users.
    """
    factors, content_items = items
    offsets = store.offsets[start : stop + 1] - store.offsets[start]
    purchases = slice(int(store.offsets[start]), int(store.offsets[stop]))
    content, bought = store.vectors[purchases].astype(np.float32), store.items[purchases]
    filled = np.flatnonzero(np.diff(offsets))  # users with a history
    if withheld:
        last = offsets[filled + 1] - 1
        content[last] = content_items[bought[last]]
    vectors = np.zeros((stop - start, factors.shape[1] + content.shape[1]), np.float32)
    if len(filled):
        halves = [np.add.reduceat(part, offsets[filled], axis=0) for part in (factors[bought], content)]
        for half in halves:
            half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12)
        vectors[filled] = np.hstack(halves)
    if not np.isfinite(vectors).all():
        row = start + int((~np.isfinite(vectors)).any(axis=1).argmax())
        raise InputError(
            f"The vectors of the history of {whose} {row} hold values that are not finite, expected numbers. Run "
            "`regen embeddings` again, with another content_encoder if it happens again."
        )
    return vectors


def _item_vectors(run: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    from safetensors.numpy import load_file

    return (
        load_file(run / "embeddings" / "cf.safetensors")["item_factors"],
        np.load(run / "embeddings" / "content_items.npy", mmap_mode="r", allow_pickle=False),
    )
