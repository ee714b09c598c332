"""Configuration of the fused model: only its architecture, nothing about runs, LoRA or loss."""

# No `from __future__ import annotations` here: `@strict` checks the real types of the fields.
import math
import os
from dataclasses import field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class RegenConfig(PreTrainedConfig):
    r"""Configuration of [`RegenForCausalLM`].

    Args:
        text_config (`dict` or [`PreTrainedConfig`], *optional*):
            Configuration of the language model; any causal language model of transformers.
        cf_dim (`int`, *optional*, defaults to 128):
            Width of a collaborative filtering vector v_i.
        content_dim (`int`, *optional*, defaults to 768):
            Width of a content vector s_i.
        embedding_mode (`"both"`, `"cf"` or `"content"`, *optional*, defaults to `"both"`):
            The halves of c_i that the adapter reads.
        adapter (`"linear"`, `"mlp"` or `"transformer"`, *optional*, defaults to `"linear"`):
            The module that maps c_i to a soft token. The MLP has one hidden layer, the paper's choice (section 5); the
            transformer also reads the other interactions of the history and the position of each.
        adapter_hidden_size (`int`, *optional*):
            Width of the MLP's hidden layer and of the transformer. Defaults to the width of the language model's
            embeddings.
        adapter_layers (`int`, *optional*, defaults to 2):
            Layers of the transformer.
        recency (`int`, *optional*, defaults to 8):
            Number of learned vectors that a linear or MLP adapter adds to the soft tokens by their position counted
            from the latest: one each for the latest ones, the last one for all older ones. With them the language model
            can identify the purchase that a task refers to. 0 for none, as in section 4.2.
        interaction_features (`list` of `"rating"` and `"age"`, *optional*, defaults to none):
            Further features in c_i: the rating from 1 to 5, and the days before the latest purchase.
        cf_dropout (`float`, *optional*, defaults to 0.0):
            Probability in training that the CF vector of an interaction is replaced by zeros, and independently that
            those of the complete history are, so that the model learns to read cold items. Only with
            `embedding_mode="both"`.
        cf_mean_norm (`float`, *optional*, defaults to 1.0):
            Mean L2 norm of all item vectors, by which the model divides v_i (section 4.2).
        item_token_id (`int`, *optional*):
            Id of the placeholder token, one per interaction, whose embedding a soft token replaces.
        max_history (`int`, *optional*, defaults to 50):
            Maximum number of interactions per user, the latest ones.
        item_dim (`int`, *optional*):
            Width of the item head, which ranks the catalogue as the next purchase; None for a model without it.
        item_dropout (`float`, *optional*, defaults to 0.0):
            Dropout in training of the item head's two inputs.
        citation_threshold (`float`, *optional*):
            Least decrease in nats of a sentence's log-likelihood for which it cites purchases; `regen train` calibrates
            it.

    Raises:
        ValueError: a width is below 1, `cf_mean_norm` is not positive, a dropout is not in [0, 1), or a model with an
            item head reads purchases in a way that shows what comes after them.
    """

    model_type = "regen"
    sub_configs_defaults: ClassVar = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}
    _auto_class = "AutoConfig"  # saves this file beside config.json

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    cf_dim: int = 128
    content_dim: int = 768
    embedding_mode: Literal["both", "cf", "content"] = "both"
    adapter: Literal["linear", "mlp", "transformer"] = "linear"
    adapter_hidden_size: int | None = None
    adapter_layers: int = 2
    recency: int = 8
    interaction_features: list[Literal["rating", "age"]] = field(default_factory=list)
    cf_dropout: float = 0.0
    cf_mean_norm: float = 1.0
    item_token_id: int | None = None
    max_history: int = 50
    item_dim: int | None = None
    item_dropout: float = 0.0
    citation_threshold: float | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        # Set here, because `register_for_auto_class` holds one name per class and the model has two.
        self.auto_map = {
            "AutoConfig": "configuration_regen.RegenConfig",
            "AutoModel": "modeling_regen.RegenForCausalLM",
            "AutoModelForCausalLM": "modeling_regen.RegenForCausalLM",
        }

    def validate_widths(self) -> None:
        """Check the numbers; `@strict` calls this on creation."""
        for name in ("cf_dim", "content_dim", "adapter_hidden_size", "adapter_layers", "max_history", "item_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected an integer of at least 1.")
        if not (math.isfinite(self.cf_mean_norm) and self.cf_mean_norm > 0):
            raise ValueError(
                f"cf_mean_norm is {self.cf_mean_norm}, expected the mean L2 norm of the item vectors, above 0."
            )
        if self.recency < 0:
            raise ValueError(f"recency is {self.recency}, expected a number of positions, or 0 for none.")
        for name in ("cf_dropout", "item_dropout"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}, expected a probability of at least 0 and below 1.")
        threshold = self.citation_threshold
        if threshold is not None and not (math.isfinite(threshold) and threshold > 0):
            raise ValueError(f"citation_threshold is {threshold}, expected a number of nats above 0, or None.")
        if self.item_dim is not None and (self.adapter == "transformer" or "age" in self.interaction_features):
            given = 'adapter="transformer"' if self.adapter == "transformer" else 'the interaction feature "age"'
            raise ValueError(
                f"item_dim is {self.item_dim} and the model has {given}, with which each purchase depends on those "
                "after it: leave it out, or set item_dim to None for a model without an item head."
            )
        if len(set(self.interaction_features)) != len(self.interaction_features):
            raise ValueError(f"interaction_features is {self.interaction_features}, expected each name at most once.")

    @property
    def window(self) -> int | None:
        """The maximum sequence length of the language model in tokens; None where its config has no limit."""
        length: int | None = getattr(self.get_text_config(), "max_position_embeddings", None)
        return length

    # Libraries read these from the config of the model that they are given, such as an assistant of `generate`.
    @property
    def num_hidden_layers(self) -> int:
        """Layers of the language model."""
        return int(self.get_text_config().num_hidden_layers)

    @property
    def num_attention_heads(self) -> int:
        """Attention heads of the language model."""
        return int(self.get_text_config().num_attention_heads)

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.get_text_config().hidden_size)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embeddings of the language model."""
        return int(self.get_text_config().vocab_size)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, without folders of this machine, such as that of the backbone."""
        values = super().to_dict()
        for part in (values, values.get("text_config") or {}):
            name = str(part.get("_name_or_path") or "")
            if os.path.isabs(name) or name.startswith(("~", ".")) or os.path.exists(name):
                del part["_name_or_path"]
        return values


__all__ = ["RegenConfig"]
