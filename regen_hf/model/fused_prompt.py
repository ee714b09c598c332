"""The base classes of the fused model and of its prompt encoder: the embeddings of a prompt with its history.

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders included
    N   interactions of the longest history of the batch; `history_mask` marks the real ones
    D   width of the language model's embeddings
"""

from __future__ import annotations

import torch

from .adapter import RegenAdapter
from .configuration_regen import RegenConfig
from .loading import CompletePreTrainedModel


class RegenPreTrainedModel(CompletePreTrainedModel):
    """What transformers must know about the models of this package."""

    config_class = RegenConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012 (a set or list, as in the parent)
    _no_split_modules = ["RegenAdapter"]  # noqa: RUF012 (a device map that splits it leaves out its buffers)
    # The adapter is small and trained from scratch: small updates would be lost in the rounding of bf16.
    _keep_in_fp32_modules_strict = ["adapter", "item_head"]  # noqa: RUF012
    # The language model checks again which of them it supports.
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def is_custom_code(cls) -> bool:
        """False, so that loading initialises the language model as in its own class.

        For custom code, transformers skips modules without own weights. Some families (Falcon-H1) initialise buffers
        of their layers there, which are not saved.
        """
        return False


class FusedPrompt(RegenPreTrainedModel):
    """Embeds a prompt with its history: base class of models with token embeddings and an adapter."""

    adapter: RegenAdapter

    def soft_tokens(
        self,
        history_cf: torch.Tensor | None = None,
        history_content: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        history_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The soft tokens of a history and, for a linear adapter, the parts of CF and of content (section 6).

        Accepts the processor's output, `model.soft_tokens(**processor(history, task))`; the prompt is ignored.

        Returns:
            `soft`, `cf_part`, `content_part`, each (B, N, D) and zero outside `history_mask`. For a linear adapter in
            evaluation mode `soft = W1 e_i + W2 e_s + bias`, plus the terms of `recency` and `interaction_features`
            where the model has them. A part is None for other adapters, and for a half that the model does not read.

        Raises:
            ValueError: there is no history, or a tensor has a wrong shape.
        """
        if history_mask is None:
            raise ValueError("history_mask is None, expected (batch, history) bool: pass the processor's output.")
        keep = history_mask.bool().unsqueeze(-1)  # (B, N, 1)
        parts = self.adapter.parts(history_cf, history_content, history_features)
        cf_part, content_part = (None if part is None else part * keep for part in parts)
        soft = self.adapter(history_cf, history_content, history_mask, history_features) * keep
        return soft, cf_part, content_part  # (B, N, D) each

    def fused_embeddings(
        self,
        input_ids: torch.Tensor,
        history_cf: torch.Tensor | None = None,
        history_content: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        history_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embeddings of the prompt; soft tokens replace those of the placeholders: (B, T, D).

        Accepts the processor's output; the attention mask is ignored.

        Raises:
            ValueError: placeholders and interactions do not match, row by row.
        """
        embeddings = self.get_input_embeddings()(input_ids)  # (B, T, D)
        is_item = input_ids.eq(self.config.item_token_id)  # (B, T)
        if history_mask is None:
            if history_cf is not None or history_content is not None:
                raise ValueError("history_mask is None, but a history was passed, expected (batch, history) bool.")
            if is_item.any():
                raise ValueError(
                    f"The prompt holds {int(is_item.sum())} placeholder tokens (id {self.config.item_token_id}), but "
                    "no history was passed: pass history_cf, history_content and history_mask of the processor."
                )
            return embeddings
        history_mask = history_mask.to(embeddings.device, torch.bool)  # (B, N)
        placeholders, purchases = is_item.sum(1), history_mask.sum(1)  # (B,)
        if len(placeholders) != len(purchases) or not torch.equal(placeholders, purchases):
            raise ValueError(
                f"The prompts hold {placeholders.tolist()} placeholder tokens (id {self.config.item_token_id}) and the "
                f"histories {purchases.tolist()} purchases, expected equal numbers in each row: create both with the "
                "processor."
            )
        history_cf, history_content, history_features = (
            None if x is None else x.to(embeddings.device) for x in (history_cf, history_content, history_features)
        )
        soft = self.adapter(history_cf, history_content, history_mask, history_features)  # (B, N, D)
        soft = soft[history_mask].to(embeddings.dtype)  # (all purchases, D), in the order of the placeholders
        return embeddings.masked_scatter(is_item.unsqueeze(-1), soft)  # (B, T, D)


__all__ = ["FusedPrompt", "RegenPreTrainedModel"]
