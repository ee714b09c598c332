"""Decodes the answers of a local model token by token; answers join and leave the batch while it runs.

A prompt is read by itself, from the end of the longest prefix that it shares with a prompt in the batch, whose keys and
values are copied. The batch then decodes one token of each answer per step. An answer that has ended makes room for the
next prompt. So no prompt is padded while it is read, no step is spent on an answer that has ended, and the text and the
examples that all requests share are read once.

    B answers in the batch, V tokens of the vocabulary, H key-value heads, T tokens in the cache, D width of a head

Rows of the cache are aligned at their last token. Models with another state than keys and values (Mamba, linear or
chunked attention) decode fixed batches with `generate` of transformers, see `decode_fixed`.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .loops import ends_in_loop
from .packed import pack

if TYPE_CHECKING:
    from .request import Request

GROWTH = 256
"""Tokens by which the buffers of the cache grow."""
ATTENTION = "regen_single_query"
"""Name under which transformers has `_attention`."""
LOOP_CHECK = 16
"""Tokens between two checks for a loop."""
MASKS = 256
"""Masks of the vocabulary that are kept for each answer class; the automaton of a class has a few hundred states."""


class Grammar:
    """The tokens that continue an answer, by the state of the automaton of its JSON schema.

    Args:
        index: The automaton, an `outlines_core.Index`.
        quotes: Whether a token begins with a quotation mark, (V,).
    """

    def __init__(self, index: Any, quotes: torch.Tensor) -> None:
        self.quotes = quotes
        self.first: int = index.get_initial_state()
        self.after = index.get_next_state
        self._tokens = index.get_allowed_tokens
        self.allowed = functools.lru_cache(MASKS)(self._allowed)

    def _allowed(self, state: int, closing: bool) -> tuple[torch.Tensor, bool]:
        """Whether a token may come next, (V,); with `closing` only those that end a string. And whether there are any.

        Where no string can end, `closing` has no effect.
        """
        mask = torch.zeros(len(self.quotes), dtype=torch.bool)
        mask[self._tokens(state)] = True
        mask = mask.to(self.quotes.device)
        ending = mask & self.quotes
        return (ending, True) if closing and ending.any() else (mask, False)


class Row:
    """An answer in the making.

    Args:
        request: The request.
        prompt: Its tokens.
        grammar: The grammar of its answer class.
        share: Maximum tokens of one string of the answer; then it is closed, so that all strings fit in max_tokens.
        quotes: Whether a token begins with a quotation mark, as a list.
        end: The end-of-text token.
        decode: Returns the text of tokens.
    """

    def __init__(
        self,
        request: Request,
        prompt: list[int],
        grammar: Grammar,
        share: int,
        quotes: list[bool],
        end: int,
        decode: Callable[[list[int]], str],
    ) -> None:
        self.request, self.prompt, self.grammar, self.share = request, prompt, grammar, share
        self.quotes, self.end, self.decode = quotes, end, decode
        self.restart()

    def restart(self) -> None:
        """Forget the tokens so far."""
        self.tokens: list[int] = []
        self.state = self.grammar.first
        self.since_quote = 0
        self.cut = False
        """Whether a string was closed at its share."""
        self.ended = False
        self.looped = False
        """Whether the last text ends in a loop, which small models do not leave before the maximum length."""
        # Only the key seeds the sampling, so that an answer does not depend on the others in its batch.
        self.random = random.Random(int(self.request.key[:15], 16))  # noqa: S311

    @property
    def reserved(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt) + self.request.max_tokens

    @property
    def done(self) -> bool:
        """Whether the answer has ended, loops or has max_tokens."""
        return self.ended or self.looped or len(self.tokens) >= self.request.max_tokens

    def allowed(self) -> torch.Tensor:
        """Whether a token may come next, (V,)."""
        mask, closed = self.grammar.allowed(self.state, self.since_quote >= self.share)
        self.cut |= closed
        return mask

    def append(self, token: int) -> None:
        """Add the next token."""
        if token == self.end:
            self.ended = True
            return
        self.tokens.append(token)
        self.state = self.grammar.after(self.state, token)
        self.since_quote = 0 if self.quotes[token] else self.since_quote + 1
        self.looped = len(self.tokens) % LOOP_CHECK == 0 and ends_in_loop(self.decode(self.tokens))


def draw(rows: Sequence[Row], logits: torch.Tensor) -> list[int]:
    """The next token of each row, drawn from the softmax of its allowed `logits` (B, V) by one random number.

    At temperature 0 it is the most probable one.
    """
    allowed = torch.stack([row.allowed() for row in rows])
    scores = logits.float().masked_fill(~allowed, -torch.inf)
    temperatures = scores.new_tensor([[row.request.temperature or 1.0] for row in rows])
    # Sums in float64: in float32 the last ones may round to the total, beyond which there is no token.
    sums = torch.softmax(scores / temperatures, -1).cumsum(-1, dtype=torch.float64)
    levels = sums.new_tensor([[row.random.random()] for row in rows]) * sums[:, -1:]
    drawn = torch.searchsorted(sums, levels, right=True)[:, 0].tolist()
    if any(row.request.temperature == 0 for row in rows):
        greedy = scores.argmax(-1).tolist()
        return [greedy[i] if row.request.temperature == 0 else drawn[i] for i, row in enumerate(rows)]
    return list(drawn)


class _Layer(DynamicLayer):
    """Keys and values (B, H, T, D) in buffers with free space: a step copies the new token only, and not the cache."""

    _buffers: list[Any]

    def size(self, new: int) -> int:
        """Tokens of the buffers after `new` ones are appended."""
        end = self.get_seq_length() + new
        capacity = self._buffers[0].shape[-2] if self.is_initialized else 0
        return max(capacity, end if new > 1 or end <= capacity else end + GROWTH)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of the mask and its offset."""
        return self.size(query_length), 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append (B, H, new, D) and return the buffers, whose free space the mask excludes."""
        start, size = self.get_seq_length(), self.size(key_states.shape[-2])
        if not self.is_initialized or size > self._buffers[0].shape[-2]:
            # Zeros: the attention to free space is 0, but 0 times what is in fresh memory may be nan.
            buffers = [
                states.new_zeros(*states.shape[:-2], size, states.shape[-1]) for states in (key_states, value_states)
            ]
            if self.is_initialized:
                for buffer, states in zip(buffers, (self.keys, self.values), strict=True):
                    buffer[:, :, :start] = cast(torch.Tensor, states)
            else:
                self.lazy_initialization(key_states, value_states)
            self._buffers = buffers
        end = start + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return tuple(self._buffers)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (B, 1, query heads, D) of one query (B, query heads, 1, D) on a CPU, else that of transformers.

    All heads are one batch of contiguous matrices, so that no layout is copied.
    """
    special = any(options.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    if query.shape[2] > 1 or query.device.type != "cpu" or special:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    batch, heads, _, width = query.shape
    groups = key.shape[1]
    # Contiguous keys and values of all heads as one batch: other layouts are copied in each step.
    queries = query.reshape(batch * groups, heads // groups, width) * (width**-0.5 if scaling is None else scaling)
    scores = torch.bmm(queries, key.reshape(batch * groups, -1, width).transpose(1, 2)).float()
    if attention_mask is not None:
        scores = scores.view(batch, groups, heads // groups, -1)
        masks = attention_mask.expand(batch, heads, 1, -1).reshape(scores.shape)
        scores = scores.masked_fill(~masks, -torch.inf) if masks.dtype == torch.bool else scores + masks
    weights = torch.softmax(scores, -1).to(query.dtype).view(batch * groups, heads // groups, -1)
    attended = torch.bmm(weights, value.reshape(batch * groups, -1, value.shape[-1]))
    return attended.view(batch, 1, heads, value.shape[-1]), None


def has_shared_cache(model: Any) -> bool:
    """Whether the only state of `model` is one key and one value per token, so that `Batch` can decode it."""
    parameters = inspect.signature(model.forward).parameters
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    return (
        {"position_ids", "attention_mask", "past_key_values"} <= parameters.keys()
        and not model.config.is_encoder_decoder
        and not getattr(config, "attention_chunk_size", None)
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    )


class Batch:
    """The answers that are decoded together.

    Args:
        model: A causal language model that `has_shared_cache`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.read = 0
        """Tokens of prompts that were read, and not copied from another prompt."""
        self._rows: list[Row] = []  # also those that are done, until others join: they share their prefixes
        self._lengths: list[int] = []  # tokens of each row in the cache: all but the last one
        self._cache: Any = None
        if model.config._attn_implementation == "sdpa" and model.device.type == "cpu":
            AttentionInterface.register(ATTENTION, _attention)
            AttentionMaskInterface.register(ATTENTION, sdpa_mask)
            model.set_attn_implementation(ATTENTION)
        pack(model)
        self._last_only = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}

    @property
    def rows(self) -> list[Row]:
        """The answers that are not done."""
        return [row for row in self._rows if not row.done]

    def step(self, joining: Sequence[Row] = ()) -> list[Row]:
        """Read the prompts of `joining`, decode one token of each answer, and return the answers that are done."""
        with torch.inference_mode():
            self._regroup(joining)
            tokens = [[(row.prompt + row.tokens[-1:])[-1]] for row in self._rows]
            logits = self._forward(tokens, self._cache, self._lengths)
            self._lengths = [length + 1 for length in self._lengths]
            for row, token in zip(self._rows, draw(self._rows, logits), strict=True):
                row.append(token)
        return [row for row in self._rows if row.done]

    def clear(self) -> None:
        """Remove all rows."""
        self._rows, self._lengths, self._cache = [], [], None

    def _forward(self, tokens: list[list[int]], cache: Any, lengths: Sequence[int]) -> torch.Tensor:
        """Logits after `tokens` (B, new), (B, V); `lengths` are the tokens of each row in `cache` so far."""
        device, longest, new = self.model.device, max(lengths), len(tokens[0])
        before = torch.tensor(lengths, device=device)[:, None]
        size = cache.layers[0].size(new) if cache.layers else longest + new
        columns = torch.arange(size, device=device)
        output = self.model(
            input_ids=torch.tensor(tokens, device=device),
            attention_mask=((columns >= longest - before) & (columns < longest + new)).long(),
            position_ids=before + torch.arange(new, device=device),
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _regroup(self, joining: Sequence[Row]) -> None:
        """Add `joining`, and remove the rows that are done."""
        rows = [*self.rows, *joining]
        if rows == self._rows:
            return
        sources = [
            _Source(row.prompt, self._cache, index, length)
            for index, (row, length) in enumerate(zip(self._rows, self._lengths, strict=True))
        ]
        for row in joining:
            sources.append(_Source(row.prompt, self._read(row.prompt[:-1], sources), 0, len(row.prompt) - 1))
        kept = [source for row, source in zip([*self._rows, *joining], sources, strict=True) if not row.done]
        self._cache = _joined(kept)
        self._rows, self._lengths = rows, [source.length for source in kept]

    def _read(self, prompt: list[int], sources: Sequence[_Source]) -> Any:
        """The cache of `prompt`, started from the source with the longest common prefix."""
        cache = Cache(layer_class_to_replicate=_Layer)
        shared, best = 0, None
        for source in sources:
            common = _common(prompt, source.prompt[: source.length])
            if common > shared:
                shared, best = common, source
        if best is not None:
            for number, layer in enumerate(best.cache.layers):
                keys, values = best.states(layer)
                cache.update(keys[None, :, :shared], values[None, :, :shared], number)
        self.read += len(prompt) - shared
        if shared < len(prompt):
            self._forward([prompt[shared:]], cache, [shared])
        return cache


@dataclass(frozen=True)
class _Source:
    """A row of a cache."""

    prompt: list[int]
    cache: Any
    index: int
    length: int

    def states(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the row in `layer`, each (H, length, D)."""
        start = layer.keys.shape[-2] - self.length
        return layer.keys[self.index, :, start:], layer.values[self.index, :, start:]


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _joined(sources: Sequence[_Source]) -> Any:
    """One cache of the rows `sources`; shorter rows start with zeros."""
    longest = max(source.length for source in sources)
    joined = Cache(layer_class_to_replicate=_Layer)
    for number in range(len(sources[0].cache.layers)):
        rows = [source.states(source.cache.layers[number]) for source in sources]
        # Zeros: the attention to padding is 0, but 0 times what is in fresh memory may be nan.
        groups = [one.new_zeros(len(sources), one.shape[0], longest, one.shape[2]) for one in rows[0]]
        for index, states in enumerate(rows):
            for group, one in zip(groups, states, strict=True):
                group[index, :, longest - one.shape[1] :] = one
        joined.update(groups[0], groups[1], number)
    return joined


def decode_fixed(model: Any, rows: Sequence[Row], padding: int) -> None:
    """Decode `rows` to their end with `model.generate`, for a model without a shared cache."""

    def choose(input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) that leave one token for each row."""
        chosen = torch.full_like(logits, -torch.inf)
        active = [index for index, row in enumerate(rows) if not row.done]
        drawn = dict(zip(active, draw([rows[index] for index in active], logits[active]), strict=True))
        for index, row in enumerate(rows):
            if index in drawn:
                row.append(drawn[index])
            chosen[index, drawn.get(index, row.end)] = 0
        return chosen

    longest = max(len(row.prompt) for row in rows)
    ids = [[padding] * (longest - len(row.prompt)) + row.prompt for row in rows]
    mask = [[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
    config = GenerationConfig(
        max_new_tokens=max(row.request.max_tokens for row in rows),
        do_sample=False,
        eos_token_id=rows[0].end,
        pad_token_id=padding,
    )
    with torch.inference_mode():
        model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([choose]),
        )
