"""Settings that the stages with a language model share: which model, how it samples, and its budget."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError, RegenError, require
from . import endpoint
from .endpoint import OPENAI as OPENAI

BACKENDS = ("reference", "openai", "openai-batch", "transformers", "vllm")
IN_PROCESS = ("transformers", "vllm")
"""Backends that load a model into this process."""
LOCAL = ("torch", "transformers", "outlines")
"""Packages of the backend transformers."""
BATCH_DISCOUNT = 0.5
"""Share of the usual price that the Batch API charges."""


def require_vllm() -> None:
    """Check that vLLM is installed; raises RegenError."""
    if find_spec("vllm") is None:
        raise RegenError(
            "The package 'vllm' is not installed. It requires its own version of torch, so install it in an "
            "environment of its own, with: pip install vllm regen-hf"
        )


@dataclass(frozen=True)
class LLMConfig:
    """The language model of a stage. The config of the stage inherits these settings."""

    REMOVED: ClassVar = {"batch_size": "batch_tokens"}

    backend: str = "reference"
    """Source of the answers: reference (fixed rules, no LLM), openai (any OpenAI-compatible server), openai-batch (its
    Batch API: half the price, within a day), transformers or vllm (a local model in this process)."""
    model: str = ""
    """Name of the model on the server, or name or folder of a local model; required unless backend is reference."""
    base_url: tuple[str, ...] = field(default=(OPENAI,), metadata={"affects_output": False})
    """Address of the OpenAI-compatible server; with several, each request goes to the one with the lowest load. The key
    is read from the environment variable OPENAI_API_KEY."""
    api_version: str = field(default="", metadata={"affects_output": False})
    """Version of Azure's API, sent as ?api-version=…; the key is then sent in the header api-key."""
    extra_header: tuple[str, ...] = field(default=(), metadata={"affects_output": False, "hidden": True})
    """Header to send with each request, as 'NAME: VALUE'. $NAME in the value is replaced by that environment variable
    when a request is sent; secrets are accepted only in this form."""
    extra_body: dict[str, Any] = field(default_factory=dict, metadata={"mapping": True})
    """Further fields of each request, such as '{"top_k": 20}'; a mapping in the configuration."""
    temperature: float = 0.7
    """Sampling temperature, 0 to 2."""
    top_p: float | None = None
    """Share of the probability that tokens are sampled from, above 0 and up to 1; by default, that of the server."""
    thinking: bool | None = None
    """Turn the thinking of the model on or off by chat_template_kwargs.enable_thinking (vLLM, SGLang, llama.cpp, a
    local model). By default it is not sent; for other servers, set extra_body, as in '{"reasoning_effort": "low"}'."""
    max_tokens: int = 2048
    """Maximum length of an answer, in tokens."""
    window: int | None = None
    """Context window of the model in tokens, prompt and answer together. By default, that of the server, of its
    errors or of the local model, else 128000. The oldest reviews of a longer history are not shown."""
    seed: int = 0
    """Selects among phrasings (reference), or is sent with each request; vote number n has seed + n."""
    concurrency: int = field(default=16, metadata={"affects_output": False})
    """Maximum number of requests in flight, on all servers; it decreases while a server reports an overload."""
    requests_per_minute: float = field(default=0.0, metadata={"affects_output": False})
    """Maximum number of requests sent per minute, to all servers; 0 is no limit."""
    tokens_per_minute: float = field(default=0.0, metadata={"affects_output": False})
    """Maximum number of tokens per minute, of prompts and answers, on all servers; 0 is no limit."""
    timeout: float = field(default=600.0, metadata={"affects_output": False})
    """Seconds until a request times out."""
    retries: int = field(default=5, metadata={"affects_output": False})
    """Retries after a 5xx status, a timeout or a broken connection. A run with requests that were never answered ends
    with exit code 1, and the same command resumes it."""
    max_failed: float = field(default=0.05, metadata={"affects_output": False})
    """Maximum share of requests without a usable answer (rejected by the server, or answers of the wrong shape); above
    it, the stage ends with exit code 1. Below it, they are listed in failed.jsonl."""
    retry_failed: int = 0
    """How often a request without a usable answer is sent again, each time with a new seed. Raise it by one to send
    those of a finished stage again."""
    poll: float = field(default=60.0, metadata={"affects_output": False})
    """Seconds between two polls of the batches (openai-batch)."""
    batch_tokens: int | None = field(default=None, metadata={"affects_output": False})
    """Maximum tokens of a batch of a local model, with its longest possible answers (transformers); by default 32768
    on a CPU and 262144 on a GPU, where it is halved when the memory does not suffice."""
    price_in: float | None = field(default=None, metadata={"affects_output": False})
    """USD per million prompt tokens; the default is in regen_hf/llm/prices.yaml."""
    price_out: float | None = field(default=None, metadata={"affects_output": False})
    """USD per million tokens of answers; the default is in regen_hf/llm/prices.yaml."""
    budget: float | None = field(default=None, metadata={"affects_output": False})
    """Maximum USD for this stage, over all its runs. It stops before a request that could exceed it."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend is {self.backend!r}, expected one of: {', '.join(BACKENDS)}")
        if self.backend != "reference" and not self.model:
            raise ValueError(
                f"model is empty, but the {self.backend} backend needs the name of a model; set model to a name on the "
                "server, or to the name or folder of a local model"
            )
        if isinstance(self.base_url, str):
            object.__setattr__(self, "base_url", (self.base_url,))
        endpoint.check_addresses(self.base_url)
        if self.backend == "openai-batch" and len(self.base_url) > 1:
            raise ValueError(
                f"base_url has {len(self.base_url)} addresses, but a batch is sent to one server; set base_url to one "
                "address, or backend to openai"
            )
        endpoint.check_headers(self.extra_header)
        endpoint.check_body(self.extra_body, self.thinking)
        unsupported = {"transformers": ("extra_body", "top_p"), "vllm": ("extra_body",)}.get(self.backend, ())
        if given := [name for name in unsupported if getattr(self, name)]:
            raise ValueError(
                f"{given[0]} is set, but the {self.backend} backend does not support it; remove {given[0]}"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected a number above 0 and up to 1")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}, expected a number from 0 to 2")
        for name, least, unit in (
            ("max_tokens", 1, "tokens"),
            ("concurrency", 1, "requests in flight"),
            ("retries", 0, "retries"),
            ("retry_failed", 0, "times"),
            ("seed", 0, ""),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more {unit}".rstrip())
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ValueError(f"batch_tokens is {self.batch_tokens}, expected 1 or more tokens")
        if self.window is not None and self.window <= self.max_tokens:
            raise ValueError(
                f"window is {self.window}, expected more tokens than the maximum length of an answer (max_tokens is "
                f"{self.max_tokens})"
            )
        for name in ("requests_per_minute", "tokens_per_minute"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number per minute, or 0 for no limit")
        for name in ("timeout", "poll"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number of seconds above 0")
        if not 0 <= self.max_failed <= 1:
            raise ValueError(f"max_failed is {self.max_failed}, expected a share from 0 to 1")
        for name in ("price_in", "price_out", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, expected USD, 0 or more")

    def check_packages(self) -> None:
        """Check that the optional packages of the backend are installed; raises MissingPackageError."""
        if self.backend == "vllm":
            require_vllm()
            return
        require(*({"reference": (), "transformers": LOCAL, "openai": ("aiohttp",)}.get(self.backend, ("openai",))))

    def further(self, model: str) -> tuple[str, ...]:
        """The models of the retries (retry_failed) of a request to `model`."""
        return (model,) * self.retry_failed

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the first requests."""
        return (self.model,)

    @property
    def repetitions(self) -> int:
        """How often a request is repeated at most, because its answer cannot be used."""
        return 1


