"""The tokens of a prompt for a local model: its tokenizer with its chat template."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, require
from .request import Message, merged, without_system


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: A tokenizer of transformers.
        window: The model's context window, None if its configuration states none.
    """

    def __init__(self, tokenizer: Any, window: int | None = None) -> None:
        self.tokenizer, self.window = tokenizer, window

    @classmethod
    def of(cls, name: str) -> ChatTemplate:
        """The template and the window of the model `name`, a folder or a name on the Hub; its weights are not read.

        Raises:
            ConfigError: the tokenizer or the configuration cannot be loaded; with the library's message.
            RegenError: transformers is not installed.
        """
        folder = Path(name)
        return cls._load(str(folder.resolve()) if folder.is_dir() else name)

    @classmethod
    @functools.cache
    def _load(cls, name: str) -> ChatTemplate:
        require("transformers")
        import transformers

        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, padding_side="left")
            config = transformers.AutoConfig.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise unloadable(name, error) from None
        return cls(tokenizer, window_of(config))

    def prompt(self, messages: Iterable[Message], thinking: bool | None = None) -> list[int]:
        """Token ids of `messages` in the chat template, or as plain paragraphs if there is none."""
        turns = merged(list(messages))
        if not self.tokenizer.chat_template:
            text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
            return list(self.tokenizer(text).input_ids)
        encoded = self.tokenizer.apply_chat_template(
            turns if self._system_role else without_system(turns),
            add_generation_prompt=True,
            return_dict=True,
            **({} if thinking is None else {"enable_thinking": thinking}),
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


def window_of(config: Any) -> int | None:
    """The context window in the configuration of a model."""
    window: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return window


def unloadable(name: str, error: Exception) -> ConfigError:
    """The error of a local model that cannot be loaded."""
    return ConfigError(
        f"The local model {name!r} cannot be loaded: {error}. Set model to the folder or the name on the Hub of a "
        "causal language model with its tokenizer."
    )
