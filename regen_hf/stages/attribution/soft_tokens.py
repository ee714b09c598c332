"""The soft token of every item and its parts: norms, nearest word tokens, and a map.

Shapes:
    I   items of the catalogue
    W   word tokens: the vocabulary without special tokens
    D   width of the language model's embeddings
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...metrics.counts import purchases

if TYPE_CHECKING:
    from ...model.modeling_regen import RegenForCausalLM
    from ...model.processing_regen import RegenProcessor
    from .settings import AttributionConfig

Vectors = NDArray[np.float32]

BATCH = 1024
"""Items per forward pass."""
GROUPS = 4
"""Popularity groups of the items with a CF vector."""
NAMED = 30
"""Number of most purchased items whose nearest words are listed."""
COMPARED = 1000
"""Random items whose distances to words and to other items are measured."""
WORDS = 5
"""Nearest words of an item."""
COMPONENTS = 50
"""Principal components that t-SNE reads; the others are mostly noise."""
HALVES = ("cf", "content")


def build(
    run: Path, out: Path, model: RegenForCausalLM, processor: RegenProcessor, config: AttributionConfig
) -> dict[str, Any]:
    """Write the norms of all items and the map into `out`; returns the content of `results.json`."""
    parts = soft_tokens(run, model)
    soft = parts["soft"]
    table = pq.read_table(outputs.catalogue_files(run), columns=["asin", "title"])
    asins, titles = (table.column(name).to_pylist() for name in ("asin", "title"))
    counts_by_asin = purchases(outputs.dataset_files(run, "train")).items
    counts = np.array([counts_by_asin[asin] for asin in asins])
    norms = {name: np.linalg.norm(vectors, axis=1) for name, vectors in parts.items()}
    arrays = pa.StructArray.from_arrays([pa.array(values) for values in norms.values()], list(norms))
    table = table.append_column("purchases", pa.array(counts)).append_column("norms", arrays)
    outputs.write_parquet(out / outputs.EMBEDDED_ITEMS, table)

    words, texts = word_tokens(model, processor)
    random = np.random.default_rng(config.seed)
    sampled = {name: _sample(vectors, config.points, random) for name, vectors in parts.items() if name != "rest"}
    sampled["word"] = _sample(words, config.points, random)
    points = tsne(np.concatenate(list(sampled.values())), config.seed)
    kinds = [name for name, vectors in sampled.items() for _ in range(len(vectors))]
    outputs.write_parquet(out / outputs.TOKEN_MAP, pa.table({"kind": kinds, "x": points[:, 0], "y": points[:, 1]}))

    exact = model.config.adapter == "linear"
    halves = [name for name in HALVES if name in parts]
    compared = _sample(soft, COMPARED, random)
    most_bought = np.argsort(-counts, kind="stable")[:NAMED]
    ratios = {name: norms[name] / np.maximum(norms["soft"], np.finfo(np.float32).tiny) for name in halves}
    return {
        "adapter": model.config.adapter,
        "parts": "exact: W1 e_i and W2 e_s, whose sum is the soft token minus a vector that is the same for all items"
        if exact
        else "ablation: the change of the soft token when that half of the history is zero; they need not add up",
        "items": len(soft),
        "cold_items": int((counts == 0).sum()),
        "words": len(words),
        "width": soft.shape[1],
        # Relative to the mean norm; `rest` of the first item is used for all items.
        "largest_error_of_the_sum": float(
            np.abs(soft - sum(parts[name] for name in halves) - parts["rest"][0]).max() / norms["soft"].mean()
        )
        if exact
        else None,
        "norms": {name: spread(values) for name, values in norms.items()}
        | {"word": spread(np.linalg.norm(words, axis=1))},
        "shares": {name: spread(values) for name, values in ratios.items()},
        "shares_by_popularity": [
            {"from": low, "to": high, "items": int(group.sum())}
            | {name: spread(values[group]) for name, values in ratios.items()}
            for low, high in popularity_groups(counts)
            if (group := (counts >= low) & (counts <= high)).any()
        ],
        "map": {
            "points": len(points),
            "kinds": {name: len(vectors) for name, vectors in sampled.items()},
            "method": f"t-SNE (openTSNE) of {min(COMPONENTS, soft.shape[1])} principal components",
        },
        "room": {"log10_vectors_60_degrees_apart": round(log10_kissing(soft.shape[1]), 1)},
        "separation": separation(compared, words),
        "nearest_words": [
            {
                "asin": asins[item],
                "title": titles[item],
                "words": [
                    {"token": texts[word], "cosine": round(float(cosine), 4)}
                    for word, cosine in zip(indices, cosines, strict=True)
                ],
            }
            for item, indices, cosines in zip(most_bought, *nearest(soft[most_bought], words, WORDS), strict=True)
        ],
    }


def soft_tokens(run: Path, model: RegenForCausalLM) -> dict[str, Vectors]:
    """The soft token of every item in a history of one purchase, and its parts, (I, D) each: soft, cf, content, rest.

    The content vector is that of the item's metadata. The parts of a linear adapter are W1 e_i and W2 e_s; those of
    other adapters are the change of the soft token when that half is zero. `rest` is the remainder, for a linear
    adapter the bias and the vector of the position. A half that the model does not read has no part.

    Raises:
        InputError: a vector is not finite.
    """
    import torch

    items = outputs.item_vectors(run)
    for name, vectors in (("CF", items.item_factors), ("content", items.content)):
        if not np.isfinite(vectors).all():
            raise InputError(
                f"The {name} vectors of the items of {run} contain values that are not finite, expected numbers. Run "
                f"`regen embeddings {run}` again, with other settings if the error persists."
            )
    adapter = model.model.adapter
    reads = dict(zip(HALVES, (adapter.reads_cf, adapter.reads_content), strict=True))
    chunks: dict[str, list[Vectors]] = {}
    for start in range(0, len(items.asins), BATCH):
        batch = slice(start, start + BATCH)
        history = {
            "history_cf": torch.from_numpy(items.item_factors[batch, None]),  # (B, 1, cf_dim)
            "history_content": torch.from_numpy(items.content[batch, None].astype(np.float32)),
        }
        history["history_mask"] = torch.ones(history["history_cf"].shape[:2], dtype=torch.bool)
        if adapter.features:
            history["history_features"] = torch.full((*history["history_mask"].shape, len(adapter.features)), torch.nan)
        history = {name: tensor.to(model.device) for name, tensor in history.items()}
        with torch.inference_mode():
            soft, *summands = model.soft_tokens(**history)  # (B, 1, D) each
            parts = {"soft": soft}
            for name, part in zip(HALVES, summands, strict=True):
                if part is None and reads[name]:
                    half = f"history_{name}"
                    part = soft - model.soft_tokens(**history | {half: torch.zeros_like(history[half])})[0]
                if part is not None:
                    parts[name] = part
            parts["rest"] = soft - sum(parts[name] for name in HALVES if name in parts)
        for name, tensor in parts.items():
            chunks.setdefault(name, []).append(tensor[:, 0].float().cpu().numpy())
    return {name: np.concatenate(vectors) for name, vectors in chunks.items()}


def word_tokens(model: RegenForCausalLM, processor: RegenProcessor) -> tuple[Vectors, list[str]]:
    """The embeddings of the vocabulary without special tokens, (W, D), and the texts of the tokens."""
    import torch

    tokenizer = processor.tokenizer
    special = {*tokenizer.all_special_ids, model.config.item_token_id}
    ids = [number for number in sorted(tokenizer.get_vocab().values()) if number not in special]
    embedding = model.get_input_embeddings()
    with torch.inference_mode():  # the output of the module: some models scale the table
        vectors = embedding(torch.tensor(ids, device=model.device)).float().cpu().numpy()
    return vectors, [tokenizer.decode([number]) for number in ids]


def tsne(vectors: Vectors, seed: int) -> Vectors:
    """Positions of `vectors` (n, D) in two dimensions, (n, 2), by t-SNE of their principal components."""
    from openTSNE import TSNE

    method = TSNE(perplexity=min(30, (len(vectors) - 1) / 3), n_jobs=-1, random_state=seed)
    return np.asarray(method.fit(principal(vectors)), np.float32)


def principal(vectors: Vectors) -> Vectors:
    """The first principal components of `vectors` (n, D), at most `COMPONENTS`: (n, C)."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # in ascending order of variance
    return np.ascontiguousarray(centred @ axes[:, -COMPONENTS:][:, ::-1])


