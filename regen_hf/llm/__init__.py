"""Ask a language model for structured answers, and cache every reply.

    Request  ── ask ──►  backend  ──►  Store (SQLite)  ── read ──►  validated answer, or Failure

The settings of a stage inherit from `LLMConfig`. The stage makes requests and reads their answers:

    @dataclass(frozen=True)
    class NarrativesConfig(LLMConfig):
        fix: int = 0

    def requests():                                     # called once for each pass, so the requests need no memory
        for user in users():
            yield llm.Request.of(config, (prompts.system("narratives"), prompts.user("narratives", …)), Narratives)

    path = outputs.requests_path(run, "narratives")
    print(llm.estimate(requests, config, path))         # --dry-run: calls, tokens, USD
    with llm.Store(path) as store:
        llm.ask(requests, config, store, total=10, desc="narratives")
        for request in requests():
            answer = llm.read(request, store)           # a Narratives, or an llm.Failure with reason and raw text
            failures.total += 1                         # failures = llm.Failures(out, config); failures.add(…)
        failures.check()                                # raises where too many have no usable answer

The store maps the hash of model, messages, sampling and vote to the raw reply. `ask` sends the requests that the store
lacks and `read` validates the stored replies: after a crash, a stricter check or another order of users, no reply is
paid for twice. To repeat a question for another reason than an invalid answer, send `request.again(reason)`. The
API key comes from the environment variable OPENAI_API_KEY; it is never stored nor printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..progress import Bar
from .failures import Failures
from .live import progress_bar
from .request import Failure, Reply, Request, reason_of
from .settings import BACKENDS, OPENAI, LLMConfig, VotesConfig
from .spending import Estimate, estimate, spent
from .store import Store, exchange, last, read
from .window_lookup import passes, stored_window, until_superseded
from .windows import Window

__all__ = [
    "BACKENDS",
    "OPENAI",
    "Backend",
    "Estimate",
    "Failure",
    "Failures",
    "LLMConfig",
    "Reply",
    "Request",
    "Store",
    "VotesConfig",
    "Window",
    "ask",
    "estimate",
    "exchange",
    "last",
    "passes",
    "read",
    "reason_of",
    "spent",
    "stored_window",
]


class Backend(Protocol):
    """A module that sends requests to a model: `server`, `batch` or `local`."""

    def ask(self, requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: Bar) -> None:
        """Store a reply to every request that `store` has none for."""


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, total: int, desc: str) -> None:
    """Store a reply to every request that the store has none for; repeat an invalid answer once, with the reason.

    Requests are drawn as they are sent, so memory does not grow with their number. Afterwards each has a stored reply,
    and `read` returns an answer or a failure. The rest of them is not sent once an error states a smaller window than
    the one that they were fitted to; `passes` yields that window next.

    Args:
        requests: Returns the requests, the same ones in each call.
        config: The backend (any except `reference`), its settings, and the budget.
        store: Receives each reply as it arrives. Only one process at a time can ask for a store.
        total: The number of requests, for the progress bar.
        desc: The label of the progress bar.

    Raises:
        ConfigError: the server rejects the key or does not have the model (with the server's message), or there is a
            budget but no price.
        RunError: the server left a request without an answer, the budget is spent, the disk is full, or another
            process uses the store. Replies so far are stored; the next call sends the rest.
    """
    from . import batch, local, server

    with store.locked(), progress_bar(total, desc) as bar:
        backends: dict[str, Backend] = {"transformers": local, "vllm": local, "openai-batch": batch, "openai": server}
        backends[config.backend].ask(lambda: until_superseded(requests(), config, store), config, store, bar)
