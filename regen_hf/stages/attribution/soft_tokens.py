"""The soft token of every item and its parts: how long they are, which words are near, and a map of all of them.

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

from ...errors import InputError, missing_extra
from ...metrics.counts import purchases
from ...outputs import item_files, split_files

if TYPE_CHECKING:
    from ...model.modeling_regen import RegenForCausalLM
    from ...model.processing_regen import RegenProcessor
    from .settings import AttributionConfig as AttributionConfig

Vectors = NDArray[np.float32]

BATCH = 1024
"""Items at once."""
LAYERS = 4
"""Layers of popularity among the items that CF knows."""
NAMED = 30
"""Items, the most bought, whose nearest words are listed."""
COMPARED = 1000
"""Items, at random, of which is told whether they are nearer to words or to each other."""
WORDS = 5
"""Nearest words of an item."""
COMPONENTS = 50
"""Principal components that t-SNE reads: what lies beyond them is noise to it, and costs time."""


def build(
    run: Path, out: Path, model: RegenForCausalLM, processor: RegenProcessor, config: AttributionConfig
) -> dict[str, Any]:
    """Write `items.parquet` and `map.parquet` into `out`; returns the rest, for `results.json`."""
    parts = soft_tokens(run, model)
    soft = parts["soft"]
    table = pq.read_table(item_files(run / "dataset"), columns=["asin", "title"])
    bought = purchases(split_files(run / "dataset", "train")).items
    counts = np.array([bought[asin] for asin in table.column("asin").to_pylist()])
    norms = {name: np.linalg.norm(vectors, axis=1) for name, vectors in parts.items()}
    pq.write_table(
        table.append_column("purchases", pa.array(counts)).append_column(
            "norms", pa.StructArray.from_arrays([pa.array(norms[name]) for name in norms], list(norms))
        ),
        out / "items.parquet",
    )
    words, names = word_tokens(model, processor)
    random = np.random.default_rng(config.seed)
    placed = {name: _some(vectors, config.points, random) for name, vectors in parts.items() if name != "rest"}
    placed["word"] = _some(words, config.points, random)
    places = tsne(np.concatenate(list(placed.values())), config.seed)
    kinds = [name for name, vectors in placed.items() for _ in range(len(vectors))]
    pq.write_table(pa.table({"kind": kinds, "x": places[:, 0], "y": places[:, 1]}), out / "map.parquet")

    exact = model.config.adapter == "linear"
    halves = [name for name in ("cf", "content") if name in parts]
    sample = _some(soft, COMPARED, random)
    first = np.argsort(-counts, kind="stable")[:NAMED]
    listed = zip(first, *nearest(soft[first], words, WORDS), strict=True)
    titles, asins = table.column("title").to_pylist(), table.column("asin").to_pylist()
    return {
        "adapter": model.config.adapter,
        "parts": "exact: W1 e_i and W2 e_s, which add up to the soft token with what is the same for all items"
        if exact
        else "ablation: what the soft token loses when that half of the history is zero; they need not add up",
        "items": len(soft),
        "cold_items": int((counts == 0).sum()),
        "words": len(words),
        "width": soft.shape[1],
        # How far the parts and the rest, which is that of the first item, are from the sum that they should be.
        "largest_error_of_the_sum": float(
            np.abs(soft - sum(parts[name] for name in halves) - parts["rest"][0]).max() / norms["soft"].mean()
        )
        if exact
        else None,
        "norms": {name: spread(values) for name, values in norms.items()}
        | {"word": spread(np.linalg.norm(words, axis=1))},
        "shares": {name: spread(_ratio(norms[name], norms["soft"])) for name in halves},
        "shares_by_popularity": [
            {"from": low, "to": high, "items": int(chosen.sum())}
            | {name: spread(_ratio(norms[name][chosen], norms["soft"][chosen])) for name in halves}
            for low, high in layers(counts)
            if (chosen := (counts >= low) & (counts <= high)).any()
        ],
        "map": {
            "points": len(places),
            "kinds": {name: len(vectors) for name, vectors in placed.items()},
            "method": f"t-SNE (openTSNE) of {min(COMPONENTS, soft.shape[1])} principal components",
        },
        "room": {"log10_vectors_60_degrees_apart": round(log10_kissing(soft.shape[1]), 1)},
        "separation": separation(sample, words),
        "nearest_words": [
            {
                "asin": asins[item],
                "title": titles[item],
                "words": [
                    {"token": names[word], "cosine": round(float(cosine), 4)}
                    for word, cosine in zip(found, cosines, strict=True)
                ],
            }
            for item, found, cosines in listed
        ],
    }


def soft_tokens(run: Path, model: RegenForCausalLM) -> dict[str, Vectors]:
    """The soft token of every item alone in a history and its parts, (I, D) each: `soft`, `cf`, `content`, `rest`.

    The item is read by its metadata, as nobody's review is part of an item. With a linear adapter the parts are W1 e_i
    and W2 e_s; with another one they are what is lost when that half is zero. `rest` is what is neither: for a linear
    adapter the bias and what marks the place of a purchase, the same for all items. A half that the model does not read
    has no part.

    Raises:
        InputError: a vector is not finite.
    """
    import torch
    from safetensors.numpy import load_file

    factors = load_file(run / "embeddings" / "cf.safetensors")["item_factors"]
    content = np.load(run / "embeddings" / "content_items.npy", mmap_mode="r", allow_pickle=False)
    for name, vectors in (("CF", factors), ("content", content)):
        if not np.isfinite(vectors).all():
            raise InputError(
                f"The {name} vectors of the items of {run} hold values that are not finite, expected numbers. Run "
                f"`regen embeddings {run}` again, with other settings if it happens again."
            )
    adapter, device = model.model.adapter, model.device
    chunks: dict[str, list[Vectors]] = {}
    for start in range(0, len(factors), BATCH):
        place = slice(start, start + BATCH)
        given: dict[str, Any] = {
            "history_cf": torch.from_numpy(factors[place, None]),  # (B, 1, cf_dim)
            "history_content": torch.from_numpy(np.asarray(content[place, None], np.float32)),
        }
        given["history_mask"] = torch.ones(given["history_cf"].shape[:2], dtype=torch.bool)
        if adapter.features:
            unknown = torch.full((*given["history_mask"].shape, len(adapter.features)), torch.nan)
            given["history_features"] = unknown
        given = {name: tensor.to(device) for name, tensor in given.items()}
        with torch.inference_mode():
            soft, *parts = model.soft_tokens(**given)  # (B, 1, D) each
            found = {"soft": soft}
            for name, part, read in zip(
                ("cf", "content"), parts, (adapter.reads_cf, adapter.reads_content), strict=True
            ):
                if part is None and read:
                    half = f"history_{name}"
                    part = soft - model.soft_tokens(**{**given, half: torch.zeros_like(given[half])})[0]
                if part is not None:
                    found[name] = part
            found["rest"] = soft - sum(found[name] for name in ("cf", "content") if name in found)
        for name, vectors in found.items():
            chunks.setdefault(name, []).append(vectors[:, 0].float().cpu().numpy())
    return {name: np.concatenate(vectors) for name, vectors in chunks.items()}


def word_tokens(model: RegenForCausalLM, processor: RegenProcessor) -> tuple[Vectors, list[str]]:
    """The embeddings of the vocabulary without special tokens, (W, D), as the model reads them, and their texts."""
    import torch

    tokenizer = processor.tokenizer
    special = {*tokenizer.all_special_ids, model.config.item_token_id}
    ids = [number for number in sorted(tokenizer.get_vocab().values()) if number not in special]
    embedding = model.get_input_embeddings()
    with torch.inference_mode():  # through the module: some models scale what the table holds
        vectors = embedding(torch.tensor(ids, device=model.device)).float().cpu().numpy()
    return vectors, [tokenizer.decode([number]) for number in ids]


def tsne(vectors: Vectors, seed: int) -> Vectors:
    """Places of `vectors` (n, D) in two dimensions, (n, 2), by t-SNE of their principal components."""
    try:
        from openTSNE import TSNE
    except ImportError:
        raise missing_extra("openTSNE", "eval") from None

    method = TSNE(perplexity=min(30, (len(vectors) - 1) / 3), n_jobs=-1, random_state=seed)
    return np.asarray(method.fit(principal(vectors)), np.float32)


def principal(vectors: Vectors) -> Vectors:
    """The components of most variance of `vectors` (n, D), at most `COMPONENTS` of them: (n, C)."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # the components of most variance come last
    return np.ascontiguousarray(centred @ axes[:, -COMPONENTS:][:, ::-1])


