"""Train SASRec of RecTools and score the catalogue; it runs in an environment of its own, for benchmarks/next_item.py.

    python -m venv rectools && rectools/bin/pip install "rectools[torch]"
    rectools/bin/python benchmarks/sasrec.py INPUTS OUTPUT --width 64 --seed 0 --vectors

RecTools requires older versions of libraries than this project pins. INPUTS is a folder with

    histories.json    a list with split (train, validation or test), items (rows of the catalogue, oldest first) and
                      target of each user; a train user's target is the last of the items
    vectors.npy       c_i of the catalogue, (I, C) float32

OUTPUT receives scores.npy, (U, I) float32, for the test users, -inf for items that no train user bought, and
results.json. The settings are those of RecTools, with dropout .5 and softmax over the catalogue. After each epoch the
MRR of the validation users is measured, and the epoch with the best one is kept. The loss is computed at the purchases
only, which is the loss of RecTools without the time for its padding. With --vectors the embedding of an item is the sum
of that of its id and a linear map of its c_i.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet, ItemNetBase
from rectools.models.nn.transformers.lightning import TransformerLightningModule

LENGTH = 50
"""Purchases of a history that the model reads, the latest ones."""


class VectorsItemNet(ItemNetBase):
    """A linear map of the items' vectors, with the dropout that RecTools applies to features."""

    def __init__(self, vectors: np.ndarray, width: int, dropout: float) -> None:
        super().__init__()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.register_buffer("vectors", torch.from_numpy((vectors / np.maximum(lengths, 1e-12)).astype(np.float32)))
        self.linear = torch.nn.Linear(vectors.shape[1], width, bias=False)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """The embeddings of `items`."""
        return self.dropout(self.linear(self.vectors[items]))

    @classmethod
    def from_dataset(cls, dataset: Dataset, n_factors: int, dropout_rate: float, **options: Any) -> VectorsItemNet:
        """The map of the item features of `dataset`."""
        return cls(dataset.item_features.values, n_factors, dropout_rate)

    @property
    def out_dim(self) -> int:
        """Width of the embeddings."""
        return self.linear.out_features


class LossAtPurchases(TransformerLightningModule):
    """RecTools' softmax loss, without the scores of the padding."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The mean cross entropy of the purchases."""
        shown = int((batch["x"] != 0).sum(1).max())  # positions count from the end, so columns of padding can go
        sessions, targets = batch["x"][:, -shown:], batch["y"][:, -shown:]
        items = self.torch_model.item_model.get_all_embeddings()
        states = self.torch_model.encode_sessions({"x": sessions}, items)
        logits = self.torch_model.similarity_module(states[targets != 0], items) / self.logits_t
        return torch.nn.functional.cross_entropy(logits, targets[targets != 0])


def scores(net: Any, rows: np.ndarray, histories: list[np.ndarray], items: int) -> np.ndarray:
    """The scores of the catalogue for `histories`, (U, items); `rows` are the rows of the model's items."""
    padded = np.zeros((len(histories), LENGTH), dtype=np.int64)
    number = np.zeros(items, dtype=np.int64)  # 0 is padding: an unknown item is not shown
    number[rows] = np.arange(1, len(rows) + 1)
    for user, history in enumerate(histories):
        known = number[history]
        known = known[known > 0][-LENGTH:]
        padded[user, LENGTH - len(known) :] = known
    found = np.full((len(histories), items), -np.inf, dtype=np.float32)
    training = net.training
    net.eval()
    with torch.no_grad():
        embeddings = net.item_model.get_all_embeddings()
        for start in range(0, len(padded), 256):
            batch = {"x": torch.from_numpy(padded[start : start + 256])}
            states = net.encode_sessions(batch, embeddings)[:, -1]
            found[start : start + 256, rows] = net.similarity_module(states, embeddings)[:, 1:].numpy()
    net.train(training)
    return found


