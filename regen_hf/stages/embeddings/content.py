"""Content: item metadata and the user's own review through a sentence-transformers model (section 4.2)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import ConfigError, InputError, missing_extra
from ...model.interactions import interaction_text
from ...outputs import count, item_files, rows, split_files
from ...schema import SPLITS
from ...vectors.store import VectorWriter

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from .settings import EmbeddingsConfig
from ...vectors.encoder import load_encoder

CHUNK = 8192
"""Texts held at once: enough to sort by length within, little in memory."""


def build(dataset: Path, out: Path, config: EmbeddingsConfig) -> dict[str, Any]:
    """Choose or train the encoder, and encode the catalogue and every purchase into `out`."""
    if config.content_encoder is None:
        encoder = train_encoder(split_files(dataset, "train"), config)
        encoder.save_pretrained(str(out / "content_encoder"), create_model_card=False)
    else:
        encoder = load_encoder(config.content_encoder)
    dim = encoder.get_embedding_dimension()
    if dim is None:
        raise ConfigError(
            f"The encoder {config.content_encoder!r} does not tell the width of its vectors. Name another."
        )

    fast = FastEncoder(encoder, config.batch_size)
    catalogue = item_files(dataset)
    vectors = open_memmap(out / "content_items.npy", mode="w+", dtype=np.float16, shape=(count(catalogue), dim))
    for start, chunk in _chunks(rows(catalogue), "encoding items", count(catalogue)):
        texts = [interaction_text(item, None) for item in chunk]
        vectors[start : start + len(chunk)] = fast.encode(texts)
    vectors.flush()

    asins = pq.read_table(out / "items.parquet").column("asin").to_pylist()
    index = {asin: number for number, asin in enumerate(asins)}
    interactions = 0
    for split in SPLITS:
        files = split_files(dataset, split)
        lengths = [len(row["purchase_history"]) for row in rows(files, ["purchase_history"])]
        purchases = (purchase for row in rows(files, ["purchase_history"]) for purchase in row["purchase_history"])
        with VectorWriter(out / split, lengths, dim) as writer:
            for _, chunk in _chunks(purchases, f"encoding {split}", sum(lengths)):
                texts = [interaction_text(purchase["item"], purchase["review"]) for purchase in chunk]
                items = np.array([index[purchase["item"]["asin"]] for purchase in chunk], dtype=np.int32)
                writer.append(fast.encode(texts), items)
        interactions += sum(lengths)
    return {"interactions": interactions, "content_dim": dim}


def train_encoder(train: list[Path], config: EmbeddingsConfig) -> SentenceTransformer:
    """A small static encoder: one vector per token, trained so that a review finds its item and its writer's next one.

    It needs no download and is fitted on the train users' texts alone. Contrastive training (InfoNCE over the batch)
    weighs down the words that every text has. From the items alone it would weigh down as well what a customer says of
    every purchase, and the narratives speak of that.
    """
    try:
        import torch
        from datasets import Dataset
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise missing_extra(error.name or "sentence-transformers", "train") from None
    import tempfile

    from ...progress import show_bar

    def pairs() -> Iterator[dict[str, str]]:
        for row in rows(train, ["purchase_history"]):
            before = ""
            for purchase in row["purchase_history"]:
                review = interaction_text({}, purchase["review"])
                if review:
                    yield {"review": review, "match": interaction_text(purchase["item"], None)}
                if review and before:
                    yield {"review": before, "match": review}
                before = review or before

    table = list(itertools.islice(pairs(), 500_000))  # more teaches this small model nothing new
    if not table:
        raise InputError("No review in the train split holds any text. Name an encoder with --content-encoder.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        (text for pair in table for text in pair.values()),
        trainers.BpeTrainer(
            vocab_size=8000,
            special_tokens=["[PAD]"],
            # With an alphabet given, the same texts give the same ids; one that is learnt comes in any order.
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    torch.manual_seed(config.seed)
    encoder = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=config.content_dim)], device="cpu", trust_remote_code=False
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=SentenceTransformerTrainingArguments(
                output_dir=scratch,
                max_steps=config.content_steps,
                per_device_train_batch_size=min(256, len(table)),
                learning_rate=0.02,
                warmup_steps=config.content_steps // 10,
                seed=config.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list(table),
            loss=MultipleNegativesRankingLoss(encoder),
        )
        show_bar(trainer, "      training the encoder")
        trainer.train()
    return encoder


class FastEncoder:
    """A sentence-transformers model that encodes many texts on a CPU in less time than by its defaults.

    Identical texts are encoded once, batches are small enough for the caches and hold texts of like length, and a
    transformer computes in bf16 where the CPU does so natively: the mean cosine to fp32 is above 0.9999.

    Args:
        encoder: is not changed.
        batch_size: texts at once; None for 16 of a transformer on a CPU, else 256.
    """

    def __init__(self, encoder: SentenceTransformer, batch_size: int | None = None) -> None:
        import torch
        from sentence_transformers.sentence_transformer.modules import Transformer

        on_cpu = isinstance(encoder[0], Transformer) and encoder.device.type == "cpu"
        native = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        if on_cpu and any(native.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
            encoder = copy.deepcopy(encoder).bfloat16()
        self.encoder = encoder
        self.batch_size = batch_size or (16 if on_cpu else 256)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of `texts`, (n, D), of norm 1."""
        import torch

        places: dict[str, int] = {}
        rows = [places.setdefault(text, len(places)) for text in texts]
        vectors: NDArray[np.float32] = self.encoder.encode(
            list(places), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )  # sorts them by length
        if places and self.encoder.dtype != torch.float32:  # in bf16 the norms are off by up to 0.3 %
            vectors = vectors.astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors[rows]


def _chunks(values: Iterator[Any], about: str, total: int) -> Iterator[tuple[int, list[Any]]]:
    """Runs of `CHUNK` values with the position of the first, behind a progress bar."""
    with tqdm(total=total, desc=f"      {about}", unit="text", leave=False) as bar:
        start = 0
        while chunk := list(itertools.islice(values, CHUNK)):
            yield start, chunk
            start += len(chunk)
            bar.update(len(chunk))