@dataclass(frozen=True)
class VotesConfig(LLMConfig):
    """An ensemble: several votes on the same question, by one or more models."""

    temperature: float = 1.0
    """Sampling temperature, 0 to 2; above 0 the votes differ."""
    votes: int = 1
    """Number of votes on each question."""
    more_models: tuple[str, ...] = ()
    """Further models on the server; the votes go to all models in turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes < 1:
            raise ValueError(f"votes is {self.votes}, expected 1 or more")
        if self.votes <= len(self.more_models):
            models = len(self.more_models) + 1
            raise ValueError(
                f"votes is {self.votes}, expected at least {models}, one for each model; raise votes or name fewer "
                "models in more_models"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """All models that vote, in turn."""
        return (self.model, *self.more_models)


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    prompt: float
    completion: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of a number of tokens.

        >>> Price(0.4, 1.6).usd(1_000_000, 500_000)
        1.2
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def price(model: str, config: LLMConfig, batched: bool | None = None) -> Price | None:
    """The price of `model` in the settings, else in `prices.yaml`, else None. A local model costs nothing.

    Args:
        model: Name of the model.
        config: Holds the backend and the prices of the settings.
        batched: Whether the Batch API's price is meant; by default, whether the backend of `config` is openai-batch.
    """
    if config.backend in ("reference", *IN_PROCESS):
        return Price(0.0, 0.0)
    listed = _prices().get(model, {}) if all(url.rstrip("/") == OPENAI for url in config.base_url) else {}
    prompt = listed.get("in") if config.price_in is None else config.price_in
    completion = listed.get("out") if config.price_out is None else config.price_out
    if prompt is None or completion is None:
        return None
    batched = config.backend == "openai-batch" if batched is None else batched
    discount = BATCH_DISCOUNT if batched else 1.0
    return Price(prompt * discount, completion * discount)


def required_price(model: str, config: LLMConfig) -> Price:
    """The price of `model`, which a budget requires.

    Raises:
        ConfigError: the price is not known.
    """
    known = price(model, config)
    if known is None:
        raise ConfigError(
            f"A budget of {config.budget} USD is set, but the price of {model!r} is not known. Set price_in and "
            "price_out, in USD per million tokens (0 for your own server)."
        )
    return known


@functools.cache
def _prices() -> dict[str, Any]:
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "prices.yaml").read_text(encoding="utf-8"))
    models: dict[str, Any] = table["models"]
    return models
