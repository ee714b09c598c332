"""The few-shot examples of the narratives' prompt: rows as the dataset has them, those of this package or a user's own.

One example is a JSON object with `purchase_history`, `last_purchase` (reason and explanation, both may be null) and
`user` (profile, brief_summary, long_summary); a whole row of a dataset is one. The models below say what is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from ... import prompts
from ...errors import InputError
from ...reviews.files import find
from . import checks
from .settings import NarrativesConfig


def said(text: str) -> str:
    """A text that is there, without the white space around it."""
    if not text.strip():
        raise ValueError("this field must not be empty")
    return text.strip()


Text = Annotated[str, AfterValidator(said)]


class Item(BaseModel):
    """schema.ITEM."""

    title: Text
    category: str | None = None
    description: str | None = None
    price: float | None = None


class Review(BaseModel):
    """schema.REVIEW."""

    summary: str | None = None
    rating: int | None = None
    text: str | None = None
    unix_time: int | None = None


class Purchase(BaseModel):
    """One entry of schema.PURCHASE_HISTORY."""

    item: Item
    review: Review


class LastPurchase(BaseModel):
    """What schema.LAST_PURCHASE holds for the one call that examples are for."""

    reason: Text | None
    explanation: Text | None


class User(BaseModel):
    """schema.USER."""

    profile: Text
    brief_summary: Text
    long_summary: Text


class Example(BaseModel):
    """One shopper with the answer that is expected."""

    purchase_history: Annotated[list[Purchase], Field(min_length=1)]
    last_purchase: LastPurchase
    user: User

    def messages(self) -> tuple[prompts.Message, prompts.Message]:
        """The question and its answer, in the form of the prompt `narratives`."""
        history = [purchase.model_dump() for purchase in self.purchase_history]
        texts = {**self.last_purchase.model_dump(), **self.user.model_dump()}
        answer = {checks.ANSWER_FIELDS[name]: text for name, text in texts.items()}
        order = ("purchase_reason", "purchase_reason_explanation", "brief_user_summary", "long_user_summary")
        ordered = {name: answer[name] for name in (*order, "user_profile")}
        return (
            prompts.user("narratives", history=prompts.fence(prompts.history_lines(history))),
            {"role": "assistant", "content": json.dumps(ordered, ensure_ascii=False)},
        )


def files(config: NarrativesConfig) -> list[Path]:
    """The files of the few-shot examples: those of the settings, else those of this package.

    Raises:
        InputError: there is no such file.
    """
    if config.zero_shot:
        return []
    return find(config.examples, "--examples") if config.examples else prompts.example_files()


def load(config: NarrativesConfig) -> list[Example]:
    """The few-shot examples, of this package or a user's own; a file holds one or a list of them.

    Raises:
        InputError: a file is missing or no JSON, an example lacks a field, or breaks a rule that the answers are
            checked for.
    """
    return [_checked(example, where, config.language) for file in files(config) for where, example in _read(file)]


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The examples in {file} cannot be read as JSON: {error}.") from None
    if not isinstance(content, list):
        yield str(file), content
        return
    for number, example in enumerate(content, 1):
        yield f"{file}, example {number}", example


def _checked(example: Any, where: str, language: str) -> Example:
    try:
        checked = Example.model_validate(example)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the example"
        message = problem["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{where}: {place} was given {str(problem['input'])[:60]!r}: {message}. An example needs purchase_history, "
            "last_purchase (reason, explanation) and user (profile, brief_summary, long_summary), as a row of a "
            "dataset has them."
        ) from None
    row = checked.model_dump()
    row["last_purchase"]["endorsement"] = "of no concern here"
    failed = checks.check(row, row["purchase_history"], language)["failed"] or []
    if failed:
        reasons = "; ".join(checks.reason(str(one), language) for one in failed)
        raise InputError(f"{where} breaks the rules of the prompt: {reasons}.")
    return checked
