"""TODO docstring."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq

from ... import llm, prompts
from ...errors import ConfigError, InputError
from ...outputs import rows, split_files

if TYPE_CHECKING:
    from pydantic import BaseModel
from .settings import JudgeConfig

VERDICTS = ("first", "second", "tie")


@dataclass(frozen=True)
class Pair:
    """Two texts of one task about one user: the run's, and the other's."""

    reviewer_id: str
    task: str
    ours: str
    theirs: str
    history: list[dict[str, Any]]


def read_pairs(run: Path, config: JudgeConfig) -> list[Pair]:
    """The texts to compare, in the order of the run's predictions; a user and task that one side lacks is left out.

    Raises:
        ConfigError: there is no language model, or nothing to compare with.
        InputError: a model is not among the predictions, or they have no user and task in common.
    """
    if config.backend == "reference":
        raise ConfigError(
            "A judge is a language model: the rules of backend reference judge nothing. Give --backend openai, "
            "openai-batch or transformers, and --model."
        )
    if config.other is None:
        raise ConfigError("There is nothing to compare with. Give --against OTHER.")
    ours = _texts(run / "evaluation" / "predictions.parquet", config.model_of_run)
    theirs = _texts(Path(config.other), config.model_of_other)
    asked = [(user, task) for user, task in ours if task in config.tasks and (user, task) in theirs]
    users = list(dict.fromkeys(user for user, _ in asked))[: config.max_users or None]
    histories = _histories(run, set(users))
    pairs = [
        Pair(user, task, ours[user, task], theirs[user, task], histories[user])
        for user in users
        for task in config.tasks
        if (user, task) in ours and (user, task) in theirs
    ]
    if not pairs:
        raise InputError(
            f"The predictions of {run} and {config.other} have no user and task in common, of "
            f"{', '.join(config.tasks)}. Compare runs on one dataset and split, such as two trainings of it."
        )
    return pairs


def _texts(path: Path, model: str) -> dict[tuple[str, str], str]:
    """The predictions of `model` in a file, by user and task."""
    try:
        table = pq.read_table(path, columns=["reviewer_id", "task", "model", "prediction"]).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise InputError(
            f"{path} cannot be read as predictions: {error} It takes the columns reviewer_id, task, model and "
            "prediction, as `regen evaluate` writes them."
        ) from None
    found = {(row["reviewer_id"], row["task"]): row["prediction"] or "" for row in table if row["model"] == model}
    if strange := next((text for text in found.values() if not isinstance(text, str)), None):
        raise InputError(f"{path} holds the prediction {strange!r} of {model!r}, expected a text.")
    if not found:
        models = sorted({str(row["model"]) for row in table})
        if not models:
            raise InputError(f"{path} holds no predictions. Evaluate users with references: regen evaluate RUN")
        raise InputError(
            f"{path} has no narratives of {model!r}, it has those of {', '.join(models)}. Name one of them with "
            "--model-of-run or --model-of-other."
        )
    return found


def _histories(run: Path, users: set[str]) -> dict[str, list[dict[str, Any]]]:
    split = _json(run / "evaluation" / "results.json")["split"]
    return {
        row["reviewer_id"]: row["purchase_history"] or []
        for row in rows(split_files(run / "dataset", split), ["reviewer_id", "purchase_history"])
        if row["reviewer_id"] in users
    }


@functools.cache
def answer() -> type[BaseModel]:
    """The answer to `prompts/judge.jinja`."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {"reasoning": (str, ...), "better": (Literal[VERDICTS], ...)}
    made: type[BaseModel] = create_model("verdict", __config__=ConfigDict(extra="forbid"), **fields)
    return made


def requests(pairs: list[Pair], config: JudgeConfig) -> Iterator[llm.Request]:
    """The requests for all votes on all pairs, each pair in both orders."""
    for pair in pairs:
        for vote in range(config.votes):
            for ours_first in (True, False):
                if not _same(pair):
                    yield request(pair, vote, ours_first, config)


def request(pair: Pair, vote: int, ours_first: bool, config: JudgeConfig) -> llm.Request:
    """One question about a pair."""
    first, second = (pair.ours, pair.theirs) if ours_first else (pair.theirs, pair.ours)
    fixed = prompts.tokens([prompts.system("judge"), {"role": "user", "content": pair.ours + pair.theirs}]) + 700
    shown, _ = prompts.fit(pair.history, prompts.room(config, fixed, "texts"))
    messages = (
        prompts.system("judge"),
        prompts.user(
            "judge",
            task=pair.task,
            history=prompts.fence(prompts.history_lines(shown)),
            first=prompts.fence(first),
            second=prompts.fence(second),
        ),
    )
    return llm.Request.of(config, messages, answer(), vote, config.models[vote % len(config.models)])


def _same(pair: Pair) -> bool:
    return pair.ours.split() == pair.theirs.split()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # anybody's predictions have no run around them
    return found


def _public(name: str) -> str:
    from ...outputs import public_name

    return public_name(name) or ""
