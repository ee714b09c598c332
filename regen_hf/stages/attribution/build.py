"""Analyse the soft tokens and the influence of purchases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import missing_extra
from .settings import AttributionConfig


def build(run: Path, out: Path, work: Path, config: AttributionConfig) -> dict[str, Any]:
    """Read the trained model of `run`; see the head of this module for the files that go into `out`."""
    try:
        import torch

        from ...model.modeling_regen import RegenForCausalLM
        from ...model.processing_regen import RegenProcessor
    except ImportError as error:
        raise missing_extra(error.name or "transformers", "train") from None
    from . import left_out, soft_tokens

    model = RegenForCausalLM.from_pretrained(run / "model").eval()
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    processor = RegenProcessor.from_pretrained(run / "model")
    history = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))["config"]["history"]
    results = soft_tokens.build(run, out, model, processor, config) | {"history": history}
    # A control that reads its history as text has no soft tokens to leave out.
    effects = left_out.build(run, out, model, processor, 0 if history == "text" else config.users)
    (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"items": results["items"], "points": results["map"]["points"], "left_out": effects}
