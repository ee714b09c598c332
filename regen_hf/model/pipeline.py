"""Generation from raw histories: `load("org/model").narrate(history, task="user_profile")`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer

from .histories import one_each, read_histories
from .loading import HUB, check_folder
from .modeling_regen import RegenForCausalLM
from .processing_regen import RegenProcessor


class RegenPipeline:
    """A fused model and its processor, which generate narratives from raw histories.

    A history is a list of purchases or a row of the dataset, as for the processor. Decoding is greedy by default, so
    the same history gives the same text.

    Args:
        model ([`RegenForCausalLM`]): the model, on its device.
        processor ([`RegenProcessor`]): the processor of the model.
    """

    def __init__(self, model: RegenForCausalLM, processor: RegenProcessor) -> None:
        self.model, self.processor = model, processor

    def narrate(
        self,
        history: Any,
        task: str | Sequence[str | None] | None = None,
        prompt: str | Sequence[str | None] | None = None,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        **generation: Any,
    ) -> Any:
        """The generated text of each history.

        Args:
            history: one history or several.
            task: one of `processor.task_prompts`, or one per history.
            prompt: an instruction in place of a task, or one per history.
            batch_size: histories per batch; batches hold histories of similar length.
            max_new_tokens: maximum number of new tokens. Where they do not fit into the model's window, the oldest
                purchases are left out, with a warning.
            **generation: for `model.generate`, such as `do_sample=True, temperature=0.8` or `num_beams=4`.

        Returns:
            `str` for one history, `list[str]` for several, in their order; with `num_return_sequences` a list for each
            history.

        Raises:
            ValueError: a history is malformed, a task unknown, or the prompt without purchases too long.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
        histories, single = read_histories(history)
        tasks, prompts = one_each("task", task, len(histories)), one_each("prompt", prompt, len(histories))
        options = {"max_new_tokens": max_new_tokens, "do_sample": False} | generation
        sequences = generation.get("num_return_sequences", 1)
        texts: list[Any] = [None] * len(histories)
        order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self._inputs(
                [histories[n] for n in batch], [tasks[n] for n in batch], [prompts[n] for n in batch], max_new_tokens
            )
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, **options)
            written = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            written = [text.strip() for text in written]
            for index, number in enumerate(batch):
                candidates = written[index * sequences : (index + 1) * sequences]
                texts[number] = candidates if "num_return_sequences" in generation else candidates[0]
        return texts[0] if single else texts

    def stream(
        self,
        history: Any,
        task: str | None = None,
        prompt: str | None = None,
        max_new_tokens: int = 256,
        **generation: Any,
    ) -> Iterator[str]:
        """Yield the generated text of one history in pieces; leaving the loop stops the generation.

        The arguments are those of `narrate`.

        Raises:
            ValueError: there are several histories, or as in `narrate`.
        """
        histories, _ = read_histories(history)
        if len(histories) != 1:
            raise ValueError(f"stream got {len(histories)} histories, expected one: use narrate for several.")
        inputs = self._inputs(histories, [task], [prompt], max_new_tokens)  # raises here, not at the first piece
        return self._pieces(inputs, {"max_new_tokens": max_new_tokens, "do_sample": False} | generation)

    def _pieces(self, inputs: Any, options: dict[str, Any]) -> Iterator[str]:
        streamer = _Pieces(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, failures = Event(), []

        def stopped(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

        def write() -> None:
            try:
                self.model.generate(
                    **inputs, **options, streamer=streamer, stopping_criteria=StoppingCriteriaList([stopped])
                )
            except Exception as error:  # otherwise lost with the thread, and the reader would wait forever
                failures.append(error)
                streamer.end()

        worker = Thread(target=write, daemon=True)
        worker.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            stop.set()
            worker.join()
        if failures:
            raise failures[0]

    def _inputs(
        self, histories: list[Any], tasks: list[str | None], prompts: list[str | None], max_new_tokens: int
    ) -> Any:
        limits = [self.processor.tokenizer.model_max_length, self.model.config.window]
        room = min((limit for limit in limits if limit is not None), default=None)
        if room is not None and max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}, expected fewer than the {room} tokens of the model's window, "
                "which also holds the prompt."
            )
        max_length = None if room is None else room - max_new_tokens
        return self.processor(histories, tasks, prompts, max_length=max_length).to(self.model.device)


class _Pieces(TextIteratorStreamer):
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


def load(name: str, **kwargs: Any) -> RegenPipeline:
    """The fused model `name` with its processor, on a GPU where there is one.

    >>> regen = load("org/regen-office")  # doctest: +SKIP
    >>> regen.narrate(row, task="user_profile")  # doctest: +SKIP
    'A young teacher who …'

    Args:
        name: a repository on the Hub, or a folder such as `RUN/model`.
        **kwargs: for `RegenForCausalLM.from_pretrained`, such as `dtype="bfloat16"`, `device_map="auto"`, `token=…`,
            `revision=…`, `attn_implementation="flash_attention_2"` or `quantization_config=…`.

    Raises:
        OSError: there is no such repository or folder, or it lacks a file.
        ValueError: a weight is missing.
    """
    name = str(name)
    check_folder(name, kwargs.get("subfolder") or "")
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no folder {name!r}: pass a model folder such as RUN/model, or a Hub name.")
    if "device_map" not in kwargs and torch.cuda.is_available():
        kwargs["device_map"] = "cuda"
    hub = {key: kwargs[key] for key in (*HUB, "subfolder") if key in kwargs}
    model = RegenForCausalLM.from_pretrained(name, **kwargs)
    return RegenPipeline(model.eval(), RegenProcessor.from_pretrained(name, **hub))


__all__ = ["RegenPipeline", "load"]
