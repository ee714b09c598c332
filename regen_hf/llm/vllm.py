"""The backend `vllm`: vLLM in this process, constrained to the JSON schema by its structured outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from .answers import schema_of
from .chat_template import ChatTemplate, unloadable
from .request import Reply, Request
from .settings import require_vllm

CHUNK = 1024
"""Requests that vLLM gets at once; it batches them itself. Their answers are stored when all of them are complete."""


class VllmModel:
    """A causal language model in vLLM.

    Args:
        name: A folder, or a name on the Hub.
        window: Maximum tokens of prompt and answer; by default those of the model's configuration.

    Raises:
        ConfigError: the model cannot be loaded; with the library's message.
        RegenError: vLLM is not installed.
    """

    def __init__(self, name: str, window: int | None = None) -> None:
        require_vllm()
        import vllm

        self.template = ChatTemplate.of(name)
        self.window = window or self.template.window
        self.queued = 0
        """Requests that were drawn and are not sent."""
        try:
            self._model: Any = vllm.LLM(model=name, max_model_len=self.window, enable_prefix_caching=True)
        except (OSError, ValueError) as error:
            raise unloadable(name, error) from None

    def answers(self, draw: Callable[[], Request | None]) -> Iterator[tuple[Request, Reply]]:
        """The replies to the requests that `draw` returns; it is called again after they are complete."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        while chunk := list(itertools.islice(iter(draw, None), CHUNK)):
            prompts, sampling, sent = [], [], []
            for request in chunk:
                tokens = self.template.prompt(request.messages, request.thinking)
                if self.window is not None and len(tokens) + request.max_tokens > self.window:
                    yield request, too_long(len(tokens), request.max_tokens, self.window)
                    continue
                sent.append(request)
                prompts.append({"prompt_token_ids": tokens})
                sampling.append(
                    SamplingParams(
                        temperature=request.temperature,
                        top_p=1.0 if request.top_p is None else request.top_p,
                        max_tokens=request.max_tokens,
                        # The key holds the seed and the number of the vote.
                        seed=int(request.key[:15], 16),
                        structured_outputs=StructuredOutputsParams(json=schema_of(request.answer)),
                    )
                )
            outputs = self._model.generate(prompts, sampling, use_tqdm=False) if sent else []
            for request, output in zip(sent, outputs, strict=True):
                answer = output.outputs[0]
                yield (
                    request,
                    Reply(
                        answer.text,
                        finish_reason=answer.finish_reason,
                        prompt_tokens=len(output.prompt_token_ids),
                        completion_tokens=len(answer.token_ids),
                    ),
                )


def too_long(prompt: int, answer: int, window: int) -> Reply:
    """The reply that rejects a request which does not fit into the window of the model."""
    return Reply(
        f"{prompt} tokens of the prompt and {answer} of the answer exceed the model's window of {window}", "rejected"
    )
