"""Sections on the stages with their time and cost, on versions and settings, and on reproducible results."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import outputs
from ..intervals import format_number
from ..run import Run, describe
from ..run.stages import Stage, plain
from .blocks import Code, Section, Table, Text

SAME_MACHINE = (
    "To run this again, save the settings below as config.yaml and call “regen run NEW --config config.yaml” in the "
    "folder with the raw files and models (a run on the sample needs none). On the same machine, with the versions "
    "above, all counts, texts, vectors, losses and scores are the same, as every stage draws random numbers only from "
    "its seed."
)
OTHER_MACHINES = (
    "Other machines give the same sequences and splits, sample world, and narratives and scores of the fixed rules. "
    "Floating-point sums in another order give only similar CF and content vectors, losses and weights, and so only "
    "similar narratives of the model, scores, intervals and maps of soft tokens. Another processor, GPU, number of "
    "threads or version of a library changes that order. Narratives and ratings of a language model on a server come "
    "from the stored answers of this run. Seconds and costs are those of this run."
)


def sections(run: Run) -> list[Section]:
    """The sections on the stages of `run` and on how to reproduce it."""
    finished = [(stage, manifest) for stage in run.finished if (manifest := run.manifest(stage))]
    rows = [
        [
            stage.command,
            "fresh" if run.is_fresh(stage) else "stale",
            _time(manifest["seconds"]),
            _cost(run, stage),
            describe(manifest["counts"]),
            manifest.get("made", "")[:16].replace("T", " "),
        ]
        for stage, manifest in finished
    ]
    rows.append(["all", "", _time(sum(manifest["seconds"] for _, manifest in finished)), "", "", ""])
    versions: dict[str, dict[str, None]] = {}
    for _, manifest in finished:
        for package, version in manifest.get("versions", {}).items():
            versions.setdefault(package, {})[version] = None
    packages = [[package, ", ".join(used)] for package, used in versions.items()]
    head = ["stage", "state", "time", "language model", "counts", "finished (UTC)"]
    texts = [SAME_MACHINE, OTHER_MACHINES, *_stale(run, finished)]
    tables = [Table("Stages", head, rows), Table("Versions", ["package", "version"], packages, folded=True)]
    return [
        Section("stages", "Stages, time and cost", list(tables)),
        Section(
            "reproduction",
            "Reproduce this run",
            [*map(Text, texts), Code(outputs.CONFIG, settings(run), "config")],
        ),
    ]


def _stale(run: Run, finished: list[tuple[Stage, dict[str, Any]]]) -> Iterator[str]:
    """Sentences on results that the current `config.yaml` or the printed settings do not give."""
    stale = [stage.command for stage, _ in finished if not run.is_fresh(stage)]
    if stale:
        yield (
            f"Stale: {', '.join(stale)}. The settings below are those that each stage ran with, not the ones that "
            f"{outputs.CONFIG} contains now."
        )
    fingerprints = {stage.command: manifest["fingerprint"] for stage, manifest in finished}
    replaced = [
        stage.command
        for stage, manifest in finished
        if any(fingerprints.get(name) != used for name, used in manifest["inputs"]["stages"].items())
    ]
    if replaced:
        yield (
            f"The inputs of {', '.join(replaced)} have been replaced since they ran, so the settings below do not give "
            "their results."
        )


def settings(run: Run) -> str:
    """The settings of each stage as YAML, with the file names only of paths outside the run.

    They are those of the manifest, and those of `config.yaml` for a stage without an output.
    """
    import yaml

    values = plain(run.config)
    for stage in run.finished:
        values[stage.section] |= (run.manifest(stage) or {})["config"]
    for section, config in run.config.items():
        for field in dataclasses.fields(config):
            if "reads" in field.metadata:
                values[section][field.name] = _file_names(values[section][field.name])
    return str(yaml.safe_dump(values, sort_keys=False, width=100, allow_unicode=True))


def _file_names(value: Any) -> Any:
    if isinstance(value, list):
        return [_file_names(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _cost(run: Run, stage: Stage) -> str:
    """Tokens and USD of the requests of a stage to a language model."""
    config = run.config[stage.section]
    if not hasattr(config, "backend"):
        return ""
    if config.backend == "reference":
        return "none: fixed rules"
    path = outputs.requests_path(run.folder, stage.command)
    if not path.exists():
        return "unknown: the stored answers are missing"
    from ..llm.spending import spent
    from ..llm.store import Store

    with Store(path) as store:
        usd, totals = spent(store, config), store.totals()
    tokens = f"{format_number(totals['prompt_tokens'])} tokens in, {format_number(totals['completion_tokens'])} out"
    return f"{tokens}, {'unknown price' if usd is None else f'{usd:,.2f} USD'}"


def _time(seconds: float) -> str:
    """Seconds as text.

    >>> _time(6.52), _time(200), _time(9000)
    ('6.5 s', '3 min 20 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
