"""The fused model of the Space: narratives about a history, the influence of each purchase, and the next items.

It stores nothing about visitors: every call gets the full history.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event, Lock, Thread
from typing import Any

from start import loading

MAX_NEW_TOKENS = 256
SECONDS = 60
"""Time limit of one answer."""
SIMILAR = 0.15
"""Least cosine of a search by meaning."""

VIEWS = {  # the parts of the history that the model sees in the tab Compare
    "fused": "Everything",
    "content": "Texts only",
    "cf": "Other shoppers only",
    "empty": "No purchases",
}


class Fused:
    """Model and processor of a repository or folder.

    Args:
        name: repository on the Hub, or a folder.
        revision: commit of the repository.
        seconds: time limit of one answer.

    Raises:
        NotReadyError: a part is missing or cannot be loaded.
    """

    def __init__(self, name: str, revision: str, seconds: float = SECONDS) -> None:
        with loading("The model", name):
            import torch
            from transformers import AutoModelForCausalLM, AutoProcessor

            self.seconds = seconds
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            self._one_at_a_time = Lock()  # tokenizers raise an error if two threads call them
            model = AutoModelForCausalLM.from_pretrained(name, revision=revision, trust_remote_code=True)
            self._model = model.eval().to(self._device)
        with loading("The tokenizer, the item vectors or the text encoder", name):
            self._processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
            if self._processor.content_encoder is not None:
                _ = self._processor.encoder  # loads it before the first visitor needs it
        with loading("The part of the model that ranks items", name):
            if getattr(model.config, "item_dim", None):
                self._regen = model.pipeline(self._processor)
        limits = [self._processor.tokenizer.model_max_length, model.config.window, 1_000_000]
        limit = min(limit for limit in limits if limit is not None)
        self._new_tokens = min(MAX_NEW_TOKENS, limit // 2)
        self._prompt_tokens = limit - self._new_tokens

    @property
    def facts(self) -> dict[str, str]:
        """Facts about the model, from its configuration."""
        factors = self._processor.cf_factors
        bought = 0 if factors is None else int(factors.any(axis=1).sum())
        read = {"both": "who bought it, and its text", "cf": "who bought it", "content": "its text"}
        return {
            "Size of the model": f"{sum(parameter.numel() for parameter in self._model.parameters()):,} parameters",
            "Kind of language model": self._model.config.get_text_config().model_type,
            "What it reads of a purchase": read[self._model.config.embedding_mode],
            "Items that it knows": f"{len(self._processor.cf_asins):,}",
            "Items that shoppers of its training data bought": f"{bought:,}",
            "Purchases that it reads at most": f"{self._processor.max_history}",
        }

    def narrate(self, history: Sequence[Any], task: str) -> Iterator[tuple[str, Any]]:
        """Yield the text so far, and its tokens (1, L) with the last one; leaving the loop stops the model.

        Raises:
            TimeoutError: the time limit is over; the text so far has been yielded.
        """
        from transformers import TextIteratorStreamer

        inputs = self._inputs([list(history)], task)
        streamer = TextIteratorStreamer(self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        end = _End(self.seconds)
        failures: list[Exception] = []
        written: list[Any] = []

        def write() -> None:
            try:
                written.append(self._model.generate(**inputs, **self._decoding(end), streamer=streamer))
            except Exception as error:  # raised below: an exception of a thread is not passed on
                failures.append(error)
                streamer.end()

        worker = Thread(target=write, daemon=True)
        worker.start()
        text = ""
        try:
            for piece in streamer:
                text += piece
                if piece:
                    yield text, None
        finally:
            end.stopped.set()  # also if the visitor has chosen another shopper
            worker.join()
        if failures:
            raise failures[0]
        if end.late:
            raise TimeoutError(self._late())
        yield text, written[0][:, inputs["input_ids"].shape[1] :]

    def compare(self, history: Sequence[Any], task: str) -> dict[str, str]:
        """The texts of the model from all of the history, one half of its vectors, and no history; by VIEWS.

        Raises:
            TimeoutError: the time limit is over.
        """
        inputs = self._inputs([*[list(history)] * 3, []], task)
        if "history_cf" in inputs:
            inputs["history_cf"][1] = 0.0
        if "history_content" in inputs:
            inputs["history_content"][2] = 0.0
        end = _End(self.seconds)
        tokens = self._model.generate(**inputs, **self._decoding(end))
        if end.late:
            raise TimeoutError(self._late())
        texts = self._processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return {view: text.strip() for view, text in zip(VIEWS, texts, strict=True)}

    def attribution(self, history: Sequence[Any], task: str, tokens: Any) -> list[dict[str, float]]:
        """The effect of each purchase on the log-likelihood of the text (nats), and the shares of CF and content.

        A purchase that did not fit into the model has zeros.
        """
        inputs = self._inputs([list(history)], task)
        if not inputs["history_mask"].any():
            return [{"effect": 0.0, "cf": 0.0, "content": 0.0}] * len(history)
        effects = self._model.leave_one_out(tokens, **inputs)[0].tolist()
        shares = self._model.shares(**inputs)[0].tolist()
        unread = [(0.0, [0.0, 0.0])] * (len(history) - len(effects))
        return [
            {"effect": effect, "cf": cf, "content": content}
            for effect, (cf, content) in [*unread, *zip(effects, shares, strict=True)]
        ]

    def recommend(self, history: Sequence[Any], n: int) -> list[dict[str, Any]]:
        """The next items by one step of ALS, as dicts of asin and score; empty for a model without CF vectors."""
        if self._processor.cf_factors is None:
            self._processor.unknown_items(list(history))  # raises an error for a malformed history
            return []
        return [{"asin": asin, "score": score} for asin, score in self._processor.recommend(list(history), n)]

    def rank(self, history: Sequence[Any], n: int) -> list[dict[str, Any]]:
        """The next items by the item head, as dicts of asin, title, score, and cold for an item without purchases."""
        with self._one_at_a_time:
            return self._regen.recommend(list(history), n)

    @property
    def reads_critiques(self) -> bool:
        """Whether the model has learnt to read what a customer says about a recommended item."""
        return hasattr(self, "_regen") and getattr(self._processor, "reads_critiques", False)

    def rank_and_explain(
        self, history: Sequence[Any], n: int, asked: Sequence[dict[str, str]] = ()
    ) -> tuple[list[dict[str, Any]], Iterator[str]]:
        """The next items as in `rank`, and the text so far of the reason for the first, from the same pass.

        `asked` are the items that were recommended before, each with its `asin` and `critique`.

        Raises:
            TimeoutError: while the text is written, the time limit is over.
        """
        options: dict[str, Any] = {"max_new_tokens": self._new_tokens, "max_time": self.seconds}
        if asked:
            options["shown"] = [each["asin"] for each in asked]
            options["critique"] = [each["critique"] for each in asked]
        with self._one_at_a_time:
            items, pieces = self._regen.stream_recommendation(list(history), n, **options)
        return items, self._texts(pieces)

    def similar(self, words: str, n: int) -> list[str]:
        """The items whose text is most similar in meaning to the words, by the model's text encoder."""
        vectors = self._processor.item_content
        if vectors is None or self._processor.content_encoder is None:
            return []
        with self._one_at_a_time:
            query = self._processor.encoder.encode([words], normalize_embeddings=True, show_progress_bar=False)[0]
        scores = vectors.astype("float32") @ query
        best = scores.argsort()[::-1][:n]
        return [self._processor.cf_asins[row] for row in best if scores[row] >= SIMILAR]

    def _texts(self, pieces: Any) -> Iterator[str]:
        text, started = "", time.monotonic()
        with closing(pieces):  # stops the model if the visitor has left
            for piece in pieces:
                text += piece
                yield text
        if time.monotonic() - started > self.seconds:
            raise TimeoutError(self._late())

    def _inputs(self, histories: list[list[Any]], task: str) -> Any:
        with self._one_at_a_time:
            return self._processor(histories, task, max_length=self._prompt_tokens).to(self._device)

    def _decoding(self, end: "_End") -> dict[str, Any]:
        return {"max_new_tokens": self._new_tokens, "do_sample": False, "stopping_criteria": [end]}

    def _late(self) -> str:
        return (
            f"The model took longer than {self.seconds:g} seconds, so it was stopped. Try again, or remove purchases."
        )


class _End:
    """Stopping criterion: the visitor has left, or the time limit is over."""

    def __init__(self, seconds: float) -> None:
        self.stopped, self.late, self._deadline = Event(), False, time.monotonic() + seconds

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self.late = self.late or (time.monotonic() > self._deadline and not self.stopped.is_set())
        return torch.full((len(input_ids),), self.stopped.is_set() or self.late, device=input_ids.device)
