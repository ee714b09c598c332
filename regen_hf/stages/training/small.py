"""The small language model and its tokenizer, trained from nothing where no backbone is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from ...model.interactions import interaction_text
from ...outputs import rows
from ...schema import TASKS

if TYPE_CHECKING:
    from .settings import TrainingConfig

ITEM_TOKEN = "<|item|>"  # noqa: S105 (a token of the vocabulary)


def train_tokenizer(train: list[Path], config: TrainingConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the task prompts and the train users' narratives, and of histories read as text."""
    as_text = config.history == "text"

    def texts() -> Iterator[str]:
        yield from (task.prompt for task in TASKS.values())
        for row in rows(train, ["last_purchase", "user", *(["purchase_history"] if as_text else [])]):
            if as_text:
                yield from (interaction_text(bought["item"], bought["review"]) for bought in row["purchase_history"])
            for task in TASKS.values():
                if text := task.text(row):
                    yield text

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
    """A small Llama with random weights: enough for the sample, and for seeing that own data go through."""
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size * 3,
            num_hidden_layers=config.num_layers,
            num_attention_heads=max(1, config.hidden_size // 32),
            num_key_value_heads=max(1, config.hidden_size // 32),
            max_position_embeddings=1024,
            # The default of 0.02 is meant for wide models; here the variance of a row's output is to be about 1/2.
            initializer_range=0.06,
            # A table of its own to write with: a small one that also reads learns the rare facts later.
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
