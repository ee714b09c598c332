"""The fused model of section 4.2: a causal language model that reads a history as soft tokens of its prompt.

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders included
    N   interactions of the longest history of the batch; `history_mask` marks the real ones
    D   width of the language model's embeddings
    V   vocabulary
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

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
from .attribution import leave_one_out, shares
from .backbones import check_backbone, check_history, check_plain_text, logit_scale_and_cap, token_embeddings
from .configuration_regen import RegenConfig
from .finite_logits import FiniteLogits
from .fused_prompt import FusedPrompt, RegenPreTrainedModel
from .item_head import ItemHead, ItemRanking
from .pipeline import RegenPipeline

HISTORY = ("history_cf", "history_content", "history_mask", "history_features")


class RegenModel(ItemRanking, FusedPrompt):
    """The language model without its head, which reads soft tokens at the placeholders of the prompt."""

    def __init__(self, config: RegenConfig, language_model: PreTrainedModel, state_width: int) -> None:
        super().__init__(config)
        self.language_model = language_model  # first, so that `self.dtype` is the language model's
        self.adapter = RegenAdapter(config, token_embeddings(language_model).embedding_dim)
        columns = self.adapter.columns[:2]
        self.item_head = None if config.item_dim is None else ItemHead(config, columns, state_width)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the language model."""
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
        item_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As in [`RegenForCausalLM`], up to the last hidden state (B, T, D).

        With `item_labels`, the attribute `item_loss` of the output is the sum of their losses.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Both or none of input_ids and inputs_embeds were passed, expected one of them.")
        if input_ids is not None:
            history = (history_cf, history_content, history_mask, history_features)
            inputs_embeds = self.fused_embeddings(input_ids, *history)  # (B, T, D)
        elif history_mask is not None or history_cf is not None or history_content is not None:
            raise ValueError("A history was passed with inputs_embeds, expected input_ids with its placeholders.")
        outputs: Any = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )  # last_hidden_state: (B, T, D)
        if item_labels is not None:
            outputs.item_loss = self.item_loss(
                outputs.last_hidden_state, input_ids, attention_mask, history_mask, item_labels
            )
        return outputs


@dataclass
class RegenOutput(CausalLMOutputWithPast):
    """The output of [`RegenForCausalLM`].

    `item_logits` (B, N, I) are the scores of the catalogue as each purchase, given those before it; None without
    `output_item_logits`.
    """

    item_logits: torch.Tensor | None = None


