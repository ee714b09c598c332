"""The purchases that each sentence of a text rests on: its log-likelihood without them.

A sentence rests on the history if it is more likely with the history than without any. It cites the purchases whose
removal makes it less likely, as far as they stand out from the others: removing any purchase changes the text a little,
so the median effect is subtracted. Where single purchases do not explain the sentence, such as two that say the same,
those with the largest effects are removed together.

Shapes:
    K   variants of one prompt, each without some of its purchases
    N   purchases of the prompt
    T   tokens of the prompt, L tokens of the text
    D   width of the language model's embeddings
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from transformers import DynamicCache

from .finite_logits import check_finite
from .streaming import stream_tokens

UNCALIBRATED = 1.0
"""Threshold in nats of a model whose config has no `citation_threshold`."""
UNGROUPED, GROUP = 12, 5
"""Purchases of a longer history are left out in groups of this size first, and one by one in groups with an effect."""
STANDS_OUT = 0.25
"""Least effect of a cited purchase, as a share of the largest effect on the sentence."""
EXPLAINED = 0.5
"""Share of the effect of the complete history from which the cited purchases explain a sentence."""
SENTENCE_END = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=\S)(?![\da-z])|(?<=[。！？])[”’」』）]*\s*(?=[^\s”’」』）])|\s*\n\s*(?=\S)"
)
"""The end of a sentence, with the white space after it, as far as the text after it begins another sentence."""
INCOMPLETE = "\ufffd"
"""What the bytes of a character decode to before the last one is written."""

Check = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Sequence[Mapping[str, Any]]]
"""Returns the `verdict` of the record, a history, on each of the sentences of a text, and what is `unsupported`."""


@dataclass
class Evidence:
    """How much one sentence rests on the purchases of its prompt, in nats."""

    text: str
    """The sentence with the white space after it."""
    tokens: list[int]
    """The positions of its tokens in the text."""
    strength: float
    """Decrease of its log-likelihood without any purchase."""
    effects: torch.Tensor
    """(N,), decrease without each purchase, minus the median of these decreases where that is positive."""
    likelihood: float = 0.0
    """Its log-likelihood with all purchases."""


class Citer:
    """Cites the purchases of one prompt, sentence by sentence, as its text is written.

    Args:
        model: the fused model.
        tokenizer: its tokenizer.
        inputs: the processor's output for one history.
        row: the row of `inputs`.
        offset: number of purchases of the history that are not in the prompt, which precede the others.
        fixed: number of purchases at the end that are never left out, such as the item of an endorsement.
        batch_size: variants per forward pass.
        streams: the text arrives in several parts: the keys and values of all variants are kept.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        inputs: Mapping[str, torch.Tensor],
        row: int = 0,
        offset: int = 0,
        batch_size: int = 16,
        streams: bool = False,
        fixed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.offset, self.batch_size = model, tokenizer, offset, batch_size
        self.inputs = _one_row(inputs, row)
        self.threshold = model.config.citation_threshold
        if self.threshold is None:
            self.threshold = UNCALIBRATED
        self._streams = streams
        self._fixed = fixed
        self._number = max(0, self.inputs["history_mask"].shape[1] - fixed)
        size = 1 if self._number <= UNGROUPED else GROUP
        self._groups = list(torch.arange(self._number).split(size)) if self._number else []
        self._coarse = self._reader([*self._groups, torch.arange(0), torch.arange(self._number)])
        self._single: dict[int, Reader] = {}
        self._written: list[int] = []
        self._lengths: list[int] = []  # complete characters of the text up to each token
        self._text = ""
        self._start = 0  # offset of the next sentence in the text
        self._next = 0  # first token of the next sentence
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}

    @classmethod
    def of(
        cls, regen: Any, inputs: Any, row: int, history: Sequence[Any], streams: bool = False, fixed: int = 0
    ) -> Citer:
        """The citer of the text about one history (`row` of `inputs`); `regen` is a [`RegenPipeline`]."""
        offset = len(history) - int(inputs["history_mask"][row].sum())
        return cls(regen.model, regen.processor.tokenizer, inputs, row, offset, streams=streams, fixed=fixed)

    def add(self, tokens: Iterable[int], last: bool = False) -> Generator[dict[str, Any], None, None]:
        """The cited sentences that are complete with the next tokens; with `last` the rest of the text too."""
        for evidence in self.evidence(tokens, last):
            yield self.cited(evidence)

    def evidence(self, tokens: Iterable[int], last: bool = False) -> Iterator[Evidence]:
        """As `add`, without the choice of the purchases."""
        for token in tokens:
            self._written.append(token)
            self._text = self.tokenizer.decode(self._written, skip_special_tokens=True)
            self._lengths.append(len(self._text.rstrip(INCOMPLETE)))
        text = self._text.rstrip() if last else self._text.rstrip(INCOMPLETE)
        ends = [match.end() for match in SENTENCE_END.finditer(text, self._start)]
        positions = self._positions()
        for end in [*ends, len(text)] if last else ends:
            part, first, self._start = text[self._start : end], self._start == 0, end
            if not part.strip():
                continue
            stop = len(positions) if last and end == len(text) else bisect_right(positions, end)
            own = [position for position in range(self._next, stop) if self._written[position] not in self._special]
            self._next = stop
            yield Evidence(part.lstrip() if first else part, own, *self._measure(own))

    def _positions(self) -> list[float]:
        """The number of characters of the text up to the last one that each token completes, in ascending order.

        A token that completes none, such as the first bytes of a character, has the number of the next that does.
        """
        longest = [0, *accumulate(self._lengths, max)]
        positions: list[float] = []
        following = float("inf")
        for before, length in zip(reversed(longest[:-1]), reversed(self._lengths), strict=True):
            following = length if length > before else following
            positions.append(following)
        return positions[::-1]

    def cited(self, evidence: Evidence) -> dict[str, Any]:
        """The sentence with the purchases that it rests on, the strongest first."""
        chosen: dict[int, float] = {}
        if evidence.strength >= self.threshold:
            effects = evidence.effects
            least = max(self.threshold, STANDS_OUT * float(effects.max()))
            chosen = {number: float(effects[number]) for number in (effects >= least).nonzero()[:, 0].tolist()}
            if sum(chosen.values()) < EXPLAINED * evidence.strength:
                chosen = self._together(evidence, len(chosen)) or chosen
        order = sorted(chosen, key=lambda number: -chosen[number])
        return {
            "text": evidence.text,
            "citations": [{"purchase": self.offset + number, "strength": round(chosen[number], 4)} for number in order],
            "strength": round(evidence.strength, 4),
            "verdict": None,
            "unsupported": [],
        }

    def highest(self, evidence: Evidence) -> float:
        """The highest threshold with which `cited` cites purchases for the sentence."""
        highest = float(evidence.effects.max()) if len(evidence.effects) else 0.0
        if highest < evidence.strength:
            together = [drop for _, drop in self._drops(evidence, 0) if drop >= EXPLAINED * evidence.strength]
            highest = max([highest, *together])
        return min(highest, evidence.strength)

    def _measure(self, own: list[int]) -> tuple[float, torch.Tensor, float]:
        """Strength, effects and likelihood of a sentence of the tokens at the positions `own`."""
        effects = torch.zeros(self._number)
        if not self._number or not own:
            return 0.0, effects, 0.0
        *groups, complete, none = self._coarse.read(self._tokens(len(self._written)))[:, own].sum(1)
        strength = float(complete - none)
        for number, (members, without) in enumerate(zip(self._groups, groups, strict=True)):
            effects[members] = (complete - without) / len(members)
            if len(members) > 1 and min(strength, float(complete - without)) >= self.threshold:
                if number not in self._single:
                    self._single[number] = self._reader(list(members.split(1)))
                read = self._single[number].read(self._tokens(len(self._written)))
                effects[members] = complete - read[:, own].sum(1)
        if self._number > 2:
            effects = effects - effects.median().clamp(min=0)
        return strength, effects, float(complete)

    def _reader(self, removed: list[torch.Tensor]) -> Reader:
        """Reads the text after variants of the prompt, each without the purchases of an element of `removed`."""
        kept = torch.ones(len(removed), self._number + self._fixed, dtype=torch.bool)
        for row, members in enumerate(removed):
            kept[row, members] = False
        variants = _variants(self.model, self.inputs, kept, self.batch_size) if self._number else iter(())
        return Reader(list(variants) if self._streams else variants, len(removed))

    def _together(self, evidence: Evidence, single: int) -> dict[int, float]:
        """The fewest purchases, of the largest effects, that explain the sentence when they are removed together.

        The number is doubled from one test to the next. Empty if less than the complete history does not explain it.
        """
        order = evidence.effects.argsort(descending=True)
        for size, drop in self._drops(evidence, single):
            if drop >= max(self.threshold, EXPLAINED * evidence.strength):
                return dict.fromkeys(order[:size].tolist(), drop / size)
        return {}

    def _drops(self, evidence: Evidence, single: int) -> Iterator[tuple[int, float]]:
        """The decrease of its log-likelihood without the purchases of the largest effects, of more than `single`."""
        order = evidence.effects.argsort(descending=True)
        for size in (2**power for power in range(1, 10)):
            if max(single, 1) < size < self._number:
                read = self._reader([order[:size]]).read(self._tokens(evidence.tokens[-1] + 1))
                yield size, evidence.likelihood - float(read[0, evidence.tokens].sum())

    def _tokens(self, end: int) -> torch.Tensor:
        return torch.tensor(self._written[:end], device=self.inputs["input_ids"].device)


