"""Checks whether a language model can be wrapped, and its parts: token embeddings, scale and cap of the logits."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel


def check_backbone(causal_lm: PreTrainedModel, item_token_id: int | None) -> None:
    """Check that `causal_lm` can be wrapped.

    Raises:
        ValueError: it cannot, with the reason.
    """
    name = type(causal_lm).__name__
    if not isinstance(causal_lm, PreTrainedModel):
        raise ValueError(f"The language model is a {name}, expected a causal language model of transformers.")
    if type(causal_lm).__module__.startswith("transformers_modules."):
        raise ValueError(
            f"{name} is defined by code of its own repository, expected a class of transformers: the fused model could "
            "not be loaded again. Choose another language model."
        )
    if causal_lm.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder model, expected a decoder-only causal language model.")
    if causal_lm.config.get_text_config() is not causal_lm.config or causal_lm.base_model is causal_lm:
        raise ValueError(f"{name} is not a plain causal language model, expected one with a base model and a head.")
    if "past_key_values" not in inspect.signature(causal_lm.base_model.forward).parameters:
        raise ValueError(
            f"{name} has no cache of keys and values (past_key_values), expected a decoder-only transformer: a state "
            "space model cannot be wrapped, nor the decoder of an encoder-decoder model."
        )
    if not _created_from_config(causal_lm):
        raise ValueError(
            f"AutoModelForCausalLM does not create a {name} from a {type(causal_lm.config).__name__}, expected it to: "
            "the fused model could not be loaded again. Choose another language model."
        )
    embeddings = token_embeddings(causal_lm)
    if causal_lm.get_output_embeddings() is None:
        raise ValueError(f"{name} has no head over tokens, expected a causal language model.")
    if item_token_id is None or not 0 <= item_token_id < embeddings.num_embeddings:
        raise ValueError(
            f"item_token_id is {item_token_id}, but {name} has {embeddings.num_embeddings} token embeddings: call "
            "resize_token_embeddings(len(tokenizer)) after adding the placeholder to the tokenizer."
        )


def native_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16: it takes half the memory, and is slow where it is emulated."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _created_from_config(causal_lm: PreTrainedModel) -> bool:
    """Whether AutoModelForCausalLM creates the class of `causal_lm` from its configuration."""
    try:
        with torch.device("meta"):
            created = AutoModelForCausalLM.from_config(copy.deepcopy(causal_lm.config))
    except ValueError:  # the class of the configuration is not registered
        return False
    return type(created) is type(causal_lm)


@torch.no_grad()
def check_plain_text(model: PreTrainedModel, causal_lm: PreTrainedModel) -> None:
    """Check that the fused model's logits on plain text equal those of the language model in it, and are causal.

    Args:
        model: the fused model.
        causal_lm: its language model.

    Raises:
        ValueError: the logits differ, because `causal_lm.forward` does more than base model, head, scale and cap; or
            they depend on later tokens.
    """
    vocabulary = range(min(10, token_embeddings(causal_lm).num_embeddings))
    tokens = [token for token in vocabulary if token != model.config.item_token_id]
    input_ids = torch.tensor([tokens], device=causal_lm.device)  # (1, T)
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "use_cache": False}
    with _tried(model, causal_lm, "cannot be run on plain text"):
        bare = causal_lm(**inputs).logits.float()  # (1, T, V)
    with _tried(model, causal_lm, "cannot be run on embeddings instead of token ids"):
        fused = model(**inputs).logits.float()
        prefix = model(input_ids=input_ids[:, :2], use_cache=False).logits.float()
    if not torch.allclose(bare, fused, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"On plain text the fused model's logits differ from those of {type(causal_lm).__name__} by up to "
            f"{(bare - fused).abs().max():.2g}, expected equal logits: its forward does more than base model, head, "
            "scale and cap. Choose another language model."
        )
    later = (prefix - fused[:, :2]).norm() / prefix.norm()
    # In bfloat16, rounding changes the logits of a shorter prompt by up to 0.01 of their norm.
    if later > (1e-3 if causal_lm.dtype == torch.float32 else 0.1):
        raise ValueError(
            f"The logits of {type(causal_lm).__name__} depend on later tokens, by {later:.2g} of their norm, expected "
            "a causal language model: set is_decoder in its config, or choose another language model."
        )


@torch.no_grad()
def check_history(model: Any, causal_lm: PreTrainedModel) -> None:
    """Check that the language model can generate after a soft token; see `check_plain_text`."""
    other = next(token for token in range(2) if token != model.config.item_token_id)
    ids = torch.tensor([[model.config.item_token_id, other]], device=causal_lm.device)  # (1, 2)
    history = {
        "history_mask": ids[:, :1] >= 0,  # (1, 1)
        "history_cf": torch.zeros(1, 1, model.config.cf_dim, device=ids.device),
        "history_content": torch.zeros(1, 1, model.config.content_dim, device=ids.device),
    }
    if features := len(model.config.interaction_features):
        history["history_features"] = torch.zeros(1, 1, features, device=ids.device)
    plain = GenerationConfig(max_new_tokens=2, do_sample=False, pad_token_id=other, eos_token_id=None)
    with _tried(model, causal_lm, "cannot generate after a soft token"):
        model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plain, **history)


@contextlib.contextmanager
def _tried(model: PreTrainedModel, causal_lm: PreTrainedModel, fails: str) -> Iterator[None]:
    """Run the block in evaluation mode; an error of the backbone becomes a ValueError that states what `fails`."""
    was_training = causal_lm.training
    causal_lm.eval()
    model.eval()
    try:
        yield
    except Exception as error:
        reason = str(error).rstrip(".")
        message = f"{type(causal_lm).__name__} {fails}: {reason}. Choose another language model."
        raise ValueError(message) from error
    finally:
        causal_lm.train(was_training)


def token_embeddings(language_model: PreTrainedModel) -> nn.Embedding:
    """The table of token embeddings, (V, D).

    Raises:
        ValueError: there is none.
    """
    try:
        embeddings = language_model.get_input_embeddings()
    except NotImplementedError:
        embeddings = None
    if not isinstance(embeddings, nn.Embedding):
        name = type(language_model).__name__
        raise ValueError(f"{name} has no table of token embeddings for soft tokens: choose another language model.")
    return embeddings


def logit_scale_and_cap(text_config: Any) -> tuple[float, float | None]:
    """The factor of the head's output (cohere, falcon-h1, granite) and its soft cap (gemma2)."""
    scale = getattr(text_config, "logit_scale", None)
    if scale is None:
        scale = getattr(text_config, "lm_head_multiplier", None)
    if scale is None:
        scale = 1 / getattr(text_config, "logits_scaling", 1.0)
    return scale, getattr(text_config, "final_logit_softcapping", None)
