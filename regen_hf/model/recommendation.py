"""Recommendation by the item head: rank the catalogue after a history, and explain the choice from the same pass.

The prompt is that of an endorsement: the history, the placeholder of an item that is still open, and the instruction.
The state before the open placeholder ranks the catalogue. The vectors of the chosen item then fill it, and the model
continues from its cache. No state depends on what comes after it, so before the choice the placeholder has the vectors
of any item.

Shapes: B histories, T tokens, N purchases with the open one, I items of the catalogue, E width of the item head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from .critiques import read_turns
from .histories import item_ids, read_histories
from .item_head import positions

TEXT = ("title", "category", "description", "price")
"""Fields of an item that its content vector is made of."""


@dataclass
class Turns:
    """Histories with the items that were shown after them, and what was said: a list for each history."""

    histories: list[Any]
    critiques: list[list[str | None]]
    """About the latest purchases and items shown, in order; as for the processor."""
    shown: list[list[str | None]]
    """The asins of the items shown."""

    def part(self, batch: Sequence[int]) -> Turns:
        """The histories of the numbers `batch`."""
        return Turns(*([values[number] for number in batch] for values in vars(self).values()))


@dataclass
class Choice:
    """What to recommend: the number of items, the rows to choose from (None: all), and those to leave out.

    With `excluded` None the items of the history are left out.
    """

    n: int
    candidates: list[int] | None
    excluded: list[int] | None


class Catalogue:
    """The items of the processor of a pipeline, as the item head ranks them.

    Args:
        regen ([`RegenPipeline`]): its `model` and `processor` are read at each use.
    """

    def __init__(self, regen: Any) -> None:
        self.regen = regen
        self._read: tuple[Any, ...] = (None, None, None)
        self._embeddings = torch.zeros(0)
        self._asins: list[str] = []
        self._rows: dict[str, int] = {}

    @property
    def rows(self) -> dict[str, int]:
        """The row of each item by asin."""
        asins = self.regen.processor.cf_asins
        if self._asins is not asins:  # a change of the items makes a new list
            self._asins, self._rows = asins, {asin: row for row, asin in enumerate(asins)}
        return self._rows

    @torch.no_grad()
    def embeddings(self) -> torch.Tensor:
        """The embeddings of the items, (I, E); computed again for other items or another model.

        Raises:
            ValueError: the model has no item head, or the processor no catalogue.
            FloatingPointError: an embedding is NaN or infinite.
        """
        model, processor = self.regen.model, self.regen.processor
        read = (model, processor.cf_factors, processor.item_content)
        if any(old is not new for old, new in zip(self._read, read, strict=True)):  # a change makes new arrays
            model.set_catalogue(**processor.catalogue())
            embeddings = model.item_embeddings().float()
            if not embeddings.isfinite().all():
                raise FloatingPointError(
                    "The embeddings of the items are NaN or infinite, expected finite ones: train the model again."
                )
            self._embeddings, self._read = embeddings, read
        self._embeddings = self._embeddings.to(model.device)
        return self._embeddings

    def open_item(self) -> dict[str, Any]:
        """A purchase in place of the next one: of an item with a CF vector, because the processor warns of others.

        Raises:
            ValueError: the model has no item head, or the processor no catalogue.
        """
        self.embeddings()
        processor = self.regen.processor
        return {"item": {"asin": next(iter(processor._cf_rows), processor.cf_asins[0])}}

    def rows_of(self, name: str, asins: Iterable[str]) -> list[int]:
        """The rows of `asins`.

        Raises:
            ValueError: one is not in the catalogue.
        """
        if not isinstance(asins, Iterable):
            raise ValueError(f"{name} is {asins!r:.80}, expected a list of items of the catalogue.")
        given = item_ids(name, [asins] if isinstance(asins, str) else asins)
        if unknown := [asin for asin in given if asin not in self.rows]:
            names = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            raise ValueError(
                f"{name} has {names}, expected items of the catalogue ({len(self.rows)} items): add them with "
                "processor.add_items, or leave them out."
            )
        return [self.rows[asin] for asin in given]

    def item(self, name: str, given: Any) -> dict[str, Any]:
        """A raw item: an asin of the catalogue, a mapping of an item, or a purchase.

        Raises:
            ValueError: an asin is not in the catalogue, a mapping has neither a known asin nor text, or the catalogue
                has no texts and the item has none either.
        """
        processor = self.regen.processor
        item: dict[str, Any]
        if isinstance(given, Mapping):
            purchase = given if isinstance(given.get("item"), Mapping) else {"item": given}
            item = read_histories([purchase])[0][0][0]["item"]
        else:
            (row,) = self.rows_of(name, [given])
            item = {"asin": processor.cf_asins[row]}
        has_text = any(item.get(field) for field in TEXT)
        if item.get("asin") not in self.rows and not has_text:
            raise ValueError(
                f"{name} is {given!r:.80}, expected an asin of the catalogue, or one of {', '.join(TEXT)}."
            )
        if not has_text and processor.item_content is None and processor.content_encoder is not None:
            raise ValueError(
                f"{name} is {given!r:.80}, expected an item with one of {', '.join(TEXT)}: this model has no item head "
                "(training.next_item_weight is 0), and so holds no texts of the catalogue."
            )
        return item

    def named(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The asin and the title of a raw item, None where unknown."""
        asin, title, titles = item.get("asin"), item.get("title"), self.regen.processor.item_titles
        if title is None and titles and asin in self.rows:
            title = titles[self.rows[asin]]
        return {"asin": asin, "title": title}

    def turns(self, history: Any, critique: Any, shown: Any) -> tuple[Turns, bool]:
        """The histories with the items of `shown` as purchases without reviews, and whether there was a single one.

        Raises:
            ValueError: a critique has no item before it, or the model cannot read any; or as in `read_turns`.
        """
        histories, single = read_histories(history)
        turns = Turns([], [], [])
        for row, (said, items) in zip(histories, read_turns(critique, shown, len(histories), single), strict=True):
            if any(said) and not self.regen.processor.reads_critiques:
                raise ValueError(
                    "A critique was passed, but this model was trained without critiques: train one on a dataset with "
                    "last_purchase.critique, with an item head or the task product_endorsement."
                )
            chosen = [self.item("shown", item) for item in items]
            if any(said) and not [*row, *chosen]:
                raise ValueError(
                    f"The critique {next(filter(None, said))!r:.80} was passed without an item that it is about, "
                    "expected a history with purchases, or the item in shown."
                )
            turns.histories.append([*row, *({"item": item} for item in chosen)])
            turns.critiques.append(said)
            turns.shown.append([item.get("asin") for item in chosen])
        return turns, single

    def best(self, queries: torch.Tensor, choice: Choice, histories: Sequence[Any]) -> list[list[dict[str, Any]]]:
        """The best items of each query (B, E), at most `choice.n`."""
        scores, known = queries.float() @ self.embeddings().T, self.rows  # (B, I)
        if choice.candidates is not None:
            allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
            allowed[choice.candidates] = True
            scores = scores.masked_fill(~allowed, float("-inf"))
        for row, history in enumerate(histories):
            bought = (purchase["item"].get("asin") for purchase in history)
            of_history = [known[asin] for asin in bought if asin in known]
            scores[row, of_history if choice.excluded is None else choice.excluded] = float("-inf")
        values, rows = scores.topk(min(choice.n, scores.shape[1]), dim=-1)  # (B, n) each
        values = values * self.regen.model.model.checked_head().temperature
        return [
            [self._entry(row, value) for row, value in zip(*pair, strict=True) if value > float("-inf")]
            for pair in zip(rows.tolist(), values.tolist(), strict=True)
        ]

    def _entry(self, row: int, score: float) -> dict[str, Any]:
        processor = self.regen.processor
        cold = processor.cf_factors is not None and not processor.cf_factors[row].any()
        title = processor.item_titles[row] if processor.item_titles else None
        return {"asin": processor.cf_asins[row], "title": title, "score": score, "cold": bool(cold)}

    def vectors(self, asins: Sequence[str]) -> dict[str, torch.Tensor]:
        """The CF (B, cf_dim) and content (B, content_dim) vectors of items of the catalogue."""
        rows = [self.rows[asin] for asin in asins]
        processor = self.regen.processor
        arrays = {"history_cf": processor.cf_factors, "history_content": processor.item_content}
        return {
            name: torch.from_numpy(array[rows].astype(np.float32))
            for name, array in arrays.items()
            if array is not None
        }

    def show_items(self, inputs: Any, asins: Sequence[Sequence[str | None]]) -> None:
        """Show the last items of each history, `asins`, with their vectors in the catalogue, where they are there.

        Raises:
            ValueError: the window has no room for the last item.
        """
        last = last_purchase(inputs)
        for row, items in enumerate(asins):
            for before, asin in enumerate(reversed(items)):
                if asin in self.rows and before <= last[row]:
                    for name, values in self.vectors([str(asin)]).items():
                        if name in inputs:
                            inputs[name][row, last[row] - before] = values[0].to(inputs[name])


