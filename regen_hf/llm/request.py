"""A question to a model, the shape of its answer, and what the store says of it."""

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
"""How a server is told the shape of the answer, the strictest first: by its JSON schema, by JSON mode, or in words."""

SEEDS = ("seed", "random_seed", "")
"""Names of the field of the seed: most servers', Mistral's, and none."""


@dataclass(frozen=True)
class Request:
    """One question to a model, and the shape of its answer."""

    model: str
    messages: tuple[Message, ...]
    answer: type[BaseModel]
    temperature: float
    seed: int
    """Sent with the request."""
    max_tokens: int
    vote: int = 0
    """Tells the votes of an ensemble apart, for servers that make nothing of the seed."""
    repeated: bool = False
    """The question was asked before and its answer refused."""

    @classmethod
    def of(
        cls, config: LLMConfig, messages: tuple[Message, ...], answer: type[BaseModel], vote: int = 0, model: str = ""
    ) -> Request:
        """A request with the sampling of `config`; vote number `vote` has its own seed, `model` overrides its model."""
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
        """What else shapes the answer, beside model and messages; kept with the reply."""
        return {
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "vote": self.vote,
        }

    @functools.cached_property
    def key(self) -> str:
        """The hash of model, messages, sampling and vote, under which the reply is stored.

        The schema is not part of it: a stricter or a renamed answer class reads the replies that are there, and asks
        again only where one does not fit it.
        """
        said = {"model": self.model, "messages": self.messages, **self.sampling}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def body(self, form: str) -> dict[str, Any]:
        """What is sent in the form `form` of FORMS, apart from the key."""
        messages = list(self.messages)
        if form != "json_schema":  # JSON mode wants the word JSON and the shape in the messages, too
            shape = "Answer with one JSON object that fits this JSON schema, and nothing else:\n"
            messages = [*messages, {"role": "user", "content": shape + _schema_text(self.answer)}]
        body = {
            "model": self.model,
            "messages": _merged(messages),
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
        }
        if form == "json_schema":
            named = {"name": self.answer.__name__, "schema": schema_of(self.answer), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def again(self, reply: str, reason: str) -> Request:
        """The same question with the refused answer `reply` and the reason why it was refused."""
        refused = {"role": "assistant", "content": reply or "(no text)"}
        asked = (
            f"That answer cannot be used: {reason}. Answer again, with one JSON object of the required form and "
            "nothing else."
        )
        messages = (*self.messages, refused, {"role": "user", "content": asked})
        return dataclasses.replace(self, messages=messages, repeated=True)


@dataclass(frozen=True)
class Sent:
    """What the store needs to know of a request, where only that is left of it."""

    key: str
    model: str
    sampling: dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """How a server wants a model to be asked; found out from its refusals, once, and remembered in the store."""

    form: str = FORMS[0]
    max_tokens: str = "max_tokens"
    """Name of the field; newer OpenAI models want max_completion_tokens."""
    seed: str = SEEDS[0]
    """Name of the field, empty where the server takes none; the vote number still tells requests apart."""
    temperature: bool = True
    """Whether the model takes one; many that reason refuse any but their own."""

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent for `request`."""
        body = request.body(self.form)
        body[self.max_tokens] = body.pop("max_tokens")
        seed = body.pop("seed")
        if self.seed:
            body[self.seed] = seed
        if not self.temperature:
            del body["temperature"]
        return body

    def after(self, words: str) -> Dialect | None:
        """What to try next after a refusal in the server's `words`; None after the last resort."""
        if self.max_tokens == "max_tokens" and "max_completion_tokens" in words:
            return dataclasses.replace(self, max_tokens="max_completion_tokens")
        if self.seed and _names(self.seed, words):
            return dataclasses.replace(self, seed=SEEDS[SEEDS.index(self.seed) + 1])
        if self.temperature and _names("temperature", words):
            return dataclasses.replace(self, temperature=False)
        if self.form == FORMS[-1]:
            return None
        return dataclasses.replace(self, form=FORMS[FORMS.index(self.form) + 1])


@dataclass(frozen=True)
class Reply:
    """What the store holds for a request."""

    text: str
    """The model's raw text; where there is none, the server's words."""
    state: str = "answered"
    """answered; rejected: the server will not take it, whenever it is sent (such as one past the model's window);
    unanswered: every try failed, the next run tries again."""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """As the server told them; guessed from the bytes where it did not."""
    form: str = FORMS[0]
    """How the server was told the shape of the answer."""
    batched: bool = False
    """It came through the Batch API, at half the price."""


@dataclass(frozen=True)
class Failure:
    """A request that got no usable answer."""

    reason: str
    raw: str
    """The last text that the model gave."""
    unanswered: bool = False
    """Every try failed (5xx, timeouts, broken connections): the next run tries again."""


def outcome_of(request: Request, reply: Reply) -> BaseModel | Failure | Request:
    """What `reply` means for its request: a validated answer, a failure, or the repetition that a bad one deserves."""
    if reply.state == "rejected":
        return Failure(f"the server rejected the request: {reply.text}", "")
    if reply.state == "unanswered":
        return Failure(f"the server did not answer: {reply.text}", "", unanswered=True)
    from pydantic import ValidationError

    try:
        return request.answer.model_validate_json(_json_in(reply.text))
    except ValidationError as error:
        places = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
        reason = "; ".join(f"{place}: {message}" if place else message for place, message in places)
    if reply.finish_reason == "length":
        reason = f"it was cut off at {request.max_tokens} tokens; be brief. {reason}"
    return Failure(reason, reply.text) if request.repeated else request.again(reply.text, reason)


def writable(text: str) -> str:
    r"""`text` with a question mark for each half of a character that no file can hold; broken emoji leave such halves.

    >>> writable("fine \ud83d pen")
    'fine ? pen'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _json_in(text: str) -> str:
    """The JSON object in a text that may have thoughts before it and a code fence around it.

    >>> _json_in('<think>A {brace}.</think>```json {"a": 1} ``` Done.')
    '{"a": 1}'
    >>> _json_in("None.")
    'None.'
    """
    said = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    start, end = said.find("{"), said.rfind("}")
    return said[start : end + 1] if 0 <= start < end else text


def _names(field: str, words: str) -> bool:
    """Whether a refusal names `field` of the request, not merely the word."""
    return re.search(rf"""['"`.]{field}\b|: {field}\b""", words) is not None


def _merged(messages: list[Message]) -> list[Message]:
    """`messages` with neighbours of one role joined: some chat templates demand that roles take turns."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


@functools.cache
def schema_of(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `answer`, without the docstring, which is for programmers."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    return schema


@functools.cache
def _schema_text(answer: type[BaseModel]) -> str:
    return json.dumps(schema_of(answer))
