"""Let a language model judge two models side by side."""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ... import llm, outputs, prompts
from ...intervals import format_interval
from ...llm.spending import Estimate
from .settings import PACKAGES

if TYPE_CHECKING:
    pass
from .pairs import _json, _public, _same, read_pairs, requests
from .settings import JudgeConfig

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


def build(run: Path, out: Path, work: Path, config: JudgeConfig) -> dict[str, Any]:
    """Ask for the votes that are missing; `results.json` and `votes.parquet` go into `out`.

    Raises:
        ConfigError: no language model is named, or its settings cannot be used.
        InputError: the predictions have no user and task in common.
        RunError: the server cannot be used; what was paid for is kept.
    """
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
            "versions": outputs.versions(PACKAGES),
        }
        (out / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = sum(vote.won is None for vote in votes)
        return {"users": results["n_users"], "pairs": len(pairs), "failed": failed, **store.totals()}


def estimate(run: Path, config: JudgeConfig) -> Estimate:
    """What `build` would still ask for, and its cost; sends nothing."""
    pairs = read_pairs(run, config)
    warn_of_relatives(run, config)
    return llm.estimate(functools.partial(requests, pairs, config), config, run / "requests" / "judge.sqlite")


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


def _name(config: JudgeConfig) -> str:
    path = Path(config.other or "").resolve()
    return path.parent.parent.name if path.parent.name == "evaluation" else path.name


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
            format_interval(found["win_rate"], 2),
            *(_share(found[name]) for name in ("won", "tied", "lost")),
            "–" if found["alpha"] is None else f"{found['alpha']:.2f}",
            format_interval(found["position_bias"]["first_wins"], 2),
            format_interval(found["length_bias"]["longer_wins"], 2),
            _share(found["position_bias"]["turned"]),
        ]
        lines.append(f"| {task} | {found['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
