"""What requests cost: told before they are sent, kept within a budget while they are."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from .request import Reply, Request, schema_of
from .settings import LLMConfig, needed_price, price
from .store import Store, unsent

BYTES_PER_TOKEN = 4.0
"""Of English text, for an estimate before any answer has told the truth."""


@dataclass(frozen=True)
class Estimate:
    """What a stage would still ask for. Tokens are guessed from the bytes until the store has replies to learn from."""

    requests: int = 0
    stored: int = 0
    """Answered before, so they cost nothing."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the replies so far had them, or the most that max_tokens allows."""
    usd: float | None = 0.0
    """None where a price is not known."""
    most_usd: float | None = 0.0
    """The same if every answer is as long as max_tokens allows."""

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        cost = (
            "the price is not known: give price_in and price_out"
            if self.usd is None
            else f"about {self.usd:,.2f} USD, {self.most_usd:,.2f} at most"
        )
        return f"{self.requests:,} requests to send, {self.stored:,} answered before; {tokens}; {cost}"


def estimate(requests: Callable[[], Iterable[Request]], config: LLMConfig, path: Path) -> Estimate:
    """What asking for `requests` with the store at `path` would cost now; sends nothing and stores nothing.

    Bad answers that are asked for again are not counted before they have come.
    """
    with Store(path if path.exists() else Path(":memory:")) as store:
        return _estimate(requests(), config, store)


def _estimate(requests: Iterable[Request], config: LLMConfig, store: Store) -> Estimate:
    learned = store.totals()
    long = learned["completion_tokens"] / learned["replies"] if learned["replies"] else None
    counts: Counter[str] = Counter()
    usd: float | None = 0.0
    most_usd = 0.0
    for request in requests:
        missing = unsent(request, store)
        if missing is None:
            counts["stored"] += 1
            continue
        prompt = size(missing) / BYTES_PER_TOKEN
        completion = missing.max_tokens if long is None else min(long, missing.max_tokens)
        counts["requests"] += 1
        counts["prompt"] += round(prompt)
        counts["completion"] += round(completion)
        cost = price(missing.model, config)
        if cost is None:
            usd = None
        elif usd is not None:
            usd += cost.usd(prompt, completion)
            most_usd += cost.usd(prompt, missing.max_tokens)
    return Estimate(
        counts["requests"],
        counts["stored"],
        counts["prompt"],
        counts["completion"],
        usd,
        None if usd is None else most_usd,
    )


def size(request: Request) -> int:
    """Bytes of the messages and the schema."""
    texts = sum(len(message["content"].encode()) for message in request.messages)
    return texts + len(json.dumps(schema_of(request.answer)))


def counted(reply: Reply, request: Request) -> Reply:
    """`reply`; where the server told no tokens, with guesses that are rather too high, so that a budget holds."""
    if reply.prompt_tokens or reply.completion_tokens:
        return reply
    prompt, said = size(request), len(reply.text.encode())
    return dataclasses.replace(reply, prompt_tokens=prompt // 3, completion_tokens=min(said // 3, request.max_tokens))


def spent(store: Store, config: LLMConfig) -> float | None:
    """USD that the replies in `store` have cost, over all runs, at the prices of `config`; None if one is not known."""
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
    """USD paid, and reserved for the worst that the requests in flight can cost.

    The longest answer is known (max_tokens). The prompt's tokens are guessed from its bytes: a token for every 2 bytes
    until replies have told, then a tenth above the highest rate seen. What may have been paid for without an answer
    (a timeout, a broken connection) stays reserved until the process ends.

    Raises:
        ConfigError: there is a budget, but the price of a model is not known.
    """

    def __init__(self, config: LLMConfig, store: Store) -> None:
        self.config = config
        self.paid = None if price(config.model, config) is None else spent(store, config)
        self.tokens = sum(store.totals()[name] for name in ("prompt_tokens", "completion_tokens"))
        self.reserved = 0.0
        self._rate: float | None = None
        if config.budget is not None and self.paid is None:
            for (model,) in store.execute("SELECT DISTINCT model FROM replies"):
                needed_price(model, config)

    def worst(self, request: Request) -> float:
        """The most USD that one try of `request` can cost."""
        if self.config.budget is None:
            return 0.0
        prompt = size(request) * (0.5 if self._rate is None else self._rate * 1.1)
        return needed_price(request.model, self.config).usd(prompt, request.max_tokens)

    def fits(self, usd: float) -> bool:
        """Whether `usd` more would stay within the budget, whatever comes back."""
        budget = self.config.budget
        return budget is None or (self.paid or 0.0) + self.reserved + usd <= budget

    def pay(self, model: str, reply: Reply, request: Request | None = None) -> None:
        """Count a reply that has come; with its `request`, learn how many tokens its bytes were."""
        self.tokens += reply.prompt_tokens + reply.completion_tokens
        if request is not None and self.config.budget is not None and reply.prompt_tokens:
            self._rate = max(self._rate or 0.0, reply.prompt_tokens / size(request))
        cost = price(model, self.config, reply.batched)
        if cost is None or self.paid is None:
            self.paid = None
        else:
            self.paid += cost.usd(reply.prompt_tokens, reply.completion_tokens)

    def exhausted(self) -> RunError:
        """The error that stops a run before it passes its budget."""
        return RunError(
            f"The next request could pass the budget of {self.config.budget} USD: {self.paid or 0.0:.4f} USD are "
            "spent. What was answered is kept; give a higher budget to go on."
        )

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + ("" if self.paid is None else f", {self.paid:,.2f} USD")
