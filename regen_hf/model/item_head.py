"""The item head: it predicts the next purchase, as the language model's head predicts the next word (arXiv 2503.11924).

Where the next token is a placeholder, the query is a projection of the hidden state before it, and an item's embedding
a projection of its c_i (CF and content of the metadata). The score is a learned temperature times their cosine. No
parameter belongs to an item, so an item that was never seen in training can be ranked.

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders included
    N   interactions of the longest history of the batch
    P   interactions of all rows
    I   items of the catalogue
    C   width of c_i
    D   width of the language model's embeddings
    E   width of queries and item embeddings (item_dim)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .adapter import RegenAdapter
from .configuration_regen import RegenConfig

FULL_SOFTMAX = 65_536
"""Items up to which the loss compares with the complete catalogue."""
SAMPLED = 16_384
"""Random items with which the loss compares in a larger catalogue, besides those of the batch."""


class ItemHead(nn.Module):
    """Queries of the hidden states and embeddings of the items, both of length 1.

    Shape:
        - states: (P, D), 0 where no token is before the placeholder
        - fused: (I, C), see [`RegenAdapter.fuse_items`]
        - output: (P, E) and (I, E)

    Args:
        columns: the columns of c_i for CF and for content.
        width: D.
    """

    def __init__(self, config: RegenConfig, columns: tuple[int, int], width: int) -> None:
        super().__init__()
        self.columns = columns
        self.cf_dropout = config.cf_dropout if all(columns) else 0.0
        self.query = nn.Linear(width, config.item_dim)  # type: ignore[arg-type]
        self.item = nn.Linear(sum(columns), config.item_dim)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(config.item_dropout)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def queries(self, states: torch.Tensor) -> torch.Tensor:
        """The queries, (P, E)."""
        return nn.functional.normalize(self.query(self.dropout(states.to(self.query.weight.dtype))), dim=-1)

    def items(self, fused: torch.Tensor) -> torch.Tensor:
        """The embeddings of items, (I, E)."""
        fused = fused.to(self.item.weight.dtype)
        if not self.training:
            return nn.functional.normalize(self.item(fused), dim=-1)
        if self.cf_dropout:  # a new item is ranked among items with CF vectors
            cf, content = fused.split(self.columns, dim=1)
            known = torch.rand(len(fused), 1, device=fused.device) >= self.cf_dropout  # (I, 1)
            fused = torch.cat([cf * known, content], dim=1)
        # The same columns are dropped for all items, in the weights: a draw for each of (I, C) values would be slow.
        kept = self.dropout(torch.ones_like(self.item.weight[0]))  # (C,)
        return nn.functional.normalize(nn.functional.linear(fused, self.item.weight * kept, self.item.bias), dim=-1)

    @property
    def temperature(self) -> torch.Tensor:
        """The factor of the cosine, at most 100."""
        return self.log_temperature.clamp(max=math.log(100)).exp()


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """The position of each token as `generate` counts them, without the padding on the left: (B, T)."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def states_before(hidden: torch.Tensor, is_item: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """The hidden state before each placeholder, 0 where no token is before it: (P, D).

    Args:
        hidden: (B, T, D)
        is_item: (B, T), true for placeholders.
        attention_mask: (B, T), 1 where there is a token.
    """
    before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)  # (B, T, D)
    states = before[is_item]  # (P, D)
    if attention_mask is None:
        return states
    real = torch.cat([torch.zeros_like(attention_mask[:, :1]), attention_mask[:, :-1]], dim=1)  # (B, T)
    return states * real[is_item].unsqueeze(-1).to(states.dtype)


def next_item_loss(
    head: ItemHead, states: torch.Tensor, labels: torch.Tensor, catalogue: torch.Tensor, frequencies: torch.Tensor
) -> torch.Tensor:
    """The sum of the cross entropies of the next items.

    Beyond FULL_SOFTMAX items the other items are those of the batch and random ones. Each of them counts by the inverse
    of its probability to be among them (logQ correction), which makes the sum over the sample an estimate of the sum
    over the catalogue. The item itself is always among them, and is not corrected.

    Args:
        head: the item head.
        states: (P, D), the states before the placeholders.
        labels: (P,), rows of the catalogue.
        catalogue: (I, C), the items' c_i.
        frequencies: (I,), how often an item is bought by the train users, for the correction.
    """
    n_items = len(catalogue)
    queries = head.queries(states)  # (P, E)
    if n_items <= FULL_SOFTMAX:
        scores = head.temperature * queries @ head.items(catalogue).T  # (P, I)
        return nn.functional.cross_entropy(scores.float(), labels, reduction="sum")
    device = catalogue.device
    chosen, targets = torch.cat([labels, torch.randint(n_items, (SAMPLED,), device=device)]).unique(return_inverse=True)
    targets = targets[: len(labels)]  # (P,), rows of `chosen`
    share = frequencies[chosen].double() / frequencies.sum()
    absent = torch.log1p(-share.clamp(max=1 - 1e-9)) * len(labels) + math.log1p(-1 / n_items) * SAMPLED
    correction = torch.log(-torch.expm1(absent)).float()  # (S,), log of the probability to be sampled
    scores = (head.temperature * queries @ head.items(catalogue[chosen]).T).float()  # (P, S)
    own = scores.gather(1, targets[:, None])  # (P, 1)
    scores = (scores - correction).scatter(1, targets[:, None], own)
    return nn.functional.cross_entropy(scores, targets, reduction="sum")


class ItemRanking(nn.Module):
    """The methods of a model with an item head: a base class of [`RegenModel`]."""

    config: Any
    adapter: RegenAdapter
    item_head: ItemHead | None
    items_to_rank: tuple[torch.Tensor, torch.Tensor] | None = None
    """The c_i (I, C) and frequencies (I,) of the catalogue."""

    def item_loss(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        history_mask: torch.Tensor | None,
        item_labels: torch.Tensor,
    ) -> torch.Tensor:
        """The sum of the cross entropies of the purchases with a label."""
        if input_ids is None or history_mask is None:
            raise ValueError("item_labels were passed without input_ids and history_mask, expected a history.")
        states = states_before(hidden, input_ids.eq(self.config.item_token_id), attention_mask)  # (P, D)
        rows = item_labels.to(hidden.device)[history_mask.to(hidden.device, torch.bool)]  # (P,)
        learnt = rows >= 0
        catalogue, frequencies = self._checked_catalogue()
        return next_item_loss(self.checked_head(), states[learnt], rows[learnt], catalogue, frequencies)

    @torch.no_grad()
    def set_catalogue(
        self,
        item_cf: torch.Tensor | None,
        item_content: torch.Tensor | None,
        frequencies: torch.Tensor | None = None,
    ) -> None:
        """Set the items that the item head ranks; they are not saved with the model.

        Args:
            item_cf: (I, cf_dim), raw CF vectors, zero for a cold item; None if the model does not read them.
            item_content: (I, content_dim), of the items' metadata; None if the model does not read them.
            frequencies: (I,), how often the train users bought each item; the loss over a sample of the items needs it.

        Raises:
            ValueError: the model has no item head, or a tensor has a wrong shape.
        """
        self.checked_head()
        device = next(self.adapter.projection.parameters()).device
        cf, content = (None if x is None else x.to(device) for x in (item_cf, item_content))
        fused = self.adapter.fuse_items(cf, content)  # (I, C)
        if not len(fused):
            raise ValueError("The catalogue has no items, expected at least one to rank.")
        if not fused.isfinite().all():
            raise ValueError("The vectors of the items contain NaN or infinity, expected finite values.")
        if frequencies is not None and (len(frequencies) != len(fused) or not (frequencies > 0).any()):
            raise ValueError(
                f"frequencies has {len(frequencies)} values, expected {len(fused)}, one per item, and one above 0."
            )
        counts = torch.ones(len(fused)) if frequencies is None else frequencies.float()
        self.items_to_rank = (fused, counts.to(device))

    def item_embeddings(self) -> torch.Tensor:
        """The embeddings of the catalogue, of length 1, for an index of vectors: (I, E).

        The score of an item is a positive factor, `item_head.temperature`, times its product with a query.

        Raises:
            ValueError: the model has no item head, or no catalogue.
        """
        return self.checked_head().items(self._checked_catalogue()[0])

    def item_queries(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """The queries of the purchases of a history, of length 1: (B, N, E), 0 outside `history_mask`.

        The query of a purchase reads only what is before it. For the next purchase, append any item to the history: its
        query does not read it. Accepts the processor's output.

        Raises:
            ValueError: the model has no item head, or placeholders and interactions do not match.
        """
        self.checked_head()
        if attention_mask is not None and "position_ids" not in inputs:
            inputs["position_ids"] = positions(attention_mask)
        hidden = self(
            input_ids=input_ids, attention_mask=attention_mask, history_mask=history_mask, use_cache=False, **inputs
        ).last_hidden_state  # (B, T, D)
        return self.queries(hidden, input_ids, attention_mask, history_mask)

    def queries(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        history_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The queries of `item_queries` from the last hidden states (B, T, D)."""
        head = self.checked_head()
        states = states_before(hidden, input_ids.eq(self.config.item_token_id), attention_mask)  # (P, D)
        if history_mask is None:
            return hidden.new_zeros(len(input_ids), 0, head.query.out_features)
        queries = head.queries(states)  # (P, E)
        padded = queries.new_zeros(*history_mask.shape, queries.shape[-1])  # (B, N, E)
        padded[history_mask.to(queries.device, torch.bool)] = queries
        return padded

    def checked_head(self) -> ItemHead:
        """The item head.

        Raises:
            ValueError: the model has none.
        """
        if self.item_head is None:
            raise ValueError(
                "This model has no item head (item_dim is None), so it cannot rank items: train one with "
                "training.next_item_weight above 0, or use processor.recommend, which ranks by ALS."
            )
        return self.item_head

    def _checked_catalogue(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The c_i (I, C) and frequencies (I,) of the items, on the device of the item head."""
        if self.items_to_rank is None:
            raise ValueError("The model has no catalogue, expected one to rank: call set_catalogue first.")
        device = self.checked_head().query.weight.device
        if self.items_to_rank[0].device != device:  # the model was moved
            fused, frequencies = self.items_to_rank
            self.items_to_rank = fused.to(device), frequencies.to(device)
        return self.items_to_rank


__all__ = ["ItemHead", "ItemRanking", "next_item_loss", "positions", "states_before"]
