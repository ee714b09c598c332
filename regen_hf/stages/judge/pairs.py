"""The pairs of texts to compare, and the requests to the judge."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq

from ... import llm, outputs, prompts
from ...errors import ConfigError, InputError
from ...schema import TASKS
from .settings import JudgeConfig

if TYPE_CHECKING:
    from pydantic import BaseModel

VERDICTS = ("first", "second", "tie")


@dataclass(frozen=True)
class Pair:
    """Two texts of one task about one user: the run's, and the other model's."""

    reviewer_id: str
    task: str
    ours: str
    theirs: str
    history: list[dict[str, Any]]

    @property
    def same(self) -> bool:
        """Whether both texts have the same words."""
        return self.ours.split() == self.theirs.split()


def read_pairs(run: Path, config: JudgeConfig) -> list[Pair]:
    """The pairs of texts, in the order of the run's predictions, for users and tasks that both sides have.

    Raises:
        ConfigError: no language model or no other predictions are given.
        InputError: a model is not among the predictions, or they have no user and task in common.
    """
    if config.backend == "reference":
        raise ConfigError(
            "The backend reference cannot judge: a judge is a language model. Give --backend openai, openai-batch or "
            "transformers, and --model."
        )
    if config.other is None:
        raise ConfigError("No predictions to compare with were given. Give --against OTHER.")
    ours = _texts(outputs.path(run, "evaluate", outputs.PREDICTIONS), config.model_of_run)
    theirs = _texts(Path(config.other), config.model_of_other)
    shared = [key for key in ours if key in theirs and key[1] in config.tasks]
    users = list(dict.fromkeys(user for user, _ in shared))[: config.users or None]
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
            f"{', '.join(config.tasks)}. Compare runs on one dataset and split, such as two trainings on it."
        )
    return pairs


def _texts(path: Path, model: str) -> dict[tuple[str, str], str]:
    """The predictions of `model` in a file, by user and task."""
    try:
        table = pq.read_table(path, columns=["reviewer_id", "task", "model", "prediction"]).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are subclasses of these
        raise InputError(
            f"{path} cannot be read as predictions: {error} It needs the columns reviewer_id, task, model and "
            "prediction, as `regen evaluate` writes them."
        ) from None
    texts = {(row["reviewer_id"], row["task"]): row["prediction"] or "" for row in table if row["model"] == model}
    if invalid := next((text for text in texts.values() if not isinstance(text, str)), None):
        raise InputError(f"{path} contains the prediction {invalid!r} of {model!r}, expected a text.")
    if not texts:
        models = sorted({str(row["model"]) for row in table})
        if not models:
            raise InputError(f"{path} contains no predictions. Evaluate users with references: regen evaluate RUN")
        raise InputError(
            f"{path} contains no narratives of {model!r}, only those of {', '.join(models)}. Select one of them with "
            "--model-of-run or --model-of-other."
        )
    return texts


def _histories(run: Path, users: set[str]) -> dict[str, list[dict[str, Any]]]:
    files = outputs.dataset_files(run, outputs.results(run)["split"])
    return {
        row["reviewer_id"]: row["purchase_history"] or []
        for row in outputs.rows(files, ["reviewer_id", "purchase_history"])
        if row["reviewer_id"] in users
    }


@functools.cache
def answer() -> type[BaseModel]:
    """The schema of an answer to `prompts/judge.jinja`."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {"reasoning": (str, ...), "better": (Literal[VERDICTS], ...)}
    model: type[BaseModel] = create_model("verdict", __config__=ConfigDict(extra="forbid"), **fields)
    return model


def requests(pairs: list[Pair], config: JudgeConfig, window: llm.Window) -> Iterator[llm.Request]:
    """The requests for all votes on all pairs, each pair in both orders."""
    for pair in pairs:
        for vote in range(config.votes):
            for ours_first in (True, False):
                if not pair.same:
                    yield request(pair, vote, ours_first, config, window)


def request(pair: Pair, vote: int, ours_first: bool, config: JudgeConfig, window: llm.Window) -> llm.Request:
    """The request for one vote on a pair, in one order."""
    first, second = (pair.ours, pair.theirs) if ours_first else (pair.theirs, pair.ours)

    def messages(history: Sequence[dict[str, Any]]) -> tuple[prompts.Message, ...]:
        return (
            prompts.system("judge"),
            prompts.user(
                "judge",
                wanted=TASKS[pair.task].description,
                history=prompts.fence(prompts.history_lines(history)),
                first=prompts.fence(first),
                second=prompts.fence(second),
            ),
        )

    fitted = prompts.fit(pair.history, messages, answer(), window)
    model = config.models[vote % len(config.models)]
    return llm.Request.of(config, fitted.messages, answer(), vote, model, window)
