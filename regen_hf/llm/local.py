"""The backend `transformers`: a local model in this process, constrained to the JSON schema by `outlines`.

The sampling is seeded with the key of the request only. So an answer does not depend on the other requests of its
batch, beyond the rounding of sums, nor on where a killed run was resumed.
"""

from __future__ import annotations

import functools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, RunError, require
from ..progress import Bar
from .answers import schema_of
from .chat_template import ChatTemplate, unloadable
from .live import state
from .request import REPETITION, Reply, Request
from .settings import LOCAL, LLMConfig
from .spending import Spending
from .store import Store, unsent
from .vllm import VllmModel, too_long

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .decoding import Batch, Grammar, Row

WAITING = 64
"""Requests that are drawn ahead, to decode those of similar length together."""
BATCH_TOKENS = {"cpu": 32_768, "cuda": 262_144}
"""Default of batch_tokens."""


class LocalModel:
    """A causal language model and its tokenizer.

    Args:
        name: A folder, or a name on the Hub. The model runs on the GPU if there is one, else in bfloat16 if the CPU
            computes in it.
        batch_tokens: Maximum tokens of a batch, padding and the longest possible answers included.

    Raises:
        ConfigError: the model cannot be loaded; with the library's message.
        RegenError: a library is not installed.
    """

    def __init__(self, name: str, batch_tokens: int | None = None) -> None:
        require(*LOCAL)
        import outlines
        import torch
        import transformers
        from outlines.backends.outlines_core import OutlinesCoreBackend

        from ..model import backbones

        device = "cuda" if torch.cuda.is_available() else "cpu"
        # It halves the bytes of weights and cache that each step reads.
        dtype = torch.bfloat16 if device == "cpu" and backbones.native_bfloat16() else "auto"
        self.template = ChatTemplate.of(name)
        self.tokenizer = self.template.tokenizer
        try:
            self.model = cast(Any, transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype))
        except (OSError, ValueError) as error:
            raise unloadable(name, error) from None
        self.model.to(device).eval()
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"The tokenizer of {name!r} has no end-of-text token, which an answer needs to end. Choose another "
                "model."
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.batch_tokens = batch_tokens or BATCH_TOKENS[device]
        self.queued = 0
        """Requests that were drawn and are not in the batch."""
        self._outlines = OutlinesCoreBackend(outlines.from_transformers(self.model, self.tokenizer))
        size = self.model.get_output_embeddings().out_features
        texts = self.tokenizer.batch_decode([[number] for number in range(size)])
        self._quotes = [text.lstrip(" ").startswith('"') for text in texts]
        self._quote_mask = torch.tensor(self._quotes, device=device)  # (V,)
        self._grammar = functools.cache(self._make_grammar)
        self._share = functools.cache(self._make_share)

    def _make_grammar(self, answer: type[BaseModel]) -> Grammar:
        from .decoding import Grammar

        processor: Any = self._outlines.get_json_schema_logits_processor(json.dumps(schema_of(answer)))
        return Grammar(processor.index, self._quote_mask)

    def answers(self, draw: Callable[[], Request | None]) -> Iterator[tuple[Request, Reply]]:
        """The replies to the requests that `draw` returns, as they are complete.

        Args:
            draw: Returns the next request, or None if there is none now. It is called again after each reply, so that
                a reply can lead to another request.

        Raises:
            RunError: one request by itself needs more memory than the GPU has.
        """
        from .decoding import Batch, has_shared_cache

        waiting: list[Row] = []
        batch = Batch(self.model) if has_shared_cache(self.model) else None
        while True:
            while len(waiting) < WAITING and (request := draw()) is not None:
                row = self._row(request)
                if isinstance(row, Reply):
                    yield request, row
                else:
                    waiting.append(row)
            if not waiting and not (batch and batch.rows):
                return
            waiting.sort(key=lambda row: row.reserved)
            done = self._step(batch, waiting) if batch else self._together(waiting)
            self.queued = len(waiting)
            yield from ((row.request, self._reply(row)) for row in done)

    def _row(self, request: Request) -> Row | Reply:
        """The row of `request`, or the reply that rejects it."""
        from .decoding import Row

        tokens, window = self.template.prompt(request.messages, request.thinking), self.template.window
        if window is not None and len(tokens) + request.max_tokens > window:
            return too_long(len(tokens), request.max_tokens, window)
        share = self._share(request.answer, request.max_tokens)
        end: int = self.tokenizer.eos_token_id
        return Row(request, tokens, self._grammar(request.answer), share, self._quotes, end, self._decode)

    def _make_share(self, answer: type[BaseModel], max_tokens: int) -> int:
        """Maximum tokens of each free text of the answer, so that all of them fit into max_tokens."""
        parts = schema_of(answer)["properties"]
        longest = {name: max(part.get("enum", [""]), key=len) for name, part in parts.items()}
        # Names and labels; the factor leaves space for the white space that a model adds.
        fixed = 1.5 * len(self.tokenizer(json.dumps(longest)).input_ids)
        texts = sum("enum" not in part for part in parts.values())
        return max(1, int(max_tokens - fixed) // max(1, texts))

    def _step(self, batch: Batch, waiting: list[Row]) -> list[Row]:
        """One step of `batch`, with the longest rows of `waiting` that fit; the rows that are done."""
        import torch

        joining: list[Row] = []
        for row in reversed(waiting):
            rows = [*batch.rows, *joining, row]
            if len(rows) * max(one.reserved for one in rows) <= self.batch_tokens or len(rows) == 1:
                joining.append(row)
        waiting[:] = [row for row in waiting if row not in joining]
        try:
            return batch.step(joining)
        except torch.OutOfMemoryError:
            rows = list(dict.fromkeys([*batch.rows, *joining]))
            self._halve(rows)
            batch.clear()
            waiting += rows
            return []

    def _together(self, waiting: list[Row]) -> list[Row]:
        """The longest rows of `waiting`, after they were decoded to their end."""
        import torch

        from .decoding import decode_fixed

        count = 1
        while count < len(waiting) and (count + 1) * waiting[-1].reserved <= self.batch_tokens:
            count += 1
        rows = [waiting.pop() for _ in range(count)]
        try:
            decode_fixed(self.model, rows, self.tokenizer.pad_token_id)
        except torch.OutOfMemoryError:
            self._halve(rows)
            waiting += rows
            return []
        return rows

    def _halve(self, rows: list[Row]) -> None:
        """Halve the tokens of a batch after the memory did not suffice for `rows`, which start again."""
        import torch

        longest = max(row.reserved for row in rows)
        if len(rows) == 1:
            raise RunError(
                f"The GPU has not enough memory for {self.model.name_or_path!r} and a request of {longest} tokens. "
                "Lower window and max_tokens, or use a smaller model."
            )
        self.batch_tokens = len(rows) * longest // 2
        for row in rows:
            row.restart()
        torch.cuda.empty_cache()

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _reply(self, row: Row) -> Reply:
        complete = "stop" if row.ended and not row.cut else "length"
        return Reply(
            self._decode(row.tokens),
            finish_reason=REPETITION if row.looped else complete,
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
        )


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: Bar) -> None:
    """Store a reply to every request that `store` has none for, one model after the other."""
    spending = Spending(config, store)
    with store.statistics.timed():
        name = _pass(requests, config, store, bar, spending, first=True)
        while name is not None:
            name = _pass(requests, config, store, bar, spending, first=False)


