"""The fused model of section 4.2: a history of interactions as soft tokens in the prompt of a causal language model.

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders among them
    N   interactions of the longest history of the batch; `history_mask` marks the real ones
    D   width of the language model's embeddings
    V   vocabulary
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Cache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .adapter import RegenAdapter
from .attribution import HistoryAttribution
from .backbones import check_backbone, check_history, check_plain_text, logit_scale_and_cap, token_embeddings
from .configuration_regen import RegenConfig
from .loading import CompletePreTrainedModel

HISTORY = ("history_cf", "history_content", "history_mask", "history_features")


class RegenPreTrainedModel(CompletePreTrainedModel):
    config_class = RegenConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012 (a set or list, as in the parent)
    # The adapter is small and young: rounding its updates to bf16 would cost more than its fp32 does.
    _keep_in_fp32_modules_strict = ["adapter"]  # noqa: RUF012
    # What really works is up to the language model, which checks it again for itself.
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class FusedPrompt(RegenPreTrainedModel):
    """What embeds a prompt with its history: a table of token embeddings and an adapter."""

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
        """The soft tokens of a history and, for a linear adapter, the share of CF and of content in them (section 6).

        Takes all that the processor makes, `model.soft_tokens(**processor(history, task))`; the prompt is not read.

        Returns:
            `soft`, `cf_part`, `content_part`, each (B, N, D) and zero outside `history_mask`. For a linear adapter in
            evaluation mode `soft = W1 e_i + W2 e_s + bias`, plus what the place of the interaction (`recency`) and
            further features add where the model reads them.
            A part is None where it does not exist.

        Raises:
            ValueError: there is no history, or not one as the model reads it.
        """
        if history_mask is None:
            raise ValueError("history_mask (batch, history) is missing: pass what the processor makes of a history.")
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
        """Embeddings of the prompt, each placeholder's replaced by the soft token of its interaction: (B, T, D).

        Takes all that the processor makes; the attention mask is not read.

        Raises:
            ValueError: placeholders and interactions do not match, row by row.
        """
        embeddings = self.get_input_embeddings()(input_ids)  # (B, T, D)
        is_item = input_ids.eq(self.config.item_token_id)  # (B, T)
        if history_mask is None:
            if history_cf is not None or history_content is not None:
                raise ValueError("A history was given without history_mask (batch, history): pass it too.")
            if is_item.any():
                raise ValueError(
                    f"The prompt holds {int(is_item.sum())} placeholder tokens (id {self.config.item_token_id}) but no "
                    "history was given: pass history_cf, history_content and history_mask, as the processor makes them."
                )
            return embeddings
        history_mask = history_mask.to(embeddings.device, torch.bool)  # (B, N)
        placeholders, purchases = is_item.sum(1), history_mask.sum(1)  # (B,)
        if len(placeholders) != len(purchases) or not torch.equal(placeholders, purchases):
            raise ValueError(
                f"The prompts hold {placeholders.tolist()} placeholder tokens (id {self.config.item_token_id}) and the "
                f"histories {purchases.tolist()} purchases, expected as many in each row: make both with the processor."
            )
        history_cf, history_content, history_features = (
            None if x is None else x.to(embeddings.device) for x in (history_cf, history_content, history_features)
        )
        soft = self.adapter(history_cf, history_content, history_mask, history_features)  # (B, N, D)
        soft = soft[history_mask].to(embeddings.dtype)  # (all purchases, D), in the order of the placeholders
        return embeddings.masked_scatter(is_item.unsqueeze(-1), soft)  # (B, T, D)


class RegenModel(FusedPrompt):
    """The language model without its head, reading soft tokens where the prompt holds placeholders."""

    def __init__(self, config: RegenConfig, language_model: PreTrainedModel) -> None:
        super().__init__(config)
        self.language_model = language_model  # first, so that `self.dtype` is the language model's
        self.adapter = RegenAdapter(config, token_embeddings(language_model).embedding_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's: the parent would look in three other places first, at every token."""
        return self.language_model.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        history_cf: torch.Tensor | None = None,
        history_content: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        history_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As in [`RegenForCausalLM`], up to the last hidden state (B, T, D)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds: both or none were given.")
        if input_ids is not None:
            history = (history_cf, history_content, history_mask, history_features)
            inputs_embeds = self.fused_embeddings(input_ids, *history)  # (B, T, D)
        elif history_mask is not None or history_cf is not None or history_content is not None:
            raise ValueError("A history needs the placeholders of input_ids, but inputs_embeds was given instead.")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )  # last_hidden_state: (B, T, D)


