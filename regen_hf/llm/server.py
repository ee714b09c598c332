"""The backend `openai`: concurrent requests to an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..errors import ConfigError, RegenError, RunError, require
from ..progress import Bar, say
from .completions import parse_reply
from .connection import NO_SUCH_MODEL, AttemptFailed, error_in, stated_window
from .dialects import Dialect
from .fleet import STREAK, Fleet, Server
from .headers import headers, redact
from .interrupts import interruptible
from .limits import Limits
from .live import state
from .pace import LONGEST_WAIT, backoff
from .request import Failure, Reply, Request, outcome_of
from .settings import LLMConfig
from .spending import Spending, with_tokens
from .store import Store, unsent
from .turns import Turns
from .window_lookup import learn


class Workers:
    """One call of `ask`: concurrent workers that share the requests and the servers.

    Either the request or the server can cause a failure. A streak of failures without an answer shows that it was the
    server: it is set aside, or all workers stop after the requests in flight return, if it is the last one. A rejection
    is stored once an answer shows that the server works; a request without an answer is never stored, and makes the run
    end with an error.
    """

    def __init__(self, config: LLMConfig, store: Store, bar: Bar) -> None:
        self.config, self.store, self.bar = config, store, bar
        self.halted = asyncio.Event()
        self.fleet = Fleet(config, store, self._warn)
        self.limits = Limits(config, self.halted, self._warn)
        self.turns = Turns()
        self.spending = Spending(config, store)
        self.stop: BaseException | None = None
        self.answered = self.failed = self.unanswered = self.holding = 0
        self.drawn = self.sent = 0
        """Requests that the workers have, and those among them that wait for an answer of a server."""
        self.last_message = ""
        self.further: list[Request] = []
        """Requests to be sent after the others: retries of rejections, and requests that a dead server rejected."""
        self.opened = asyncio.Event()
        self.in_flight: dict[str, asyncio.Event] = {}
        """Events by the key of a request that is being sent; set when it is done."""
        self.silent: set[str] = set()
        """Keys of the requests that timed out since the last answer."""
        self.silent_rounds = 0
        """How often the limit of the requests in flight was halved for them."""
        self.parked: list[asyncio.Future[None]] = []
        """Requests that timed out and wait for another answer."""

    async def run(self, requests: Iterator[Request]) -> None:
        """Send all of `requests`."""
        shown = asyncio.create_task(self._show())
        with interruptible(self._interrupt), self.store.statistics.timed():
            try:
                while True:
                    await asyncio.gather(*(self._work(requests, number) for number in range(self.config.concurrency)))
                    if self.stop is None:
                        self.stop = self._verdict()
                    if self.stop or not self.further:
                        break
                    requests, self.further = iter(self.further), []
            finally:
                shown.cancel()
                self._update()
                await self.fleet.close()
        if self.stop:
            raise self.stop

    def _interrupt(self) -> bool:
        """Wait for the requests in flight, which are paid for; False if nothing is sent any more already."""
        if self.stop is not None:
            return False
        self._halt(KeyboardInterrupt())
        waiting = f"stopping after the {self.sent} requests in flight return"
        self._warn(f"{waiting} (at most {self.config.timeout:.0f} s)")
        return True

    def _halt(self, reason: BaseException) -> None:
        """Send nothing more; the first reason is raised."""
        self.stop = self.stop or reason
        self.halted.set()
        self.fleet.halt()
        self.limits.wake()
        self._unpark()

    def _warn(self, message: str) -> None:
        say(message)

    async def _show(self) -> None:
        """Show the state at regular intervals, also while no answer comes."""
        while True:
            await asyncio.sleep(self.bar.mininterval)
            self._update()
            with contextlib.suppress(OSError):  # the terminal is gone
                self.bar.refresh()

    def _update(self) -> None:
        counts = f"{self.failed:,} failed, {self.spending}"
        self.bar.set_postfix_str(state(self.sent, self.drawn - self.sent, counts), refresh=False)

    async def _work(self, requests: Iterator[Request], number: int) -> None:
        """Take requests and complete each. One worker probes the server before the others start."""
        if number:
            await self.opened.wait()
        try:
            for request in requests:
                missing = unsent(request, self.store)
                if missing is None:
                    self.bar.initial += 1  # not part of the rate
                    await asyncio.sleep(0)  # many stored answers in a row must not block the requests in flight
                else:
                    self.drawn += 1
                    try:
                        await self._complete(missing)
                    finally:
                        self.drawn -= 1
                if self.stop:
                    return
                self.bar.n += 1
        except Exception as error:  # of the function that creates the requests: wait for those in flight
            self._halt(error)
        finally:
            self.opened.set()

    async def _complete(self, missing: Request | None) -> None:
        """Send a request, and its repetition after an invalid answer, unless an identical one is in flight."""
        while self.stop is None and missing is not None:
            if other := self.in_flight.get(missing.key):  # such as two users with the same history
                await other.wait()
                missing = unsent(missing, self.store)
                continue
            done = self.in_flight[missing.key] = asyncio.Event()
            try:
                answer = await self._send(missing)
            finally:
                del self.in_flight[missing.key]
                done.set()
            if answer is None:
                return
            reply, server = answer
            outcome = outcome_of(missing, reply)
            usable = not isinstance(outcome, Failure | Request)
            if not server.dialects.judge(missing, reply, usable):
                self.opened.set()
            self.failed += isinstance(outcome, Failure)
            missing = unsent(outcome, self.store) if isinstance(outcome, Request) else None

    async def _send(self, request: Request) -> tuple[Reply, Server] | None:
        """Send a request until there is a reply, and store it; returns it with its server, None where there is none."""
        attempts = answered = 0
        guess: tuple[Server, Dialect] | None = None
        while (reserved := await self._reserve(request)) is not None:
            server = await self.fleet.enter()
            started = time.monotonic()
            estimated = seconds = 0.0
            failure: AttemptFailed | None = None
            reply: Reply | None = None
            try:
                estimated = await self.limits.wait(request) if server else 0.0
                started = time.monotonic()
                if server and self.stop is None:
                    dialect = guess[1] if guess and guess[0] is server else server.dialects.of(request.model)
                    reply = await self._adapt(server, request, dialect)
                    seconds = time.monotonic() - started
                    await self.turns.next(self.fleet.in_flight, seconds)
            except AttemptFailed as error:
                failure = error
            finally:
                if server:
                    self.fleet.leave(server)
                self.holding -= 1
                # Otherwise it may have been paid for without an answer.
                if failure is None or failure.status or failure.unreachable:
                    self.spending.reserved -= reserved
            if server is None:
                return None
            if failure is None:
                kept = reply is not None and self._keep(server, request, reply, started, seconds)
                if reply is not None:
                    self.limits.correct(estimated, reply)
                self._unpark()
                return (reply, server) if reply is not None and kept else None
            self.opened.set()
            self.last_message = failure.message
            if failure.overloaded or failure.timed_out:
                self._slow_down(server, request, failure, started)
            self._unpark()
            if self._hopeless(server, request, failure):
                return None
            if failure.rejected:
                self._reject(server, request, failure)
                return None
            if self.fleet.set_aside(server, failure):
                continue  # on another server
            # An overloaded server that answers other requests in the meantime does not use up attempts.
            attempts = 1 if failure.overloaded and self.answered > answered else attempts + 1
            answered = self.answered
            no_answer = failure.overloaded or server.faults > self.config.retries
            if attempts > self.config.retries and no_answer and self.fleet.give_up(server, failure.message):
                attempts = 0
                continue  # on another server
            if attempts > self.config.retries or failure.about_account:
                self.unanswered += 1
                self._count_failure(server)
                return None
            if failure.timed_out:
                await self._another_answer(answered)
            guess = (server, server.dialects.after_fault(request.model, dialect, failure.status))
            wait = backoff(attempts) if failure.wait is None else failure.wait
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.halted.wait(), wait)
        return None

    def _slow_down(self, server: Server, request: Request, failure: AttemptFailed, started: float) -> None:
        """Narrow the pace; stop where several requests time out in every attempt, and no other one is answered."""
        if (failure.wait or 0.0) > server.pace.pause + LONGEST_WAIT:
            self._warn(f"the server asks for a pause of {failure.wait:.0f} s: {failure.message}")
        halved = server.pace.slow_down(started, failure.wait)
        if failure.timed_out:
            self.silent.add(request.key)
            self.silent_rounds += halved
            if len(self.silent) >= STREAK and self.silent_rounds > self.config.retries:
                self.unanswered += len(self.silent)
                self._halt(self._no_answers())

    async def _another_answer(self, answered: int) -> None:
        """Wait until a request other than the `answered` ones is answered, or none is in flight.

        A slow server may still work on the request that timed out; posting it again would only make its queue longer.
        """
        while self.answered == answered and self.fleet.in_flight and not self.halted.is_set():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.parked.append(turn)
            await turn

    def _unpark(self) -> None:
        for turn in self.parked:
            if not turn.done():
                turn.set_result(None)
        self.parked.clear()

    async def _adapt(self, server: Server, request: Request, dialect: Dialect) -> Reply:
        """One attempt in `dialect`, or in a further one that the server does not refuse."""
        model, dialects = request.model, server.dialects
        guessed = dialect != dialects.of(model)
        first: AttemptFailed | None = None
        while True:
            try:
                reply = await self._attempt(server, request, dialect)
            except AttemptFailed as failure:
                further = dialects.after_refusal(model, dialect, failure.status, failure.message)
                if further is None:
                    # Rejected in every form, so the form is not the reason: the first message names it best. An error
                    # about the window has another reason, as has one after an error that is no rejection.
                    of_window = stated_window(failure.message) is not None
                    raise (
                        first if first and first.rejected and failure.rejected and not of_window else failure
                    ) from None
                # After a change of a field name, the message is resolved and not the reason of the next error.
                renamed = further.form == dialect.form
                first, dialect = None if renamed else first or failure, further
                await self.limits.wait(request)
            else:
                if model not in dialects and not dialect.temperature:
                    default = f"{model} accepts no temperature: its default is used instead of"
                    self._warn(f"{default} {request.temperature}")
                dialects.accept(model, dialect, guessed)
                return reply

    async def _attempt(self, server: Server, request: Request, dialect: Dialect) -> Reply:
        self.sent += 1
        try:
            payload = await server.connection.post(dialect.body(request), request.max_tokens)
        finally:
            self.sent -= 1
        reply = parse_reply(payload, dialect.form)
        if reply is None:
            shown = redact(json.dumps(payload))[:500]
            raise error_in(payload) or AttemptFailed(f"the reply is not a chat completion but {shown}")
        return with_tokens(reply, request)

    async def _reserve(self, request: Request) -> float | None:
        """Reserve the worst case of one attempt, as soon as it fits the budget; None where the run has to stop."""
        while self.stop is None:
            worst_case = self.spending.worst_case(request)
            if self.spending.fits(worst_case):
                self.spending.reserved += worst_case
                self.holding += 1
                return worst_case
            if self.holding == 0:
                self._halt(self.spending.exhausted())
            else:
                await asyncio.sleep(0.02)  # the requests in flight will cost less than their worst case
        return None

    def _keep(self, server: Server, request: Request, reply: Reply, started: float, seconds: float) -> bool:
        """Store a reply and the rejections before it; False if the disk is full."""
        try:
            self.store.put(request, reply)
            self.spending.pay(request.model, reply, request)
            server.statistics.add(seconds, reply)
            self.answered += 1
            self.silent_rounds = 0
            self.silent.clear()
            self.fleet.answered(server, started)
            self._store(server.doubtful)
        except RunError as error:  # the disk is full: send no more, but try to store those in flight
            self._halt(error)
            return False
        return True

    def _store(self, rejections: list[tuple[Request, Reply]]) -> None:
        for request, reply in rejections:
            self.store.put(request, reply)
            outcome = outcome_of(request, reply)
            self.failed += isinstance(outcome, Failure)
            if isinstance(outcome, Request):
                self.further.append(outcome)
        rejections.clear()

    def _reject(self, server: Server, request: Request, failure: AttemptFailed) -> None:
        rejection = (request, Reply(failure.message, "rejected"))
        smaller_window = learn(failure.message, server.url, request, self.store)
        if failure.by_content_rules or smaller_window:  # never for a fault of the server
            self._store([rejection])
        else:
            server.doubtful.append(rejection)
            self._count_failure(server)

    def _count_failure(self, server: Server) -> None:
        server.streak += 1
        enough = server.aside or server.streak >= max(STREAK, self.config.concurrency)
        if enough and not self._give_up(server):
            self._halt(self._no_answers())

    def _give_up(self, server: Server) -> bool:
        """Send what a server rejected to another server; False if there is none."""
        if not self.fleet.give_up(server, self.last_message):
            return False
        self.further += [request for request, _ in server.doubtful]
        server.doubtful.clear()
        return True

    def _hopeless(self, server: Server, request: Request, failure: AttemptFailed) -> bool:
        """Stop all workers where no request can succeed: a wrong key, no credit, an unknown model.

        After an answer, an error 403 or 404 without these reasons comes from a gateway and may pass.
        """
        known = request.model in server.dialects
        if not (
            failure.status in (401, 402)
            or failure.code == "insufficient_quota"
            or (failure.status in (400, 403) and not known and not failure.rejected and not failure.busy)
            or (failure.status == 404 and (not known or NO_SUCH_MODEL.search(failure.message)))
            or (failure.status in (400, 422) and not known and NO_SUCH_MODEL.search(failure.message))
        ):
            return False
        self._halt(
            ConfigError(
                f"The server {server.url} rejects requests to model {request.model!r}: {failure.message}. "
                "Check the key in OPENAI_API_KEY, base_url and model."
            )
        )
        return True

    def _verdict(self) -> RegenError | None:
        """The error of the run, after all requests; None if each of them has an answer or a rejection."""
        for server in self.fleet.servers:
            if all(request.model in server.dialects for request, _ in server.doubtful):
                self._store(server.doubtful)
            elif self.answered:
                self._give_up(server)
        return self._no_answers() if self.unanswered or self._rejected else None

    @property
    def _rejected(self) -> int:
        return sum(len(server.doubtful) for server in self.fleet.servers)

    def _no_answers(self) -> RunError:
        return RunError(
            f"The {self.fleet.names} left {self.unanswered + self._rejected:,} requests without an answer: "
            f"{self.last_message}. The {self.answered:,} answers of this run are kept. Run the same command again to "
            "resume."
        )


def ask(requests: Callable[[], Iterable[Request]], config: LLMConfig, store: Store, bar: Bar) -> None:
    """Store a reply to every request that `store` has none for."""
    require("aiohttp")
    headers(config)  # an invalid key raises before the loop starts
    if submitted := store.execute("SELECT server FROM batches WHERE file_id IS NOT NULL"):
        raise RunError(
            f"Batches of these requests were submitted to {submitted[0][0]}, so they would be paid for twice. Run the "
            "same command with backend openai-batch and that base_url to collect them."
        )

    async def run() -> None:
        await Workers(config, store, bar).run(iter(requests()))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:  # in a notebook, whose loop is running already
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(run())).result()