def _pass(
    requests: Callable[[], Iterable[Request]],
    config: LLMConfig,
    store: Store,
    bar: Bar,
    spending: Spending,
    first: bool,
) -> str | None:
    """Answer the requests to the model of the first one without a reply, and return this model."""
    name: str | None = None
    repeated: deque[Request] = deque()
    drawn: dict[str, float] = {}
    """When each request was drawn, by its key."""

    def unanswered() -> Iterator[Request]:
        for request in requests():
            missing = unsent(request, store)
            if missing is not None:
                yield missing
            elif first:
                bar.initial += 1  # not part of the rate
                bar.update()

    remaining = unanswered()

    def draw() -> Request | None:
        request = repeated.popleft() if repeated else None
        request = request or next((other for other in remaining if other.model == name), None)
        if request is not None:
            drawn[request.key] = time.monotonic()
        return request

    head = next(remaining, None)
    if head is None:
        return None
    name = head.model
    repeated.append(head)
    if config.backend == "vllm":
        model: LocalModel | VllmModel = VllmModel(name, config.window)
    else:
        model = LocalModel(name, config.batch_tokens)
    for request, reply in model.answers(draw):
        store.put(request, reply)
        spending.pay(name, reply)
        started = drawn.pop(request.key, time.monotonic())
        if reply.state == "answered":
            store.statistics.of(name).add(time.monotonic() - started, reply)
        # A request that only waits is not part of the rate.
        bar.set_postfix_str(state(max(0, len(drawn) - model.queued), model.queued, spending), refresh=False)
        missing = unsent(request, store)
        if missing is None:
            bar.update()
        elif missing.model == name:
            repeated.append(missing)  # an invalid answer is repeated at once
    return name
