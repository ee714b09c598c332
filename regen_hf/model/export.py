"""A trained model as two folders for vLLM: the bare language model, and the encoder of its prompts.

OUT/backbone/   a plain causal language model with its tokenizer, loads with transformers or vLLM and no code of ours
OUT/encoder/    table of token embeddings, adapter and processor: history in, prompt embeddings out
OUT/serving.json    the placeholder token, which a server must never write, and the window
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
    """Write the trained model of `model_folder` as `backbone/` and `encoder/` into `out`, over an earlier export.

    Both folders give, together, the tokens of the trained model. `docs/serve_on_vllm.md` tells how to serve them.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: `model_folder` is not a trained model.
        ValueError: it lacks weights.
    """
    out = Path(out)
    if out.exists() and not (out / SERVING).exists():
        raise FileExistsError(f"{out} holds something that is no earlier export: name a new folder.")
    register()  # else the loading of the processor asks whether to trust the code in the model's folder
    model = RegenForCausalLM.from_pretrained(model_folder).eval()
    processor = RegenProcessor.from_pretrained(model_folder)
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)

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


@torch.no_grad()
def prompt_encoder(model: RegenForCausalLM) -> RegenPromptEncoder:
    """The part of `model` that makes prompt embeddings, its weights copied."""
    table: Any = model.get_input_embeddings()
    tokens = torch.arange(table.num_embeddings, device=table.weight.device)
    # What the module returns, not its weight: gemma3 scales inside of it.
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