class Reader:
    """Reads a text after variants of a prompt.

    Args:
        variants: an iterator for a text that is read at once; a list keeps what the variants have read.
        number: K, of all variants.
    """

    def __init__(self, variants: Iterable[Variants], number: int) -> None:
        self._variants = variants
        self._likelihood = torch.zeros(number, 0)  # (K, tokens that were read)

    @torch.no_grad()
    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """The log-likelihood of the text `tokens` (L,), of which only what is new is read: (K, L)."""
        new = tokens[self._likelihood.shape[1] :]
        if len(new):
            likelihood = torch.zeros(len(self._likelihood), len(new))
            for group in self._variants:
                likelihood[group.rows] = group.read(new)
            self._likelihood = torch.cat([self._likelihood, likelihood], dim=1)
        return self._likelihood


class Variants:
    """Variants of a prompt of equal length, and the keys and values of what they have read.

    Args:
        inputs: the processor's output for one history without padding.
        kept: (K, N), the purchases that each variant keeps, the same number in each.
        embeddings: (1, T, D), of the complete prompt.
        rows: (K,), the rows of the variants in the result.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        kept: torch.Tensor,
        embeddings: torch.Tensor,
        rows: torch.Tensor,
    ) -> None:
        self.model, self.rows = model, rows
        is_item = inputs["input_ids"][0] == model.config.item_token_id  # (T,)
        stays = torch.ones(len(kept), len(is_item), dtype=torch.bool, device=kept.device)
        stays[:, is_item] = kept
        ids = inputs["input_ids"].expand(len(kept), -1)[stays].view(len(kept), -1)
        history = (inputs.get("history_cf"), inputs.get("history_content"), kept, inputs.get("history_features"))
        soft = model.model.adapter(*history).expand(*kept.shape, -1)[kept]  # the vectors are the same in all rows
        prompt = model.get_input_embeddings()(ids)
        soft = soft.to(prompt.device, prompt.dtype)
        prompt = prompt.masked_scatter((ids == model.config.item_token_id)[..., None], soft)
        # Before the first difference from the complete prompt, all variants have its keys and values.
        same = torch.isclose(prompt, embeddings[:, : prompt.shape[1]], rtol=1e-4, atol=1e-5).all(-1).all(0)
        shared = min(int(same.long().cumprod(0).sum()), prompt.shape[1] - 1)
        self.cache = self._new_cache()
        # Many models with state space layers continue from their state by single tokens only.
        self.restarts = any("LinearAttention" in type(layer).__name__ for layer in self.cache.layers)
        if self.restarts:
            shared = 0
        if shared:
            model.model(inputs_embeds=embeddings[:, :shared], past_key_values=self.cache, use_cache=True)
            self.cache.reorder_cache(
                cast(torch.LongTensor, torch.zeros(len(kept), dtype=torch.long, device=prompt.device))
            )
        self.length, self.pending = shared, prompt[:, shared:]

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config())

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """The log-likelihood of the next tokens (L,) after what was read: (K, L)."""
        words = self.model.get_input_embeddings()(tokens[None]).expand(len(self.rows), -1, -1)
        embeddings = torch.cat([self.pending, words[:, :-1]], dim=1)
        end = self.length + embeddings.shape[1]
        positions = torch.arange(self.length, end, device=embeddings.device)
        with _without_dropout(self.model):
            logits = self.model(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(len(self.rows), end, dtype=torch.long, device=embeddings.device),
                position_ids=positions.expand(len(self.rows), -1),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=len(tokens),
            ).logits  # (K, L, V)
        self.length, self.pending = end, words[:, -1:]
        if self.restarts:
            self.length, self.pending = 0, torch.cat([embeddings, words[:, -1:]], dim=1)
            self.cache = self._new_cache()
        chosen = tokens.to(logits.device)[:, None]
        # Row by row: a large vocabulary in float32 would be most of the memory.
        read = [row.gather(-1, chosen)[:, 0].float() - row.float().logsumexp(-1) for row in logits]
        likelihood = torch.stack(read).cpu()
        check_finite(likelihood)
        return likelihood


def _variants(
    model: Any, inputs: Mapping[str, torch.Tensor], kept: torch.Tensor, batch_size: int
) -> Iterator[Variants]:
    """The variants of `kept` (K, N) in batches of equal length, so that none has padding."""
    with torch.no_grad(), _without_dropout(model):
        embeddings = model.model.fused_embeddings(**inputs)
    kept = kept.to(embeddings.device)
    sizes = kept.sum(1)
    for size in sizes.unique():
        for rows in (sizes == size).nonzero()[:, 0].split(batch_size):
            with torch.no_grad(), _without_dropout(model):
                variants = Variants(model, inputs, kept[rows], embeddings, rows.cpu())
            yield variants


def cited_stream(
    regen: Any, inputs: Any, history: Sequence[Any], options: dict[str, Any]
) -> Generator[dict[str, Any], None, None]:
    """The cited sentences of a text, each as soon as it is complete; the arguments are those of `stream_text`."""
    citer = None
    with closing(stream_tokens(regen, inputs, options)) as parts:
        for tokens in parts:
            citer = citer or Citer.of(regen, inputs, 0, history, streams=True)  # while the text is written
            yield from citer.add(tokens)
    if citer:
        yield from citer.add((), last=True)


def checked(
    sentences: Generator[dict[str, Any], None, None], history: Sequence[Any], check: Check | None
) -> Iterator[dict[str, Any]]:
    """The cited sentences of one text with the verdict of the record on each; an error of `check` ends the text."""
    texts: list[str] = []
    with closing(sentences):
        for sentence in sentences:
            texts.append(sentence["text"].strip())
            yield sentence if check is None else sentence | dict(check(history, texts)[-1])


def check_arguments(cite: bool, check: Check | None, generation: Mapping[str, Any]) -> None:
    """Check the arguments of a text with citations.

    Raises:
        ValueError: they contradict each other.
    """
    if check is not None and not cite:
        raise ValueError("check was passed without cite=True, which alone returns sentences to check.")
    if cite and generation.get("num_return_sequences") not in (None, 1):
        raise ValueError("num_return_sequences was passed with cite=True, expected one text for each history.")


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def _one_row(inputs: Mapping[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One row of the processor's output, without padding."""
    number = int(inputs["history_mask"][row].sum())
    ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
    history = {name: inputs[name][row : row + 1, :number] for name in inputs if name.startswith("history_")}
    return {"input_ids": ids[None], **history, "history_mask": history["history_mask"].bool()}


__all__ = ["Check", "Citer", "Evidence", "check_arguments", "checked", "cited_stream"]
