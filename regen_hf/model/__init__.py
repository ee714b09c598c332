"""The fused model of section 4.2, its configuration and its processor, as shipped to the Hub.

The files of this folder are saved with every model and run without regen_hf, so they import only transformers, torch,
numpy, safetensors and each other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_regen import RegenConfig
    from .load_pipeline import load
    from .modeling_regen import RegenForCausalLM
    from .processing_regen import RegenProcessor
    from .registration import register

__all__ = ["RegenConfig", "RegenForCausalLM", "RegenProcessor", "load", "register"]

_MODULES = {
    "RegenConfig": "configuration_regen",
    "RegenForCausalLM": "modeling_regen",
    "RegenProcessor": "processing_regen",
    "load": "load_pipeline",
    "register": "registration",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("RegenForCausalLM", "RegenProcessor", "load"):
        # Without registration, `from_pretrained` requires trust_remote_code for the code in the model's folder.
        import_module(".registration", __name__).register()
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
