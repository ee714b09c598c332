"""The encoder of content vectors: faster encoding on a CPU, and the training of a small one where none is named."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ...errors import InputError
from ...model.interactions import interaction_text
from ...outputs import rows
from ...progress.training import show_bar
from .settings import EmbeddingsConfig

MAX_PAIRS = 500_000
"""Pairs of texts to train on; an encoder this small does not improve with more."""


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No card is written. The callback would choose examples for one, with a bar of its own."""


def train_encoder(train: list[Path], config: EmbeddingsConfig) -> SentenceTransformer:
    """A small static encoder (one vector per token), trained offline on the users of the files `train`.

    It learns to match a review with its item and with the next review of the same user. Contrastive training (InfoNCE
    over the batch) gives less weight to words that all texts share. Without the pairs of reviews it would also give
    less weight to what a customer repeats in each review, and the narratives refer to that.

    Raises:
        InputError: no review has a text.
    """
    pairs = list(itertools.islice(review_pairs(train), MAX_PAIRS))
    if not pairs:
        raise InputError("No review of the train split has a text. Name an encoder with --content-encoder.")
    tokenizer = train_tokenizer(text for pair in pairs for text in pair.values())
    torch.manual_seed(config.seed)
    encoder = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=config.content_dim)], device="cpu", trust_remote_code=False
    )
    with tempfile.TemporaryDirectory() as checkpoints:
        trainer = _Trainer(
            model=encoder,
            args=SentenceTransformerTrainingArguments(
                output_dir=checkpoints,
                max_steps=config.content_steps,
                per_device_train_batch_size=min(256, len(pairs)),
                learning_rate=0.02,
                warmup_steps=config.content_steps // 10,
                seed=config.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list(pairs),
            loss=MultipleNegativesRankingLoss(encoder),
        )
        show_bar(trainer, "training the encoder")
        trainer.train()
    return encoder


def review_pairs(train: list[Path]) -> Iterator[dict[str, str]]:
    """Each review with its item, and with the previous review of the same user."""
    for row in rows(train, ["purchase_history"]):
        before = ""
        for purchase in row["purchase_history"]:
            review = interaction_text({}, purchase["review"])
            if review:
                yield {"review": review, "match": interaction_text(purchase["item"], None)}
            if review and before:
                yield {"review": before, "match": review}
            before = review or before


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A lower-casing byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["[PAD]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # a learned alphabet has no fixed order of ids
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class FastEncoder:
    """A sentence-transformers model that encodes on a CPU 2.9 times as fast as with its defaults.

    Identical texts are encoded once, batches are small enough for the CPU caches, and a transformer computes in bf16
    where the CPU supports it: the mean cosine to fp32 is above 0.9999. The figure is `encode_over_ours` in
    benchmarks/results/model.json; with a transformer, encoding is nearly all of the stage's time.

    Args:
        encoder: is not changed.
        batch_size: texts per batch; None for 16 with a transformer on a CPU, otherwise 256.
    """

    def __init__(self, encoder: SentenceTransformer, batch_size: int | None = None) -> None:
        on_cpu = isinstance(encoder[0], Transformer) and encoder.device.type == "cpu"
        supported = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        if on_cpu and any(supported.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
            encoder = copy.deepcopy(encoder).bfloat16()
        self.encoder = encoder
        self.batch_size = batch_size or (16 if on_cpu else 256)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """The vectors of `texts`, shape (n, D), of norm 1."""
        distinct: dict[str, int] = {}
        indices = [distinct.setdefault(text, len(distinct)) for text in texts]
        vectors: NDArray[np.float32] = self.encoder.encode(
            list(distinct), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        if distinct and self.encoder.dtype != torch.float32:  # in bf16 the norms are off by up to 0.3 %
            vectors = vectors.astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors[indices]
