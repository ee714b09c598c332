"""Analyse the soft tokens and the influence of purchases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ... import outputs
from .settings import AttributionConfig


def build(run: Path, out: Path, work: Path, config: AttributionConfig) -> dict[str, Any]:
    """Analyse the trained model of `run`; the files of the stage go into `out`."""
    import torch

    from ...model import RegenForCausalLM, RegenProcessor  # registers them for `from_pretrained`
    from . import left_out, soft_tokens

    model = RegenForCausalLM.from_pretrained(outputs.folder(run, "train")).eval()
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    processor = RegenProcessor.from_pretrained(outputs.folder(run, "train"))
    history = outputs.manifest(run, "train")["config"]["history"]
    results = soft_tokens.build(run, out, model, processor, config) | {"history": history}
    # A control that reads its history as text has no soft tokens to leave out.
    effects = left_out.build(run, out, model, processor, 0 if history == "text" else config.users)
    outputs.write_results(out, results)
    return {"items": results["items"], "points": results["map"]["points"], "left_out": effects}
