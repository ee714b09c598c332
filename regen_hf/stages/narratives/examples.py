"""The few-shot examples of the prompt `narratives`, as rows of a dataset: of this package, of the run, or of the user.

Small models copy names and words of their examples into answers about somebody else, so a real log gets none unless
the settings ask for them, and every answer is checked against the examples.

An example is a JSON object with `purchase_history` and the texts that the prompt requests, such as `last_purchase`
(reason and explanation, both may be null) and `user` (profile, brief_summary, long_summary). Other fields of a row are
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError, create_model

from ... import llm, outputs, prompts
from ...cards.facts import simulated
from ...config import fingerprint
from ...errors import InputError
from ...reviews.files import find
from ...schema import Narrative, narrative_prompts
from . import checks
from .names import Names
from .settings import NarrativesConfig
from .shared_words import joined, words

PROMPT = "narratives"
"""The only prompt with examples."""


def stripped(text: str) -> str:
    """`text` without white space around it; empty texts are invalid."""
    if not text.strip():
        raise ValueError("this field must not be empty")
    return text.strip()


Text = Annotated[str, AfterValidator(stripped)]


def text_type(narrative: Narrative) -> Any:
    """The type of the text of `narrative` for pydantic."""
    return Text | None if narrative.may_be_null else Text


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


def example_type() -> type[BaseModel]:
    """The fields of an example: the history, and the texts of the prompt in their columns."""
    columns: dict[str, dict[str, Any]] = {}
    for task in narrative_prompts()[PROMPT]:
        column, name = map(str, task.field)
        columns.setdefault(column, {})[name] = (text_type(task), ...)
    fields: dict[str, Any] = {column: (create_model(column, **texts), ...) for column, texts in columns.items()}
    example: type[BaseModel] = create_model(
        "example",
        reviewer_id=(str | None, None),
        purchase_history=(Annotated[list[Purchase], Field(min_length=1)], ...),
        **fields,
    )
    return example


def messages(example: dict[str, Any]) -> tuple[prompts.Message, prompts.Message]:
    """The request and its answer in the form of the prompt."""
    answer = {task.name: task.text(example) for task in narrative_prompts()[PROMPT]}
    return (
        prompts.user(PROMPT, history=prompts.fence(prompts.history_lines(example["purchase_history"]))),
        {"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)},
    )


def files(run: Path, config: NarrativesConfig) -> list[Path]:
    """The files of the few-shot examples that the settings name; with `run`, the file of the chosen users.

    Raises:
        InputError: a file does not exist.
    """
    if config.examples == ("auto",):
        return prompts.example_files() if simulated(run) else []
    if config.examples == ("none",):
        return []
    return [chosen_path(run, config)] if config.examples == ("run",) else find(config.examples, "--examples")


def chosen_path(run: Path, config: NarrativesConfig) -> Path:
    """The file of the examples from the users of the run; they are chosen once for a model, language and prompt."""
    settings = [config.model, config.language, config.temperature, config.seed, prompts.identity(PROMPT)]
    return outputs.examples_path(run, fingerprint(settings))


def load(files: Sequence[Path], language: str) -> list[dict[str, Any]]:
    """The few-shot examples; a file contains one or a list of them.

    Raises:
        InputError: a file is missing or no JSON, an example lacks a field, or fails a check of the answers.
    """
    return [_checked(example, source, language) for file in files for source, example in _read(file)]


def fit(given: Sequence[dict[str, Any]], window: llm.Window) -> bool:
    """Whether the examples leave most of the window to a history."""
    return 3 * sum(window.count(messages(example)) for example in given) <= window.room


def shown(given: Sequence[dict[str, Any]]) -> tuple[str, Names]:
    """The words of the examples, `joined`, and the names of their items."""
    items = [purchase["item"] for example in given for purchase in example["purchase_history"]]
    reviews = [purchase["review"] for example in given for purchase in example["purchase_history"]]
    texts = [review.get(name) or "" for review in reviews for name in ("summary", "text")]
    answers = [task.text(example) or "" for example in given for task in narrative_prompts()[PROMPT]]
    fields = [item.get(name) or "" for item in items for name in ("title", "description")]
    return joined(map(words, [*texts, *answers, *fields])), Names.of(items, [*texts, *answers])


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """The examples in a file, each with its position for messages."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The examples in {file} cannot be read as JSON: {error}.") from None
    if not isinstance(content, list):
        yield str(file), content
        return
    for number, example in enumerate(content, 1):
        yield f"{file}, example {number}", example


def _checked(example: Any, source: str, language: str) -> dict[str, Any]:
    tasks = narrative_prompts()[PROMPT]
    try:
        row = example_type().model_validate(example).model_dump()
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "the example"
        message = problem["msg"].removeprefix("Value error, ")
        texts = ", ".join(".".join(map(str, task.field)) for task in tasks)
        raise InputError(
            f"{source}: {field} is {str(problem['input'])[:60]!r}: {message}. An example needs purchase_history and "
            f"the texts {texts}, as in a row of a dataset."
        ) from None
    failed = checks.check(row, row["purchase_history"], language, tasks)["failed"]
    if failed:
        reasons = "; ".join(checks.reason(name, language) for name in failed)
        raise InputError(f"{source} fails the checks of the narratives: {reasons}.")
    return row
