"""A request to a model, the class of its answer, and its reply."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .answers import instruction, read_answer, schema_of, writable
from .windows import Message as Message

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .settings import LLMConfig
    from .windows import Window

RETRY_SEED = 1_000_000
"""Added to the seed when a failed request is sent again; more than there are votes."""
REPETITION_SEED = 10_000
"""Added to the seed when an unusable answer is requested again."""
CORRECTION = (
    "An earlier answer to this cannot be used: {reason}. Answer with one JSON object of the required form and nothing "
    "else."
)
"""The message of a repetition."""

FORMS = ("json_schema", "json_object_schema", "json_object", "instructions")
"""How a request states the schema of the answer, the strictest first: as a JSON schema, by JSON mode with the schema
(llama-cpp-python, some providers), by JSON mode, or in words."""

CUT_OFF = ("length", "max_tokens", "model_length")
"""Finish reasons of an answer at its maximum length."""
REPETITION = "repetition"
"""Finish reason of an answer that was stopped because it repeats the same words."""


@dataclass(frozen=True)
class Request:
    """One question to a model, and the class of its answer."""

    model: str
    messages: tuple[Message, ...]
    answer: type[BaseModel]
    temperature: float
    seed: int
    """Sent with the request."""
    max_tokens: int
    vote: int = 0
    """Number of the vote in an ensemble; it distinguishes votes on servers that ignore the seed."""
    repeated: bool = False
    """Whether this repeats a question whose answer was invalid."""
    further: tuple[str, ...] = ()
    """Models that the question is sent to again, in turn, when there is no usable answer; see `LLMConfig`."""
    top_p: float | None = None
    thinking: bool | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of the JSON body."""
    window: Window | None = field(default=None, compare=False)
    """What the messages were fitted to."""
    too_long: str = ""
    """Why the messages do not fit into the window; such a request is never sent."""

    @classmethod
    def of(
        cls,
        config: LLMConfig,
        messages: tuple[Message, ...],
        answer: type[BaseModel],
        vote: int = 0,
        model: str = "",
        window: Window | None = None,
    ) -> Request:
        """A request with the sampling of `config`; `vote` is added to its seed, `model` overrides its model."""
        return cls(
            model or config.model,
            tuple({**message, "content": writable(message["content"])} for message in messages),
            answer,
            config.temperature,
            config.seed + vote,
            config.max_tokens,
            vote,
            further=config.further(model or config.model),
            top_p=config.top_p,
            thinking=config.thinking,
            extra_body=config.extra_body,
            window=window,
            too_long="" if window is None else window.excess(messages, answer),
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings, which are stored with the reply; optional ones only where they are set."""
        values = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens, "vote": self.vote}
        optional = {"top_p": self.top_p, "thinking": self.thinking, "extra_body": self.extra_body or None}
        return values | {name: value for name, value in optional.items() if value is not None}

    @functools.cached_property
    def key(self) -> str:
        """The hash of model, messages, sampling and vote, under which the reply is stored.

        The schema is not part of it: a stricter or renamed answer class reads the stored replies, and only invalid
        ones are requested again.
        """
        values = {"model": self.model, "messages": self.messages, **self.sampling}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def body(self, form: str) -> dict[str, Any]:
        """The JSON body of the request, with the schema in the form `form` of FORMS."""
        messages = list(self.messages)
        if form != "json_schema" or self.repeated:  # JSON mode requires the word JSON in the messages
            messages = [*messages, {"role": "user", "content": instruction(self.answer)}]
        body = {
            "model": self.model,
            "messages": merged(messages),
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            **self.extra_body,
        }
        if self.top_p is not None:
            body["top_p"] = self.top_p
        if self.thinking is not None:
            template = self.extra_body.get("chat_template_kwargs", {})
            body["chat_template_kwargs"] = {**template, "enable_thinking": self.thinking}
        if form == "json_schema":
            schema = {"name": self.answer.__name__, "schema": schema_of(self.answer), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form == "json_object_schema":
            body["response_format"] = {"type": "json_object", "schema": schema_of(self.answer)}
        elif form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def again(self, reason: str) -> Request:
        """The same question with the reason why an earlier answer cannot be used.

        The answer is not quoted, because small models copy it.
        """
        if self.window is not None:
            reason = self.window.cut(reason, self.window.correction - 60)
        messages = (*self.messages, {"role": "user", "content": CORRECTION.format(reason=reason)})
        return dataclasses.replace(self, messages=messages, seed=self.seed + REPETITION_SEED, repeated=True)

    def retried(self) -> Request:
        """The same question with another seed, to the next model of `further`."""
        return dataclasses.replace(
            self,
            model=self.further[0],
            messages=self.messages[:-1] if self.repeated else self.messages,
            seed=self.seed + RETRY_SEED - (REPETITION_SEED if self.repeated else 0),
            repeated=False,
            further=self.further[1:],
        )


@dataclass(frozen=True)
class Sent:
    """The part of a request that the store needs, for requests that were sent in an earlier process."""

    key: str
    model: str
    sampling: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A reply as it is stored."""

    text: str
    """The model's raw text, or the server's error message."""
    state: str = "answered"
    """answered, or rejected: the server never accepts the request, such as one longer than the model's window."""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the server reports them, else estimated from the bytes."""
    form: str = FORMS[0]
    """The form of FORMS in which the request stated the schema."""
    batched: bool = False
    """Whether it came through the Batch API, at half the price."""
    repaired: bool = False
    """Whether the answer could only be read after a repair of its text; known once it was read."""

    @property
    def cut_off(self) -> bool:
        """Whether the text ends at the maximum length, or in a loop."""
        return (self.finish_reason or "").lower() in (*CUT_OFF, REPETITION)

    @property
    def withheld(self) -> bool:
        """Whether the model refused to answer, or a content filter stopped it."""
        return self.finish_reason in ("refusal", "content_filter")


@dataclass(frozen=True)
class Failure:
    """The outcome of a request without a usable answer."""

    reason: str
    raw: str
    """The last text that the model wrote."""


def outcome_of(request: Request, reply: Reply) -> BaseModel | Failure | Request:
    """The validated answer in `reply`, a failure, or the request that repeats the question without a usable answer."""
    return reading_of(request, reply)[0]


def reading_of(request: Request, reply: Reply) -> tuple[BaseModel | Failure | Request, bool]:
    """As `outcome_of`, and whether the text of the answer had to be repaired."""
    if reply.state == "rejected":
        return _failed(request, reason_of(request, reply), ""), False
    reading = read_answer(reply.text, request.answer, reply.cut_off)
    if reading.answer is not None:
        return reading.answer, reading.repaired
    reason = reason_of(request, reply)
    if request.repeated or reply.finish_reason == "content_filter":  # the same question would be filtered again
        return _failed(request, reason, reply.text), False
    return request.again(reason), False


def reason_of(request: Request, reply: Reply) -> str:
    """Why `reply` has no usable answer; empty if it has one."""
    if reply.state == "rejected":
        return f"the server rejected the request: {reply.text}"
    reading = read_answer(reply.text, request.answer, reply.cut_off)
    if reading.answer is not None:
        return ""
    if reply.finish_reason == "content_filter":
        return "the server's content filter stopped the answer"
    reason = reading.reason
    if reply.finish_reason == "refusal":
        reason = f"the model refused to answer. {reason}"
    if reply.finish_reason == REPETITION:
        reason = f"it repeated the same words until it was stopped; say each thing once. {reason}"
    elif reply.cut_off:
        by_server = reply.completion_tokens < request.max_tokens
        limit = f"by the server at {reply.completion_tokens}" if by_server else f"at {request.max_tokens}"
        reason = f"it was cut off {limit} tokens; be brief. {reason}"
    return reason


def merged(messages: list[Message]) -> list[Message]:
    """`messages` with consecutive ones of the same role joined: some chat templates require alternating roles."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def without_system(messages: Iterable[Message]) -> list[Message]:
    """`messages` with the text of the system before that of the user."""
    return merged([message | {"role": "user"} if message["role"] == "system" else message for message in messages])


def _failed(request: Request, reason: str, raw: str) -> Failure | Request:
    """The failure of a request, or its retry where the settings ask for one."""
    return request.retried() if request.further else Failure(reason, raw)
