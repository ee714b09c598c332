"""Loads a fused model with its processor: `load("org/model").narrate(history, task="user_profile")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .loading import HUB, check_folder
from .modeling_regen import RegenForCausalLM
from .pipeline import RegenPipeline
from .processing_regen import RegenProcessor


def load(name: str, **kwargs: Any) -> RegenPipeline:
    """The fused model `name` with its processor, on a GPU where there is one.

    >>> regen = load("org/regen-office")  # doctest: +SKIP
    >>> regen.narrate(row, task="user_profile")  # doctest: +SKIP
    'A young teacher who …'

    Args:
        name: a repository on the Hub, or a folder such as `RUN/model`.
        **kwargs: for `RegenForCausalLM.from_pretrained`, such as `dtype="bfloat16"`, `device_map="auto"`, `token=…`,
            `revision=…`, `attn_implementation="flash_attention_2"` or `quantization_config=…`.

    Raises:
        OSError: there is no such repository or folder, or it lacks a file.
        ValueError: a weight is missing.
    """
    name = str(name)
    check_folder(name, kwargs.get("subfolder") or "")
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no folder {name!r}: pass a model folder such as RUN/model, or a Hub name.")
    if "device_map" not in kwargs and torch.cuda.is_available():
        kwargs["device_map"] = "cuda"
    hub = {key: kwargs[key] for key in (*HUB, "subfolder") if key in kwargs}
    model = RegenForCausalLM.from_pretrained(name, **kwargs)
    return RegenPipeline(model.eval(), RegenProcessor.from_pretrained(name, **hub))


__all__ = ["load"]
