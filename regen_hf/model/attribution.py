"""The influence of each purchase on a narrative, and the shares of CF and content in each soft token (section 6).

Shapes:
    B   rows of the batch (users)
    T   tokens of the prompt, placeholders included
    L   tokens of the narrative
    N   interactions of the longest history of the batch; `history_mask` marks the real ones
    K   prompts of one forward pass, each without one interaction
"""

from __future__ import annotations

from typing import Any

import torch

from .finite_logits import check_finite

IGNORED = -100


@torch.no_grad()
def leave_one_out(
    model: Any,
    completion_ids: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    history_mask: torch.Tensor | None = None,
    batch_size: int = 16,
    **history: torch.Tensor | None,
) -> torch.Tensor:
    """The decrease of a narrative's log-likelihood when each interaction is left out: (B, N), in nats.

    An interaction is left out with its placeholder, so the model reads the history without that purchase; the age of
    the others (`interaction_features`) still counts from the latest purchase of the full history. A purchase with a
    positive value makes the narrative more likely. A withheld review has no influence.

    Args:
        model: the fused model.
        completion_ids: (B, L), the tokens of any narrative, padded with -100.
            Tokens after the first end-of-sequence token are ignored, so the output of `generate` can be passed.
        input_ids: (B, T), the prompt, padded on the left.
        attention_mask: (B, T), 1 where there is a token.
        history_mask: (B, N), true for the real interactions; None for prompts without a history.
        batch_size: prompts per forward pass.
        **history: history_cf, history_content, history_features; see [`RegenForCausalLM`].

    Returns:
        (B, N), float32, zero outside `history_mask`, and (B, 1) zeros without a history.

    Raises:
        ValueError: prompts and narratives do not match row by row, or the prompts are padded on the right.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if completion_ids.dim() != 2 or len(completion_ids) != len(input_ids) or completion_ids.shape[1] == 0:
        raise ValueError(
            f"completion_ids has the shape {tuple(completion_ids.shape)}, expected ({len(input_ids)}, tokens), a "
            "narrative of at least one token for each prompt."
        )
    if not attention_mask[:, -1].all():
        raise ValueError("The prompts are padded on the right, expected on the left, as the processor pads them.")
    labels = _labels(model, completion_ids.to(input_ids.device))  # (B, L)
    if history_mask is None or not history_mask.any():
        length = 1 if history_mask is None else history_mask.shape[1]
        return torch.zeros(len(input_ids), length, device=input_ids.device)
    mask = history_mask.to(input_ids.device, torch.bool)  # (B, N)
    rows, columns = mask.nonzero(as_tuple=True)
    # Each prompt is run with its full history (column -1), and without each of its interactions.
    prompts = torch.arange(len(input_ids), device=rows.device)[mask.any(1)]
    rows, columns = torch.cat([prompts, rows]), torch.cat([torch.full_like(prompts, -1), columns])
    lengths = (attention_mask.sum(1) + (labels != IGNORED).sum(1))[rows]
    likelihood = torch.zeros(len(rows), device=input_ids.device)
    for chunk in lengths.argsort(descending=True).split(batch_size):  # similar lengths need little padding
        row = rows[chunk]  # (K,)
        ids, attention, remaining = _without(model, columns[chunk], input_ids[row], attention_mask[row], mask[row])
        inputs = {name: None if x is None else x[row.to(x.device)] for name, x in history.items()}
        likelihood[chunk] = _log_likelihood(model, ids, attention, labels[row], history_mask=remaining, **inputs)
    full = torch.zeros(len(input_ids), device=input_ids.device)
    full[prompts] = likelihood[: len(prompts)]
    effect = torch.zeros(mask.shape, device=input_ids.device)
    effect[mask] = (full[rows] - likelihood)[len(prompts) :]  # both in the order of the mask
    return effect


@torch.no_grad()
def shares(model: Any, **inputs: torch.Tensor | None) -> torch.Tensor:
    """The share of CF and of content in each soft token, by their norms (section 6, figure 6): (B, N, 2).

    The part of a half is the change of the soft token when that half of the history is zero. For a linear adapter it
    is exactly W1 e_i or W2 e_s. The parts of other adapters are an ablation and need not add up to the soft token.

    Args:
        model: the fused model.
        **inputs: the processor's output; the prompt is ignored.

    Returns:
        (B, N, 2), float32: CF and content, which add up to 1. CF is 0 for a cold item; both are 0 outside
        `history_mask` and where an interaction has neither vector.

    Raises:
        ValueError: there is no history, or a tensor has a wrong shape.
    """
    soft, *_ = model.soft_tokens(**inputs)  # (B, N, D)
    adapter, norms = model.model.adapter, []
    for name, read in (("history_cf", adapter.reads_cf), ("history_content", adapter.reads_content)):
        half = inputs.get(name)
        without = soft
        if read and half is not None:
            without, *_ = model.soft_tokens(**inputs | {name: torch.zeros_like(half)})
        norms.append((soft - without).float().norm(dim=-1))  # (B, N)
    parts = torch.stack(norms, dim=-1)  # (B, N, 2)
    return parts / parts.sum(-1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)


def _labels(model: Any, completion_ids: torch.Tensor) -> torch.Tensor:
    """The narrative up to and including its first end-of-sequence token, then -100: (B, L)."""
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
    is_end = torch.isin(completion_ids, torch.tensor(ends, dtype=torch.long, device=completion_ids.device))
    after = is_end.long().cumsum(1) - is_end.long() > 0
    return completion_ids.masked_fill(after, IGNORED)


def _without(
    model: Any, column: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention and history masks without the interaction in `column` (K,); unchanged where it is -1."""
    columns = torch.arange(mask.shape[1], device=mask.device)  # (N,)
    remaining = mask & (columns != column[:, None])  # (K, N)
    is_item = input_ids == model.config.item_token_id  # (K, T)
    rank = (mask & (columns <= column[:, None])).sum(1, keepdim=True)  # (K, 1), 1 for the first interaction
    left_out = is_item & (is_item.cumsum(1) == rank)  # (K, T), nowhere for the column -1
    # The tokens before the removed one are shifted right, so that the padding stays on the left.
    shifted = left_out.flip(1).cumsum(1).flip(1).bool()  # (K, T)
    source = (torch.arange(input_ids.shape[1], device=mask.device) - shifted.long()).clamp(min=0)
    ids, attention = input_ids.gather(1, source), attention_mask.gather(1, source)
    ids[shifted[:, 0], 0], attention[shifted[:, 0], 0] = _filler(model), 0
    return ids, attention, remaining


