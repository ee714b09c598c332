"""The controls that the model is compared with, and those that need no language model.

Shapes:
    U   users of the evaluation
    T   train users of a chunk
    D   width of a user's vector: CF and content together
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...outputs import dataset_files, item_vectors, rows
from ...schema import TASKS, text_columns
from ...vectors.histories import Histories

CONTROLS = {
    "fused": "the model",
    "content": "the same model, shown only the content half of its soft tokens",
    "cf": "the same model, shown only the CF half of its soft tokens",
    "empty_history": "the same model without any history",
    "shuffled_history": "the same model with the history of another user",
    "text_history": "the same language model with the history as text in its prompt, the latest purchases that fit its "
    "window; it was not trained on such prompts",
    "most_frequent": "the most frequent narrative of the train users",
    "nearest": "the narrative of the train user with the most similar history, by the mean CF and content vectors",
}
"""The models of the results: the trained model, then the controls that show whether it uses the history."""

LONGEST = 16
CHUNK = 4096
"""Train users compared at once."""


def train_narratives(run: Path, tasks: Collection[str]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    """The most frequent and the longest narratives of the train users.

    Returns:
        By task, the most frequent narrative (ties go to the first in alphabetical order), None without any narrative;
        and by task, the `LONGEST` longest ones in characters.
    """
    longest: dict[str, list[str]] = {task: [] for task in tasks}
    hashes = {task: array("q") for task in tasks}  # the texts of a million users need gigabytes
    for task, text in _texts(run, tasks):
        hashes[task].append(hash(text))
        kept = longest[task]
        if (len(kept) < LONGEST or len(text) > len(kept[-1])) and text not in kept:
            kept.append(text)
            kept.sort(key=len, reverse=True)
            del kept[LONGEST:]
    candidates: dict[str, set[int] | None] = {}  # None: all, because no text occurs twice
    for task, values in hashes.items():
        distinct, counts = np.unique(np.array(values, np.int64), return_counts=True)
        highest = int(counts.max(initial=0))
        candidates[task] = set(distinct[counts == highest].tolist()) if highest > 1 else None
    frequent: dict[str, str | None] = dict.fromkeys(tasks)
    for task, text in _texts(run, tasks):
        chosen, before = candidates[task], frequent[task]
        if (chosen is None or hash(text) in chosen) and (before is None or text < before):
            frequent[task] = text
    return frequent, longest


def _texts(run: Path, tasks: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every narrative of the train users, with its task."""
    for row in rows(dataset_files(run, "train"), text_columns(tasks)):
        for task in tasks:
            if text := TASKS[task].text(row):
                yield task, text


def nearest(
    run: Path, split: str, number: int, tasks: Collection[str], withheld: Collection[str]
) -> dict[str, list[str | None]]:
    """For each of the first `number` users of `split`, the narrative of the train user with the most similar history.

    The similarity is the cosine of the mean CF vectors plus that of the mean content vectors (section 4.2). Ties go to
    the first user.

    Args:
        run: the run folder.
        split: the split of the users.
        number: number of users, U.
        tasks: the narratives to return; train users without one are skipped.
        withheld: tasks for which the review of the last purchase is left out on both sides (section 3.2).

    Returns:
        By task, a text per user, None where no train user has one.

    Raises:
        InputError: a vector is not finite.
    """
    views = {task in withheld for task in tasks}
    items = item_vectors(run)
    held_out, train = Histories.of(run, split, items), Histories.of(run, "train", items)
    queries = {view: user_vectors(held_out, 0, number, view, f"{split} user") for view in views}
    best = {task: np.full(number, -np.inf, np.float32) for task in tasks}
    texts: dict[str, list[str | None]] = {task: [None] * number for task in tasks}
    step = max(1, min(CHUNK, 32_000_000 // max(1, number)))
    source = rows(dataset_files(run, "train"), text_columns(tasks))
    start = 0
    while chunk := list(itertools.islice(source, step)):
        similarity = {
            view: queries[view] @ user_vectors(train, start, start + len(chunk), view, "train user").T for view in views
        }  # (U, T)
        for task in tasks:
            candidates = [TASKS[task].text(row) for row in chunk]
            scores = np.where([bool(text) for text in candidates], similarity[task in withheld], -np.inf)  # (U, T)
            index = scores.argmax(axis=1)  # (U,)
            highest = scores[np.arange(number), index]
            for user in np.flatnonzero(highest > best[task]):
                texts[task][user] = candidates[index[user]]
            best[task] = np.maximum(best[task], highest)
        start += len(chunk)
    return texts


def user_vectors(
    histories: Histories, start: int, stop: int, withheld: bool, label: str = "user"
) -> NDArray[np.float32]:
    """The mean CF vector and the mean content vector of each history, both of norm 1, side by side: (users, D).

    The users are `start` to `stop` of a split, named `label` in errors; `withheld` leaves out their last reviews.

    Raises:
        InputError: a vector is not finite.
    """
    cf, content, offsets = histories.purchases(start, stop, withheld)
    filled = np.flatnonzero(np.diff(offsets))  # users with a history
    vectors = np.zeros((stop - start, cf.shape[1] + content.shape[1]), np.float32)
    if len(filled):
        halves = [np.add.reduceat(part, offsets[filled], axis=0) for part in (cf, content)]
        for half in halves:
            half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12)
        vectors[filled] = np.hstack(halves)
    if not np.isfinite(vectors).all():
        row = start + int((~np.isfinite(vectors)).any(axis=1).argmax())
        raise InputError(
            f"The vectors of the history of {label} {row} contain values that are not finite, expected numbers. Run "
            "`regen embeddings` again, with another content_encoder if the error persists."
        )
    return vectors
