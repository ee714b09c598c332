"""Reading the model (section 6): what its soft tokens are made of, where they lie, and which purchases made it say so.

soft_tokens.py   the soft token of every item with its CF and content parts: norms, nearest word tokens, the map
left_out.py      what each purchase of a history does to the likelihood of a narrative

reading/
  items.parquet      the norms of every item's soft token and of its parts
  map.parquet        places of soft tokens, parts and word tokens in two dimensions (t-SNE)
  left_out.parquet   the effect of every purchase on every narrative of a few users
  results.json       the norm shares by popularity, nearest words, and how they were measured
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import at_least, check_seed
from ..errors import missing_extra


@dataclass(frozen=True)
class ReadingConfig:
    """Settings of `regen reading`."""

    points: int = 5000
    """Points of each kind on the map of soft tokens, their parts and word tokens, at random; 0 for all of them."""
    users: int = 3
    """Users whose purchases are left out one by one: the first that the evaluation wrote about."""
    seed: int = 0
    """Seed of the map and of what is drawn at random for it."""

    def __post_init__(self) -> None:
        at_least(self, 0, "points", "users")
        check_seed(self)


def build(run: Path, out: Path, work: Path, config: ReadingConfig) -> dict[str, Any]:
    """Read the trained model of `run`; see the head of this module for the files that go into `out`."""
    try:
        import torch

        from ..model import RegenForCausalLM, RegenProcessor
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
