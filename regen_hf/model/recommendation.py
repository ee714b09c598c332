"""Recommendation by the item head: rank the catalogue after a history, and explain the choice from the same pass.

The prompt is that of an endorsement: the history, the placeholder of an item that is still open, and the instruction.
The state before the open placeholder ranks the catalogue. The vectors of the chosen item then fill it, and the model
continues from its cache. No state depends on what comes after it, so any item can hold the place before the choice.

Shapes: B histories, T tokens, N purchases with the open one, I items of the catalogue, E width of the item head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from .interactions import interaction_text
from .modeling_regen import RegenForCausalLM
from .processing_regen import RegenProcessor


class Catalogue:
    """The items of a processor as the item head sees them; reads the processor's arrays anew when they change."""

    def __init__(self, model: RegenForCausalLM, processor: RegenProcessor) -> None:
        self.model, self.processor = model, processor
        self._arrays: tuple[Any, Any] | None = None
        self._embeddings = torch.zeros(0)
        self.rows: dict[str, int] = {}

    @torch.no_grad()
    def embeddings(self) -> torch.Tensor:
        """The embeddings of the items, (I, E).

        Raises:
            ValueError: the model has no item head, or the processor no catalogue.
        """
        arrays = (self.processor.cf_factors, self.processor.item_content)
        if self._arrays is None or any(old is not new for old, new in zip(self._arrays, arrays, strict=True)):
            self.model.set_catalogue(**self.processor.catalogue())
            self._embeddings = self.model.item_embeddings()
            self.rows = {asin: row for row, asin in enumerate(self.processor.cf_asins)}
            self._arrays = arrays
        return self._embeddings

    def open_item(self) -> dict[str, Any]:
        """A purchase that holds the place of the next one; an item with a CF vector, so that nothing is warned of."""
        self.embeddings()
        asin = next(iter(self.processor._cf_rows), self.processor.cf_asins[0])
        return {"item": {"asin": asin}}

    def numbers(self, name: str, asins: Iterable[str]) -> list[int]:
        """The rows of `asins`.

        Raises:
            ValueError: one is not in the catalogue, or there is none.
        """
        self.embeddings()
        given = [asins] if isinstance(asins, str) else list(asins)
        unknown = [asin for asin in given if asin not in self.rows]
        if unknown:
            names = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            raise ValueError(
                f"{name} contains {len(unknown)} items that the catalogue of {len(self.rows)} items does not hold: "
                f"{names}. Add them with processor.add_items, or leave them out."
            )
        return [self.rows[asin] for asin in given]

    def best(self, queries: torch.Tensor, n: int, allowed: torch.Tensor | None, excluded: list[list[int]]) -> Any:
        """The scores and rows of the `n` best items of each query, (B, n) each, -inf for those that are left out."""
        scores = queries @ self.embeddings().T  # (B, I)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, float("-inf"))
        for row, numbers in enumerate(excluded):
            scores[row, numbers] = float("-inf")
        return (scores * self.model.model.checked_head().temperature).topk(min(n, scores.shape[1]), dim=-1)

    def entry(self, row: int, score: float) -> dict[str, Any]:
        """The item of a row as a recommendation."""
        titles = self.processor.item_titles
        cold = self.processor.cf_factors is not None and not self.processor.cf_factors[row].any()
        return {
            "asin": self.processor.cf_asins[row],
            "title": titles[row] if titles else None,
            "score": score,
            "cold": bool(cold),
        }

    def vectors(self, items: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The CF (B, cf_dim) and content (B, content_dim) vectors of `items`: rows of the catalogue, or raw items."""
        processor, vectors = self.processor, {}
        known: Any = processor.item_content
        raw = [item for item in items if isinstance(item, Mapping)]
        if processor.cf_factors is not None:
            rows = [processor._cf_rows.get(str(i.get("asin")), -1) if isinstance(i, Mapping) else i for i in items]
            cf = np.where(np.array(rows)[:, None] < 0, 0.0, processor.cf_factors[rows]).astype(np.float32)
            vectors["history_cf"] = torch.from_numpy(cf)
        if processor.content_encoder is not None:
            texts = processor._content_vectors([interaction_text(item, None) for item in raw])
            written = iter(() if texts is None else texts)
            content = [next(written) if isinstance(item, Mapping) else known[item].astype(np.float32) for item in items]
            vectors["history_content"] = torch.from_numpy(np.stack(content))
        return vectors


class OpenPrompt:
    """A batch of prompts up to their open item, read once: ranks the catalogue, then continues with an item.

    Args:
        inputs: the processor's output, whose last purchase in each row is the open one.
    """

    def __init__(self, model: RegenForCausalLM, inputs: Mapping[str, torch.Tensor]) -> None:
        self.model, self.inputs = model, dict(inputs)
        is_item = self.inputs["input_ids"] == model.config.item_token_id  # (B, T)
        columns = is_item.long() * torch.arange(1, is_item.shape[1] + 1, device=is_item.device)
        self.open = int(columns.max()) - 1  # the prompts end alike and are padded on the left, so it is one column
        embeddings, mask = self._embeddings(), self.inputs["attention_mask"]
        self.cache = DynamicCache(config=model.config.get_text_config())
        states = torch.zeros(len(mask), model.lm_head.weight.shape[-1], device=mask.device)  # (B, D)
        if self.open:
            hidden = model.model(
                inputs_embeds=embeddings[:, : self.open],
                attention_mask=mask[:, : self.open],
                position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0)[:, : self.open],
                past_key_values=self.cache,
                use_cache=True,
            ).last_hidden_state  # (B, open, D)
            states = hidden[:, -1] * mask[:, self.open - 1, None].to(hidden.dtype)  # 0 after padding
        self.queries = model.model.checked_head().queries(states)  # (B, E)

    def fill(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The inputs of `generate` with these vectors as the open item, from the cache."""
        last = self.inputs["history_mask"].sum(1) - 1  # (B,)
        for name, values in vectors.items():
            filled = self.inputs[name].clone()
            filled[torch.arange(len(last)), last] = values.to(filled.device, filled.dtype)
            self.inputs[name] = filled
        if "history_features" in self.inputs:
            features = self.inputs["history_features"].clone()
            features[torch.arange(len(last)), last] = float("nan")
            self.inputs["history_features"] = features
        return {
            "inputs_embeds": self._embeddings(),
            "attention_mask": self.inputs["attention_mask"],
            "past_key_values": self.cache if self.open else None,
        }

    def _embeddings(self) -> torch.Tensor:
        return self.model.model.fused_embeddings(**self.inputs)


__all__ = ["Catalogue", "OpenPrompt"]
