"""Generate narratives for many histories, in batches of similar length."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ... import outputs
from ...errors import ConfigError
from ...progress import Bar

if TYPE_CHECKING:
    import torch

    from ...model.modeling_regen import RegenForCausalLM
    from ...model.processing_regen import RegenProcessor
    from ...vectors.histories import Histories
    from .settings import EvaluationConfig


class Writer:
    """The model of a run, with the vectors of the users of a split. Both are loaded on first use.

    Args:
        run: the run folder.
        config: split, decoding and batch size.
        longest: by task, the longest narratives of the train users. They limit the length of generated narratives, so
            that a control that never generates an end token costs no more than the others.
    """

    def __init__(self, run: Path, config: EvaluationConfig, longest: Mapping[str, list[str]]) -> None:
        self.run, self.config, self.longest = run, config, longest

    @functools.cached_property
    def model(self) -> RegenForCausalLM:
        """The fused model, on the GPU if one is available."""
        import torch

        from ...model import RegenForCausalLM  # registers the local classes for `from_pretrained`

        model = RegenForCausalLM.from_pretrained(outputs.folder(self.run, "train")).eval()
        return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @functools.cached_property
    def processor(self) -> RegenProcessor:
        """The model's processor."""
        from ...model import RegenProcessor

        return RegenProcessor.from_pretrained(outputs.folder(self.run, "train"))

    @functools.cached_property
    def histories(self) -> Histories:
        """The vectors of the split's users."""
        from ...vectors.histories import Histories

        return Histories.of(self.run, self.config.split)

    def new_tokens(self, task: str) -> int:
        """The maximum number of new tokens for `task`, including the end token."""
        texts = self.longest[task]
        lengths = map(len, self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else ()
        return min(self.config.max_new_tokens, 1 + max(lengths, default=self.config.max_new_tokens))

    def write(
        self,
        users: list[dict[str, Any] | None],
        task: str,
        bar: Bar,
        half: Literal["cf", "content"] | None = None,
        as_text: bool = False,
        seed: int = 0,
    ) -> list[str]:
        """One narrative of `task` per user, a row of the dataset with its `row` in the split; None: an empty history.

        `half` passes only this half of the vectors to the model, `as_text` the history as text. `bar` is updated after
        each batch.
        """
        import torch

        processor, config, limit = self.processor, self.config, self.new_tokens(task)
        prompts = self._prompts(users, task, as_text, limit)
        texts = [""] * len(users)
        torch.manual_seed(seed)
        # Prompts of similar length need less padding.
        order = sorted(range(len(users)), key=lambda number: len(prompts[number][1]))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            inputs = processor.tokenizer.pad(
                {"input_ids": [prompts[number][1] for number in batch]}, padding_side="left", return_tensors="pt"
            )
            inputs |= self._vectors([users[n] for n in batch], [prompts[n][0] for n in batch], task, half)
            inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, max_new_tokens=limit, **generation_options(config))
            new = tokens[:, inputs["input_ids"].shape[1] :]
            for number, text in zip(
                batch, processor.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
            ):
                texts[number] = text.strip()
            bar.update(len(batch))
        return texts

    def _prompts(
        self, users: list[dict[str, Any] | None], task: str, as_text: bool, limit: int
    ) -> list[tuple[int, list[int]]]:
        """For each user, the number of purchases shown as soft tokens, and the token ids of the prompt."""
        from ...vectors.text_history import fit_text

        window = self.model.config.window
        room = None if window is None else window - limit
        shown = [user["purchase_history"] if user else [] for user in users]
        try:
            if as_text:
                return [(0, fit_text(self.processor, history, task, room)[1]) for history in shown]
            return [self.processor.fit(len(history), task=task, max_length=room) for history in shown]
        except ValueError as error:
            raise ConfigError(
                f"The model's window of {window} tokens leaves {room} for the prompt and {limit} for a narrative: "
                f"{error} Lower evaluation.max_new_tokens."
            ) from None

    def _vectors(
        self, users: list[dict[str, Any] | None], lengths: list[int], task: str, half: str | None
    ) -> dict[str, torch.Tensor]:
        """The history tensors of a batch, with the latest `lengths` purchases of each user."""
        from ...model.interactions import interaction_features
        from ...vectors.histories import padded_features

        names = self.processor.interaction_features
        withheld = task in self.processor.metadata_only_tasks
        rows = [user["row"] if user else None for user in users]
        vectors = self.histories.batch(rows, [withheld] * len(users), lengths)
        if half:  # zero CF vectors also occur in training, for cold items
            vectors["history_content" if half == "cf" else "history_cf"].zero_()
        if names:
            shown = [
                interaction_features(user["purchase_history"][len(user["purchase_history"]) - n :], names, withheld)
                if user and n
                else []
                for user, n in zip(users, lengths, strict=True)
            ]
            vectors["history_features"] = padded_features(shown, vectors["history_mask"], len(names))
        return vectors


def generation_options(config: EvaluationConfig) -> dict[str, Any]:
    """The decoding as arguments of `generate`, without the length.

    Every option is explicit because the generation config of a pretrained model may contain another value.
    """
    if config.temperature:
        return {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    if config.num_beams > 1:
        return {"do_sample": False, "num_beams": config.num_beams}
    return {"do_sample": False, "num_beams": 1}


def describe_decoding(config: EvaluationConfig) -> dict[str, Any]:
    """The decoding as stored in `results.json`."""
    method: dict[str, Any] = {"method": "greedy"}
    if config.temperature:
        method = {"method": "sampling", "temperature": config.temperature, "top_p": config.top_p}
    elif config.num_beams > 1:
        method = {"method": "beams", "num_beams": config.num_beams}
    return method | {"max_new_tokens": config.max_new_tokens}
