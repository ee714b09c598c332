"""The classes of the answers to the prompts of the narratives, and the texts in an answer."""

from __future__ import annotations

import contextlib
import functools
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model, model_validator
from pydantic_core import from_json

from ...llm.answers import is_placeholder, read_answer
from ...schema import CRITIQUE, Narrative, narrative_prompts
from . import examples
from .settings import NarrativesConfig


def fields_of(prompt: str, critiques: int) -> dict[str, Narrative]:
    """The fields of the answer to `prompts/<prompt>.jinja`, each with its narrative."""
    if prompt == CRITIQUE.written_by:
        return {f"{CRITIQUE.name}_{number}": CRITIQUE for number in range(1, critiques + 1)}
    return {text.name: text for text in narrative_prompts()[prompt]}


@functools.cache
def answer_of(prompt: str, critiques: int = NarrativesConfig.critiques) -> type[BaseModel]:
    """The answer to `prompts/<prompt>.jinja`: the texts of its narratives, or a number of critiques."""
    types = {
        name: examples.Text if text is CRITIQUE else examples.text_type(text)
        for name, text in fields_of(prompt, critiques).items()
    }
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in types.items()}
    answer: type[BaseModel] = create_model(
        prompt.capitalize(),
        __config__=ConfigDict(extra="forbid"),
        __doc__=f"The answer to `prompts/{prompt}.jinja`.",
        **fields,
    )
    return answer


class PartialAnswer(BaseModel):
    """An answer that may lack texts, but not all of them."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all texts are missing")
        return self


def _text_or_none(text: str | None) -> str | None:
    return None if text is None or is_placeholder(text) else text.strip() or None


@functools.cache
def partial_answer_of(prompt: str, critiques: int) -> type[PartialAnswer]:
    """As `answer_of`, but any text except one may be missing."""
    text = Annotated[str | None, AfterValidator(_text_or_none)]
    fields: dict[str, Any] = dict.fromkeys(fields_of(prompt, critiques), (text, None))
    return create_model(f"Partial{prompt.capitalize()}", __base__=PartialAnswer, **fields)


def partial_answer(raw: str, prompt: str, critiques: int) -> BaseModel | None:
    """The complete texts of an answer that is not valid, such as one that is cut off; None where it has none."""
    answer = partial_answer_of(prompt, critiques)
    if (read := read_answer(raw, answer).answer) is not None:
        return read
    with contextlib.suppress(ValueError):
        return answer.model_validate(from_json(raw[raw.find("{") :], allow_partial=True))
    return None


def versions(answer: BaseModel, prompt: str) -> list[dict[str, str | None]]:
    """The texts of an answer by narrative, once for each critique in it."""
    texts = answer.model_dump()
    return [{CRITIQUE.name: text} for text in candidates(answer)] if prompt == CRITIQUE.written_by else [texts]


def candidates(answer: BaseModel) -> list[str]:
    """The distinct texts of an answer, in order."""
    return list(dict.fromkeys(filter(None, answer.model_dump().values())))
