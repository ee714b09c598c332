"""Configuration of the fused model: architecture only, nothing about runs, LoRA or loss."""

# No `from __future__ import annotations` here: `@strict` checks the real types of the fields.
import math
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
            Which of the two halves of c_i the adapter reads.
        adapter (`"linear"` or `"mlp"`, *optional*, defaults to `"mlp"`):
            What turns c_i into a soft token. The MLP has one hidden layer, the paper's choice (section 5).
        adapter_hidden_size (`int`, *optional*):
            Width of the MLP's hidden layer. Defaults to the width of the language model's embeddings.
        cf_mean_norm (`float`, *optional*, defaults to 1.0):
            Mean L2 norm of all item vectors, by which the model divides v_i (section 4.2).
        item_token_id (`int`, *optional*):
            Id of the placeholder token, one per interaction, whose embedding a soft token replaces.
        max_history (`int`, *optional*, defaults to 50):
            Interactions per user the model was made for, the latest ones.

    Raises:
        ValueError: a width is below 1, or `cf_mean_norm` is not a positive number.
    """

    model_type = "regen"
    sub_configs_defaults: ClassVar = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}
    _auto_class = "AutoConfig"  # saves this file beside config.json

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    cf_dim: int = 128
    content_dim: int = 768
    embedding_mode: Literal["both", "cf", "content"] = "both"
    adapter: Literal["linear", "mlp"] = "mlp"
    adapter_hidden_size: int | None = None
    cf_mean_norm: float = 1.0
    item_token_id: int | None = None
    max_history: int = 50
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        # By hand, because `register_for_auto_class` holds one name per class and the model answers to two.
        self.auto_map = {
            "AutoConfig": "configuration_regen.RegenConfig",
            "AutoModel": "modeling_regen.RegenForCausalLM",
            "AutoModelForCausalLM": "modeling_regen.RegenForCausalLM",
        }

    def validate_widths(self) -> None:
        """Part of `@strict`: called on creation."""
        for name in ("cf_dim", "content_dim", "adapter_hidden_size", "max_history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} was given {value}, expected an integer of at least 1.")
        if not (math.isfinite(self.cf_mean_norm) and self.cf_mean_norm > 0):
            raise ValueError(
                f"cf_mean_norm was given {self.cf_mean_norm}, expected the mean L2 norm of the item vectors, above 0."
            )


__all__ = ["RegenConfig"]