def reciprocal_rank(found: np.ndarray, histories: list[np.ndarray], targets: np.ndarray) -> float:
    """The MRR of `targets` among the items outside of each history."""
    total = 0.0
    for row, history, target in zip(found, histories, targets, strict=True):
        before = row > row[target]
        before[history] = False
        total += 1 / (1 + before.sum())
    return total / len(targets)


class BestEpoch(Callback):
    """Stops when the MRR of the validation users has not risen for `patience` epochs, and keeps the best weights."""

    def __init__(self, rows: np.ndarray, users: tuple[list[np.ndarray], np.ndarray], items: int, patience: int) -> None:
        self.rows, self.users, self.items, self.patience = rows, users, items, patience
        self.curve: list[float] = []
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Measure the MRR."""
        histories, targets = self.users
        found = scores(module.torch_model, self.rows, histories, self.items)
        self.curve.append(reciprocal_rank(found, histories, targets))
        print(f"epoch {len(self.curve)}: MRR of the validation users {self.curve[-1]:.4f}", file=sys.stderr, flush=True)
        best = int(np.argmax(self.curve))
        if best == len(self.curve) - 1:
            self.weights = {name: value.clone() for name, value in module.torch_model.state_dict().items()}
        trainer.should_stop = len(self.curve) - 1 - best >= self.patience


def users_of(histories: pd.DataFrame, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The histories before the target, and the targets, of a split."""
    rows = histories[histories["split"] == split]
    return [np.asarray(items) for items in rows["items"]], rows["target"].to_numpy()


def main() -> None:
    """Train, and write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vectors", action="store_true", help="add a linear map of vectors.npy to the embeddings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="at most so many (%(default)s)")
    parser.add_argument("--patience", type=int, default=8, help="epochs without a higher MRR (%(default)s)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(options.seed, verbose=False)
    started = time.process_time()
    vectors = np.load(options.inputs / "vectors.npy")
    table = pd.DataFrame(json.loads((options.inputs / "histories.json").read_text(encoding="utf-8")))
    train = table[table["split"] == "train"].reset_index(drop=True)
    lengths = train["items"].map(len)
    purchases = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(train)), lengths),
            "item_id": np.concatenate(train["items"].to_list()),
            "weight": 1.0,
            "datetime": pd.Timestamp(0) + pd.to_timedelta(np.concatenate([np.arange(n) for n in lengths]), unit="D"),
        }
    )
    features = pd.DataFrame(vectors).rename(columns=str).assign(id=np.arange(len(vectors))) if options.vectors else None
    if features is not None:
        features = features[features["id"].isin(purchases["item_id"])]
    dataset = Dataset.construct(purchases, item_features_df=features, make_dense_item_features=options.vectors)
    model = SASRecModel(
        n_factors=options.width,
        dropout_rate=0.5,
        session_max_len=LENGTH,
        item_net_block_types=(IdEmbeddingsItemNet, *((VectorsItemNet,) if options.vectors else ())),
        lightning_module_type=LossAtPurchases,
    )
    model.data_preparator.process_dataset_train(dataset)
    rows = model.data_preparator.get_known_item_ids().astype(int)
    best = BestEpoch(rows, users_of(table, "validation"), len(vectors), options.patience)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    model._trainer = Trainer(max_epochs=options.epochs, callbacks=[best], logger=False, accelerator="cpu", **quiet)
    model.fit(dataset)
    best = next(one for one in model.fit_trainer.callbacks if isinstance(one, BestEpoch))  # the trainer was copied
    net = model.lightning_model.torch_model
    net.load_state_dict(best.weights)
    options.output.mkdir(parents=True, exist_ok=True)
    unfinished = options.output / "unfinished.npy"  # a kill must not leave a part of scores.npy
    np.save(unfinished, scores(net, rows, users_of(table, "test")[0], len(vectors)))
    unfinished.rename(options.output / "scores.npy")
    results = {
        "validation_mrr": best.curve,
        "epoch": int(np.argmax(best.curve)) + 1,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "cpu_seconds": round(time.process_time() - started, 1),
        "versions": {name: importlib.metadata.version(name) for name in ("rectools", "torch", "pytorch-lightning")},
    }
    (options.output / "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
