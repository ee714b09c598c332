"""How a run was made: its stages with their time and cost, versions, settings, and what comes out the same again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..intervals import format_number
from ..run import Run, describe
from ..run.stages import Stage, plain
from .blocks import Code, Section, Table, Text

SAME = (
    "The settings below make this run again: save them as config.yaml and call “regen run NEW --config config.yaml” in "
    "the folder where the raw files and models that they name lie (a run on the sample needs none). On the same "
    "machine, with the versions above, all counts, texts, vectors, losses and scores come out equal, as every stage "
    "draws from its seed alone."
)
CLOSE = (
    "Elsewhere the same are: sequences and splits, the sample world, the narratives and scores of the fixed rules. "
    "Only close is what floating-point sums in another order change: CF and content vectors, losses, weights, and with "
    "them the model's narratives, scores, intervals and the map of soft tokens. Another processor, GPU, number of "
    "threads or version of a library is enough for that. What a language model on a server wrote or rated comes again "
    "only from the stored answers of this run. Seconds and costs are those of this run."
)


def sections(run: Run) -> list[Section]:
    """The sections on how the run was made."""
    made = Section("making", "How it was made")
    stages = run.finished
    if not stages:
        return [made]
    rows, versions, total = [], dict[str, dict[str, None]](), 0.0
    for stage in stages:
        manifest = run.manifest(stage) or {}
        total += manifest["seconds"]
        rows.append(
            [
                stage.command,
                "fresh" if run.is_fresh(stage) else "out of date",
                _time(manifest["seconds"]),
                _cost(run, stage),
                describe(manifest["counts"]),
                manifest.get("made", "")[:16].replace("T", " "),
            ]
        )
        for package, version in manifest.get("versions", {}).items():
            versions.setdefault(package, {})[version] = None
    rows.append(["all", "", _time(total), "", "", ""])
    made.blocks.append(Table("Stages", ["stage", "state", "time", "language model", "counts", "made (UTC)"], rows))
    made.blocks.append(
        Table("Versions", ["package", "version"], [[name, ", ".join(found)] for name, found in versions.items()], True)
    )
    again = Section("again", "Make it again", [Text(SAME), Text(CLOSE), Code("config.yaml", settings(run), "config")])
    return [made, again]


def settings(run: Run) -> str:
    """The settings of `run` as YAML; files outside it by their names, without the folders of this machine."""
    import yaml

    values = plain(run.config)
    for section, config in run.config.items():
        for field in dataclasses.fields(config):
            if "reads" in field.metadata:
                values[section][field.name] = _named(values[section][field.name])
    return str(yaml.safe_dump(values, sort_keys=False, width=100, allow_unicode=True))


def _named(value: Any) -> Any:
    if isinstance(value, list):
        return [_named(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _cost(run: Run, stage: Stage) -> str:
    """What a stage paid a language model for, as far as it is known."""
    config = run.config[stage.section]
    if not hasattr(config, "backend"):
        return ""
    if config.backend == "reference":
        return "none: fixed rules"
    path = run.folder / "requests" / f"{stage.folder}.sqlite"
    if not path.exists():
        return "not known: the stored answers are gone"
    from ..llm.spending import spent
    from ..llm.store import Store

    with Store(path) as store:
        usd, totals = spent(store, config), store.totals()
    tokens = f"{format_number(totals['prompt_tokens'])} tokens in, {format_number(totals['completion_tokens'])} out"
    return f"{tokens}, {'price not known' if usd is None else f'{usd:,.2f} USD'}"


def _time(seconds: float) -> str:
    """Seconds for a reader.

    >>> _time(6.52), _time(200), _time(9000)
    ('6.5 s', '3 min 20 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
