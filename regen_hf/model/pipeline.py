"""Generation from raw histories: `model.pipeline(processor).narrate(history, task="user_profile")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from .citations import Check, Citer, check_arguments, checked, cited_stream
from .histories import is_list, one_each, read_histories
from .recommendation import Catalogue, Choice, OpenPrompt, Turns
from .streaming import stream_text

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
        cite: bool = False,
        check: Check | None = None,
        **generation: Any,
    ) -> Any:
        """The generated text of each history, or with `cite` its sentences with the purchases that they rest on.

        >>> regen.narrate(history, task="user_profile", cite=True)  # doctest: +SKIP
        [{'text': 'It all began with a pen.', 'citations': [{'purchase': 0, 'strength': 9.1}], 'strength': 5.2, …}]

        Args:
            history: one history or several.
            task: one of `processor.task_prompts`, or one per history.
            prompt: an instruction in place of a task, or one per history.
            batch_size: histories per batch; batches hold histories of similar length.
            max_new_tokens: maximum number of new tokens. Where they do not fit into the model's window, the oldest
                purchases are left out, with a warning.
            cite: return sentences: the likelihood of each is measured without each purchase.
            check: compares the sentences with the record, such as `regen_hf.record_check("RUN")`; with `cite` only.
            **generation: for `model.generate`, such as `do_sample=True, temperature=0.8` or `num_beams=4`.

        Returns:
            `str` for one history, `list[str]` for several, in their order; with `num_return_sequences` a list for each
            history. With `cite`, a list of dicts in place of each `str`: `text`, the sentence with the white space
            after it; `citations`, the strongest first, each with the position of a `purchase` in the history (0 for
            the oldest) and its `strength`, the decrease of the sentence's log-likelihood without it in nats;
            `strength`, the decrease without any purchase; `verdict`, "supported", "contradicted" or "not in the
            record", or None for a sentence that was not checked; and `unsupported`, the words that the record does not
            support.

        Raises:
            ValueError: a history is malformed, a task unknown, or the prompt without purchases too long.
        """
        _check_numbers(batch_size=batch_size)
        check_arguments(cite, check, generation)
        histories, single = read_histories(history)
        tasks, prompts = one_each("task", task, len(histories)), one_each("prompt", prompt, len(histories))
        texts: list[Any] = [None] * len(histories)
        order = sorted(range(len(histories)), key=lambda number: len(histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = self._inputs(
                [histories[n] for n in batch], [tasks[n] for n in batch], [prompts[n] for n in batch], max_new_tokens
            )
            if cite:
                rows = [histories[n] for n in batch]
                written: list[Any] = self._cited(inputs, rows, [0] * len(rows), check, max_new_tokens, generation)
            else:
                written = self._texts(inputs, max_new_tokens, generation)
            for number, text in zip(batch, written, strict=True):
                texts[number] = text
        return texts[0] if single else texts

    def stream(
        self,
        history: Any,
        task: str | None = None,
        prompt: str | None = None,
        max_new_tokens: int = 256,
        cite: bool = False,
        check: Check | None = None,
        **generation: Any,
    ) -> Iterator[Any]:
        """Yield the generated text of one history in pieces; leaving the loop stops the generation.

        The arguments are those of `narrate`. With `cite` the pieces are the sentences that `narrate` returns, each
        yielded when it is complete, while the model writes the next one.

        Raises:
            ValueError: there are several histories, or as in `narrate`.
        """
        histories, _ = read_histories(history)
        if len(histories) != 1:
            raise ValueError(f"stream got {len(histories)} histories, expected one: use narrate for several.")
        check_arguments(cite, check, generation)
        inputs = self._inputs(histories, [task], [prompt], max_new_tokens)  # raises here, not at the first piece
        options = {"max_new_tokens": max_new_tokens, "do_sample": False} | generation
        if not cite:
            return stream_text(self, inputs, options)
        return checked(cited_stream(self, inputs, histories[0], options), histories[0], check)

    def recommend(
        self,
        history: Any,
        n: int = 10,
        candidates: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        explain: bool = False,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        critique: Any = None,
        shown: Any = None,
        **generation: Any,
    ) -> Any:
        """The best next purchases by the item head, for one history or several.

        >>> regen.recommend(history, n=3, explain=True)  # doctest: +SKIP
        [{'asin': 'B01', 'title': 'Gel pen', 'score': 9.31, 'cold': False, 'endorsement': 'The …'}, …]

        Args:
            history: one history or several; a history may be empty.
            n: maximum number of items.
            candidates: asins of the catalogue to choose from; None for all.
            exclude: asins that are not recommended; by default the items of the history and of `shown`.
            explain: also write the endorsement of the first item, from the same pass.
            batch_size: histories per batch.
            max_new_tokens: maximum number of new tokens of an endorsement.
            critique: what should be different about the last item, as in "I would like it in navy."; for several
                items of `shown` a list, with None where nothing was said. For several histories, one value per history.
            shown: items that were recommended after the history and not bought, oldest first, as in `endorse`; for
                several histories, one list per history.
            **generation: for `model.generate`; one sequence, without beams and assistants.

        Returns:
            A list of dicts, the best first, for each history: `asin`, `title`, `score` (a cosine times a learned
            factor), `cold` (whether the item has no CF vector, so that it is ranked by its text only), and the
            `endorsement` of the first.

        Raises:
            ValueError: the model has no item head, a history is malformed, an item is not in the catalogue, or a
                critique has no item before it, is too long, or was passed to a model that was trained without any.
        """
        _check_numbers(n=n, batch_size=batch_size)
        if generation and not explain:
            raise ValueError(f"{next(iter(generation))} was passed without explain=True, which alone generates a text.")
        turns, single = self._catalogue.turns(history, critique, shown)
        choice = self._choice(n, candidates, exclude)
        results: list[Any] = [None] * len(turns.histories)
        order = sorted(range(len(results)), key=lambda number: len(turns.histories[number]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            prompt, ranked = self._ranked(turns.part(batch), choice, explain, max_new_tokens)
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
        critique: Any = None,
        shown: Any = None,
        **generation: Any,
    ) -> tuple[list[dict[str, Any]], Iterator[str]]:
        """The result of `recommend` for one history, and the endorsement of its first item in pieces.

        >>> items, pieces = regen.stream_recommendation(history)  # doctest: +SKIP
        >>> print(*pieces, sep="")  # doctest: +SKIP

        Raises:
            ValueError: there are several histories, no item is left, or as in `recommend`.
        """
        turns, _ = self._catalogue.turns(history, critique, shown)
        if len(turns.histories) != 1:
            raise ValueError(
                f"stream_recommendation got {len(turns.histories)} histories, expected one: use recommend."
            )
        _check_numbers(n=n)
        prompt, ranked = self._ranked(turns, self._choice(n, candidates, exclude), True, max_new_tokens)
        if not ranked[0]:
            raise ValueError("There is no item to recommend, expected at least one: exclude fewer, or pass candidates.")
        options = {"max_new_tokens": max_new_tokens, "do_sample": False} | _continued(generation)
        return ranked[0], stream_text(self, self._filled(prompt, ranked), options)

    def endorse(
        self,
        history: Any,
        item: Any,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        critique: Any = None,
        shown: Any = None,
        cite: bool = False,
        check: Check | None = None,
        **generation: Any,
    ) -> Any:
        """The endorsement of an item that another system chose, for one history or several.

        Args:
            history: one history or several.
            item: an asin of the catalogue, or a mapping with title, category, description and price; or one per
                history. An item of the catalogue is shown with its vectors there, another one with its text.
            batch_size: histories per batch.
            max_new_tokens: maximum number of new tokens.
            critique: what the item should meet, as in `recommend`.
            shown: items that were shown before this one, as in `recommend`.
            cite: return sentences with the purchases that they rest on, as in `narrate`; the item is no purchase.
            check: compares the sentences with the record, which ends with the item, as in `narrate`.
            **generation: for `model.generate`.

        Returns:
            `str` for one history, `list[str]` for several; with `cite`, a list of the dicts of `narrate` in place of
            each `str`.

        Raises:
            ValueError: a history is malformed, an asin is not in the catalogue, or a critique is as in `recommend`.
        """
        _check_numbers(batch_size=batch_size)
        check_arguments(cite, check, generation)
        turns, single = self._catalogue.turns(history, critique, shown)
        histories = turns.histories
        items = list(item) if is_list(item) else [item] * len(histories)
        if len(items) != len(histories):
            raise ValueError(f"item has {len(items)} items, expected one, or {len(histories)}, one per history.")
        chosen = [self._catalogue.item("item", one) for one in items]
        texts: list[Any] = []
        for start in range(0, len(histories), batch_size):
            batch = range(len(histories))[start : start + batch_size]
            part = turns.part(batch)
            rows = [[*row, {"item": chosen[number]}] for row, number in zip(part.histories, batch, strict=True)]
            inputs = self._inputs(rows, [ENDORSEMENT] * len(rows), [None] * len(rows), max_new_tokens, part.critiques)
            items = [[*asins, chosen[number].get("asin")] for asins, number in zip(part.shown, batch, strict=True)]
            self._catalogue.show_items(inputs, items)
            if cite:
                titled = [{"item": chosen[number] | self._catalogue.named(chosen[number])} for number in batch]
                records = [[*row, item] for row, item in zip(part.histories, titled, strict=True)]
                texts += self._cited(inputs, records, list(map(len, items)), check, max_new_tokens, generation)
            else:
                texts += self._texts(inputs, max_new_tokens, generation)
        return texts[0] if single else texts

    def explain(
        self,
        history: Any,
        items: Any,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        cite: bool = False,
        check: Check | None = None,
        **generation: Any,
    ) -> Any:
        """The reasons for the items that another system recommends, for one history or several.

        >>> regen.explain(history, items=["B01", "B07"])  # doctest: +SKIP
        [{'asin': 'B01', 'title': 'Gel pen', 'reason': 'The …'}, …]

        Args:
            history: one history or several.
            items: the items, in the order of the other system, each as in `endorse`; for several histories, one list
                per history.
            batch_size: texts per batch, of one history or of several; batches hold histories of similar length.
            max_new_tokens: maximum number of new tokens of a reason.
            cite: a reason is a list of sentences with the purchases that they rest on, as in `endorse`.
            check: compares the sentences with the record, as in `endorse`.
            **generation: for `model.generate`.

        Returns:
            A list of dicts in the order of `items`, for each history: `asin` and `title`, None where unknown, and
            `reason`, the endorsement of the item.

        Raises:
            ValueError: there are no lists of items, or not as many as histories, or as in `endorse`.
        """
        histories, single = read_histories(history)
        lists = [_items(items)] if single else [_items(given) for given in _items(items)]
        if len(lists) != len(histories):
            raise ValueError(f"items has {len(lists)} lists, expected {len(histories)}, one per history.")
        chosen = [[self._catalogue.item("items", item) for item in given] for given in lists]
        results = [[self._catalogue.named(item) for item in given] for given in chosen]
        pairs = [(row, number) for row, given in enumerate(chosen) for number in range(len(given))]
        pairs.sort(key=lambda pair: len(histories[pair[0]]))
        if not pairs:
            return results[0] if single else results
        rows, shown = [histories[row] for row, _ in pairs], [chosen[row][number] for row, number in pairs]
        reasons = self.endorse(rows, shown, batch_size, max_new_tokens, cite=cite, check=check, **generation)
        for (row, number), reason in zip(pairs, reasons, strict=True):
            results[row][number]["reason"] = reason
        return results[0] if single else results

    def _choice(self, n: int, candidates: Iterable[str] | None, exclude: Iterable[str] | None) -> Choice:
        """The rows of the catalogue from which to choose, and those to leave out."""
        rows = self._catalogue.rows_of
        return Choice(
            n,
            None if candidates is None else rows("candidates", candidates),
            None if exclude is None else rows("exclude", exclude),
        )

    def _ranked(
        self, turns: Turns, choice: Choice, explain: bool, max_new_tokens: int
    ) -> tuple[OpenPrompt, list[list[dict[str, Any]]]]:
        """The prompts read up to the open item, and the best items of each."""
        opened = [[*row, self._catalogue.open_item()] for row in turns.histories]
        task, text = (ENDORSEMENT, None) if explain else (None, "")
        new_tokens = max_new_tokens if explain else 1
        inputs = self._inputs(opened, [task] * len(opened), [text] * len(opened), new_tokens, turns.critiques)
        self._catalogue.show_items(inputs, [[*asins, None] for asins in turns.shown])
        with torch.no_grad():
            prompt = OpenPrompt(self.model, inputs)
            return prompt, self._catalogue.best(prompt.queries, choice, turns.histories)

    @torch.no_grad()
    def _filled(self, prompt: OpenPrompt, ranked: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """The inputs of `generate` with the first item of each list; any item where a list is empty."""
        any_item = self._catalogue.open_item()["item"]["asin"]
        return prompt.fill(self._catalogue.vectors([entries[0]["asin"] if entries else any_item for entries in ranked]))

    def _texts(self, inputs: Mapping[str, Any], max_new_tokens: int, generation: dict[str, Any]) -> list[Any]:
        """The generated text of each row; a list of texts with `num_return_sequences`."""
        tokens = self._tokens(inputs, max_new_tokens, generation)
        written = self.processor.batch_decode(tokens, skip_special_tokens=True)
        written = [text.strip() for text in written]
        if "num_return_sequences" not in generation:
            return written
        sequences = generation["num_return_sequences"]
        return [written[start : start + sequences] for start in range(0, len(written), sequences)]

    def _tokens(self, inputs: Mapping[str, Any], max_new_tokens: int, generation: dict[str, Any]) -> torch.Tensor:
        """The generated tokens of each row."""
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        options = generation if prompt else _continued(generation)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **{"max_new_tokens": max_new_tokens, "do_sample": False} | options)
        return tokens[:, prompt:]

    def purchases_in_prompt(self, history: Any, task: str | None = None, max_new_tokens: int = 256) -> int:
        """The number of purchases of one history that are in the prompt of a text: the latest ones."""
        return int(self._inputs(read_histories(history)[0], [task], [None], max_new_tokens)["history_mask"].sum())

    def _cited(
        self,
        inputs: Any,
        histories: list[Any],
        fixed: list[int],
        check: Check | None,
        max_new_tokens: int,
        generation: dict[str, Any],
    ) -> list[list[dict[str, Any]]]:
        """The cited sentences of each row; the last `fixed` items of each history are never cited."""
        tokens = self._tokens(inputs, max_new_tokens, generation).tolist()
        citers = (Citer.of(self, inputs, row, history, fixed=fixed[row]) for row, history in enumerate(histories))
        return [
            list(checked(citer.add(of_row, last=True), history, check))
            for citer, of_row, history in zip(citers, tokens, histories, strict=True)
        ]

    def _inputs(
        self,
        histories: list[Any],
        tasks: list[str | None],
        prompts: list[str | None],
        max_new_tokens: int,
        critiques: Sequence[Sequence[str | None]] | None = None,
    ) -> Any:
        limits = [self.processor.tokenizer.model_max_length, self.model.config.window]
        room = min((limit for limit in limits if limit is not None), default=None)
        if room is not None and max_new_tokens >= room:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}, expected fewer than the {room} tokens of the model's window, "
                "which also holds the prompt."
            )
        max_length = None if room is None else room - max_new_tokens
        inputs = self.processor(histories, tasks, prompts, max_length=max_length, critiques=critiques)
        return inputs.to(self.model.device)


def _check_numbers(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer of at least 1.")


def _items(given: Any) -> list[Any]:
    """`given` as a list.

    Raises:
        ValueError: it is one item, or nothing to iterate over.
    """
    if not is_list(given):
        raise ValueError(f"items is {given!r:.80}, expected a list of items, or one list per history for several.")
    return list(given)


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


__all__ = ["RegenPipeline"]
