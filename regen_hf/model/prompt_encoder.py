"""The prompt encoder: computes prompt embeddings for a server that runs the bare language model (vLLM).

It holds copies of the token embeddings and the adapter, and no layers of the language model.
"""

# No `from __future__ import annotations` here: `@strict` checks the real types of the fields.
import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from .adapter import RegenAdapter
from .configuration_regen import RegenConfig
from .fused_prompt import FusedPrompt


@strict
class RegenPromptEncoderConfig(RegenConfig):
    r"""Configuration of [`RegenPromptEncoder`]: that of the fused model, and the shape of the embedding table.

    Args:
        num_embeddings (`int`, *optional*, defaults to 1): size of the vocabulary.
        embedding_dim (`int`, *optional*, defaults to 1): width of the token embeddings.
    """

    model_type = "regen_prompt_encoder"

    num_embeddings: int = 1
    embedding_dim: int = 1

    def __post_init__(self, **kwargs):  # type: ignore[no-untyped-def]
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = False
        self.auto_map = {
            "AutoConfig": "prompt_encoder.RegenPromptEncoderConfig",
            "AutoModel": "prompt_encoder.RegenPromptEncoder",
        }


class RegenPromptEncoder(FusedPrompt):
    """Maps the processor's output to the embeddings of the prompt.

    Args:
        config ([`RegenPromptEncoderConfig`]): architecture.
    """

    config_class = RegenPromptEncoderConfig
    _auto_class = "AutoModel"  # saves this file beside the weights

    def __init__(self, config: RegenPromptEncoderConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.adapter = RegenAdapter(config, config.embedding_dim)
        self.post_init()

    @torch.no_grad()
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **history: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The embeddings of each prompt, without padding: B tensors of shape (T, D).

        Args:
            input_ids: (B, T), with one placeholder per interaction.
            attention_mask: (B, T), 1 where there is a token.
            **history: history_cf, history_content, history_mask, history_features; see [`RegenForCausalLM`].

        Raises:
            ValueError: placeholders and interactions do not match, row by row.
        """
        embeddings = self.fused_embeddings(input_ids, **history)  # (B, T, D)
        if attention_mask is None:
            return list(embeddings)
        return [row[mask.bool()] for row, mask in zip(embeddings, attention_mask, strict=True)]


__all__ = ["RegenPromptEncoder", "RegenPromptEncoderConfig"]
