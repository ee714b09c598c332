"""What each command does, from its parsed options."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RegenError

QUICKSTART_STEPS = 400
"""Training steps of `regen quickstart`, so that all of it takes under five minutes; the default learns more."""


def _overrides(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings that the command line gives: the file's, then single ones, then the command's own options."""
    from ..config import parse_yaml, read_yaml

    values: dict[str, dict[str, Any]] = {}
    for name, keys in (read_yaml(Path(options.config)) if options.config else {}).items():
        if not isinstance(keys, dict):
            raise ConfigError(f"Section {name!r} of {options.config} holds {keys!r}, expected 'key: value' under it.")
        values[name] = dict(keys)
    for text in options.set:
        path, equals, value = text.partition("=")
        name, dot, key = path.partition(".")
        if not (equals and dot):
            raise ConfigError(f"--set was given {text!r}, expected SECTION.KEY=VALUE, as training.max_steps=200.")
        try:
            values.setdefault(name, {})[key] = parse_yaml(value)
        except ValueError:
            raise ConfigError(f"--set was given {text!r}: the value is not readable as YAML.") from None
    given = vars(options)
    for path, value in given.items():
        if value is not None and "." in path:
            name, key = path.split(".")
            values.setdefault(name, {})[key] = value
    if given.get("columns") is not None:
        from ..reviews.formats import read_mapping

        values.setdefault("sequences", {}).update(read_mapping(Path(given["columns"])))
    sources = {"reviews": "sequences", "items": "sequences", "sample": "sequences", "from_release": "release"}
    for key, name in sources.items():
        if given.get(key) is not None:
            values.setdefault(name, {})[key] = given[key]
    return values


def _open(options: argparse.Namespace, **more: Any) -> Any:
    from ..run import Run

    overrides = _overrides(options)
    for name, keys in more.items():
        overrides[name] = {**keys, **overrides.get(name, {})}
    return Run(options.folder, overrides)


def run(options: argparse.Namespace) -> None:
    """Every stage that is not fresh."""
    run = _open(options)
    known = [stage.command for stage in run.stages]
    if options.until not in known:
        raise ConfigError(f"--until was given {options.until!r}, expected one of: {', '.join(known)}.")
    run.check(options.until)
    run.check_sources()
    with run.locked():
        run.save()
        run.build_all(options.until)


def stage(options: argparse.Namespace) -> None:
    """One stage."""
    from ..run import EXTRAS, STAGES

    run = _open(options)
    stage = EXTRAS[options.extra] if options.extra else STAGES[options.command]
    run.check(options.command)
    if options.command == "sequences":
        run.check_sources()
    if getattr(options, "dry_run", False):
        run.need(stage)
        print(importlib.import_module(stage.code).estimate(run.folder, run.config[stage.section]))
        return
    # They have no command of their own: they are what `regen sequences --sample` and `regen dataset --from-release`
    # begin with.
    sources = [source for source in run.reads(stage) if source.command in ("sample", "release")]
    if not sources:
        run.need(stage)  # told before a folder is made, of a run whose name was mistyped
    with run.locked():
        for source in sources:
            run.tell(source)
        run.need(stage)
        run.save()
        run.tell(stage)
    if options.extra:
        print(importlib.import_module(stage.code).summary(run.folder / stage.folder))


