"""Yields a text while the model writes it, in a thread."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer


def stream_text(regen: Any, inputs: Any, options: dict[str, Any]) -> Iterator[str]:
    """The pieces of the text that `generate` writes with `options`; leaving the loop stops the generation.

    Args:
        regen ([`RegenPipeline`]): model and processor.
        inputs: of `generate`, for one text.
        options: of `generate`.
    """
    streamer = Pieces(regen.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    return _streamed(regen.model, inputs, options, streamer)


def stream_tokens(regen: Any, inputs: Any, options: dict[str, Any]) -> Generator[list[int], None, None]:
    """As `stream_text`, with lists of tokens in place of the pieces."""
    return _streamed(regen.model, inputs, options, Tokens(regen.processor.tokenizer, skip_prompt=True))


def _streamed(
    model: Any, inputs: Any, options: dict[str, Any], streamer: TextIteratorStreamer
) -> Generator[Any, None, None]:
    stop, failures = Event(), []

    def stopped(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

    def write() -> None:
        try:
            model.generate(**inputs, **options, streamer=streamer, stopping_criteria=StoppingCriteriaList([stopped]))
        except Exception as error:  # otherwise lost with the thread, and the reader would wait forever
            failures.append(error)
            streamer.end()

    worker = Thread(target=write, daemon=True)
    worker.start()
    try:
        yield from (part for part in streamer if part)
    finally:
        stop.set()
        worker.join()
    if failures:
        raise failures[0]


class Pieces(TextIteratorStreamer):
    """Streams pieces whose concatenation is the decoded text.

    The parent class clears its cache at a line break, after which some tokenizers drop the space before a word.
    """

    def put(self, value: torch.Tensor) -> None:
        """Add the next tokens; the first call passes the prompt, which is skipped."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.token_cache.extend(value.flatten().tolist())
        text = str(self.tokenizer.decode(self.token_cache, **self.decode_kwargs))
        # The next token may still change the last word; a Chinese character is complete.
        complete = bool(text) and self._is_chinese_char(ord(text[-1]))
        ready = len(text) if complete else max(text.rfind(" "), text.rfind("\n")) + 1
        piece = text[self.print_len : ready]
        self.print_len += len(piece)
        self.on_finalized_text(piece)


class Tokens(TextIteratorStreamer):
    """Streams lists of tokens."""

    def put(self, value: torch.Tensor) -> None:
        """Add the next tokens; the first call passes the prompt, which is skipped."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.text_queue.put(value.flatten().tolist(), timeout=self.timeout)

    def end(self) -> None:
        """End the iteration."""
        self.text_queue.put(self.stop_signal, timeout=self.timeout)


__all__ = ["Pieces", "Tokens", "stream_text", "stream_tokens"]
