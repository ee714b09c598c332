"""Compute CF and content vectors."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.numpy import save_file

from ... import outputs
from ...errors import ConfigError, InputError
from ...model.interactions import interaction_text
from ...progress import Bar
from ...schema import SPLITS, purchase_columns
from ...vectors.cf import user_item_matrix
from ...vectors.encoder import load_encoder
from ...vectors.store import VectorWriter, allocate
from . import external
from .cf import fit
from .encoder import FastEncoder, train_encoder
from .settings import EmbeddingsConfig

GROUP = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"}
"""Variables of the environment that `accelerate launch` sets."""
CHUNK = 8192
"""Texts per call of the encoder: enough to sort by length, few enough to need little memory."""


def build(run: Path, out: Path, work: Path, config: EmbeddingsConfig) -> dict[str, Any]:
    """Write the CF vectors of all items and the content vectors of all items and purchases into `out`.

    Of several processes, the first fits CF and the encoder, and all encode texts into the files in its `out`.
    """
    state = PartialState()
    out = Path(broadcast_object_list([str(out)])[0])
    items = pq.read_table(outputs.catalogue_files(run), columns=["asin"])
    asins = items.column("asin").to_pylist()
    counts = {}
    if state.is_main_process:
        pq.write_table(items, out / outputs.EMBEDDED_ITEMS)
        counts = write_cf(run, out, asins, config)
    counts |= write_content(run, out, asins, config)
    state.wait_for_everyone()
    return counts


def write_cf(run: Path, out: Path, asins: list[str], config: EmbeddingsConfig) -> dict[str, Any]:
    """Write the CF vectors of the items `asins`: those of ALS on the train users, or of the file of the settings."""
    user_items = user_item_matrix(outputs.dataset_files(run, "train"), asins, config.cf_alpha)
    if user_items.nnz == 0:
        raise InputError(
            "The train split has no purchases to fit CF on." + (outputs.preview(run) or " Provide more reviews.")
        )
    counts: dict[str, int] = {}
    tensors: dict[str, Any] = {}
    if config.cf_vectors:
        item_factors, counts = external.read(config, asins)
        counts |= external.check_fit(item_factors, user_items.getnnz(axis=0))
    else:
        item_factors, tensors["user_gram"] = fit(user_items, config)
    norms = np.linalg.norm(item_factors, axis=1)
    warm = norms > 0
    mean_norm = norms[warm].mean(keepdims=True).astype(np.float32)
    save_file(tensors | {"item_factors": item_factors, "mean_norm": mean_norm}, out / outputs.CF)
    cold = int((~warm).sum())
    return {"items": len(item_factors), "cold_items": cold, "train_interactions": int(user_items.nnz), **counts}


def write_content(run: Path, out: Path, asins: list[str], config: EmbeddingsConfig) -> dict[str, Any]:
    """Load or train the encoder, and write the vectors of the items `asins` and of all purchases."""
    state = PartialState()
    if config.content_encoder is None and state.is_main_process:
        files, folder = outputs.dataset_files(run, "train"), out / outputs.CONTENT_ENCODER
        if state.num_processes == 1:
            save_encoder(files, folder, config)
        else:
            alone(save_encoder, files, folder, config)
    state.wait_for_everyone()
    encoder = load_encoder(config.content_encoder or str(out / outputs.CONTENT_ENCODER))
    dim = encoder.get_embedding_dimension()
    if dim is None:
        raise ConfigError(f"The encoder {config.content_encoder!r} states no width of its vectors. Name another one.")

    fast = FastEncoder(encoder, config.batch_size)
    if state.is_main_process:
        allocate(out / outputs.CONTENT_ITEMS, np.float16, (len(asins), dim))
    state.wait_for_everyone()
    vectors = np.load(out / outputs.CONTENT_ITEMS, mmap_mode="r+", allow_pickle=False)
    for start, chunk, own in _chunks(outputs.rows(outputs.catalogue_files(run)), "encoding items", len(asins)):
        if own:
            vectors[start : start + len(chunk)] = fast.encode([interaction_text(item, None) for item in chunk])
    vectors.flush()

    index = {asin: number for number, asin in enumerate(asins)}
    interactions = 0
    for split in SPLITS:
        files = outputs.dataset_files(run, split)
        lengths = [len(row["purchase_history"]) for row in outputs.rows(files, purchase_columns("item.asin"))]
        rows = outputs.rows(files, ["purchase_history"])
        purchases = (purchase for row in rows for purchase in row["purchase_history"])
        with state.main_process_first():
            writer = VectorWriter(out / split, lengths, dim, create=state.is_main_process)
        with writer:
            for _, chunk, own in _chunks(purchases, f"encoding {split}", sum(lengths)):
                if not own:
                    writer.skip(len(chunk))
                    continue
                texts = [interaction_text(purchase["item"], purchase["review"]) for purchase in chunk]
                items = np.array([index[purchase["item"]["asin"]] for purchase in chunk], dtype=np.int32)
                writer.append(fast.encode(texts), items)
        interactions += sum(lengths)
    return {"interactions": interactions, "content_dim": dim}


def save_encoder(train: list[Path], folder: Path, config: EmbeddingsConfig) -> None:
    """Train an encoder on the files `train` and write it to `folder`."""
    train_encoder(train, config).save_pretrained(str(folder), create_model_card=False)


def alone(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` in a new process that is not one of the group: a trainer in the group waits for the others."""
    group = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in GROUP or name.startswith(("ACCELERATE_", "TORCHELASTIC_"))
    }
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(function, *arguments).result()
    finally:
        os.environ.update(group)


def _chunks(values: Iterator[Any], about: str, total: int) -> Iterator[tuple[int, list[Any], bool]]:
    """Lists of up to `CHUNK` values, with a progress bar.

    Yields:
        The index of the first value, the values, and whether they are those of this process.
    """
    state = PartialState()
    with Bar(about=about, total=total, unit="texts", disable=not state.is_main_process) as bar:
        start = number = 0
        while chunk := list(itertools.islice(values, CHUNK)):
            yield start, chunk, number % state.num_processes == state.process_index
            start, number = start + len(chunk), number + 1
            bar.update(len(chunk))
