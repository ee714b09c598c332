"""The context window of the models of a stage, found out and stored.

A window that is not a setting comes from the server's list of models, from llama.cpp's `/props`, from the errors of a
server about prompts that are too long, or from the configuration of a local model. Training contexts (`n_ctx_train`)
do not count: a server often runs with a smaller window. Of several models and servers the smallest window counts.
"""

from __future__ import annotations

import functools
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, RunError
from .connection import stated_window
from .headers import headers, url_of
from .request import Message, Request
from .settings import IN_PROCESS, OPENAI, LLMConfig
from .store import Store
from .windows import Window

if TYPE_CHECKING:
    from pydantic import BaseModel

MOST_PASSES = 8
"""How often the requests of a stage are fitted, as errors state smaller windows."""
MOST_TOKENS = 10**9
"""A stated window above it means that none is set, as the 10**30 of some tokenizers."""
TIMEOUT = 10.0
"""Seconds until a request for the window times out, also if the server goes on sending."""
MOST_BYTES = 2**24
"""Maximum bytes of a list of models."""
FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")
"""Fields of a listed model that state its window: of vLLM and SGLang, and of different providers."""


def passes(config: LLMConfig, store: Store) -> Iterator[Window]:
    """The window that prompts are fitted to; again, as long as errors of the server have stated a smaller one.

    The body of a loop over it fits and sends the requests of a stage.

    Raises:
        ConfigError: the window has no room for a prompt and an answer, or a local model cannot be loaded.
        RunError: errors state a smaller window each time.
    """
    if config.window is None and config.backend not in IN_PROCESS:
        for server in config.base_url:
            _look_up(config, server, store)
    window = _known(config, store)
    for _ in range(MOST_PASSES):
        yield window
        smaller = _known(config, store)
        if smaller.tokens >= window.tokens:
            return
        window = smaller
    raise RunError(
        f"Errors of the server stated {MOST_PASSES} windows, each smaller than the one before; the last is "
        f"{window.tokens} tokens. Set window to that of the model."
    )


def stored_window(config: LLMConfig, path: Path) -> Window:
    """The window as far as the store at `path` has it; sends nothing."""
    with Store(path, read_only=True) as store:
        try:
            return _known(config, store)
        except ConfigError:
            if config.backend not in IN_PROCESS:
                raise
            return Window(config)  # a local model that is not downloaded yet


def until_superseded(requests: Iterable[Request], config: LLMConfig, store: Store) -> Iterator[Request]:
    """`requests`, as long as no error has stated a smaller window than the one that they are fitted to."""
    for request in requests:
        if request.window is not None and not request.window.settled:
            smallest = _smallest(config, store)
            if smallest is not None and smallest < request.window.tokens:
                return
        yield request


def learn(message: str, server: str, request: Request, store: Store) -> bool:
    """Store the window in an error; returns whether it is smaller than the one that `request` was fitted to."""
    tokens = stated_window(message)
    if tokens is None:
        return False
    store.limit_window(server, request.model, tokens)
    return request.window is not None and not request.window.settled and tokens < request.window.tokens


def _known(config: LLMConfig, store: Store) -> Window:
    if config.backend not in IN_PROCESS:
        return Window(config, config.window or _smallest(config, store))
    from .chat_template import ChatTemplate

    local = [ChatTemplate.of(model) for model in _models(config)]
    windows = [template.window for template in local if template.window is not None]

    @functools.lru_cache(maxsize=4)  # a fitted prompt is counted again for its request
    def tokens(turns: tuple[tuple[str, str], ...]) -> int:
        messages = [{"role": role, "content": content} for role, content in turns]
        return max(len(template.prompt(messages, config.thinking)) for template in local)

    def count(messages: Sequence[Message], answer: type[BaseModel] | None = None) -> int:
        return tokens(tuple((message["role"], message["content"]) for message in messages))

    return Window(config, config.window or min(windows, default=None), count)


def _smallest(config: LLMConfig, store: Store) -> int | None:
    known = (store.window(server, model) for server in config.base_url for model in _models(config))
    return min((tokens for tokens in known if tokens), default=None)


def _models(config: LLMConfig) -> list[str]:
    models = (further for model in config.models for further in (model, *config.further(model)))
    return list(dict.fromkeys(models))


def _look_up(config: LLMConfig, server: str, store: Store) -> None:
    """Store the windows that `server` states for the models of `config`."""
    if server.rstrip("/") == OPENAI:  # states none
        return
    base = server.rstrip("/")
    listed = _get(url_of(base, "/models", config), config)
    if listed is None:
        return
    properties: Any = None
    for model in _models(config):
        tokens = _listed(listed.get("data"), model)
        if tokens is None:
            properties = properties or _get(f"{base.removesuffix('/v1')}/props", config) or {}
            settings = properties.get("default_generation_settings")
            tokens = _number(settings if isinstance(settings, dict) else {}, ("n_ctx",))
            tokens = tokens or _number(properties, ("n_ctx",))
        if tokens is not None:
            store.state_window(server, model, tokens)


def _listed(entries: Any, model: str) -> int | None:
    """The window of `model` in a list of models: of its entry, of the model that it adapts, or of its providers."""
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    named = {entry.get("id"): entry for entry in entries}
    entry = named.get(model) or (entries[0] if len(entries) == 1 else {})
    tokens = _number(entry, FIELDS) or _number(named.get(entry.get("parent"), {}), FIELDS)
    providers = entry.get("providers")
    numbers = [
        number
        for one in (providers if isinstance(providers, list) else [])
        if isinstance(one, dict) and (number := _number(one, FIELDS))
    ]
    return tokens or min(numbers, default=None)


def _number(entry: dict[str, Any], names: Iterable[str]) -> int | None:
    """The smallest number of tokens in the fields `names`; None where there is none."""
    values = [entry.get(name) for name in names]
    return min(
        (v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 < v < MOST_TOKENS), default=None
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: it could send the secrets in the headers to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str, config: LLMConfig) -> dict[str, Any] | None:
    """The JSON object at `url`; empty for another answer, None without an answer."""
    try:
        request = urllib.request.Request(url, headers=headers(config))  # noqa: S310 (checked by the settings)
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as answer:
            value = json.loads(_body(answer))
    except (urllib.error.HTTPError, ValueError, RecursionError):
        return {}
    except (OSError, http.client.HTTPException):
        return None
    return value if isinstance(value, dict) else {}


def _body(answer: http.client.HTTPResponse) -> bytes:
    """The first MOST_BYTES of the body of `answer`, read in at most TIMEOUT seconds."""
    body, end = bytearray(), time.monotonic() + TIMEOUT
    while len(body) < MOST_BYTES and (part := answer.read1(MOST_BYTES - len(body))):
        body += part
        if time.monotonic() > end:
            raise TimeoutError
    return bytes(body)