def nearest(vectors: Vectors, others: Vectors, number: int) -> tuple[NDArray[np.int64], Vectors]:
    """Indices of the `number` rows of `others` with the highest cosine to each of `vectors`, and these cosines."""
    cosines = _unit(vectors) @ _unit(others).T
    indices = np.argsort(-cosines, axis=1, kind="stable")[:, :number]
    return indices, np.take_along_axis(cosines, indices, axis=1)


def separation(soft: Vectors, words: Vectors) -> dict[str, Any]:
    """The cosines of soft tokens to the nearest word and to the nearest other soft token, in all dimensions."""
    to_words = (_unit(soft) @ _unit(words).T).max(axis=1)
    between = _unit(soft) @ _unit(soft).T
    np.fill_diagonal(between, -1.0)
    to_items = between.max(axis=1)
    return {
        "items": len(soft),
        "cosine_to_the_nearest_word": round(float(to_words.mean()), 4),
        "cosine_to_the_nearest_item": round(float(to_items.mean()), 4) if len(soft) > 1 else None,
        "nearer_to_a_word_than_to_any_item": round(float((to_words > to_items).mean()), 4) if len(soft) > 1 else None,
    }


def popularity_groups(counts: NDArray[np.integer]) -> list[tuple[int, int]]:
    """The minimum and maximum number of purchases of groups of similar size; cold items are a separate group.

    >>> popularity_groups(np.array([0, 0, 1, 1, 2, 3, 5, 8, 13, 21]))
    [(0, 0), (1, 1), (2, 3), (4, 8), (9, 21)]
    >>> popularity_groups(np.array([7, 7, 7]))
    [(7, 7)]
    """
    warm = counts[counts > 0]
    groups = [(0, 0)] if (counts == 0).any() else []
    if len(warm):
        tops = np.unique(np.quantile(warm, np.arange(1, GROUPS + 1) / GROUPS, method="inverted_cdf").astype(int))
        starts = [int(warm.min()), *(int(top) + 1 for top in tops[:-1])]
        groups += [(start, int(top)) for start, top in zip(starts, tops, strict=True)]
    return groups


def spread(values: NDArray[np.floating]) -> dict[str, float]:
    """The mean and quantiles of `values`."""
    quantiles = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
    return {"mean": round(float(values.mean()), 5)} | {
        name: round(float(np.quantile(values, share)), 5) for name, share in quantiles.items()
    }


def log10_kissing(dimensions: int) -> float:
    """The logarithm of a lower bound of the kissing number, the number of vectors that are at least 60 degrees apart.

    Caps of 60 degrees around the vectors of a maximal set cover the sphere, and the share of a cap is at most
    sin(60°)^(d-1) / (sqrt(2 pi (d - 1)) cos(60°)).

    >>> log10_kissing(24) < math.log10(196_560)
    True
    >>> round(log10_kissing(768))
    49
    """
    steps = max(dimensions - 1, 1)
    return 0.5 * math.log10(2 * math.pi * steps) + math.log10(0.5) - steps * math.log10(math.sqrt(3) / 2)


def _sample(vectors: Vectors, number: int, random: np.random.Generator) -> Vectors:
    """At most `number` random rows of `vectors`, in their order; 0 for all of them."""
    if not number or len(vectors) <= number:
        return vectors
    return vectors[np.sort(random.choice(len(vectors), number, replace=False))]


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
