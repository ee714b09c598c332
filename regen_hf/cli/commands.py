"""The commands, as functions of their parsed options."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RegenError, require

QUICKSTART_STEPS = 400
"""Training steps of `regen quickstart`, which then takes under five minutes on 2 cores."""
QUICKSTART_END = "next-item"
"""The last stage of `regen quickstart`: optional in other runs, and done in seconds on the sample world."""

PARTS = ("dataset", "model", "metric", "space")
"""Parts that `regen push` pushes."""


def _overrides(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings of the command line: those of the file, then of --set, then of the options of the command."""
    from ..config import parse_yaml, read_yaml

    values: dict[str, dict[str, Any]] = {}
    for name, keys in (read_yaml(Path(options.config)) if options.config else {}).items():
        if not isinstance(keys, dict):
            raise ConfigError(
                f"Section {name!r} of {options.config} contains {keys!r}, expected 'key: value' under it."
            )
        values[name] = dict(keys)
    for text in options.set:
        path, equals, value = text.partition("=")
        name, dot, key = path.partition(".")
        if not (equals and dot):
            raise ConfigError(f"--set was given {text!r}, expected SECTION.KEY=VALUE, such as training.max_steps=200.")
        try:
            setting = values.setdefault(name, {})
            *mappings, last = key.split(".")
            for mapping in mappings:  # such as narratives.extra_body.top_k=20
                before = setting.get(mapping)
                inner = dict(before) if isinstance(before, dict) else {}
                setting[mapping] = inner
                setting = inner
            setting[last] = parse_yaml(value)
        except ValueError:
            raise ConfigError(f"--set was given {text!r}: the value is not valid YAML.") from None
    given = vars(options)
    for path, value in given.items():
        if value is not None and "." in path:
            name, key = path.split(".")
            values.setdefault(name, {})[key] = value
    if given.get("columns") is not None:
        from ..reviews.formats import read_mapping

        values.setdefault("sequences", {}).update(read_mapping(Path(given["columns"])))
    if given.get("against") is not None:
        values.setdefault("judge", {})["other"] = _predictions(Path(given["against"]))
    sources = {"reviews": "sequences", "items": "sequences", "sample": "sequences", "from_release": "release"}
    for key, name in sources.items():
        if given.get(key) is not None:
            values.setdefault(name, {})[key] = given[key]
    return values


def open_run(options: argparse.Namespace, **more: Any) -> Any:
    """The run of the folder that is given, with the settings of the command line and then `more`; writes nothing."""
    from ..run import Run

    overrides = _overrides(options)
    for name, keys in more.items():
        overrides[name] = {**keys, **overrides.get(name, {})}
    return Run(options.folder, overrides)


def run(options: argparse.Namespace) -> None:
    """Every stage that is not fresh."""
    run = open_run(options)
    known = [stage.command for stage in run.stages]
    if options.until not in known:
        raise ConfigError(f"--until was given {options.until!r}, expected one of: {', '.join(known)}.")
    run.check(options.until)
    run.check_sources()
    run.check_packages(options.until)
    with run.locked():
        run.save()
        if options.refresh:
            run.refresh(options.until)
        run.build_all(options.until)


def stage(options: argparse.Namespace) -> None:
    """One stage."""
    from .. import outputs
    from ..run import STAGES

    run = open_run(options)
    stage = STAGES[options.command]
    run.check(options.command)
    if options.command == "sequences":
        run.check_sources()
    if getattr(options, "dry_run", False):
        run.need(stage)
        print(stage.code.estimate(run.folder, run.config[stage.section], **run.optional(stage)))
        return
    # The stages without a command of their own: `regen sequences --sample` and `regen dataset --from-release` run them.
    sources = [source for source in run.reads(stage) if source.command in ("sample", "release")]
    if not sources:
        run.need(stage)  # before a folder is created for a mistyped name
    with run.locked():
        for source in sources:
            run.build_with_progress(source)
        run.need(stage)
        if not run.is_fresh(stage):
            run.check_packages_of(stage)  # before a setting that they reject is saved
        run.save()
        if getattr(options, "refresh", False):
            run.refresh(options.command)
        run.build_with_progress(stage)
    if options.command == "evaluate":
        from ..metrics.tables import score_table

        print(score_table(outputs.results(run.folder)))
    elif stage.optional:
        print(stage.code.summary(outputs.folder(run.folder, stage.command)))


def compare(options: argparse.Namespace) -> None:
    """Several evaluated runs side by side."""
    from .. import outputs
    from ..run import STAGES, Run
    from ..stages.evaluation.comparison import compare

    folders = [Path(folder) for folder in options.folders]
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} run was given, expected two or more. Name the runs to compare.")
    for index, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:index]]:
            raise ConfigError(f"The run {folder} was given twice, expected each once.")
    for folder in folders:
        run = Run(folder)
        if not run.is_fresh(STAGES["evaluate"]):
            state = "stale" if run.manifest(STAGES["evaluate"]) else "missing"
            raise RegenError(f"The evaluation of {folder} is {state}. Run `regen evaluate {folder}` first.")
    out = Path(options.out) if options.out else folders[0] / outputs.COMPARISON
    compare(folders, out)
    print((out / outputs.COMPARISON_MARKDOWN).read_text(encoding="utf-8"))


