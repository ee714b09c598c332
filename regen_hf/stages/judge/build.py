"""Compare two models by the votes of a language model."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from ... import llm, outputs, progress, prompts
from ...intervals import format_interval, format_number
from ...llm.spending import Estimate
from ...metrics.tables import markdown
from .pairs import read_pairs, requests
from .settings import PACKAGES, JudgeConfig
from .verdicts import by_task, read_votes, votes_table

FAMILIES = {  # patterns in the names of a vendor's models
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
    """Request the missing votes; results and votes go into `out`.

    Raises:
        ConfigError: no language model is given, or its settings are invalid.
        InputError: the predictions have no user and task in common.
        RunError: the server cannot be used; received answers are kept.
    """
    pairs = read_pairs(run, config)
    warnings = warn_of_relatives(run, config)
    with llm.Store(outputs.requests_path(run, "judge")) as store:
        total = sum(2 * config.votes for pair in pairs if not pair.same)
        for window in llm.passes(config, store):
            llm.ask(functools.partial(requests, pairs, config, window), config, store, total=total, desc="judge")
        votes = read_votes(pairs, store, out, config, window)
        outputs.write_parquet(out / outputs.VOTES, votes_table(votes))
        results = {
            "run": {"model": config.model_of_run, "name": run.resolve().name},
            "other": {"model": config.model_of_other, "name": (_other_run(config) or Path(config.other or "")).name},
            "judges": [outputs.public_name(model) for model in config.models],
            "votes": config.votes,
            "n_users": len({pair.reviewer_id for pair in pairs}),
            "tasks": by_task(pairs, votes, config.seed),
            "warnings": warnings,
            "seed": config.seed,
            "prompts": prompts.hashes("history", "judge"),
            "versions": outputs.versions(PACKAGES),
        }
        outputs.write_results(out, results)
        failed = sum(vote.won is None for vote in votes)
        return {
            "users": results["n_users"],
            "pairs": len(pairs),
            "failed": failed,
            "window": window.tokens,
            **store.counts(),
        }


def estimate(run: Path, config: JudgeConfig) -> Estimate:
    """The number and the cost of the requests that `build` would send; sends none."""
    pairs = read_pairs(run, config)
    warn_of_relatives(run, config)
    path = outputs.requests_path(run, "judge")
    return llm.estimate(functools.partial(requests, pairs, config, llm.stored_window(config, path)), config, path)


def families(name: str) -> set[str]:
    """The vendors that match the name of a model; the name itself without a match.

    >>> families("gpt-4.1-mini"), families("google/gemma-3-270m"), families("/models/my-model")
    ({'OpenAI'}, {'Google'}, {'my-model'})
    >>> sorted(families("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"))
    ['Alibaba', 'DeepSeek']
    """
    short = Path(name).name.lower()
    return {vendor for vendor, pattern in FAMILIES.items() if re.search(pattern, short)} or {short}


def warn_of_relatives(run: Path, config: JudgeConfig) -> list[str]:
    """Warn on stderr of judges of the same family as a model behind the texts; returns the warnings."""
    writers = _writers(run)
    if other := _other_run(config):
        writers = _writers(other) | writers
    warnings = [
        f"The judge {outputs.public_name(judge)} is of the same family ({', '.join(sorted(shared))}) as "
        f"{outputs.public_name(writer)}, {role}: it may prefer its own kind. Choose a judge of another family."
        for judge in config.models
        for writer, role in writers.items()
        if (shared := families(judge) & families(writer))
    ]
    for warning in warnings:
        progress.say(f"warning: {warning}")
    return warnings


def _writers(run: Path) -> dict[str, str]:
    """The models that wrote the training data of a run, and the backbone that it was trained from, with their roles."""
    writers = {
        narrator: "which wrote the narratives that the model was trained on"
        for narrator in outputs.results(run).get("narrators", ())
        if narrator not in ("reference", "None")
    }
    if backbone := outputs.manifest(run, "train").get("config", {}).get("backbone"):
        writers[backbone] = "the backbone that the model was trained from"
    return writers


def _other_run(config: JudgeConfig) -> Path | None:
    """The run that the other predictions belong to; None if they are outside of a run."""
    path = Path(config.other or "").resolve()
    return path.parents[1] if path.parent.name == outputs.FOLDERS["evaluate"] else None


def summary(folder: Path) -> str:
    """The results in the output `folder`, as a Markdown table."""
    results = outputs.read_json(folder / outputs.RESULTS)
    ours, theirs = (f"{results[side]['model']} of {results[side]['name']}" for side in ("run", "other"))
    head = (
        f"{ours} against {theirs}, {results['n_users']} users, each pair judged {results['votes']} times in both "
        f"orders by {', '.join(results['judges'])}. Win rate: votes won and half of the ties."
    )
    columns = "task, pairs, win rate, won, tied, lost, alpha, first shown wins, longer wins, turned by order"
    grid = [columns.split(", ")]
    for task, scores in results["tasks"].items():
        cells = [
            task,
            str(scores["n"]),
            format_interval(scores["win_rate"], 2),
            *(format_number(scores[name], 2) for name in ("won", "tied", "lost", "alpha")),
            format_interval(scores["position_bias"]["first_wins"], 2),
            format_interval(scores["length_bias"]["longer_wins"], 2),
            format_number(scores["position_bias"]["turned"], 2),
        ]
        grid.append(cells)
    return f"{head}\n\n{markdown(grid)}"