class RegenForCausalLM(HistoryAttribution, RegenPreTrainedModel, GenerationMixin):
    """The fused model with the language model's head: build with `from_backbone`, load with `from_pretrained`.

    Args:
        config ([`RegenConfig`]): architecture.
        backbone ([`PreTrainedModel`], *optional*): a causal language model whose weights to use, not copied.
    """

    _auto_class = "AutoModelForCausalLM"  # saves this file beside the weights
    _keep_in_fp32_modules = ["model.adapter"]  # noqa: RUF012 (quantizers leave it alone, by its name from the top)

    def __init__(self, config: RegenConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.item_token_id is None:
            raise ValueError("item_token_id is None, expected the id of the placeholder token: set it in RegenConfig.")
        if backbone is None:
            backbone = AutoModelForCausalLM.from_config(config.text_config)
        self.model = RegenModel(config, backbone.base_model)  # type: ignore[arg-type]
        self.lm_head = backbone.get_output_embeddings()
        self.logit_scale, self.logit_cap = logit_scale_and_cap(config.text_config)
        embedding = self.get_input_embeddings()
        name = next(name for name, module in self.named_modules() if module is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        causal_lm: PreTrainedModel,
        *,
        cf_dim: int,
        content_dim: int,
        item_token_id: int,
        embedding_mode: Literal["both", "cf", "content"] = "both",
        adapter: Literal["linear", "mlp", "transformer"] = "mlp",
        adapter_hidden_size: int | None = None,
        adapter_layers: int = 2,
        recency: int = 8,
        interaction_features: Sequence[Literal["rating", "age"]] = (),
        cf_dropout: float = 0.0,
        cf_mean_norm: float = 1.0,
        max_history: int = 50,
        content_mean: Any = None,
        content_matrix: Any = None,
    ) -> RegenForCausalLM:
        """Wrap a causal language model, keeping its weights, with a fresh adapter in front of it.

        The arguments are those of [`RegenConfig`] and of [`RegenAdapter.whiten`]. It shares modules with `causal_lm`.

        Raises:
            ValueError: the language model cannot be wrapped, `item_token_id` is not in its vocabulary, an array has a
                wrong shape, the wrapper's logits on plain text are not the bare model's, or it cannot write on a
                history.
        """
        check_backbone(causal_lm, item_token_id)
        attention = causal_lm.config._attn_implementation
        config = RegenConfig(
            text_config=causal_lm.config,
            cf_dim=cf_dim,
            content_dim=content_dim,
            embedding_mode=embedding_mode,
            adapter=adapter,
            adapter_hidden_size=adapter_hidden_size,
            adapter_layers=adapter_layers,
            recency=recency,
            interaction_features=list(interaction_features),
            cf_dropout=cf_dropout,
            cf_mean_norm=float(cf_mean_norm),
            item_token_id=item_token_id,
            max_history=max_history,
        )
        config._attn_implementation = attention  # the line above has unset it on the shared text_config
        for module in causal_lm.modules():  # else `post_init` draws new weights for a resized embedding
            module._is_hf_initialized = True  # type: ignore[assignment]
        model = cls(config, causal_lm)
        model.model.adapter.whiten(content_mean, content_matrix)
        model.model.adapter.to(causal_lm.device)
        model.generation_config = copy.deepcopy(causal_lm.generation_config)
        # A backbone that `to_backbone` has made suppresses the placeholder, which this model does for itself.
        suppressed = [token for token in model.generation_config.suppress_tokens or () if token != item_token_id]
        model.generation_config.suppress_tokens = suppressed or None
        # Trainers ask a quantised model these things, and saving does.
        quantised = ("is_quantized", "quantization_method", "hf_quantizer", "is_loaded_in_4bit", "is_loaded_in_8bit")
        vars(model).update({name: value for name, value in vars(causal_lm).items() if name in quantised})
        check_plain_text(model, causal_lm)
        check_history(model, causal_lm)
        return model.train(causal_lm.training)

    def to_backbone(self) -> PreTrainedModel:
        """The bare language model, the inverse of `from_backbone`: it shares modules and weights with this one."""
        with torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(self.config.text_config))
        setattr(causal_lm, causal_lm.base_model_prefix, self.model.language_model)
        causal_lm.set_output_embeddings(self.lm_head)
        causal_lm.generation_config = copy.deepcopy(self.generation_config)
        suppressed = {*(self.generation_config.suppress_tokens or []), self.config.item_token_id}
        causal_lm.generation_config.suppress_tokens = sorted(suppressed)
        return causal_lm.train(self.training)

    def soft_tokens(
        self, *history: Any, **inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """See [`FusedPrompt.soft_tokens`]."""
        return self.model.soft_tokens(*history, **inputs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        history_cf: torch.Tensor | None = None,
        history_content: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        history_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        suppress_placeholder: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: (B, T), with one placeholder per interaction.
            attention_mask: (B, T), 1 where there is a token.
            position_ids: (B, T); defaults to what the language model makes of the rest.
            past_key_values: keys and values of the tokens before `input_ids`.
            inputs_embeds: (B, T, D), instead of `input_ids` and history; see [`RegenModel.fused_embeddings`].
            history_cf: (B, N, cf_dim), raw item vectors, zero for a cold item; None if the model does not read them.
            history_content: (B, N, content_dim); None if the model does not read them.
            history_mask: (B, N), true for the interactions of the row, in the order of its placeholders.
            history_features: (B, N, F), as `config.interaction_features` names them, NaN where unknown: the rating of 1
                to 5, the age in days before the latest purchase.
            labels: (B, T), -100 where there is no loss.
            logits_to_keep: keep this many last positions (0: all), or the positions of this index tensor.
            suppress_placeholder: minus infinity as the logit of the placeholder, as `generate` asks for: it is no word.
            **kwargs: for the language model and the loss (`num_items_in_batch`).

        Raises:
            ValueError: placeholders and interactions do not match, row by row.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            history_cf=history_cf,
            history_content=history_content,
            history_mask=history_mask,
            history_features=history_features,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])  # (B, T, V)
        if self.logit_scale != 1:
            logits = logits * self.logit_scale
        if self.logit_cap is not None:
            logits = self.logit_cap * torch.tanh(logits / self.logit_cap)
        if suppress_placeholder:
            logits[..., self.config.item_token_id] = float("-inf")
        loss = None
        if labels is not None:  # a mean over the labels, or over `num_items_in_batch` where the trainer gives it
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one step; the history goes along only while its placeholders are in the step's slice.

        The placeholder is suppressed here, as `suppress_tokens` makes its mask of the vocabulary anew at every token.
        """
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,  # type: ignore[arg-type]
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        inputs["suppress_placeholder"] = True
        history_mask = kwargs.get("history_mask")
        step = inputs["input_ids"]
        if history_mask is None or step is None:
            return inputs
        if not is_first_iteration and step.shape[1] == 1:  # a token just written, and the placeholder never is
            return {name: value for name, value in inputs.items() if name not in HISTORY}
        in_cache = input_ids.shape[1] - step.shape[1]
        consumed = (input_ids[:, :in_cache] == self.config.item_token_id).sum(1, keepdim=True)  # (B, 1)
        rank = history_mask.long().cumsum(1)  # (B, N), 1 for the first purchase
        remaining = history_mask.bool() & (rank > consumed.to(rank.device))
        if (self.config.adapter == "transformer" or self.config.recency) and (
            remaining.any(1) & (consumed > 0).to(rank.device).squeeze(1)
        ).any():
            raise ValueError(
                "The cache ends in the middle of a history, and each soft token depends on the purchases after it: "
                "end the cache before the history or after it."
            )
        if remaining.any() or (step == self.config.item_token_id).any():
            return inputs | {"history_mask": remaining.to(step.device)}
        return {name: value for name, value in inputs.items() if name not in HISTORY}

    def _get_candidate_generator(self, *args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
        """What guesses the next tokens (an assistant, a lookup in the prompt), never the placeholder."""
        never = SuppressTokensLogitsProcessor([self.config.item_token_id], device=str(self.device))
        processors = LogitsProcessorList([*(logits_processor or ()), never])
        return super()._get_candidate_generator(*args, logits_processor=processors, **kwargs)  # type: ignore[misc]


# `generate` asks for it before every token, where a class brings code of its own.
RegenForCausalLM.forward.__signature__ = inspect.signature(RegenForCausalLM.forward)

__all__ = ["RegenForCausalLM", "RegenModel"]
