"""Exports a trained model as two folders for vLLM: the bare language model, and the encoder of its prompts.

OUT/backbone/       causal language model and tokenizer for transformers or vLLM, without code of this package
OUT/encoder/        table of token embeddings, adapter and processor: maps histories to prompt embeddings
OUT/serving.json    placeholder token, which a server must never generate, and window
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from .modeling_regen import RegenForCausalLM
from .processing_regen import RegenProcessor
from .prompt_encoder import RegenPromptEncoder, RegenPromptEncoderConfig
from .registration import register

SERVING = "serving.json"


def export_vllm(model_folder: str | Path, out: str | Path) -> None:
    """Write the trained model of `model_folder` as `backbone/` and `encoder/` into `out`; replaces an earlier export.

    Encoder and backbone together generate the tokens of the trained model; see `docs/serve_on_vllm.md`.

    Raises:
        FileExistsError: `out` exists and is no earlier export.
        OSError: `model_folder` is not a trained model.
        ValueError: a weight is missing.
    """
    out = Path(out)
    if out.exists() and not (out / SERVING).exists():
        raise FileExistsError(f"{out} exists and is no earlier export (it has no {SERVING}): choose another folder.")
    register()  # without registration, loading requires trust_remote_code
    model = RegenForCausalLM.from_pretrained(model_folder).eval()
    processor = RegenProcessor.from_pretrained(model_folder)
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        prompt_encoder(model).save_pretrained(new / "encoder")
        processor.save_pretrained(new / "encoder")
        model.to_backbone().save_pretrained(new / "backbone")
        processor.tokenizer.save_pretrained(new / "backbone")
        about = {
            "item_token": processor.item_token,
            "item_token_id": processor.item_token_id,
            "max_model_len": model.config.window,
        }
        (new / SERVING).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # after an error, such as a full disk


@torch.no_grad()
def prompt_encoder(model: RegenForCausalLM) -> RegenPromptEncoder:
    """The part of `model` that computes prompt embeddings, with copies of its weights."""
    table: Any = model.get_input_embeddings()
    tokens = torch.arange(table.num_embeddings, device=table.weight.device)
    # The output of the module, not its weight, which gemma3 scales.
    embeddings = torch.cat([table(part) for part in tokens.split(4096)])
    values = model.config.to_dict()
    for name in ("auto_map", "model_type", "architectures"):
        values.pop(name, None)
    config = RegenPromptEncoderConfig(**values, num_embeddings=embeddings.shape[0], embedding_dim=embeddings.shape[1])
    encoder = RegenPromptEncoder(config)
    encoder.embed_tokens.weight = torch.nn.Parameter(embeddings.clone())
    encoder.adapter = copy.deepcopy(model.model.adapter)
    return encoder.eval()


__all__ = ["export_vllm", "prompt_encoder"]