def nearest(vectors: Vectors, others: Vectors, number: int) -> tuple[NDArray[np.int64], Vectors]:
    """The `number` rows of `others` of highest cosine to each of `vectors`, the nearest first, and these cosines."""
    cosines = _unit(vectors) @ _unit(others).T
    found = np.argsort(-cosines, axis=1, kind="stable")[:, :number]
    return found, np.take_along_axis(cosines, found, axis=1)


def separation(soft: Vectors, words: Vectors) -> dict[str, Any]:
    """How near soft tokens are to words and to each other, by cosine: the map's message without the map."""
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


def layers(counts: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Lowest and highest number of purchases of layers of about as many items; cold items are a layer of their own.

    >>> layers(np.array([0, 0, 1, 1, 2, 3, 5, 8, 13, 21]))
    [(0, 0), (1, 1), (2, 3), (4, 8), (9, 21)]
    >>> layers(np.array([7, 7, 7]))
    [(7, 7)]
    """
    warm = counts[counts > 0]
    found = [(0, 0)] if (counts == 0).any() else []
    if len(warm):
        tops = np.unique(np.quantile(warm, np.arange(1, LAYERS + 1) / LAYERS, method="inverted_cdf").astype(int))
        starts = [int(warm.min()), *(int(top) + 1 for top in tops[:-1])]
        found += [(start, int(top)) for start, top in zip(starts, tops, strict=True)]
    return found


def spread(values: NDArray[np.floating]) -> dict[str, float]:
    """Mean and quantiles of some numbers."""
    quantiles = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
    return {"mean": round(float(values.mean()), 5)} | {
        name: round(float(np.quantile(values, share)), 5) for name, share in quantiles.items()
    }


def log10_kissing(dimensions: int) -> float:
    """A power of ten that the kissing number surely reaches: so many vectors, any two of them 60 degrees apart or more.

    Caps of 60 degrees around the vectors of a set that no further one fits into cover the sphere, and a cap is at most
    sin(60°)^(d-1) / (sqrt(2 pi (d - 1)) cos(60°)) of it.

    >>> log10_kissing(24) < math.log10(196_560)
    True
    >>> round(log10_kissing(768))
    49
    """
    steps = max(dimensions - 1, 1)
    return 0.5 * math.log10(2 * math.pi * steps) + math.log10(0.5) - steps * math.log10(math.sqrt(3) / 2)


def _some(vectors: Vectors, number: int, random: np.random.Generator) -> Vectors:
    """At most `number` of the rows, in their order; 0 for all of them."""
    if not number or len(vectors) <= number:
        return vectors
    return vectors[np.sort(random.choice(len(vectors), number, replace=False))]


def _ratio(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    return part / np.maximum(whole, np.finfo(np.float32).tiny)


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
