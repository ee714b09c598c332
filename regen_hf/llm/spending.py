"""The cost of requests: an estimate before they are sent, and a budget while they are sent."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RunError
from .answers import schema_of
from .request import Reply, Request
from .settings import LLMConfig, price, required_price
from .store import Store, unsent

BYTES_PER_TOKEN = 4.0
"""Of English text, for estimates."""


@dataclass(frozen=True)
class Estimate:
    """What a stage would still send. Tokens are estimated from the bytes, and from earlier replies in the store."""

    requests: int = 0
    stored: int = 0
    """Requests that the store has an answer for; they cost nothing."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """At the mean length of the replies so far, or max_tokens if there is none."""
    usd: float | None = 0.0
    """None where a price is not known."""
    most_usd: float | None = 0.0
    """The same if every answer is max_tokens long."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """The requests by the class of their answer."""

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        cost = (
            "the price is not known: set price_in and price_out"
            if self.usd is None
            else f"about {self.usd:,.2f} USD, at most {self.most_usd:,.2f} USD"
        )
        kinds = ", ".join(f"{number:,} {name}" for name, number in self.answers.items())
        of = f" ({kinds})" if len(self.answers) > 1 else ""
        return f"{self.requests:,} requests to send{of}, {self.stored:,} answered before; {tokens}; {cost}"


def estimate(requests: Callable[[], Iterable[Request]], config: LLMConfig, path: Path) -> Estimate:
    """The cost of sending `requests` that the store at `path` lacks; sends nothing and stores nothing.

    Repetitions after invalid answers are counted only once those have been received.
    """
    sent = stored = prompt_tokens = completion_tokens = 0
    usd = most_usd = 0.0
    priced = True
    answers: Counter[str] = Counter()
    with Store(path, read_only=True) as store:
        totals = store.totals()
        mean_length = totals["completion_tokens"] / totals["replies"] if totals["replies"] else None
        for request in requests():
            missing = unsent(request, store)
            if missing is None:
                stored += 1
                continue
            prompt = size(missing) / BYTES_PER_TOKEN
            completion = missing.max_tokens if mean_length is None else min(mean_length, missing.max_tokens)
            sent += 1
            answers[missing.answer.__name__] += 1
            prompt_tokens += round(prompt)
            completion_tokens += round(completion)
            cost = price(missing.model, config)
            if cost is None:
                priced = False
            else:
                usd += cost.usd(prompt, completion)
                most_usd += cost.usd(prompt, missing.max_tokens)
    costs = {"usd": usd, "most_usd": most_usd} if priced else {"usd": None, "most_usd": None}
    return Estimate(sent, stored, prompt_tokens, completion_tokens, **costs, answers=answers)


def size(request: Request) -> int:
    """Bytes of the messages and the schema."""
    texts = sum(len(message["content"].encode()) for message in request.messages)
    return texts + len(json.dumps(schema_of(request.answer)))


def with_tokens(reply: Reply, request: Request) -> Reply:
    """`reply`; if the server reports no tokens, with estimates that are rather too high, so that a budget holds."""
    if reply.prompt_tokens or reply.completion_tokens:
        return reply
    prompt, completion = size(request), len(reply.text.encode())
    return dataclasses.replace(
        reply, prompt_tokens=prompt // 3, completion_tokens=min(completion // 3, request.max_tokens)
    )


def spent(store: Store, config: LLMConfig) -> float | None:
    """USD for the replies in `store`, over all runs, at the prices of `config`; None if a price is not known."""
    rows = store.execute(
        "SELECT model, batched, total(prompt_tokens), total(completion_tokens) FROM replies GROUP BY model, batched"
    )
    usd = 0.0
    for model, batched, prompt, completion in rows:
        cost = price(model, config, bool(batched))
        if cost is None:
            return None
        usd += cost.usd(prompt, completion)
    return usd


class Spending:
    """USD paid, and USD reserved for the worst case of the requests in flight.

    The maximum length of an answer is known (max_tokens). The tokens of a prompt are estimated from its bytes: one
    token per 2 bytes until there are replies, then 10 % above the highest rate so far. A request that may have been
    paid for without an answer (a timeout, a broken connection) stays reserved until the process ends.

    Raises:
        ConfigError: there is a budget, but the price of a model is not known.
    """

    def __init__(self, config: LLMConfig, store: Store) -> None:
        self.config = config
        self.paid = None if price(config.model, config) is None else spent(store, config)
        totals = store.totals()
        self.tokens = totals["prompt_tokens"] + totals["completion_tokens"]
        self.reserved = 0.0
        self._rate: float | None = None
        if config.budget is not None and self.paid is None:
            for (model,) in store.execute("SELECT DISTINCT model FROM replies"):
                required_price(model, config)

    def worst_case(self, request: Request) -> float:
        """The most USD that one attempt of `request` can cost."""
        if self.config.budget is None:
            return 0.0
        prompt = size(request) * (0.5 if self._rate is None else self._rate * 1.1)
        return required_price(request.model, self.config).usd(prompt, request.max_tokens)

    def fits(self, usd: float) -> bool:
        """Whether `usd` more would stay within the budget in the worst case."""
        budget = self.config.budget
        return budget is None or (self.paid or 0.0) + self.reserved + usd <= budget

    def pay(self, model: str, reply: Reply, request: Request | None = None) -> None:
        """Add the cost of a reply; with its `request`, update the rate of tokens per byte."""
        self.tokens += reply.prompt_tokens + reply.completion_tokens
        if request is not None and self.config.budget is not None and reply.prompt_tokens:
            self._rate = max(self._rate or 0.0, reply.prompt_tokens / size(request))
        cost = price(model, self.config, reply.batched)
        if cost is None or self.paid is None:
            self.paid = None
        else:
            self.paid += cost.usd(reply.prompt_tokens, reply.completion_tokens)

    def exhausted(self) -> RunError:
        """The error that stops a run before it exceeds its budget."""
        return RunError(
            f"The next request could exceed the budget of {self.config.budget} USD: {self.paid or 0.0:.4f} USD are "
            "spent. All answers are kept; set a higher budget to resume."
        )

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + ("" if self.paid is None else f", {self.paid:,.2f} USD")
