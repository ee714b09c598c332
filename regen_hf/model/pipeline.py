"""A trained model in two lines: `regen_hf.load("org/model").narrate(history, task="user_profile")`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer

from .histories import one_each, read_histories
from .modeling_regen import RegenForCausalLM
from .processing_regen import RegenProcessor


class RegenPipeline:
    """A fused model and its processor: raw histories in, narratives out.

    Histories are as the processor takes them: a list of purchases, a row of the dataset, or a list of either. Decoding
    is greedy unless told otherwise, so the same history gives the same words.

    Args:
        model ([`RegenForCausalLM`]): the model, on its device.
        processor ([`RegenProcessor`]): what was saved with it.
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
        """What the model says of each history.

        Args:
            history: one history or several.
            task: one of `processor.task_prompts`, or one per history.
            prompt: a prompt of one's own in place of a task, or one per history.
            batch_size: histories at once; those of about one length go together.
            max_new_tokens: tokens to write at most. A history that leaves no room for them in the model's window loses
                its oldest purchases, with a warning.
            **generation: for `model.generate`, as `do_sample=True, temperature=0.8`, `num_beams=4`.

        Returns:
            `str` for one history, `list[str]` for several, in their order; with `num_return_sequences` a list for each
            history.

        Raises:
            ValueError: a history is malformed, a task unknown, or the prompt alone too long.
        """
        histories, alone = read_histories(history)
        tasks, prompts = (one_each(name, given, len(histories)) for name, given in (("task", task), ("prompt", prompt)))
        several = generation.get("num_return_sequences", 1)
        said: list[Any] = [None] * len(histories)
        order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self._inputs(
                [histories[n] for n in batch], [tasks[n] for n in batch], [prompts[n] for n in batch], max_new_tokens
            )
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, **self._decoding(max_new_tokens, generation))  # type: ignore[misc]
            written = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            texts = [text.strip() for text in written]
            for place, number in enumerate(batch):
                of_one = texts[place * several : (place + 1) * several]
                said[number] = of_one if "num_return_sequences" in generation else of_one[0]
        return said[0] if alone else said

    def stream(
        self,
        history: Any,
        task: str | None = None,
        prompt: str | None = None,
        max_new_tokens: int = 256,
        **generation: Any,
    ) -> Iterator[str]:
        """What the model says of one history, in pieces as they are written; leaving the loop stops the model.

        The arguments are those of `narrate`.

        Raises:
            ValueError: several histories were given, or as in `narrate`.
        """
        histories, _ = read_histories(history)
        if len(histories) != 1:
            raise ValueError(f"{len(histories)} histories were given, expected one: use narrate for several.")
        inputs = self._inputs(histories, [task], [prompt], max_new_tokens)  # now, not when the first piece is asked for
        return self._pieces(inputs, self._decoding(max_new_tokens, generation))

    def _pieces(self, inputs: Any, decoding: dict[str, Any]) -> Iterator[str]:
        streamer = _Pieces(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, failures = Event(), []

        def given_up(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

        def write() -> None:
            try:
                self.model.generate(  # type: ignore[misc]
                    **inputs, **decoding, streamer=streamer, stopping_criteria=StoppingCriteriaList([given_up])
                )
            except Exception as error:  # it would end with the thread, and the reader wait for ever
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
                f"max_new_tokens is {max_new_tokens}, and the model reads {room} tokens in all, the prompt among them: "
                "ask for fewer."
            )
        return self.processor(
            histories,
            tasks,
            prompts,
            max_length=None if room is None else room - max_new_tokens,
        ).to(self.model.device)

    @staticmethod
    def _decoding(max_new_tokens: int, generation: dict[str, Any]) -> dict[str, Any]:
        return {"max_new_tokens": max_new_tokens, "do_sample": False} | generation


class _Pieces(TextIteratorStreamer):
    """A text in pieces that add up to it.

    The parent begins anew after a line break, where tokenizers that write a space before a word lose it.
    """

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call brings the prompt."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.token_cache.extend(value.flatten().tolist())
        text = str(self.tokenizer.decode(self.token_cache, **self.decode_kwargs))
        # The next token may still change a word that has no end.
        whole_to_its_end = bool(text) and self._is_chinese_char(ord(text[-1]))
        ready = len(text) if whole_to_its_end else max(text.rfind(" "), text.rfind("\n")) + 1
        piece = text[self.print_len : ready]
        self.print_len += len(piece)
        self.on_finalized_text(piece)


def load(name: str, **kwargs: Any) -> RegenPipeline:
    """The fused model `name`, ready to narrate, on a GPU where there is one.

    >>> regen = load("org/regen-office")  # doctest: +SKIP
    >>> regen.narrate(row, task="user_profile")  # doctest: +SKIP
    'A young teacher who …'

    Args:
        name: a repository on the Hub, or a folder such as `RUN/model`.
        **kwargs: for `RegenForCausalLM.from_pretrained`, as `dtype="bfloat16"`, `device_map="auto"`, `token=…`,
            `revision=…`, `attn_implementation="flash_attention_2"` or `quantization_config=…`.

    Raises:
        OSError: there is no such repository or folder, or it lacks a file.
        ValueError: a weight is missing.
    """
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no folder {name!r}: give a model folder such as RUN/model, or a Hub name.")
    if "device_map" not in kwargs and torch.cuda.is_available():
        kwargs["device_map"] = "cuda"
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
    hub = {key: kwargs[key] for key in names if key in kwargs}
    model = RegenForCausalLM.from_pretrained(name, **kwargs)
    return RegenPipeline(model.eval(), RegenProcessor.from_pretrained(name, **hub))


__all__ = ["RegenPipeline", "load"]
