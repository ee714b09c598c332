"""Registers the local classes with the Auto classes of transformers."""

from __future__ import annotations


def register() -> None:
    """Let the Auto classes of this process load "regen" checkpoints with the local classes, without remote code."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

    from .configuration_regen import RegenConfig
    from .modeling_regen import RegenForCausalLM
    from .processing_regen import RegenProcessor

    AutoConfig.register("regen", RegenConfig, exist_ok=True)
    AutoModel.register(RegenConfig, RegenForCausalLM, exist_ok=True)
    AutoModelForCausalLM.register(RegenConfig, RegenForCausalLM, exist_ok=True)
    AutoProcessor.register(RegenConfig, RegenProcessor, exist_ok=True)