def score(options: argparse.Namespace) -> None:
    """Narratives of any model, scored."""
    from ..config import section
    from ..metrics.tables import score_table
    from ..run import STAGES, Run
    from ..stages.evaluation.score_file import score_file
    from ..stages.evaluation.settings import EvaluationConfig

    given = {"encoder": options.encoder, "split": options.split, "seed": options.seed}
    config = section(EvaluationConfig, given, "score")
    require("sacrebleu", "rouge-score", *(["sentence-transformers"] if options.encoder or options.references else []))
    references = Path(options.references) if options.references else None
    if references:
        Run(references).need(dataclasses.replace(STAGES["evaluate"], command="score", reads=("dataset", "embeddings")))
    path = Path(options.predictions)
    out = Path(options.out) if options.out else path.with_name(f"{path.stem}_scores")
    print(score_table(score_file(path, out, references, config.encoder, config.split, config.seed)))


def status(options: argparse.Namespace) -> None:
    """The state of every stage."""
    from ..reviews.downloads import shown
    from ..run import Run, describe

    run = Run(_existing(options.folder))
    for stage in [*run.stages, *(stage for stage in run.finished if stage.optional)]:
        manifest = run.manifest(stage)
        if manifest is None:
            state, seconds, counts = "missing", "", ""
        else:
            state = "fresh" if run.is_fresh(stage) else "stale"
            seconds, counts = f"{manifest['seconds']:.1f} s", describe(manifest["counts"])
        if state != "fresh" and (urls := run.not_downloaded(stage)):
            counts += f"{'; ' if counts else ''}not downloaded yet: {', '.join(map(shown, urls))}"
        print(f"{stage.command:<12} {state:<8} {seconds:>9}  {counts}".rstrip())


def quickstart(options: argparse.Namespace) -> None:
    """Everything, on simulated shoppers."""
    from .. import outputs
    from ..stages.evaluation.summary import summary

    settings: dict[str, Any] = {"sequences": {"sample": True}}
    if not outputs.is_run(Path(options.folder)):  # an existing run keeps the steps of its config.yaml
        settings["training"] = {"max_steps": QUICKSTART_STEPS}
    run = open_run(options, **settings)
    run.check_packages(QUICKSTART_END)
    with run.locked():
        run.save()
        run.build_all(QUICKSTART_END)
    print(summary(run.folder))


def report(options: argparse.Namespace) -> None:
    """The outputs of a run in one HTML file."""
    from .. import report
    from ..run import Run

    run = Run(_existing(options.folder))
    with run.locked():
        print(report.write(run))


def inspect(options: argparse.Namespace) -> None:
    """One shopper's history and narratives, the items recommended to one, or the requests about one."""
    from ..inspection import inspect, inspect_recommendations, inspect_requests

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # not every terminal has stars
    run = _existing(options.folder)
    if options.request and options.recommendations:
        raise ConfigError(
            "--request and --recommendations were given, expected one of them. Use --user with the latter."
        )
    if options.recommendations:
        lines = inspect_recommendations(run, Path(options.recommendations), options.user)
    else:
        lines = inspect_requests(run, options.request) if options.request else inspect(run, options.user)
    for line in lines:
        print(line)


def push(options: argparse.Namespace) -> None:
    """Dataset, model, metric and Space to the Hub."""
    from ..hub.publishing import push

    given = vars(options)
    lines = push(
        Path(options.folder),
        options.namespace,
        parts=[part for part in PARTS if given[part]],
        names={part: name for part in PARTS if (name := given[f"{part}_name"]) is not None},
        private=options.private,
        tag=options.tag,
        dry_run=options.dry_run,
        verified=options.verify,
    )
    for line in lines:
        print(line, flush=True)


def export(options: argparse.Namespace) -> None:
    """Folders for a server."""
    from .. import outputs
    from ..model.export import export_vllm
    from ..run import STAGES, Run

    run = Run(options.folder)
    if run.manifest(STAGES["train"]) is None:
        raise RegenError(f"{run.folder} contains no trained model. Run `regen train {run.folder}` first.")
    if stale := run.stale("train"):
        print(f"regen: {stale}", file=sys.stderr)
    out = run.folder / outputs.EXPORT / options.to
    with run.locked():
        export_vllm(outputs.folder(run.folder, "train"), out)
    print(out / "backbone", out / "encoder", sep="\n")


def demo(options: argparse.Namespace) -> None:
    """The Gradio app, on this machine."""
    from ..hub.space import demo

    demo(Path(options.folder), port=options.port)


def _existing(folder: str) -> Path:
    """The path of a run folder; raises RegenError for any other folder."""
    from .. import outputs
    from ..run import not_a_run

    if not outputs.is_run(Path(folder)):
        raise RegenError(not_a_run(Path(folder), "Create one with `regen quickstart` or `regen run RUN …`."))
    return Path(folder)


def _predictions(other: Path) -> str:
    """The predictions file of the run `other`, or `other` itself if it is no folder.

    Raises:
        RegenError: the run has no evaluation.
    """
    from .. import outputs

    if not other.is_dir():
        return str(other)
    path = outputs.path(other, "evaluate", outputs.PREDICTIONS)
    if not path.exists():
        raise RegenError(f"The evaluation of {other} is missing. Run `regen evaluate {other}` first.")
    return str(path)
