"""The language model behind the soft tokens: a pretrained one, or a small one trained from random weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ...errors import ConfigError
from ...model.critiques import quoted
from ...model.interactions import interaction_text
from ...model.loading import HUB
from ...outputs import rows
from ...schema import CRITIQUE, offered_tasks, text_columns
from .library_fields import checked_sft
from .settings import TrainingConfig, phases

ITEM_TOKEN = "<|item|>"  # noqa: S105 (a token of the vocabulary)
TOKENIZER_USERS = 20_000
"""Train users, the first ones, on whose texts the tokenizer is trained; more of them change few tokens."""


def load_backbone(train: list[Path], config: TrainingConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer, with the placeholder `ITEM_TOKEN`, and the language model; trains a small tokenizer on `train`."""
    tokenizer: PreTrainedTokenizerBase
    if config.backbone is None:
        tokenizer = train_tokenizer(train, config)
        causal_lm = small_backbone(len(tokenizer), config)
    else:
        tokenizer, causal_lm = pretrained_backbone(config)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Not `add_special_tokens`, which would remove the tokenizer's own additional tokens.
        tokenizer.add_tokens([ITEM_TOKEN], special_tokens=True)
        if len(tokenizer) > cast(torch.nn.Embedding, causal_lm.get_input_embeddings()).num_embeddings:
            causal_lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    causal_lm.config.pad_token_id = tokenizer.pad_token_id
    window = getattr(causal_lm.config, "max_position_embeddings", None)
    tokenizer.model_max_length = min(tokenizer.model_max_length, window or tokenizer.model_max_length)
    return tokenizer, causal_lm


def pretrained_backbone(config: TrainingConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the language model that `config.backbone` names.

    Raises:
        ConfigError: the files lack a weight, or the model cannot be the backbone.
    """
    name = str(config.backbone)
    sft = checked_sft(config.sft)
    arguments = dict(sft.get("model_init_kwargs") or {})
    # A tokenizer may need code of its own. A model may not: it could not be wrapped.
    trusted = bool(arguments.pop("trust_remote_code", False) or sft.get("trust_remote_code"))
    source = {key: arguments[key] for key in (*HUB, "subfolder") if key in arguments}
    fully_trained = any(phase.freeze is None and phase.lora is None for phase in phases(config))
    if fully_trained and not {"dtype", "torch_dtype", "quantization_config"} & arguments.keys():
        arguments["dtype"] = torch.float32  # bf16 would round steps of 2e-5 to zero
    try:
        architecture = AutoConfig.from_pretrained(name, trust_remote_code=False, **source)
        if architecture.is_encoder_decoder:
            # transformers would load the decoder of some of them, with a random head.
            raise ValueError(f"{architecture.model_type} is an encoder-decoder model, expected a decoder-only one.")
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted, **source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **arguments)
        causal_lm, info = loaded
        if missing := sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}):
            raise ValueError(
                f"its files lack {len(missing)} of the model's weights, or contain them in another shape than in its "
                f"config.json: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}. They would be random."
            )
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The backbone {name!r} could not be loaded: {error} Give the name or the path of a causal language model "
            "without code of its own, or none to train a small one offline."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"The tokenizer of the backbone {name!r} has no token for the end of a text (eos_token), so the model "
            "could not learn where a narrative ends. Set one in its tokenizer_config.json."
        )
    if fully_trained and causal_lm.dtype in (torch.bfloat16, torch.float16):
        logging.getLogger(__name__).warning(
            "All weights of %s are trained in %s, which rounds small steps away. Remove the dtype from "
            "model_init_kwargs to train in float32, with bf16 products on GPUs.",
            name,
            causal_lm.dtype,
        )
    return tokenizer, causal_lm


def train_tokenizer(train: list[Path], config: TrainingConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the prompts, of the train users' texts and of histories as text, if read."""
    as_text, tasks = config.history == "text", offered_tasks(config.tasks)

    def texts() -> Iterator[str]:
        yield from (task.prompt for task in tasks.values())
        columns = text_columns((*tasks, CRITIQUE.name), *(["purchase_history"] if as_text else []))
        for row in rows(train, columns, limit=TOKENIZER_USERS):
            if as_text:
                yield from (interaction_text(one["item"], one["review"]) for one in row["purchase_history"])
            for task in tasks.values():
                if text := task.text(row):
                    yield text
            if critique := CRITIQUE.text(row):
                yield quoted(critique, ())

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", ITEM_TOKEN]
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        eos_token=special[1],
        additional_special_tokens=[ITEM_TOKEN],
        model_max_length=1024,
    )


def small_backbone(vocab_size: int, config: TrainingConfig) -> PreTrainedModel:
    """A small Llama with random weights, for the sample world and for a first run on own data."""
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size * 3,
            num_hidden_layers=config.num_layers,
            num_attention_heads=max(1, config.hidden_size // 32),
            num_key_value_heads=max(1, config.hidden_size // 32),
            max_position_embeddings=1024,
            # The default of 0.02 suits wide models; 0.06 gives the output of a row a variance of about 1/2.
            initializer_range=0.06,
            # With one table for input and output, a small model learns rare facts later.
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
