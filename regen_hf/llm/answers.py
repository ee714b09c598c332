"""Read the answer in the text of a model: the first JSON object in it that fits the answer class.

A text that is only such an object is parsed once. Any other text is searched for objects, and an answer from it counts
as repaired. A repair removes text (around the object, fields that the class lacks, an enclosing object, a trailing
comma) or escapes characters; it never adds a field, nor completes an object that is cut off.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

PLACEHOLDER = "..."
"""The text of every field in the example of an answer. A small model copies longer placeholders into its answer, and
brackets around them."""
MOST_BRACES = 100
"""Positions in a text at which an object is searched, and objects within one that are read."""
MOST_REPAIRED = 2**16
"""Characters of an object that is repaired. Without a limit, a text of a megabyte takes up to 25 seconds."""
MOST_PROBLEMS = 10
"""Problems of an answer that its reason names: an answer may have thousands of fields."""

_REASONING = re.compile(
    r"\s*(<(think|thought|reason)\w*>|\[THINK\]|<\|START_THINKING|<\|?channel\|?>\s*(analysis|thought))"
)
"""The start of a text that begins with reasoning."""
_REASONING_END = re.compile(
    r"</([\w:]*think|thought|reason)\w*>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>"
    r"|<\|channel\|>\s*(final|commentary)\b.{0,80}?<\|message\|>|\bassistantfinal\b",
    re.DOTALL,
)
"""The end of the reasoning, in the formats of different models; the last of them decodes harmony without its marks."""
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)
"""A string, or a trailing comma."""
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_DECODER = json.JSONDecoder(strict=False)  # accepts raw line breaks in strings


@dataclass(frozen=True)
class Reading:
    """The result of `read_answer`."""

    answer: BaseModel | None
    repaired: bool = False
    """Whether the text was more than a JSON object of the answer class."""
    reason: str = ""
    """Why there is no answer."""


def read_answer(text: str, answer: type[BaseModel], cut_off: bool = False) -> Reading:
    """The first object in `text` that is a valid `answer`, or the reason why there is none.

    Args:
        text: The raw text of the model.
        answer: The class of the answer; its fields are texts and choices.
        cut_off: Whether the text ends at the maximum length. Then objects in unfinished reasoning are drafts.
    """
    from pydantic import ValidationError

    try:
        return _reading(answer.model_validate_json(text), text, repaired=False)
    except ValidationError as error:
        reason = _reason(error)
        is_json = error.errors()[0]["type"] != "json_invalid"
    part = answer_part(text)
    candidates = _objects(part) if "{" in part else _last_objects(text, cut_off)
    for number, candidate in enumerate(candidates):
        for value in (candidate, *itertools.islice(_inner(candidate), MOST_BRACES)):
            known = {name: field for name, field in value.items() if name in answer.model_fields}
            try:
                reading = _reading(answer.model_validate_json(_dumped(known)), text, repaired=True)
            except ValidationError as error:
                reading = Reading(None, reason=_reason(error))
            if reading.answer is not None:
                return reading
            if number == 0 and value is candidate and not is_json:
                reason = reading.reason
    return Reading(None, reason=reason)


def has_fields(text: str, answer: type[BaseModel]) -> bool:
    """Whether `text` is a JSON object with all fields of `answer`, valid or not."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and answer.model_fields.keys() <= value.keys()


def answer_part(text: str) -> str:
    """`text` after its reasoning; empty if the reasoning does not end.

    >>> answer_part("<think>A draft.</think> It is red."), answer_part("<think>A draft."), answer_part("red")
    (' It is red.', '', 'red')
    """
    ends = list(_REASONING_END.finditer(text))
    if ends:
        return text[ends[-1].end() :]
    return "" if _REASONING.match(text) else text


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


@functools.cache
def schema_of(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of `answer`, without its docstring."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    return schema


@functools.cache
def example_of(answer: type[BaseModel]) -> dict[str, str]:
    """An object of the shape of `answer`: a placeholder for each text, and the choices of the other fields.

    Small models fill in such an example, but copy a JSON schema as their answer.
    """
    return {name: _placeholder(part) for name, part in schema_of(answer)["properties"].items()}


@functools.cache
def instruction(answer: type[BaseModel]) -> str:
    """The form of `answer` in words, with an example to fill in."""
    example = example_of(answer)
    choice = " and one of the listed choices in place of a list" if set(example.values()) - {PLACEHOLDER} else ""
    return (
        "Answer with one JSON object of this form, and nothing else. Write your own text in place of each "
        f"{PLACEHOLDER}{choice}:\n{json.dumps(example, ensure_ascii=False)}"
    )


def _placeholder(part: dict[str, Any]) -> str:
    kinds = part.get("anyOf", [part])
    choices = [str(choice) for kind in kinds for choice in kind.get("enum", ())]
    return f"one of: {', '.join(choices)}" if choices else PLACEHOLDER


def is_placeholder(text: str) -> bool:
    """Whether a text is only the placeholder of the example."""
    return text.strip() in (PLACEHOLDER, "…")


def _reading(answer: BaseModel, text: str, repaired: bool) -> Reading:
    """`answer`, unless it holds placeholders of the example."""
    if PLACEHOLDER not in text and "…" not in text:
        return Reading(answer, repaired)
    for name in type(answer).model_fields:
        value = getattr(answer, name)
        if isinstance(value, str) and is_placeholder(value):
            return Reading(None, reason=f"{name}: this field holds the placeholder of the example")
    return Reading(answer, repaired)


def _last_objects(reasoning: str, cut_off: bool) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text that is only reasoning, the last one first: it is the result."""
    return iter(() if cut_off else reversed(list(_objects(reasoning))))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in `text`, up to one that is cut off by its end."""
    position = 0
    for _ in range(MOST_BRACES):
        position = text.find("{", position)
        if position < 0:
            return
        try:
            value, position = _DECODER.raw_decode(text, position)
        except RecursionError:
            return
        except json.JSONDecodeError as error:
            if _ends_inside(error, text):
                return
            rest = _STRING_OR_COMMA.sub(_corrected, text[position : position + MOST_REPAIRED])
            try:
                value, end = _DECODER.raw_decode(rest)
            except RecursionError:
                return
            except json.JSONDecodeError as error:
                if _ends_inside(error, rest):
                    return
                position += 1
                continue
            text, position = rest, end
        yield value


def _corrected(match: re.Match[str]) -> str:
    """A string without the invalid escapes in it, such as one of an apostrophe; nothing for a trailing comma."""
    return _ESCAPE.sub(lambda escape: escape[escape[1] not in '"\\/bfnrtu'], match[1] or "")


def _ends_inside(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text ends before the object does."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip())


def _inner(outer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects that are values of `outer`, also as text or in a list."""
    for value in outer.values():
        inner = value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            inner = next(_objects(value), None)
        for one in inner if isinstance(inner, list) else [inner]:
            if isinstance(one, dict):
                yield one


def _dumped(value: dict[str, Any]) -> str:
    return writable(json.dumps(value, ensure_ascii=False))


def _reason(error: ValidationError) -> str:
    """The first problems in one line, with the field of each."""
    errors = error.errors()[:MOST_PROBLEMS]
    problems = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in errors)
    return "; ".join(f"{field}: {message}" if field else message for field, message in problems)
