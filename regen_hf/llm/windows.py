"""The context window of a model, and what a prompt, its answer and its repetitions take of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .answers import instruction

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .settings import LLMConfig

DEFAULT = 128_000
"""The window of a server that does not state one."""
BYTES_PER_TOKEN = 3
"""A low estimate for any tokenizer: English text has more than 4."""
CORRECTION = 400
"""Maximum tokens of the request to repeat an answer, in a large window."""

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": …}`."""


def estimate(messages: Sequence[Message], answer: type[BaseModel] | None = None) -> int:
    """A high estimate of the tokens of `messages`, and of the form of `answer` in words, from their bytes."""
    form = 0 if answer is None else _tokens(instruction(answer))
    return sum(_tokens(message["content"]) + 8 for message in messages) + form


class Window:
    """A context window, and what a prompt may take of it.

    Args:
        config: Holds the maximum length of an answer and the number of repetitions.
        tokens: Prompt and answer together; by default the setting, else DEFAULT.
        count: Counts the tokens of messages with an answer class, as `estimate` does.

    Raises:
        ConfigError: the window has no room for a prompt and an answer.
    """

    def __init__(self, config: LLMConfig, tokens: int | None = None, count: Callable[..., int] = estimate) -> None:
        self.tokens = tokens or config.window or DEFAULT
        self.count, self.answer = count, config.max_tokens
        self.settled = config.window is not None
        """Whether it is a setting, which errors of the server do not change."""
        self.correction = min(CORRECTION, max(100, self.tokens // (8 * config.repetitions)))
        """Maximum tokens of the request to repeat an answer, with the reason."""
        self.room = self.tokens - self.answer - config.repetitions * self.correction
        """Maximum tokens of a prompt, so that its repetitions fit too."""
        if self.room < 1:
            raise self.too_small("the prompt")

    def too_small(self, what: str, tokens: int = 0) -> ConfigError:
        """The error of a window that `what` does not fit into."""
        taken = f", instructions and {what} take about {tokens}" if tokens else ""
        return ConfigError(
            f"The window of {self.tokens} tokens is too small for a history: an answer takes up to {self.answer}"
            f"{taken}. Lower max_tokens, or run the model with a larger window; if it has one, set window."
        )

    def excess(self, messages: Sequence[Message], answer: type[BaseModel]) -> str:
        """Why `messages`, with the shortest history, do not fit; empty if they do."""
        tokens = self.count(messages, answer)
        if tokens <= self.room:
            return ""
        return (
            f"the prompt has about {tokens} tokens with the shortest history, expected at most {self.room} in a window "
            f"of {self.tokens}, which has to hold an answer of {self.answer} tokens and its repetition too; lower "
            "max_tokens, or run the model with a larger window"
        )

    @staticmethod
    def cut(text: str, tokens: int) -> str:
        """The start of `text`, about `tokens` long, with an ellipsis where it is cut.

        >>> Window.cut("A blue pen that glides", 4), Window.cut("A pen", 4)
        ('A blue pen t …', 'A pen')
        """
        most = max(tokens, 1) * BYTES_PER_TOKEN
        data = text.encode(errors="replace")
        return text if len(data) <= most else data[:most].decode(errors="ignore").rstrip() + " …"


def _tokens(text: str) -> int:
    return len(text.encode(errors="replace")) // BYTES_PER_TOKEN  # a text may hold lone surrogates