class OpenPrompt:
    """A batch of prompts up to their open item, read once: ranks the catalogue, then continues with an item.

    Args:
        inputs: the processor's output, whose last purchase in each row is the open one.
    """

    def __init__(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> None:
        self.model, self.inputs = model, dict(inputs)
        last_purchase(self.inputs)
        is_item = self.inputs["input_ids"] == model.config.item_token_id  # (B, T)
        columns = is_item.long() * torch.arange(is_item.shape[1], device=is_item.device)
        self.open = int(columns.max())  # the prompts end alike and are padded on the left, so it is one column
        embeddings, mask = self._embeddings(), self.inputs["attention_mask"]
        self.cache = DynamicCache(config=model.config.get_text_config())
        states = torch.zeros(len(mask), model.lm_head.weight.shape[-1], device=mask.device)  # (B, D)
        if self.open:
            hidden = model.model(
                inputs_embeds=embeddings[:, : self.open],
                attention_mask=mask[:, : self.open],
                position_ids=positions(mask)[:, : self.open],
                past_key_values=self.cache,
                use_cache=True,
            ).last_hidden_state  # (B, open, D)
            states = hidden[:, -1] * mask[:, self.open - 1, None].to(hidden.dtype)  # 0 after padding
        self.queries = model.model.checked_head().queries(states)  # (B, E)
        if not self.queries.isfinite().all():
            raise FloatingPointError("The model's states are NaN or infinite, expected finite ones: train it again.")

    def fill(self, vectors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """The inputs of `generate` with these vectors as the open item, from the cache."""
        rows, last = torch.arange(len(self.inputs["history_mask"])), last_purchase(self.inputs)
        for name, values in vectors.items():
            if name in self.inputs:
                filled = self.inputs[name].clone()
                filled[rows, last] = values.to(filled)
                self.inputs[name] = filled
        return {
            "inputs_embeds": self._embeddings(),
            "attention_mask": self.inputs["attention_mask"],
            "past_key_values": self.cache if self.open else None,
        }

    def _embeddings(self) -> torch.Tensor:
        return self.model.model.fused_embeddings(**self.inputs)


def last_purchase(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The position of the last purchase in each row of the processor's output, (B,).

    Raises:
        ValueError: a row has none.
    """
    last: torch.Tensor = inputs["history_mask"].long().sum(1) - 1
    if (last < 0).any():
        raise ValueError("The window has no room for the item beside the prompt: lower max_new_tokens.")
    return last


__all__ = ["Catalogue", "Choice", "OpenPrompt"]
