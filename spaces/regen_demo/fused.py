"""The fused model of the Space: narratives about a history, the influence of each purchase, and the next items.

It stores nothing about visitors: every call gets the full history.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event, Lock, Thread
from typing import Any

MAX_NEW_TOKENS = 256
SECONDS = 60
"""Time limit of one answer."""

VIEWS = {  # the parts of the history that the model sees in the tab Compare
    "fused": "Full history",
    "content": "Texts only",
    "cf": "Co-purchases only",
    "empty": "No history",
}


class Fused:
    """Model and processor of a repository or folder, loaded by a background thread.

    Args:
        name: repository on the Hub, or a folder.
        revision: commit of the repository.
        seconds: time limit of one answer.
    """

    def __init__(self, name: str, revision: str, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.ready = Event()
        self._failure: Exception | None = None
        self._one_at_a_time = Lock()  # tokenizers raise an error if two threads call them
        Thread(target=self._load, args=(name, revision), daemon=True).start()

    def _load(self, name: str, revision: str) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoProcessor

            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            model = AutoModelForCausalLM.from_pretrained(name, revision=revision, trust_remote_code=True)
            self._model = model.eval().to(self._device)
            self._processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
            if getattr(model.config, "item_dim", None):
                self._regen = model.pipeline(self._processor)
            limits = [self._processor.tokenizer.model_max_length, model.config.window, 1_000_000]
            limit = min(limit for limit in limits if limit is not None)
            self._new_tokens = min(MAX_NEW_TOKENS, limit // 2)
            self._prompt_tokens = limit - self._new_tokens
            if self._processor.content_encoder is not None:
                _ = self._processor.encoder  # loads it before the first visitor needs it
        except Exception as error:
            self._failure = error  # shown to every visitor
            logging.exception("The model could not be loaded")
        finally:
            self.ready.set()

    def _parts(self) -> tuple[Any, Any]:
        self.ready.wait()
        if self._failure is not None:
            raise RuntimeError(f"The model could not be loaded ({self._failure}).")
        return self._model, self._processor

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model, from its configuration."""
        model, processor = self._parts()
        factors = processor.cf_factors
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "language model": model.config.get_text_config().model_type,
            "adapter": model.config.adapter,
            "parts of a soft token": {"both": "CF and content", "cf": "CF only", "content": "content only"}[
                model.config.embedding_mode
            ],
            "items": len(processor.cf_asins),
            "items with a CF vector": 0 if factors is None else int(factors.any(axis=1).sum()),
            "longest history": processor.max_history,
        }

    def narrate(self, history: Sequence[Any], task: str) -> Iterator[tuple[str, Any]]:
        """Yield the text so far, and its tokens (1, L) with the last one; leaving the loop stops the model.

        Raises:
            TimeoutError: the time limit is over; the text so far has been yielded.
        """
        model, processor = self._parts()
        # Imported after loading, as two threads that import transformers at once can fail.
        from transformers import TextIteratorStreamer

        inputs = self._inputs([list(history)], task)
        streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        end = _End(self.seconds)
        failures: list[Exception] = []
        written: list[Any] = []

        def write() -> None:
            try:
                written.append(model.generate(**inputs, **self._decoding(end), streamer=streamer))
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
        model, processor = self._parts()
        inputs = self._inputs([*[list(history)] * 3, []], task)
        if "history_cf" in inputs:
            inputs["history_cf"][1] = 0.0
        if "history_content" in inputs:
            inputs["history_content"][2] = 0.0
        end = _End(self.seconds)
        tokens = model.generate(**inputs, **self._decoding(end))
        if end.late:
            raise TimeoutError(self._late())
        texts = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return {view: text.strip() for view, text in zip(VIEWS, texts, strict=True)}

    def attribution(self, history: Sequence[Any], task: str, tokens: Any) -> list[dict[str, float]]:
        """The effect of each purchase on the log-likelihood of the text (nats), and the shares of CF and content.

        A purchase that did not fit into the model has zeros.
        """
        model, _ = self._parts()
        inputs = self._inputs([list(history)], task)
        if not inputs["history_mask"].any():
            return [{"effect": 0.0, "cf": 0.0, "content": 0.0}] * len(history)
        effects = model.leave_one_out(tokens, **inputs)[0].tolist()
        shares = model.shares(**inputs)[0].tolist()
        unread = [(0.0, [0.0, 0.0])] * (len(history) - len(effects))
        return [
            {"effect": effect, "cf": cf, "content": content}
            for effect, (cf, content) in [*unread, *zip(effects, shares, strict=True)]
        ]

    def recommend(self, history: Sequence[Any], n: int) -> list[dict[str, Any]]:
        """The next items by one step of ALS, as dicts of asin and score; empty for a model without CF vectors."""
        _, processor = self._parts()
        if processor.cf_factors is None:
            processor.unknown_items(list(history))  # raises an error for a malformed history
            return []
        return [{"asin": asin, "score": score} for asin, score in processor.recommend(list(history), n)]

    def rank(self, history: Sequence[Any], n: int) -> list[dict[str, Any]]:
        """The next items by the item head, as dicts of asin, title, score, and cold for an item without purchases."""
        self._parts()
        with self._one_at_a_time:
            return self._regen.recommend(list(history), n)

    def rank_and_explain(self, history: Sequence[Any], n: int) -> tuple[list[dict[str, Any]], Iterator[str]]:
        """The next items as in `rank`, and the text so far of the reason for the first, from the same pass.

        Raises:
            TimeoutError: while the text is written, the time limit is over.
        """
        self._parts()
        limits = {"max_new_tokens": self._new_tokens, "max_time": self.seconds}
        with self._one_at_a_time:
            items, pieces = self._regen.stream_recommendation(list(history), n, **limits)
        return items, self._texts(pieces)

    def _texts(self, pieces: Any) -> Iterator[str]:
        text, started = "", time.monotonic()
        with closing(pieces):  # stops the model if the visitor has left
            for piece in pieces:
                text += piece
                yield text
        if time.monotonic() - started > self.seconds:
            raise TimeoutError(self._late())

    def _inputs(self, histories: list[list[Any]], task: str) -> Any:
        _, processor = self._parts()
        with self._one_at_a_time:
            return processor(histories, task, max_length=self._prompt_tokens).to(self._device)

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