def _log_likelihood(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, **history: Any
) -> torch.Tensor:
    """The sum of log p over the labels after each prompt: (K,)."""
    first = int(attention_mask.long().argmax(1).min())  # earlier columns are padding in every row
    longest = max(1, int((labels != IGNORED).sum(1).max()))
    input_ids, attention_mask, labels = input_ids[:, first:], attention_mask[:, first:], labels[:, :longest]
    written = labels != IGNORED  # (K, L)
    attention = torch.cat([attention_mask, written.to(attention_mask.dtype)], dim=1)  # (K, T + L)
    was_training = model.training
    model.eval()  # without dropout, also of CF vectors
    logits = model(
        input_ids=torch.cat([input_ids, labels.masked_fill(~written, _filler(model))], dim=1),
        attention_mask=attention,
        position_ids=(attention.long().cumsum(1) - 1).clamp(min=0),
        logits_to_keep=labels.shape[1] + 1,
        use_cache=False,
        **history,
    ).logits[:, :-1]  # (K, L, V)
    model.train(was_training)
    losses = [  # row by row: a large vocabulary in float32 would be most of the memory
        torch.nn.functional.cross_entropy(row.float(), label, ignore_index=IGNORED, reduction="sum")
        for row, label in zip(logits, labels, strict=True)
    ]
    likelihood = -torch.stack(losses)
    check_finite(likelihood)
    return likelihood


def _filler(model: Any) -> int:
    """A token id for masked positions that is not the placeholder."""
    return 1 if model.config.item_token_id == 0 else 0


__all__ = ["leave_one_out", "shares"]
