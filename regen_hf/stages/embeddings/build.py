"""Compute CF and content vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from tqdm import tqdm

from ... import outputs
from ...errors import ConfigError, InputError
from ...model.interactions import interaction_text
from ...schema import SPLITS
from ...vectors.cf import user_item_matrix
from ...vectors.encoder import load_encoder
from ...vectors.store import VectorWriter, allocate
from .cf import fit
from .encoder import FastEncoder, train_encoder
from .settings import EmbeddingsConfig

CHUNK = 8192
"""Texts per call of the encoder: enough to sort by length, few enough to need little memory."""


def build(run: Path, out: Path, work: Path, config: EmbeddingsConfig) -> dict[str, Any]:
    """Write the CF vectors of all items and the content vectors of all items and purchases into `out`."""
    items = pq.read_table(outputs.catalogue_files(run), columns=["asin"])
    asins = items.column("asin").to_pylist()
    pq.write_table(items, out / outputs.EMBEDDED_ITEMS)
    return write_cf(run, out, asins, config) | write_content(run, out, asins, config)


def write_cf(run: Path, out: Path, asins: list[str], config: EmbeddingsConfig) -> dict[str, Any]:
    """Fit ALS on the train users and write the vectors of the items `asins`."""
    user_items = user_item_matrix(outputs.dataset_files(run, "train"), asins, config.cf_alpha)
    if user_items.nnz == 0:
        raise InputError(
            "The train split has no purchases to fit CF on." + (outputs.preview(run) or " Provide more reviews.")
        )
    item_factors, user_gram = fit(user_items, config)
    norms = np.linalg.norm(item_factors, axis=1)
    warm = norms > 0
    mean_norm = norms[warm].mean(keepdims=True).astype(np.float32)
    save_file({"item_factors": item_factors, "mean_norm": mean_norm, "user_gram": user_gram}, out / outputs.CF)
    return {"items": len(item_factors), "cold_items": int((~warm).sum()), "train_interactions": int(user_items.nnz)}


def write_content(run: Path, out: Path, asins: list[str], config: EmbeddingsConfig) -> dict[str, Any]:
    """Load or train the encoder, and write the vectors of the items `asins` and of all purchases."""
    if config.content_encoder is None:
        encoder = train_encoder(outputs.dataset_files(run, "train"), config)
        encoder.save_pretrained(str(out / outputs.CONTENT_ENCODER), create_model_card=False)
    else:
        encoder = load_encoder(config.content_encoder)
    dim = encoder.get_embedding_dimension()
    if dim is None:
        raise ConfigError(f"The encoder {config.content_encoder!r} states no width of its vectors. Name another one.")

    fast = FastEncoder(encoder, config.batch_size)
    vectors = allocate(out / outputs.CONTENT_ITEMS, np.float16, (len(asins), dim))
    for start, chunk in _chunks(outputs.rows(outputs.catalogue_files(run)), "encoding items", len(asins)):
        vectors[start : start + len(chunk)] = fast.encode([interaction_text(item, None) for item in chunk])
    vectors.flush()

    index = {asin: number for number, asin in enumerate(asins)}
    interactions = 0
    for split in SPLITS:
        files, columns = outputs.dataset_files(run, split), ["purchase_history"]
        lengths = [len(row["purchase_history"]) for row in outputs.rows(files, columns)]
        purchases = (purchase for row in outputs.rows(files, columns) for purchase in row["purchase_history"])
        with VectorWriter(out / split, lengths, dim) as writer:
            for _, chunk in _chunks(purchases, f"encoding {split}", sum(lengths)):
                texts = [interaction_text(purchase["item"], purchase["review"]) for purchase in chunk]
                items = np.array([index[purchase["item"]["asin"]] for purchase in chunk], dtype=np.int32)
                writer.append(fast.encode(texts), items)
        interactions += sum(lengths)
    return {"interactions": interactions, "content_dim": dim}


def _chunks(values: Iterator[Any], about: str, total: int) -> Iterator[tuple[int, list[Any]]]:
    """Lists of up to `CHUNK` values, each with the index of its first value, with a progress bar."""
    with tqdm(total=total, desc=f"      {about}", unit="text", leave=False) as bar:
        start = 0
        while chunk := list(itertools.islice(values, CHUNK)):
            yield start, chunk
            start += len(chunk)
            bar.update(len(chunk))