def evaluate(options: argparse.Namespace) -> None:
    """Narratives of held-out users, scored: of one run, of several beside each other, or from a file."""
    folders = [Path(folder) for folder in options.folders]
    if options.predictions is not None:
        _score_file(options, folders)
        return
    if not folders:
        raise ConfigError("No run was named. Give one, several to compare, or a file: regen evaluate --from FILE.")
    if options.extra and len(folders) > 1:
        raise ConfigError(f"--{options.extra} was given {len(folders)} runs, expected one.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("A run was named twice, expected each once.")
    for folder in folders:
        options.folder = folder
        stage(options)
    if len(folders) > 1:
        from ..evaluation.comparison import compare

        out = Path(options.out) if options.out else folders[0] / "comparison"
        compare(folders, out)
        print((out / "comparison.md").read_text(encoding="utf-8"))
    elif not options.extra:
        from ..evaluation import report

        print(report.table(json.loads((folders[0] / "evaluation" / "results.json").read_text(encoding="utf-8"))))


def _score_file(options: argparse.Namespace, folders: list[Path]) -> None:
    """Score anybody's predictions."""
    from ..config import section
    from ..evaluation import EvaluationConfig, report
    from ..evaluation.leaderboard import score_file
    from ..run import STAGES, Run

    given = _overrides(options).get("evaluation", {})
    unused = sorted(given.keys() - {"encoder", "split", "seed"})
    if unused or options.extra:
        raise ConfigError(
            f"--from was given with --{(unused or [options.extra])[0].replace('_', '-')}, which is for writing "
            "narratives. A file is scored as it is: --encoder, --split, --seed and --out count."
        )
    if len(folders) > 1:
        raise ConfigError(f"--from was given {len(folders)} runs, expected one, for its references, or none.")
    config = section(EvaluationConfig, given, "evaluation")
    if folders:
        Run(folders[0]).need(dataclasses.replace(STAGES["evaluate"], reads=("dataset", "embeddings")))
    path = Path(options.predictions)
    out = Path(options.out) if options.out else path.with_name(f"{path.stem}_scores")
    results = score_file(path, out, folders[0] if folders else None, config.encoder, config.split, config.seed)
    print(report.table(results))


def status(options: argparse.Namespace) -> None:
    """Which stages are fresh."""
    from ..run import EXTRAS, Run, describe

    folder = Path(options.folder)
    if not (folder / "run.json").exists():
        raise RegenError(f"{folder} is not a run folder. Make one with `regen quickstart` or `regen run {folder} …`.")
    run = Run(folder)
    beside = [stage for stage in EXTRAS.values() if run.manifest(stage)]
    for stage in [*run.stages, *beside]:
        manifest = run.manifest(stage)
        if manifest is None:
            state, seconds, counts = "missing", "", ""
        else:
            state = "fresh" if run.is_fresh(stage) else "stale"
            seconds, counts = f"{manifest['seconds']:.1f} s", describe(manifest["counts"])
        print(f"{stage.command:<20} {state:<8} {seconds:>9}  {counts}".rstrip())


def quickstart(options: argparse.Namespace) -> None:
    """Everything, on simulated shoppers."""
    from ..evaluation import report

    more: dict[str, Any] = {"sequences": {"sample": True}}
    if not (Path(options.folder) / "run.json").exists():  # later its own config.yaml says it
        more["training"] = {"max_steps": QUICKSTART_STEPS}
    run = _open(options, **more)
    with run.locked():
        run.save()
        run.build_all()
    print(report.summary(run.folder))


def report(options: argparse.Namespace) -> None:
    """All of a run in one HTML file."""
    from .. import report
    from ..run import Run

    if not (Path(options.folder) / "run.json").exists():
        raise RegenError(
            f"{options.folder} is not a run folder. Make one with `regen quickstart` or `regen run RUN …`."
        )
    run = Run(options.folder)
    with run.locked():
        print(report.write(run))


def inspect(options: argparse.Namespace) -> None:
    """One shopper's history and narratives."""
    from ..inspection import inspect

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # not every terminal has stars
    for line in inspect(Path(options.folder), options.user):
        print(line)


def push(options: argparse.Namespace) -> None:
    """Dataset, model, metric and Space to the Hub."""
    from .. import hub

    given = vars(options)
    parts = ("dataset", "model", "metric", "space")
    lines = hub.push(
        Path(options.folder),
        options.namespace,
        parts=[part for part in parts if given[part]],
        names={part: name for part in parts if (name := given[f"{part}_name"]) is not None},
        private=options.private,
        tag=options.tag,
        dry_run=options.dry_run,
        verified=options.verify,
    )
    for line in lines:
        print(line, flush=True)


def export(options: argparse.Namespace) -> None:
    """Folders for a server."""
    from ..model.export import export_vllm
    from ..run import STAGES, Run

    run = Run(options.folder)
    if run.manifest(STAGES["train"]) is None:
        raise RegenError(f"{run.folder} holds no trained model. Run `regen train {run.folder}` first.")
    out = run.folder / "export" / options.to
    with run.locked():
        export_vllm(run.folder / "model", out)
    print(f"{out / 'backbone'}\n{out / 'encoder'}")


def demo(options: argparse.Namespace) -> None:
    """The Gradio app, on this machine."""
    from .. import hub

    hub.demo(Path(options.folder), port=options.port)
