"""The fused model of section 4.2, its configuration and its processor, as shipped to the Hub.

The files of this folder travel with every saved model and run where regen_hf is not installed, so they import
transformers, torch, numpy, safetensors and each other, and nothing of the rest of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_regen import RegenConfig
    from .interactions import interaction_features, interaction_text
    from .modeling_regen import RegenForCausalLM, RegenModel
    from .pipeline import RegenPipeline, load
    from .processing_regen import RegenProcessor
    from .registration import register

__all__ = [
    "RegenConfig",
    "RegenForCausalLM",
    "RegenModel",
    "RegenPipeline",
    "RegenProcessor",
    "interaction_features",
    "interaction_text",
    "load",
    "register",
]

_MODULES = {
    "RegenConfig": "configuration_regen",
    "RegenForCausalLM": "modeling_regen",
    "RegenModel": "modeling_regen",
    "RegenPipeline": "pipeline",
    "RegenProcessor": "processing_regen",
    "interaction_features": "interactions",
    "interaction_text": "interactions",
    "load": "pipeline",
    "register": "registration",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    if name in ("RegenForCausalLM", "RegenProcessor", "load"):
        # Else `from_pretrained` of these very classes would ask whether to trust the same code in the model's folder.
        import_module(".registration", __name__).register()
    return found
