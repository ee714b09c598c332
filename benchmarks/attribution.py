"""Attribution of a model of the paper's size (27 K items), and two libraries for its map; prints one JSON line.

    python benchmarks/attribution.py --out benchmarks/results/attribution.json

- attribution: `regen attribution` without its narratives: soft tokens and parts of all items, norms, nearest words, the
  map. The language model has about the vocabulary and the width of SmolLM-135M and random weights, which do not change
  the cost. The items' vectors are drawn around centres.
- map: t-SNE of the same points by openTSNE (which the stage uses) and by scikit-learn, each at its defaults. `kept` is
  the share of the 10 nearest neighbours of a point that are among its 10 nearest on the map.

CPU seconds are the sum over all threads, which other work on the machine affects little; `seconds` are wall-clock, and
`load` is the number of processes that shared the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Set before a library reads it: with active waiting, idle threads would occupy the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import openTSNE
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import torch
from safetensors.numpy import save_file
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from regen_hf import outputs
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.schema import SEQUENCES
from regen_hf.stages.attribution import soft_tokens
from regen_hf.stages.attribution.settings import AttributionConfig

CF_DIM, CONTENT_DIM, ITEM = 128, 768, 3


def clusters(number: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Vectors (number, width) around 300 centres."""
    centres = random.normal(size=(300, width))
    vectors = centres[random.integers(0, 300, number)] + 0.7 * random.normal(size=(number, width))
    return (vectors / width**0.5).astype(np.float32)


def world(run: Path, items: int, words: int, width: int) -> tuple[Any, Any]:
    """Write the files of a run that the stage reads; returns a model and a tokenizer for it."""
    random = np.random.default_rng(0)
    asins = [f"B{number:09}" for number in range(items)]
    (run / "dataset").mkdir()
    (run / "embeddings").mkdir()
    pq.write_table(pa.table({"asin": asins, "title": asins}), run / "dataset" / outputs.shard_name("items"))
    pq.write_table(pa.table({"asin": asins}), outputs.path(run, "embeddings", outputs.EMBEDDED_ITEMS))
    bought = [asins[number] for number in random.zipf(1.3, 10 * items) if number < items]
    purchase = {"summary": None, "rating": 5, "text": None, "unix_time": None}
    item = {"title": None, "category": None, "description": None, "price": None}
    users = [
        {
            "reviewer_id": str(start),
            "purchase_history": [
                {"item": {"asin": asin, **item}, "review": purchase} for asin in bought[start : start + 20]
            ],
        }
        for start in range(0, len(bought), 20)
    ]
    pq.write_table(pa.Table.from_pylist(users, schema=SEQUENCES), run / "dataset" / outputs.shard_name("train"))
    factors = clusters(items, CF_DIM, random)
    save_file(
        {"item_factors": factors, "mean_norm": np.ones(1, np.float32), "user_gram": np.eye(CF_DIM, dtype=np.float32)},
        outputs.path(run, "embeddings", outputs.CF),
    )
    content = clusters(items, CONTENT_DIM, random).astype(np.float16)
    np.save(outputs.path(run, "embeddings", outputs.CONTENT_ITEMS), content)
    vocabulary = {"<unk>": 0, "</s>": 1, "<pad>": 2, "<|item|>": ITEM} | {f"w{n}": n for n in range(4, words)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=1
    )
    model = RegenForCausalLM.from_backbone(
        LlamaForCausalLM(config), RegenConfig(cf_dim=CF_DIM, content_dim=CONTENT_DIM, item_token_id=ITEM)
    )
    return model.eval(), SimpleNamespace(tokenizer=tokenizer)


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """The time of `work`, and its result."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = work()
    took = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock}
    return {name: round(value, 1) for name, value in took.items()} | {"load": round(os.getloadavg()[0], 1)}, result


def kept(vectors: np.ndarray, positions: np.ndarray) -> float:
    """The share of the 10 nearest neighbours of 1,000 points that the map preserves."""
    some = np.random.default_rng(0).choice(len(vectors), min(1000, len(vectors)), replace=False)
    near, drawn = (
        NearestNeighbors(n_neighbors=11).fit(space).kneighbors(space[some], return_distance=False)[:, 1:]
        for space in (vectors, positions)
    )
    return round(float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(near, drawn, strict=True)])), 3)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=27_000, help="items (%(default)s, as the paper's Office Products)")
    parser.add_argument("--words", type=int, default=32_000, help="word tokens (%(default)s)")
    parser.add_argument("--width", type=int, default=576, help="width of the language model (%(default)s)")
    parser.add_argument(
        "--points", type=int, default=AttributionConfig().points, help="points of each kind (%(default)s)"
    )
    parser.add_argument("--out", type=Path, help="also write the line into this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        model, processor = world(run, options.items, options.words, options.width)
        config = AttributionConfig(points=options.points)
        seconds, results = timed(lambda: soft_tokens.build(run, run, model, processor, config))
        parts = soft_tokens.soft_tokens(run, model)
        words, _ = soft_tokens.word_tokens(model, processor)
    random = np.random.default_rng(0)
    spaces = [parts["soft"], parts["cf"], parts["content"], words]
    chosen = [space[random.permutation(len(space))[: options.points or None]] for space in spaces]
    vectors = soft_tokens.principal(np.concatenate(chosen))
    maps = {}
    for name, draw in (
        ("openTSNE", lambda: soft_tokens.tsne(vectors, 0)),
        ("scikit-learn", lambda: TSNE(n_jobs=-1, random_state=0).fit_transform(vectors)),
    ):
        took, positions = timed(draw)
        maps[name] = took | {"kept": kept(vectors, np.asarray(positions))}
    line = json.dumps(
        {
            "attribution": seconds | {"largest_error_of_the_sum": results["largest_error_of_the_sum"]},
            "map": maps,
            "scikit_learn_over_openTSNE_cpu": round(
                maps["scikit-learn"]["cpu_seconds"] / maps["openTSNE"]["cpu_seconds"], 2
            ),
            "sizes": {
                "items": options.items,
                "words": options.words,
                "width": options.width,
                "points_of_each_kind": options.points,
                "points": len(vectors),
            },
            "cores": len(os.sched_getaffinity(0)),
            "runs": 1,
            "versions": {"openTSNE": openTSNE.__version__, "scikit-learn": sklearn.__version__},
        }
    )
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
