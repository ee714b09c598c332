"""The backend `transformers`: batched generation with a local model, constrained to the JSON schema by `outlines`.

Sampling adds Gumbel noise to the logits and takes the maximum, which draws from the softmax distribution. The noise is
seeded with the key of the request only, so an answer does not depend on the other requests of its batch, nor on where
a killed run was resumed.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from ..errors import ConfigError, require
from .answers import schema_of
from .request import Message, Reply, Request, without_system
from .settings import LOCAL, LLMConfig
from .store import Store, unsent

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


class LocalModel:
    """A causal language model and its tokenizer.

    Args:
        name: A folder, or a name on the Hub. The model runs on the GPU if there is one.

    Raises:
        ConfigError: the model cannot be loaded; with the library's message.
        RegenError: a library is not installed.
    """

    def __init__(self, name: str) -> None:
        require(*LOCAL)
        import outlines
        import torch
        import transformers

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = cast(Any, transformers.AutoTokenizer.from_pretrained(name, padding_side="left"))
            self.model = cast(Any, transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The local model {name!r} cannot be loaded: {error}. Set model to the folder or the name on the Hub "
                "of a causal language model with its tokenizer."
            ) from None
        self.model.to(device).eval()
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"The tokenizer of {name!r} has no end-of-text token, which an answer needs to end. Choose another "
                "model."
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.window: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self._constrained = outlines.from_transformers(self.model, self.tokenizer)
        self._guide = functools.cache(self._make_guide)
        texts = self.tokenizer.batch_decode(
            [[number] for number in range(self.model.get_output_embeddings().out_features)]
        )
        self._quotes = torch.tensor([text.lstrip(" ").startswith('"') for text in texts], device=device)

    def _make_guide(self, answer: type[BaseModel]) -> Any:
        import outlines

        generator: Any = outlines.Generator(self._constrained, outlines.types.JsonSchema(json.dumps(schema_of(answer))))
        return generator.logits_processor

    def prompt(self, messages: Iterable[Message]) -> list[int]:
        """Token ids of `messages` in the model's chat template, or as plain paragraphs if it has none."""
        turns = list(messages)
        if not self.tokenizer.chat_template:
            text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
            return list(self.tokenizer(text).input_ids)
        encoded = self.tokenizer.apply_chat_template(
            turns if self._system_role else without_system(turns), add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])

    @functools.cached_property
    def _system_role(self) -> bool:
        """Whether the chat template has a system role: some raise an error for it, others leave its text out."""
        from jinja2 import TemplateError

        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
        try:
            return "Be brief." in self.tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:
            return False

    def answers(self, requests: list[Request]) -> Iterator[tuple[Request, Reply]]:
        """The replies to requests of one answer class and one max_tokens, generated together."""
        fitting = []
        for request in requests:
            tokens = self.prompt(request.messages)
            if self.window is not None and len(tokens) + request.max_tokens > self.window:
                message = (
                    f"{len(tokens)} tokens of the prompt and {request.max_tokens} of the answer exceed the model's "
                    f"window of {self.window}"
                )
                yield request, Reply(message, "rejected")
            else:
                fitting.append((request, tokens))
        if fitting:
            yield from self._generate(*zip(*fitting, strict=True))

    def _share(self, request: Request) -> int:
        """Maximum tokens of each free text of the answer, so that all of them fit into max_tokens."""
        parts = schema_of(request.answer)["properties"]
        longest = {name: max(part.get("enum", [""]), key=len) for name, part in parts.items()}
        # Names and labels; the factor leaves space for the white space that a model adds.
        fixed = 1.5 * len(self.tokenizer(json.dumps(longest)).input_ids)
        texts = sum("enum" not in part for part in parts.values())
        return max(1, int(request.max_tokens - fixed) // max(1, texts))

    def _generate(
        self, requests: tuple[Request, ...], prompts: tuple[list[int], ...]
    ) -> Iterator[tuple[Request, Reply]]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        inputs = self.tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt").to(self.model.device)
        guide = self._guide(requests[0].answer)
        guide.reset()
        sampler = _Sampler(requests, self._quotes, self._share(requests[0]))
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=requests[0].max_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad
        )
        # torch.compile of the guide's mask takes a minute and a C++ compiler, for a few operations.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            output = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=config,
                logits_processor=LogitsProcessorList([guide, sampler]),
            )
        for request, tokens, row, cut in zip(
            requests, prompts, output[:, inputs["input_ids"].shape[1] :].tolist(), sampler.cut, strict=True
        ):
            ended = eos in row
            answer = row[: row.index(eos)] if ended else row
            yield (
                request,
                Reply(
                    self.tokenizer.decode(answer, skip_special_tokens=True),
                    finish_reason="stop" if ended and not cut else "length",
                    prompt_tokens=len(tokens),
                    completion_tokens=len(answer),
                ),
            )


class _Sampler:
    """Samples with the temperature and key of each request; closes a string before it uses the tokens of the others."""

    def __init__(self, requests: tuple[Request, ...], quotes: torch.Tensor, share: int) -> None:
        import torch

        self.temperatures = [request.temperature for request in requests]
        self.noise = [torch.Generator(quotes.device).manual_seed(int(request.key[:15], 16)) for request in requests]
        self.quotes = quotes  # (V,): whether a token begins with a quotation mark
        self.share = share  # maximum tokens of one string
        self.since_quote = [0] * len(requests)
        self.cut = [False] * len(requests)  # whether a string was closed at its share
        self.started = False

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Noisy logits, (B, V)."""
        import torch

        sampled = logits.float().clone()
        for row, temperature in enumerate(self.temperatures):
            if self.started:
                closed = bool(self.quotes[input_ids[row, -1]])
                self.since_quote[row] = 0 if closed else self.since_quote[row] + 1
            if self.since_quote[row] >= self.share:
                closing = torch.where(self.quotes, sampled[row], -torch.inf)
                if closing.max() > -torch.inf:
                    sampled[row] = closing
                    self.cut[row] = True
            if temperature > 0:
                uniform = torch.rand(
                    sampled.shape[1], generator=self.noise[row], device=sampled.device, dtype=torch.float64
                )
                sampled[row] = sampled[row] / temperature - torch.log(-torch.log(uniform)).float()
        self.started = True
        return sampled


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: tqdm[Any]) -> None:
    """Store a reply to every request that `store` has none for, one model after the other."""
    done: set[str] = set()
    while True:
        name: str | None = None
        model: LocalModel | None = None
        waiting: defaultdict[tuple[type[BaseModel], int], list[Request]] = defaultdict(list)

        def flush(batch: list[Request]) -> None:
            nonlocal model
            while batch:
                model = model or LocalModel(batch[0].model)
                for request, reply in model.answers(batch):
                    store.put(request, reply)
                # An invalid answer is repeated at once.
                batch[:] = [again for request in batch if (again := unsent(request, store)) is not None]

        for request in requests():
            if request.model in done or (name is not None and request.model != name):
                continue
            name = request.model
            bar.update()
            missing = unsent(request, store)
            if missing is None:
                bar.initial += 1
                continue
            batch = waiting[request.answer, request.max_tokens]
            batch.append(missing)
            if len(batch) >= config.batch_size:
                flush(batch)
        if name is None:
            return
        for batch in waiting.values():
            flush(batch)
        done.add(name)
