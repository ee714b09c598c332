"""Side by side: a language model judges which of two models wrote better about the same user (section 5.2).

    RUN/evaluation/predictions.parquet, another one  ─►  requests, both orders  ─►  votes.parquet, results.json

Each pair of texts is shown twice in every vote, once with each text first, so that a judge who favours a place does not
favour a model. A vote is won by a text that wins in both orders, or once with a tie; else it is a tie. Texts that are
the same are a tie without a question. Answers that were paid for lie in `RUN/requests/judge.sqlite`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow.parquet as pq

from ... import llm, prompts
from ...config import at_least
from ...errors import ConfigError, InputError
from ...llm import Estimate, VotesConfig
from ...schema import TASKS, check_tasks, rows, split_files

if TYPE_CHECKING:
    from pydantic import BaseModel

VERDICTS = ("first", "second", "tie")
FAMILIES = {  # how the names of a vendor's models begin, or what they hold
    "OpenAI": r"gpt|chatgpt|\bo[1-9]\b|davinci",
    "Anthropic": "claude",
    "Google": "gemini|gemma|palm|bard|t5",
    "Meta": r"llama|\bopt-",
    "Alibaba": "qwen|qwq",
    "Mistral": "mistral|mixtral|ministral|magistral",
    "DeepSeek": "deepseek",
    "Microsoft": r"\bphi",
    "Hugging Face": "smollm|zephyr",
    "Cohere": r"command|\baya\b|c4ai",
    "xAI": "grok",
    "IBM": "granite",
    "EleutherAI": "pythia|gpt-neo|gpt-j",
    "Zhipu": r"glm",
    "Moonshot": "kimi",
    "NVIDIA": "nemotron",
}


@dataclass(frozen=True)
class JudgeConfig(VotesConfig):
    """Settings of `regen evaluate RUN --judge OTHER_RUN`."""

    other: str | None = field(default=None, metadata={"reads": "files", "option": "judge"})
    """The predictions.parquet to compare with: that of another run, of this one, or anybody's."""
    model_of_run: str = "fused"
    """Whose narratives of RUN are judged, by the name of the model in its predictions."""
    model_of_other: str = "fused"
    """Whose narratives they are compared with."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Narratives to compare; all six by default."""
    max_users: int = 100
    """Users whose narratives are compared, the first that both have; 0 for all of them."""
    votes: int = 3
    """Votes on each pair of texts, each asked in both orders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tasks(self.tasks)
        at_least(self, 0, "max_users")


@dataclass(frozen=True)
class Pair:
    """Two texts of one task about one user: the run's, and the other's."""

    reviewer_id: str
    task: str
    ours: str
    theirs: str
    history: list[dict[str, Any]]


def build(run: Path, out: Path, work: Path, config: JudgeConfig) -> dict[str, Any]:
    """Ask for the votes that are missing; `results.json` and `votes.parquet` go into `out`.

    Raises:
        ConfigError: no language model is named, or its settings cannot be used.
        InputError: the predictions have no user and task in common.
        RunError: the server cannot be used; what was paid for is kept.
    """
    from ...run.stages import EXTRAS, versions
    from . import verdicts

    pairs = read_pairs(run, config)
    related = warn_of_relatives(run, config)
    with llm.Store(run / "requests" / "judge.sqlite") as store:
        llm.ask(
            functools.partial(requests, pairs, config),
            config,
            store,
            total=sum(2 * config.votes for pair in pairs if not _same(pair)),
            desc="judge",
        )
        votes = verdicts.read_votes(pairs, store, out, config)
        pq.write_table(verdicts.table(votes), out / "votes.parquet")
        results = {
            "run": {"model": config.model_of_run, "name": run.resolve().name},
            "other": {"model": config.model_of_other, "name": _name(config)},
            "judges": [_public(model) for model in config.models],
            "votes": config.votes,
            "n_users": len({pair.reviewer_id for pair in pairs}),
            "tasks": verdicts.by_task(pairs, votes, config),
            "warnings": related,
            "seed": config.seed,
            "prompts": prompts.hashes("history", "judge"),
            "versions": versions(EXTRAS["judge"]),
        }
        (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = sum(vote.won is None for vote in votes)
        return {"users": results["n_users"], "pairs": len(pairs), "failed": failed, **store.totals()}


def estimate(run: Path, config: JudgeConfig) -> Estimate:
    """What `build` would still ask for, and its cost; sends nothing."""
    pairs = read_pairs(run, config)
    warn_of_relatives(run, config)
    return llm.estimate(functools.partial(requests, pairs, config), config, run / "requests" / "judge.sqlite")


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
        raise ConfigError("There is nothing to compare with. Give --judge OTHER_RUN.")
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


def families(name: str) -> set[str]:
    """Whose model a name tells of; the name itself where that is not known.

    >>> families("gpt-4.1-mini"), families("google/gemma-3-270m"), families("/models/my-model")
    ({'OpenAI'}, {'Google'}, {'my-model'})
    >>> sorted(families("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"))
    ['Alibaba', 'DeepSeek']
    """
    short = Path(name).name.lower()
    return {vendor for vendor, words in FAMILIES.items() if re.search(words, short)} or {short}


def warn_of_relatives(run: Path, config: JudgeConfig) -> list[str]:
    """Tell on stderr, before anything is paid, of judges that are of the family of who wrote; returns what was told."""
    writers: dict[str, str] = {}
    for folder in (run, Path(config.other or "").resolve().parent.parent):
        for name, what in _writers(folder).items():
            writers.setdefault(name, what)
    told = [
        f"The judge {_public(judge)} is of the same family ({', '.join(sorted(shared))}) as {_public(writer)}, {what}: "
        "it may prefer its own kind. Name a judge of another family."
        for judge in config.models
        for writer, what in writers.items()
        if (shared := families(judge) & families(writer))
    ]
    for sentence in told:
        print(f"      warning: {sentence}", file=sys.stderr)  # noqa: T201
    return told


def _writers(folder: Path) -> dict[str, str]:
    """The models that wrote what a run was trained on, and the backbone that it was trained from."""
    found = {}
    with_narrators = _json(folder / "evaluation" / "results.json").get("narrators", ())
    for narrator in with_narrators:
        if narrator not in ("reference", "None"):
            found[narrator] = "which wrote the narratives that the model was trained on"
    backbone = _json(folder / "model" / "manifest.json").get("config", {}).get("backbone")
    if backbone:
        found[backbone] = "the backbone that the model was trained from"
    return found


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # anybody's predictions have no run around them
    return found


def _name(config: JudgeConfig) -> str:
    path = Path(config.other or "").resolve()
    return path.parent.parent.name if path.parent.name == "evaluation" else path.name


def _public(name: str) -> str:
    from ...hub.cards import public_name

    return public_name(name) or ""


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    ours, theirs = (f"{results[side]['model']} of {results[side]['name']}" for side in ("run", "other"))
    lines = [
        f"{ours} against {theirs}, {results['n_users']} users, each pair judged {results['votes']} times in both "
        f"orders by {', '.join(results['judges'])}. Win rate: votes won and half of the ties.",
        "",
        "| task | pairs | win rate | won | tied | lost | alpha | first shown wins | longer wins | turned by order |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, found in results["tasks"].items():
        cells = [
            _cell(found["win_rate"]),
            *(_share(found[name]) for name in ("won", "tied", "lost")),
            "–" if found["alpha"] is None else f"{found['alpha']:.2f}",
            _cell(found["position_bias"]["first_wins"]),
            _cell(found["length_bias"]["longer_wins"]),
            _share(found["position_bias"]["turned"]),
        ]
        lines.append(f"| {task} | {found['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _cell(found: Mapping[str, float | None]) -> str:
    if found["mean"] is None:
        return "–"
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
