"""Asking a language model: structured answers, each paid for once.

    Request  ── ask ──►  backend  ──►  Store (SQLite)  ── read ──►  validated answer, or Failure

A stage inherits its settings from `LLMConfig`, makes requests of them, and reads their answers back:

    @dataclass(frozen=True)
    class NarrativesConfig(LLMConfig):
        fix: int = 0

    def requests():                                     # called anew for each round, so any size fits in memory
        for user in users():
            yield llm.Request.of(config, prompts.messages("narratives", **values), Narratives, vote=0)

    path = run / "requests" / "narratives.sqlite"
    print(llm.estimate(requests, config, path))         # --dry-run: calls, tokens, USD
    with llm.Store(path) as store:
        llm.ask(requests, config, store, total=10, desc="narratives")
        for request in requests():
            answer = llm.read(request, store)           # a Narratives, or an llm.Failure with reason and raw text

The store holds the raw replies by the hash of model, messages, sampling and vote. `ask` sends what the store lacks and
`read` validates what it holds, so a crash, a stricter check or another order of users never pays for a reply twice. To
ask once more for another reason than a bad shape, send `request.again(text, reason)`: a request of its own. The key
comes from the environment variable OPENAI_API_KEY; it is never stored and never printed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from ..errors import RunError
from .request import Failure, Reply, Request
from .settings import BACKENDS, OPENAI, LLMConfig, VotesConfig
from .spending import Estimate, estimate, spent
from .store import Store, read

__all__ = [
    "BACKENDS",
    "OPENAI",
    "Estimate",
    "Failure",
    "LLMConfig",
    "Reply",
    "Request",
    "Store",
    "VotesConfig",
    "ask",
    "estimate",
    "read",
    "spent",
]


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, total: int, desc: str) -> None:
    """Get a reply to every request that the store has none to; a bad answer is asked again once, with the reason.

    Requests are drawn as they are sent, so memory does not grow with their number. When this returns, `read` gives an
    answer or a failure for each.

    Args:
        requests: Gives the requests, the same ones in each call.
        config: The backend (any but `reference`), its settings, and the budget.
        store: Where the replies go, each as it comes. Two processes never ask for one store at once.
        total: The number of requests, for the progress bar.
        desc: What the progress bar is called.

    Raises:
        ConfigError: the server refuses the key, does not know the model, or no price is known for a budget; told in
            the server's own words.
        RunError: the server does not answer, the budget is spent, the disk is full, or another process is at it. What
            was answered is stored; the next call asks for the rest.
    """
    with store.alone(), tqdm(total=total, desc=desc, unit=" requests") as bar:
        if config.backend == "transformers":
            from .local import ask_local

            ask_local(requests, config, store, bar)
        elif config.backend == "openai-batch":
            from .batch import ask_in_batches

            ask_in_batches(requests, config, store, bar)
        else:
            from .server import Asking

            if at_work := store.execute("SELECT server FROM batches WHERE file_id IS NOT NULL"):
                raise RunError(
                    f"Batches of these requests are at work on {at_work[0][0]}: they would be paid for twice. Run the "
                    "same command with backend openai-batch and that base_url to collect them."
                )

            async def run() -> None:
                await Asking(config, store, bar).run(iter(requests()))

            _finish(run)


def _finish(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end; in a notebook, where a loop runs already, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(run())).result()
