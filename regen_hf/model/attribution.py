"""Which purchases made the model say so, and how much of each soft token comes from CF and how much from content.

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders among them
    L   tokens of the narrative
    N   interactions of the longest history of the batch; `history_mask` marks the real ones
    K   prompts at once, each without one interaction
"""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100


class HistoryAttribution:
    """Methods of [`RegenForCausalLM`] that look into a history, on what the processor makes of it."""

    @torch.no_grad()
    def leave_one_out(
        self: Any,  # the model
        completion_ids: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        batch_size: int = 16,
        **history: torch.Tensor | None,
    ) -> torch.Tensor:
        """By how much the log-likelihood of a narrative falls when each interaction is left out: (B, N), in nats.

        An interaction is left out with its placeholder, so that the model sees the history as if that purchase had not
        been made; the age of the others (`interaction_features`) is still counted from the latest of all. Above 0 the
        purchase speaks for the narrative, below 0 against it. A review that the task withholds is in none of it.

        >>> tokens = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]  # doctest: +SKIP
        >>> model.leave_one_out(tokens, **inputs)  # doctest: +SKIP

        Args:
            completion_ids: (B, L), the tokens of the narrative, whoever wrote it; -100 where a row is shorter. What
                comes after the first end of sequence does not count, so `generate`'s output is fine as it is.
            input_ids: (B, T), the prompt, padded on the left.
            attention_mask: (B, T), 1 where there is a token.
            history_mask: (B, N), true for the real interactions; None for prompts without a history.
            batch_size: prompts at once.
            **history: history_cf, history_content, history_features; see [`RegenForCausalLM`].

        Returns:
            (B, N), float32, zero outside `history_mask`, and (B, 1) zeros without a history.

        Raises:
            ValueError: prompts and narratives do not match row by row, or are padded on the other side.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if completion_ids.dim() != 2 or len(completion_ids) != len(input_ids) or completion_ids.shape[1] == 0:
            raise ValueError(
                f"completion_ids has the shape {tuple(completion_ids.shape)}, expected ({len(input_ids)}, tokens), a "
                "narrative of one token at least for each prompt."
            )
        if not attention_mask[:, -1].all():
            raise ValueError("The prompts are padded on the right, expected on the left, as the processor makes them.")
        labels = self._labels(completion_ids.to(input_ids.device))  # (B, L)
        if history_mask is None or not history_mask.any():
            columns = 1 if history_mask is None else history_mask.shape[1]
            return torch.zeros(len(input_ids), columns, device=input_ids.device)
        mask = history_mask.to(input_ids.device, torch.bool)  # (B, N)
        rows, places = mask.nonzero(as_tuple=True)
        # Every prompt as it is, as the place -1, and once for each of its interactions.
        everyone = torch.arange(len(input_ids), device=rows.device)[mask.any(1)]
        rows, places = torch.cat([everyone, rows]), torch.cat([torch.full_like(everyone, -1), places])
        lengths = (attention_mask.sum(1) + (labels != IGNORED).sum(1))[rows]
        likelihood = torch.zeros(len(rows), device=input_ids.device)
        for chunk in lengths.argsort(descending=True).split(batch_size):  # of like length, for little padding
            row, place = rows[chunk], places[chunk]  # (K,)
            ids, seen, kept = self._without(place, input_ids[row], attention_mask[row], mask[row])
            inputs = {name: None if x is None else x[row.to(x.device)] for name, x in history.items()}
            likelihood[chunk] = self._log_likelihood(ids, seen, labels[row], history_mask=kept, **inputs)
        whole = torch.zeros(len(input_ids), device=input_ids.device)
        whole[everyone] = likelihood[: len(everyone)]
        effect = torch.zeros(mask.shape, device=input_ids.device)
        effect[mask] = (whole[rows] - likelihood)[len(everyone) :]  # both in the order of the mask
        return effect

    @torch.no_grad()
    def shares(
        self: Any,
        history_cf: torch.Tensor | None = None,
        history_content: torch.Tensor | None = None,
        history_mask: torch.Tensor | None = None,
        history_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The share of CF and of content in each soft token, by their norms (section 6, figure 6): (B, N, 2).

        A half's part is what the soft token loses when that half of the history is zero. For a linear adapter that is
        exactly W1 e_i or W2 e_s, which add up to the token with its bias; other adapters mix the halves, so there it is
        an ablation: the parts need not add up, only the shares do. A transformer adapter also reads the neighbours,
        which lose the same half. Takes all that the processor makes; the prompt is not read.

        Returns:
            (B, N, 2), float32: CF and content, together 1. CF is 0 for a cold item; both are 0 outside `history_mask`
            and where an interaction has neither vector.

        Raises:
            ValueError: there is no history, or not one as the model reads it.
        """
        given = (history_cf, history_content, history_mask, history_features)
        soft, *_ = self.soft_tokens(*given)  # (B, N, D)
        norms = []
        for number, read in enumerate((self.model.adapter.reads_cf, self.model.adapter.reads_content)):
            if read:
                without, *_ = self.soft_tokens(
                    *(x if x is None or place != number else torch.zeros_like(x) for place, x in enumerate(given))
                )
                norms.append((soft - without).float().norm(dim=-1))  # (B, N)
            else:
                norms.append(torch.zeros(soft.shape[:2], device=soft.device))
        parts = torch.stack(norms, dim=-1)  # (B, N, 2)
        return parts / parts.sum(-1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)

    def _labels(self: Any, completion_ids: torch.Tensor) -> torch.Tensor:
        """The narrative up to and with its first end of sequence, -100 behind it: (B, L)."""
        ends = self.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
        is_end = torch.isin(completion_ids, torch.tensor(ends, dtype=torch.long, device=completion_ids.device))
        after = is_end.long().cumsum(1) - is_end.long() > 0
        return completion_ids.masked_fill(after, IGNORED)

    def _without(
        self: Any, place: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prompts and histories without the interaction at `place` (K,), where that is not -1."""
        columns = torch.arange(mask.shape[1], device=mask.device)  # (N,)
        kept = mask & (columns != place[:, None])  # (K, N)
        is_item = input_ids == self.config.item_token_id  # (K, T)
        rank = (mask & (columns <= place[:, None])).sum(1, keepdim=True)  # (K, 1), 1 for the first interaction
        left_out = is_item & (is_item.cumsum(1) == rank)  # (K, T), nowhere for the place -1
        # What stands before the gap moves up, so that the padding stays on the left.
        shifted = left_out.flip(1).cumsum(1).flip(1).bool()  # (K, T)
        source = (torch.arange(input_ids.shape[1], device=mask.device) - shifted.long()).clamp(min=0)
        filler = 1 if self.config.item_token_id == 0 else 0  # never looked at
        ids, seen = input_ids.gather(1, source), attention_mask.gather(1, source)
        ids[shifted[:, 0], 0], seen[shifted[:, 0], 0] = filler, 0
        return ids, seen, kept

    def _log_likelihood(
        self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **history: Any
    ) -> torch.Tensor:
        """The sum of log p over the labels behind each prompt: (K,)."""
        first = int(attention_mask.long().argmax(1).min())  # no row needs the columns before
        longest = max(1, int((labels != IGNORED).sum(1).max()))
        input_ids, attention_mask, labels = input_ids[:, first:], attention_mask[:, first:], labels[:, :longest]
        written = labels != IGNORED  # (K, L)
        seen = torch.cat([attention_mask, written.to(attention_mask.dtype)], dim=1)  # (K, T + L)
        filler = 1 if self.config.item_token_id == 0 else 0
        was_training = self.training
        self.eval()  # dropout would change the history too
        logits = self(
            input_ids=torch.cat([input_ids, labels.masked_fill(~written, filler)], dim=1),
            attention_mask=seen,
            position_ids=(seen.long().cumsum(1) - 1).clamp(min=0),
            logits_to_keep=labels.shape[1] + 1,
            use_cache=False,
            **history,
        ).logits[:, :-1]  # (K, L, V)
        self.train(was_training)
        losses = [  # row by row: a large vocabulary in float32 would be most of the memory
            torch.nn.functional.cross_entropy(row.float(), label, ignore_index=IGNORED, reduction="sum")
            for row, label in zip(logits, labels, strict=True)
        ]
        return -torch.stack(losses)


__all__ = ["HistoryAttribution"]