class RegenForCausalLM(RegenPreTrainedModel, GenerationMixin):
    """The fused model with the language model's head: create it with `from_backbone`, load it with `from_pretrained`.

    Args:
        config ([`RegenConfig`]): architecture.
        backbone ([`PreTrainedModel`], *optional*): a causal language model whose modules are used without a copy.
    """

    _auto_class = "AutoModelForCausalLM"  # saves this file beside the weights
    _keep_in_fp32_modules = ["model.adapter", "model.item_head"]  # noqa: RUF012 (quantizers skip it; they match full names)

    def __init__(self, config: RegenConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.item_token_id is None:
            raise ValueError("item_token_id is None, expected the id of the placeholder token: set it in RegenConfig.")
        if backbone is None:
            backbone = AutoModelForCausalLM.from_config(config.text_config)
        head: Any = backbone.get_output_embeddings()
        self.model = RegenModel(config, backbone.base_model, head.weight.shape[-1])  # type: ignore[arg-type]
        self.lm_head = head
        self.logit_scale, self.logit_cap = logit_scale_and_cap(config.text_config)
        embedding = self.get_input_embeddings()
        name = next(name for name, module in self.named_modules() if module is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    @classmethod
    def from_backbone(
        cls, causal_lm: PreTrainedModel, config: RegenConfig, *, content_mean: Any = None, content_matrix: Any = None
    ) -> RegenForCausalLM:
        """A fused model with a new adapter around `causal_lm`, whose modules and weights it shares.

        Args:
            causal_lm: the language model.
            config: architecture; its `text_config` is replaced by the configuration of `causal_lm`.
            content_mean: see [`RegenAdapter.whiten`].
            content_matrix: see [`RegenAdapter.whiten`].

        Raises:
            ValueError: the language model cannot be wrapped, `item_token_id` is not in its vocabulary, an array has a
                wrong shape, the fused model's logits on plain text differ from those of `causal_lm`, or it cannot
                generate after a history.
        """
        check_backbone(causal_lm, config.item_token_id)
        config = copy.deepcopy(config)
        config.text_config = causal_lm.config
        config.tie_word_embeddings = bool(getattr(causal_lm.config, "tie_word_embeddings", False))
        config._attn_implementation = causal_lm.config._attn_implementation
        # transformers has no public way to keep the weights of a resized embedding: `post_init` would redraw them.
        for module in causal_lm.modules():
            module._is_hf_initialized = True  # type: ignore[assignment]
        model = cls(config, causal_lm)
        model.model.adapter.whiten(content_mean, content_matrix)
        model.model.adapter.to(causal_lm.device)
        if model.model.item_head is not None:
            model.model.item_head.to(causal_lm.device)
        model.generation_config = copy.deepcopy(causal_lm.generation_config)
        # `to_backbone` adds the placeholder to `suppress_tokens`; `prepare_inputs_for_generation` replaces it here.
        suppressed = [t for t in model.generation_config.suppress_tokens or () if t != config.item_token_id]
        model.generation_config.suppress_tokens = suppressed or None
        # Trainers and `save_pretrained` read these attributes of a quantised model.
        quantised = ("is_quantized", "quantization_method", "hf_quantizer", "is_loaded_in_4bit", "is_loaded_in_8bit")
        vars(model).update({name: value for name, value in vars(causal_lm).items() if name in quantised})
        check_plain_text(model, causal_lm)
        check_history(model, causal_lm)
        return model.train(causal_lm.training)

    def to_backbone(self) -> PreTrainedModel:
        """The language model without adapter, the inverse of `from_backbone`; modules and weights are shared."""
        with torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(copy.deepcopy(self.config.text_config))
        setattr(causal_lm, causal_lm.base_model_prefix, self.model.language_model)
        causal_lm.set_output_embeddings(self.lm_head)
        causal_lm.generation_config = copy.deepcopy(self.generation_config)
        suppressed = {*(self.generation_config.suppress_tokens or []), self.config.item_token_id}
        causal_lm.generation_config.suppress_tokens = sorted(suppressed)
        return causal_lm.train(self.training)

    def pipeline(self, processor: Any) -> RegenPipeline:
        """This model with its processor, as `regen_hf.load` returns it; for code without regen_hf.

        >>> model.pipeline(processor).recommend(history, n=3)  # doctest: +SKIP
        """
        return RegenPipeline(self, processor)

    def set_catalogue(self, *items: Any, **more: Any) -> None:
        """See [`RegenModel.set_catalogue`]."""
        self.model.set_catalogue(*items, **more)

    def item_embeddings(self) -> torch.Tensor:
        """See [`RegenModel.item_embeddings`]."""
        return self.model.item_embeddings()

    def item_queries(self, *inputs: Any, **more: Any) -> torch.Tensor:
        """See [`RegenModel.item_queries`]."""
        return self.model.item_queries(*inputs, **more)

    def soft_tokens(
        self, *history: Any, **inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """See [`FusedPrompt.soft_tokens`]."""
        return self.model.soft_tokens(*history, **inputs)

    def leave_one_out(self, completion_ids: torch.Tensor, *inputs: Any, **more: Any) -> torch.Tensor:
        """The decrease of a narrative's log-likelihood without each interaction; see [`attribution.leave_one_out`].

        >>> tokens = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]  # doctest: +SKIP
        >>> model.leave_one_out(tokens, **inputs)  # doctest: +SKIP
        """
        return leave_one_out(self, completion_ids, *inputs, **more)

    def shares(self, **inputs: Any) -> torch.Tensor:
        """The shares of CF and content in each soft token; see [`attribution.shares`]."""
        return shares(self, **inputs)

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
        item_labels: torch.Tensor | None = None,
        next_item_weight: float = 1.0,
        output_item_logits: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> RegenOutput:
        """Predict the next token at every position.

        Args:
            input_ids: (B, T), with one placeholder per interaction.
            attention_mask: (B, T), 1 where there is a token.
            position_ids: (B, T); defaults to those of the language model.
            past_key_values: keys and values of the tokens before `input_ids`.
            inputs_embeds: (B, T, D), instead of `input_ids` and history; see [`RegenModel.fused_embeddings`].
            history_cf: (B, N, cf_dim), raw item vectors, zero for a cold item; None if the model does not read them.
            history_content: (B, N, content_dim); None if the model does not read them.
            history_mask: (B, N), true for the interactions of the row, in the order of its placeholders.
            history_features: (B, N, F), in the order of `config.interaction_features`, NaN where unknown: the rating
                from 1 to 5, the age in days before the latest purchase.
            labels: (B, T), -100 where there is no loss.
            logits_to_keep: keep this many last positions (0: all), or the positions of this index tensor.
            suppress_placeholder: set the logit of the placeholder to minus infinity, as `generate` does.
            item_labels: (B, N), the row of each purchase in the catalogue, -100 where there is no loss.
            next_item_weight: weight of a purchase in the loss, where a word counts as 1.
            output_item_logits: return the scores of the catalogue as each purchase.
            num_items_in_batch: number of words and purchases by which the sum of the losses is divided; defaults to
                that of this batch.
            **kwargs: for the language model and the loss.

        Raises:
            ValueError: placeholders and interactions do not match, row by row.
        """
        outputs: Any = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            history_cf=history_cf,
            history_content=history_content,
            history_mask=history_mask,
            history_features=history_features,
            item_labels=item_labels,
            **kwargs,
        )
        positions = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, positions])  # (B, T, V)
        if self.logit_scale != 1:
            logits = logits * self.logit_scale
        if self.logit_cap is not None:
            logits = self.logit_cap * torch.tanh(logits / self.logit_cap)
        if suppress_placeholder:
            logits[..., self.config.item_token_id] = float("-inf")
        loss = item_logits = None
        if num_items_in_batch is None and item_labels is not None:
            words = 0 if labels is None else (labels[:, 1:] >= 0).sum()
            num_items_in_batch = (words + (item_labels >= 0).sum()).clamp(min=1)
        if labels is not None:  # mean over the labels, or over the trainer's `num_items_in_batch`
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
                **kwargs,
            )
        if item_labels is not None:
            loss = (0.0 if loss is None else loss) + next_item_weight * outputs.item_loss / num_items_in_batch
        if output_item_logits:
            if input_ids is None:
                raise ValueError("output_item_logits was passed with inputs_embeds, expected input_ids and a history.")
            queries = self.model.queries(outputs.last_hidden_state, input_ids, attention_mask, history_mask)
            item_logits = self.model.checked_head().temperature * queries @ self.item_embeddings().T  # (B, N, I)
        return RegenOutput(
            loss=loss,
            item_logits=item_logits,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def generate(
        self, inputs: Any = None, generation_config: Any = None, logits_processor: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """See [`GenerationMixin.generate`].

        Raises:
            FloatingPointError: a logit is NaN or infinite; transformers would generate the first token.
        """
        processors = LogitsProcessorList([*(logits_processor or ()), FiniteLogits()])
        return super().generate(inputs, generation_config, processors, *args, **kwargs)  # type: ignore[misc]

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
        """The inputs of one step, with the history only while the step's tokens hold placeholders.

        The placeholder is suppressed here, because generation settings of the caller replace `suppress_tokens`.
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
        if not is_first_iteration and step.shape[1] == 1:  # a generated token, never the placeholder
            return {name: value for name, value in inputs.items() if name not in HISTORY}
        in_cache = input_ids.shape[1] - step.shape[1]
        consumed = (input_ids[:, :in_cache] == self.config.item_token_id).sum(1, keepdim=True)  # (B, 1)
        rank = history_mask.long().cumsum(1)  # (B, N), 1 for the first purchase
        remaining = history_mask.bool() & (rank > consumed.to(rank.device))
        if (self.config.adapter == "transformer" or self.config.recency) and (
            remaining.any(1) & (consumed > 0).to(rank.device).squeeze(1)
        ).any():
            raise ValueError(
                "The cache ends within a history, but with recency or a transformer adapter each soft token depends on "
                "the purchases after it: end the cache before or after the history."
            )
        if remaining.any() or (step == self.config.item_token_id).any():
            return inputs | {"history_mask": remaining.to(step.device)}
        return {name: value for name, value in inputs.items() if name not in HISTORY}

    def _get_candidate_generator(self, *args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
        """The candidates of assisted generation without the placeholder; transformers has no public option for this."""
        never = SuppressTokensLogitsProcessor([self.config.item_token_id], device=str(self.device))
        processors = LogitsProcessorList([*(logits_processor or ()), never])
        return super()._get_candidate_generator(*args, logits_processor=processors, **kwargs)  # type: ignore[misc]


__all__ = ["RegenForCausalLM", "RegenModel"]
