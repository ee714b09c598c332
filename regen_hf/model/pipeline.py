"""Generation from raw histories: `model.pipeline(processor).narrate(history, task="user_profile")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer

from .histories import one_each, read_histories
from .recommendation import Catalogue, Choice, OpenPrompt

ENDORSEMENT = "product_endorsement"
"""The task that explains a recommended item; its prompt shows the item's metadata only."""


class RegenPipeline:
    """A fused model and its processor, which generate narratives from raw histories.

    A history is a list of purchases or a row of the dataset, as for the processor. Decoding is greedy by default, so
    the same history gives the same text.

    Args:
        model ([`RegenForCausalLM`]): the model, on its device.
        processor ([`RegenProcessor`]): the processor of the model.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self._catalogue = Catalogue(self)

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
        _check_numbers(batch_size=batch_size)
        histories, single = read_histories(history)
        tasks, prompts = one_each("task", task, len(histories)), one_each("prompt", prompt, len(histories))
        texts: list[Any] = [None] * len(histories)
        order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self._inputs(
                [histories[n] for n in batch], [tasks[n] for n in batch], [prompts[n] for n in batch], max_new_tokens
            )
            for number, text in zip(batch, self._texts(inputs, max_new_tokens, generation), strict=True):
                texts[number] = text
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

    def recommend(
        self,
        history: Any,
        n: int = 10,
        candidates: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        explain: bool = False,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        **generation: Any,
    ) -> Any:
        """The best next purchases by the item head, for one history or several.

        >>> regen.recommend(history, n=3, explain=True)  # doctest: +SKIP
        [{'asin': 'B01', 'title': 'Gel pen', 'score': 9.31, 'cold': False, 'endorsement': 'The …'}, …]

        Args:
            history: one history or several; a history may be empty.
            n: maximum number of items.
            candidates: asins of the catalogue to choose from; None for all.
            exclude: asins that are not recommended; by default the items of the history.
            explain: also write the endorsement of the first item, from the same pass.
            batch_size: histories per batch.
            max_new_tokens: maximum number of new tokens of an endorsement.
            **generation: for `model.generate`; one sequence, without beams and assistants.

        Returns:
            A list of dicts, the best first, for each history: `asin`, `title`, `score` (a cosine times a learned
            factor), `cold` (whether the item has no CF vector, so that it is ranked by its text only), and the
            `endorsement` of the first.

        Raises:
            ValueError: the model has no item head, a history is malformed, or an item is not in the catalogue.
        """
        _check_numbers(n=n, batch_size=batch_size)
        if generation and not explain:
            raise ValueError(f"{next(iter(generation))} was passed without explain=True, which alone generates a text.")
        histories, single = read_histories(history)
        choice = self._choice(n, candidates, exclude)
        results: list[Any] = [None] * len(histories)
        order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            prompt, ranked = self._ranked([histories[number] for number in batch], choice, explain, max_new_tokens)
            if explain:
                inputs = self._filled(prompt, ranked)
                for entries, text in zip(ranked, self._texts(inputs, max_new_tokens, generation), strict=True):
                    if entries:
                        entries[0]["endorsement"] = text
            for number, entries in zip(batch, ranked, strict=True):
                results[number] = entries
        return results[0] if single else results

    def stream_recommendation(
        self,
        history: Any,
        n: int = 10,
        candidates: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        max_new_tokens: int = 256,
        **generation: Any,
    ) -> tuple[list[dict[str, Any]], Iterator[str]]:
        """The result of `recommend` for one history, and the endorsement of its first item in pieces.

        >>> items, pieces = regen.stream_recommendation(history)  # doctest: +SKIP
        >>> print(*pieces, sep="")  # doctest: +SKIP

        Raises:
            ValueError: there are several histories, no item is left, or as in `recommend`.
        """
        histories, _ = read_histories(history)
        if len(histories) != 1:
            raise ValueError(f"stream_recommendation got {len(histories)} histories, expected one: use recommend.")
        _check_numbers(n=n)
        prompt, ranked = self._ranked(histories, self._choice(n, candidates, exclude), True, max_new_tokens)
        if not ranked[0]:
            raise ValueError("There is no item to recommend, expected at least one: exclude fewer, or pass candidates.")
        options = {"max_new_tokens": max_new_tokens, "do_sample": False} | _continued(generation)
        return ranked[0], self._pieces(self._filled(prompt, ranked), options)

    def endorse(
        self, history: Any, item: Any, batch_size: int = 16, max_new_tokens: int = 256, **generation: Any
    ) -> Any:
        """The endorsement of an item that another system chose, for one history or several.

        Args:
            history: one history or several.
            item: an asin of the catalogue, or a mapping with title, category, description and price; or one per
                history. An item of the catalogue is shown with its vectors there, another one with its text.
            batch_size: histories per batch.
            max_new_tokens: maximum number of new tokens.
            **generation: for `model.generate`.

        Returns:
            `str` for one history, `list[str]` for several.

        Raises:
            ValueError: a history is malformed, or an asin is not in the catalogue.
        """
        _check_numbers(batch_size=batch_size)
        histories, single = read_histories(history)
        several = isinstance(item, Iterable) and not isinstance(item, str | Mapping)
        items = list(item) if several else [item] * len(histories)
        if len(items) != len(histories):
            raise ValueError(f"item has {len(items)} items, expected one, or {len(histories)}, one per history.")
        chosen = [self._catalogue.item("item", one) for one in items]
        texts: list[Any] = []
        for start in range(0, len(histories), batch_size):
            batch = slice(start, start + batch_size)
            shown = [[*row, {"item": one}] for row, one in zip(histories[batch], chosen[batch], strict=True)]
            inputs = self._inputs(shown, [ENDORSEMENT] * len(shown), [None] * len(shown), max_new_tokens)
            self._catalogue.show_items(inputs, [one.get("asin") for one in chosen[batch]])
            texts += self._texts(inputs, max_new_tokens, generation)
        return texts[0] if single else texts

    def _choice(self, n: int, candidates: Iterable[str] | None, exclude: Iterable[str] | None) -> Choice:
        """The rows of the catalogue from which to choose, and those to leave out."""
        rows = self._catalogue.rows_of
        return Choice(
            n,
            None if candidates is None else rows("candidates", candidates),
            None if exclude is None else rows("exclude", exclude),
        )

    def _ranked(
        self, histories: list[Any], choice: Choice, explain: bool, max_new_tokens: int
    ) -> tuple[OpenPrompt, list[list[dict[str, Any]]]]:
        """The prompts read up to the open item, and the best items of each."""
        opened = [[*row, self._catalogue.open_item()] for row in histories]
        task, text = (ENDORSEMENT, None) if explain else (None, "")
        inputs = self._inputs(opened, [task] * len(opened), [text] * len(opened), max_new_tokens if explain else 1)
        with torch.no_grad():
            prompt = OpenPrompt(self.model, inputs)
            return prompt, self._catalogue.best(prompt.queries, choice, histories)

    @torch.no_grad()
    def _filled(self, prompt: OpenPrompt, ranked: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """The inputs of `generate` with the first item of each list; any item where a list is empty."""
        any_item = self._catalogue.open_item()["item"]["asin"]
        return prompt.fill(self._catalogue.vectors([entries[0]["asin"] if entries else any_item for entries in ranked]))

    def _texts(self, inputs: Mapping[str, Any], max_new_tokens: int, generation: dict[str, Any]) -> list[Any]:
        """The generated text of each row; a list of texts with `num_return_sequences`."""
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        options = generation if prompt else _continued(generation)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **{"max_new_tokens": max_new_tokens, "do_sample": False} | options)
        written = self.processor.batch_decode(tokens[:, prompt:], skip_special_tokens=True)
        written = [text.strip() for text in written]
        if "num_return_sequences" not in generation:
            return written
        sequences = generation["num_return_sequences"]
        return [written[start : start + sequences] for start in range(0, len(written), sequences)]

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


def _check_numbers(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer of at least 1.")


def _continued(generation: dict[str, Any]) -> dict[str, Any]:
    """The options of a text that continues from the cache of the ranking."""
    for name in ("num_beams", "num_return_sequences", "prompt_lookup_num_tokens", "assistant_model"):
        if generation.get(name) not in (None, 1):
            raise ValueError(
                f"{name} was passed, but the endorsement of a recommendation continues from the cache of the ranking. "
                "Pass the item to endorse, which takes all options."
            )
    if generation.get("cache_implementation"):
        raise ValueError("cache_implementation was passed, expected none: the text continues from an existing cache.")
    return generation


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


__all__ = ["RegenPipeline"]
