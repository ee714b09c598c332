"""What the stages that ask a language model share: which one, how it samples, and what it may cost."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError

OPENAI = "https://api.openai.com/v1"
BACKENDS = ("reference", "openai", "openai-batch", "transformers")
BATCH_DISCOUNT = 0.5
"""What the Batch API charges of the usual price."""


@dataclass(frozen=True)
class LLMConfig:
    """The language model behind a stage. A stage's own config inherits these settings."""

    backend: str = "reference"
    """Who answers: reference (fixed rules, no LLM), openai (any OpenAI-compatible server), openai-batch (the same
    requests through its Batch API: half the price, within a day) or transformers (a local model in this process)."""
    model: str = ""
    """Name of the model on the server, or name or folder of a local one; every backend but reference needs it."""
    base_url: str = field(default=OPENAI, metadata={"affects_output": False})
    """Address of the OpenAI-compatible server. Its key is read from the environment variable OPENAI_API_KEY."""
    temperature: float = 0.7
    """Sampling temperature, 0 to 2."""
    max_tokens: int = 2048
    """Longest answer, in tokens."""
    window: int = 128_000
    """Tokens that the model takes, prompt and answer together. Of a longer history the oldest reviews are not shown."""
    seed: int = 0
    """Chooses among phrasings (reference), or is sent with each request; vote number n has seed + n."""
    concurrency: int = field(default=16, metadata={"affects_output": False})
    """Requests in flight at once; fewer while the server says that it has too many."""
    timeout: float = field(default=600.0, metadata={"affects_output": False})
    """Seconds until a request counts as unanswered."""
    retries: int = field(default=5, metadata={"affects_output": False})
    """Further tries after a 5xx, a timeout or a broken connection."""
    poll: float = field(default=60.0, metadata={"affects_output": False})
    """Seconds between two looks at the batches of the openai-batch backend."""
    batch_size: int = field(default=8, metadata={"affects_output": False})
    """Requests that a local model answers at once (transformers)."""
    price_in: float | None = field(default=None, metadata={"affects_output": False})
    """USD for a million prompt tokens; by default that of regen_hf/llm/prices.yaml."""
    price_out: float | None = field(default=None, metadata={"affects_output": False})
    """USD for a million tokens of answers; by default that of regen_hf/llm/prices.yaml."""
    budget: float | None = field(default=None, metadata={"affects_output": False})
    """USD that this stage may spend, all its runs together. It stops before the next request could pass it."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend {self.backend!r} does not exist; choose one of: {', '.join(BACKENDS)}")
        if self.backend != "reference" and not self.model:
            raise ValueError(
                f"the {self.backend} backend needs the name of a model; set model to one that the server has, or to "
                "the name or folder of a local one"
            )
        address = urlsplit(self.base_url)
        if "@" in address.netloc or address.query or address.fragment:  # not told: it may be a key
            raise ValueError(
                "base_url holds more than an address: take out what stands before @ or after ?, and put the key into "
                "the environment variable OPENAI_API_KEY"
            )
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"base_url is {self.base_url!r}, expected an address such as http://localhost:8000/v1")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}, expected a number from 0 to 2")
        for name, least, unit in (
            ("max_tokens", 1, "tokens"),
            ("concurrency", 1, "requests in flight"),
            ("retries", 0, "further tries"),
            ("batch_size", 1, "requests"),
            ("seed", 0, ""),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more {unit}".rstrip())
        if self.window <= self.max_tokens:
            raise ValueError(
                f"window is {self.window}, expected more tokens than the longest answer takes (max_tokens is "
                f"{self.max_tokens})"
            )
        for name in ("timeout", "poll"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number of seconds above 0")
        for name in ("price_in", "price_out", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, expected USD, 0 or more")


@dataclass(frozen=True)
class VotesConfig(LLMConfig):
    """An ensemble: several votes on the same question, by one model or several."""

    temperature: float = 1.0
    """Sampling temperature, 0 to 2; above 0 the votes differ."""
    votes: int = 1
    """Votes on each question."""
    more_models: tuple[str, ...] = ()
    """Further models on the server, which share the votes with the first one, in turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes < 1:
            raise ValueError(f"votes is {self.votes}, expected 1 or more")
        if self.votes <= len(self.more_models):
            models = len(self.more_models) + 1
            raise ValueError(
                f"votes was given {self.votes}, expected at least {models}: {self.votes} votes cannot be shared by "
                f"{models} models; raise votes to as many"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Those who vote, in turn."""
        return (self.model, *self.more_models)


@dataclass(frozen=True)
class Price:
    """USD for a million tokens."""

    prompt: float
    completion: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost.

        >>> Price(0.4, 1.6).usd(1_000_000, 500_000)
        1.2
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def price(model: str, config: LLMConfig, batched: bool | None = None) -> Price | None:
    """The price of `model`: that of the settings, else of `prices.yaml`, else None. A local model costs nothing.

    `batched` tells whether a reply came through the Batch API; by default as the backend of `config` asks.
    """
    if config.backend in ("reference", "transformers"):
        return Price(0.0, 0.0)
    listed = _prices().get(model, {}) if config.base_url.rstrip("/") == OPENAI else {}
    prompt = listed.get("in") if config.price_in is None else config.price_in
    completion = listed.get("out") if config.price_out is None else config.price_out
    if prompt is None or completion is None:
        return None
    batched = config.backend == "openai-batch" if batched is None else batched
    discount = BATCH_DISCOUNT if batched else 1.0
    return Price(prompt * discount, completion * discount)


def needed_price(model: str, config: LLMConfig) -> Price:
    """The price of `model`, where a budget makes no sense without one.

    Raises:
        ConfigError: nothing tells it.
    """
    found = price(model, config)
    if found is None:
        raise ConfigError(
            f"A budget of {config.budget} USD was given, but the price of {model!r} is not known. Give price_in and "
            "price_out, in USD for a million tokens (0 for a server of your own)."
        )
    return found


@functools.cache
def _prices() -> dict[str, Any]:
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "prices.yaml").read_text(encoding="utf-8"))
    models: dict[str, Any] = table["models"]
    return models
