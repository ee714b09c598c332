"""The trained model as a recommender: its item head ranks the catalogue for the same users.

Shapes: U users, N purchases of the longest history of a batch, I items of the catalogue, E width of the item head.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ... import outputs
from ...errors import RunError
from ...model.interactions import interaction_features
from .recommender import Cases

BATCH = 64
"""Histories per forward pass."""


def fused_scores(run: Path, split: str, cases: Cases) -> Callable[[slice], NDArray[np.float64]] | None:
    """The scores of the model of `run` for a slice of the users of `cases`: the cosine of each item, shape (U, I).

    A history ends with the last purchase, which the query before it does not read. None without a model, or for one
    without an item head.
    """
    folder = outputs.folder(run, "train")
    if not (folder / outputs.MANIFEST).exists():
        return None
    import torch

    from ...model import RegenConfig, RegenForCausalLM, RegenProcessor
    from ...vectors.histories import Histories, padded_features

    if RegenConfig.from_pretrained(folder).item_dim is None:
        return None
    model = RegenForCausalLM.from_pretrained(folder).eval()
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    processor = RegenProcessor.from_pretrained(folder)
    items = outputs.item_vectors(run)
    model.set_catalogue(torch.from_numpy(items.item_factors), torch.from_numpy(items.content.astype(np.float32)))
    histories = Histories.of(run, split, items)
    names, lengths = model.config.interaction_features, np.diff(histories.store.offsets)
    features = _features(run, split, set(cases.rows), names) if names else {}
    queries = np.zeros((len(cases), model.config.item_dim or 0), np.float32)
    order = sorted(range(len(cases)), key=lambda case: len(cases.histories[case]))
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), BATCH), desc="      reading the histories", leave=False):
            batch = order[start : start + BATCH]
            rows = [cases.rows[case] for case in batch]
            fitted = [processor.fit(int(lengths[row]), prompt="") for row in rows]
            kept, prompts = [number for number, _ in fitted], [ids for _, ids in fitted]
            vectors = histories.batch(list(rows), [True] * len(rows), kept)
            mask = vectors["history_mask"]
            if names:
                shown = [features[row][len(features[row]) - number :] for row, number in zip(rows, kept, strict=True)]
                vectors["history_features"] = padded_features(shown, mask, len(names))
            tokens = processor.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
            inputs = {name: value.to(model.device) for name, value in {**tokens, **vectors}.items()}
            last = model.item_queries(**inputs)[torch.arange(len(batch)), mask.sum(1) - 1]
            queries[batch] = last.float().cpu().numpy()
        embeddings = model.item_embeddings().float().cpu().numpy()
    if not np.isfinite(queries).all():
        raise RunError(
            f"The trained model of {run} computes NaN or infinity for a history, expected finite states. Lower "
            f"training.learning_rate, and run `regen train {run}` again."
        )
    return lambda users: (queries[users] @ embeddings.T).astype(np.float64)


def _features(run: Path, split: str, chosen: set[int], names: list[str]) -> dict[int, list[list[float]]]:
    """The features of the purchases of the rows `chosen`; those of the last purchase, which is hidden, are unknown."""
    rows = outputs.rows(outputs.dataset_files(run, split), ["purchase_history"])
    return {
        number: interaction_features(row["purchase_history"], names, withheld=True)
        for number, row in enumerate(rows)
        if number in chosen
    }
