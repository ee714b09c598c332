"""The runs, trainings and peers of benchmarks/next_item.py; each result is a file, so an interrupted benchmark resumes.

Shapes: U test users, I items of the catalogue, C width of c_i.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ablation import link_stages
from safetensors.numpy import save_file

from regen_hf import outputs
from regen_hf.model import RegenForCausalLM
from regen_hf.model.interactions import interaction_text
from regen_hf.run import Run
from regen_hf.stages.embeddings.cf import fit
from regen_hf.stages.next_item.fused import FusedModel
from regen_hf.stages.next_item.recommender import Cases
from regen_hf.stages.training.build import build
from regen_hf.stages.training.settings import TrainingConfig
from regen_hf.vectors.cf import user_item_matrix
from regen_hf.vectors.encoder import load_encoder
from regen_hf.vectors.store import VectorWriter

OFFICE, FILMS = "office_2014", "film_reviews"
SEQUENCES: dict[str, dict[str, Any]] = {
    OFFICE: {
        "reviews": "ratings_Office_Products_5.csv.gz",
        "items": "meta_Office_Products_5.jsonl.gz",
        "columns": {"user": "reviewerID", "item": "asin", "time": "unixReviewTime", "rating": "overall"},
        "item_columns": {"item": "asin", "title": "title", "category": "categories"},
    },
    FILMS: {
        "reviews": "reviews.jsonl.gz",
        "items": "items.jsonl.gz",
        "columns": {"user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating"},
        "item_columns": {"item": "item_id", "title": "title", "category": "category", "description": "description"},
    },
}
RECIPE: dict[str, Any] = {
    "tasks": (),
    "next_item_weight": 1.0,
    "recency": 0,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "max_steps": 900,
    "batch_size": 64,
    "num_layers": 2,
    "vocab_size": 300,
    "history_dropout": 0.0,
    "sft": {"weight_decay": 0.1},
}
"""The settings for a model that only ranks; docs/recommend.md names them."""


def dataset_run(folder: Path, data: Path, name: str, users: int) -> Run:
    """A run of the reviews of the first `users` users (0: all), up to the dataset."""
    settings = dict(SEQUENCES[name])
    reviews = data / name / settings["reviews"]
    if users:
        reviews = folder.with_name(f"{folder.name}-first-{users}.csv")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(data / name / settings["reviews"], "rt", newline="") as source, reviews.open("w") as target:
            head, *lines = csv.reader(source)
            kept = set(sorted({line[0] for line in lines})[:users])
            csv.writer(target).writerows([head, *(line for line in lines if line[0] in kept)])
    settings |= {"reviews": [str(reviews)], "items": [str(data / name / settings["items"])]}
    run = Run(folder, {"sequences": settings})
    with run.locked():
        run.save()
        run.build_all("dataset")
    return run


def embed(run: Run, folder: Path, encoder: str, vectors: Path, hidden: np.ndarray | None = None) -> Path:
    """A run `folder` with the dataset of `run`, and CF and content vectors; a finished one is kept.

    The content of a purchase is that of its item's metadata: the purchases have no review text, so `regen embeddings`
    would encode the same titles repeatedly. `vectors` is the file of the catalogue's content vectors, written once.

    The rows `hidden` of the catalogue are new items: the train and validation users have not bought them, so neither
    ALS nor the item head has seen one, and their CF vectors are zero.
    """
    out = outputs.folder(folder, "embeddings")
    if (out / outputs.MANIFEST).exists():
        return folder
    settings = run.config["embeddings"]
    out.mkdir(parents=True, exist_ok=True)  # before the links: the run may have vectors of its own
    link_stages(run.folder, folder)
    items = list(outputs.rows(outputs.catalogue_files(run.folder)))
    asins = [item["asin"] for item in items]
    if not vectors.exists():
        texts = [interaction_text(item, None) for item in items]
        np.save(vectors, load_encoder(encoder).encode(texts, normalize_embeddings=True).astype(np.float16))
    content, kept = np.load(vectors), np.ones(len(asins), dtype=bool)
    kept[[] if hidden is None else hidden] = False
    train = user_item_matrix(outputs.dataset_files(run.folder, "train"), asins, settings.cf_alpha)
    train = train.multiply(kept[None]).tocsr()
    train.eliminate_zeros()
    factors, gram = fit(train, settings)
    norms = np.linalg.norm(factors, axis=1)
    mean = norms[norms > 0].mean(keepdims=True).astype(np.float32)
    save_file({"item_factors": factors, "mean_norm": mean, "user_gram": gram}, out / outputs.CF)
    pq.write_table(pa.table({"asin": asins}), out / outputs.EMBEDDED_ITEMS)
    shutil.copy(vectors, out / outputs.CONTENT_ITEMS)
    index = {asin: number for number, asin in enumerate(asins)}
    for split in ("train", "validation", "test"):
        rows = outputs.rows(outputs.dataset_files(run.folder, split), ["purchase_history"])
        histories = [np.array([index[one["item"]["asin"]] for one in row["purchase_history"]]) for row in rows]
        if split != "test":
            histories = [history[kept[history]] for history in histories]
        with VectorWriter(out / split, map(len, histories), content.shape[1]) as writer:
            bought = np.concatenate(histories)
            writer.append(content[bought], bought)
    finish(out, dataclasses.asdict(settings) | {"content_encoder": encoder})
    return folder


def fused(world: Path, folder: Path, cases: Cases, seed: int, settings: dict[str, Any]) -> np.ndarray:
    """The scores (U, I) of a model of `RECIPE`, trained on the vectors of `world`."""
    file = folder / "scores.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        link_stages(world, folder)
        out, work = outputs.folder(folder, "train"), folder / outputs.WORK / "train"
        if not (out / outputs.MANIFEST).exists():
            work.mkdir(parents=True, exist_ok=True)
            config = TrainingConfig(**RECIPE | settings | {"seed": seed})
            build(folder, out, work, config)
            finish(out, dataclasses.asdict(config))
        save(file, FusedModel(folder, "test").scores(cases)(slice(None)).astype(np.float32))
    return np.load(file)


def sasrec(
    python: str, world: Path, model: Path, folder: Path, cases: Cases, seed: int, width: int, vectors: bool
) -> np.ndarray:
    """The scores (U, I) of SASRec of RecTools, trained on the histories of `world` in the environment of `python`.

    `model` is a trained model of the same world, whose c_i SASRec gets with `vectors`.
    """
    file = folder / "scores.npy"
    if not file.exists():
        inputs = world / "rectools"
        if not (inputs / "vectors.npy").exists():
            write_inputs(world, model, inputs, cases)
        command = [python, Path(__file__).with_name("sasrec.py"), inputs, folder, "--width", width, "--seed", seed]
        command += ["--vectors"] if vectors else []
        subprocess.run(list(map(str, command)), check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return np.load(file)


def write_inputs(world: Path, model: Path, inputs: Path, cases: Cases) -> None:
    """Write the histories and the catalogue's c_i (I, C) for benchmarks/sasrec.py."""
    inputs.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for split in ("train", "validation"):
        folder = outputs.folder(world, "embeddings") / split
        offsets, bought = np.load(folder / outputs.STORE_OFFSETS), np.load(folder / outputs.STORE_ITEMS)
        for start, stop in itertools.pairwise(offsets):
            items = bought[start:stop]
            if len(items) > 1 and (split == "train" or items[-1] not in items[:-1]):
                rows.append({"split": split, "items": items if split == "train" else items[:-1], "target": items[-1]})
    # `cases.histories` has each item once, at its first purchase; a model of sequences reads all purchases.
    folder = outputs.folder(world, "embeddings") / "test"
    offsets, bought = np.load(folder / outputs.STORE_OFFSETS), np.load(folder / outputs.STORE_ITEMS)
    for row, target in zip(cases.rows, cases.targets, strict=True):
        rows.append({"split": "test", "items": bought[offsets[row] : offsets[row + 1] - 1], "target": target})
    table = [row | {"items": row["items"].tolist(), "target": int(row["target"])} for row in rows]
    outputs.write_json(inputs / "histories.json", table)
    items = outputs.item_vectors(world)
    trained = RegenForCausalLM.from_pretrained(outputs.folder(model, "train"))
    trained.set_catalogue(torch.from_numpy(items.item_factors), torch.from_numpy(items.content.astype(np.float32)))
    save(inputs / "vectors.npy", trained.model.items_to_rank[0].numpy())


def finish(out: Path, config: dict[str, Any]) -> None:
    """Write the manifest of a stage that was built without its run."""
    about = {"fingerprint": "", "inputs": {"stages": {}, "files": {}}, "counts": {}, "seconds": 0.0}
    outputs.write_json(out / outputs.MANIFEST, about | {"config": config})


def save(file: Path, array: np.ndarray) -> None:
    """Write `array` so that the file is complete or absent."""
    with outputs.replacing(file) as new, new.open("wb") as target:
        np.save(target, array, allow_pickle=False)
