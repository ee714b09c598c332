"""What the wrapper asks of a language model: whether it can be wrapped, its token embeddings, its logits' scale."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel


def check_backbone(causal_lm: PreTrainedModel, item_token_id: int) -> None:
    """Refuse what cannot be wrapped.

    Raises:
        ValueError: says why.
    """
    name = type(causal_lm).__name__
    if not isinstance(causal_lm, PreTrainedModel):
        raise ValueError(f"The language model is a {name}, expected a causal language model of transformers.")
    if type(causal_lm).__module__.startswith("transformers_modules."):
        raise ValueError(
            f"{name} brings its own code, without which the fused model could not be loaded again: choose a language "
            "model that transformers knows."
        )
    if causal_lm.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder model, expected a decoder-only causal language model.")
    if causal_lm.config.get_text_config() is not causal_lm.config or causal_lm.base_model is causal_lm:
        raise ValueError(f"{name} is not a plain causal language model: pass one, with a base model and a head.")
    if "past_key_values" not in inspect.signature(causal_lm.base_model.forward).parameters:
        raise ValueError(
            f"{name} keeps no keys and values (past_key_values), expected a decoder-only transformer that does: a "
            "state space model does not, nor the decoder of an encoder-decoder model by itself."
        )
    embeddings = token_embeddings(causal_lm)
    if causal_lm.get_output_embeddings() is None:
        raise ValueError(f"{name} has no head over tokens, expected a causal language model.")
    if not 0 <= item_token_id < embeddings.num_embeddings:
        raise ValueError(
            f"item_token_id is {item_token_id}, but {name} has {embeddings.num_embeddings} token embeddings: call "
            "resize_token_embeddings(len(tokenizer)) after adding the placeholder to the tokenizer."
        )


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
        raise ValueError(f"{name} has no table of token embeddings, so soft tokens can replace none: choose another.")
    return embeddings


def logit_scale_and_cap(text_config: Any) -> tuple[float, float | None]:
    """What the head's output is multiplied by (cohere, falcon-h1, granite), and its soft cap (gemma2)."""
    scale = getattr(text_config, "logit_scale", None)
    if scale is None:
        scale = getattr(text_config, "lm_head_multiplier", None)
    if scale is None:
        scale = 1 / getattr(text_config, "logits_scaling", 1.0)
    return scale, getattr(text_config, "final_logit_softcapping", None)
