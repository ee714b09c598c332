"""A request to a model, the class of its answer, and its reply."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .settings import LLMConfig

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": …}`."""

FORMS = ("json_schema", "json_object", "instructions")
"""How a request states the schema of the answer, the strictest first: as a JSON schema, by JSON mode, or in words."""

SEEDS = ("seed", "random_seed", "")
"""Names of the seed field: the usual one, Mistral's, and none."""


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

    @classmethod
    def of(
        cls, config: LLMConfig, messages: tuple[Message, ...], answer: type[BaseModel], vote: int = 0, model: str = ""
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
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings, which are stored with the reply."""
        return {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens, "vote": self.vote}

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
        if form != "json_schema":  # JSON mode requires the word JSON in the messages
            instruction = "Answer with one JSON object that fits this JSON schema, and nothing else:\n"
            messages = [*messages, {"role": "user", "content": instruction + json.dumps(schema_of(self.answer))}]
        body = {
            "model": self.model,
            "messages": _merged(messages),
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
        }
        if form == "json_schema":
            schema = {"name": self.answer.__name__, "schema": schema_of(self.answer), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def again(self, reply: str, reason: str) -> Request:
        """The same question followed by the invalid answer `reply` and the reason why it is invalid."""
        answer = {"role": "assistant", "content": reply or "(no text)"}
        correction = (
            f"That answer cannot be used: {reason}. Answer again, with one JSON object of the required form and "
            "nothing else."
        )
        messages = (*self.messages, answer, {"role": "user", "content": correction})
        return dataclasses.replace(self, messages=messages, repeated=True)


@dataclass(frozen=True)
class Sent:
    """The part of a request that the store needs, for requests that were sent in an earlier process."""

    key: str
    model: str
    sampling: dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """The fields that a server accepts for a model. It is derived from the server's errors once, and stored."""

    form: str = FORMS[0]
    max_tokens: str = "max_tokens"
    """Name of the field; newer OpenAI models require max_completion_tokens."""
    seed: str = SEEDS[0]
    """Name of the field, empty where the server accepts none."""
    temperature: bool = True
    """Whether the model accepts the field; many reasoning models reject any value except their default."""

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of `request`."""
        body = request.body(self.form)
        body[self.max_tokens] = body.pop("max_tokens")
        seed = body.pop("seed")
        if self.seed:
            body[self.seed] = seed
        if not self.temperature:
            del body["temperature"]
        return body

    def after(self, message: str) -> Dialect | None:
        """The dialect to try after the error `message` of the server; None after the last one."""
        if self.max_tokens == "max_tokens" and "max_completion_tokens" in message:
            return dataclasses.replace(self, max_tokens="max_completion_tokens")
        if self.seed and _names(self.seed, message):
            return dataclasses.replace(self, seed=SEEDS[SEEDS.index(self.seed) + 1])
        if self.temperature and _names("temperature", message):
            return dataclasses.replace(self, temperature=False)
        if self.form == FORMS[-1]:
            return None
        return dataclasses.replace(self, form=FORMS[FORMS.index(self.form) + 1])


@dataclass(frozen=True)
class Reply:
    """A reply as it is stored."""

    text: str
    """The model's raw text, or the server's error message."""
    state: str = "answered"
    """answered; rejected: the server never accepts the request (such as one longer than the model's window);
    unanswered: every attempt failed, and the next run retries."""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the server reports them, else estimated from the bytes."""
    form: str = FORMS[0]
    """The form of FORMS in which the request stated the schema."""
    batched: bool = False
    """Whether it came through the Batch API, at half the price."""


@dataclass(frozen=True)
class Failure:
    """The outcome of a request without a usable answer."""

    reason: str
    raw: str
    """The last text that the model wrote."""
    unanswered: bool = False
    """Whether every attempt failed (5xx, timeouts, broken connections); then the next run retries."""


def outcome_of(request: Request, reply: Reply) -> BaseModel | Failure | Request:
    """The validated answer in `reply`, a failure, or the request that repeats the question after an invalid answer."""
    if reply.state == "rejected":
        return Failure(f"the server rejected the request: {reply.text}", "")
    if reply.state == "unanswered":
        return Failure(f"the server did not answer: {reply.text}", "", unanswered=True)
    from pydantic import ValidationError

    try:
        return request.answer.model_validate_json(_json_in(reply.text))
    except ValidationError as error:
        problems = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
        reason = "; ".join(f"{field}: {message}" if field else message for field, message in problems)
    if reply.finish_reason == "length":
        reason = f"it was cut off at {request.max_tokens} tokens; be brief. {reason}"
    return Failure(reason, reply.text) if request.repeated else request.again(reply.text, reason)


def writable(text: str) -> str:
    r"""`text` with a question mark for each lone surrogate, which UTF-8 cannot encode; broken emoji leave them.

    >>> writable("fine \ud83d pen")
    'fine ? pen'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _json_in(text: str) -> str:
    """The JSON object in a text that may contain reasoning before it and a code fence around it.

    >>> _json_in('<think>A {brace}.</think>```json {"a": 1} ``` Done.')
    '{"a": 1}'
    >>> _json_in("None.")
    'None.'
    """
    visible = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    start, end = visible.find("{"), visible.rfind("}")
    return visible[start : end + 1] if 0 <= start < end else text


def _names(field: str, message: str) -> bool:
    """Whether an error message names the field `field` of the request, not only the word."""
    return re.search(rf"""['"`.]{field}\b|: {field}\b""", message) is not None


def _merged(messages: list[Message]) -> list[Message]:
    """`messages` with consecutive ones of the same role joined: some chat templates require alternating roles."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


@functools.cache
def schema_of(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `answer`, without its docstring."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    return schema
