"""The parser of the command line: commands and their options."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

from ..version import __version__
from . import commands, help

Add = Callable[..., argparse.ArgumentParser]


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for the command line `arguments`; only the called command has the options of its settings."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="regen",
        description="From a log of product reviews to a conversational recommender that explains itself.",
        epilog=help.EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"regen-hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="<command>")

    def add(name: str, summary: str, description: str, run: Any, folder: bool = True) -> argparse.ArgumentParser:
        command = subparsers.add_parser(
            name, help=summary, description=description, formatter_class=raw, allow_abbrev=False
        )
        command.set_defaults(run=run)
        if folder:
            command.add_argument("folder", metavar="RUN", help="the run folder")
        return command

    # Only the called command imports its settings: `regen --help` stays fast.
    called = next((word for word in arguments if not word.startswith("-")), None)
    _add_run_commands(add)
    for name in help.STAGE_HELP:
        _add_stage_command(add, name, with_settings=name == called)
    _add_table_commands(add)
    _add_view_commands(add)
    _add_push(add)
    _add_serving_commands(add)
    return parser


def _add_run_commands(add: Add) -> None:
    quickstart = add(
        "quickstart",
        "everything, on simulated shoppers, offline",
        help.QUICKSTART.format(steps=commands.QUICKSTART_STEPS),
        commands.quickstart,
        folder=False,
    )
    folder = "run folder (default: %(default)s)"
    quickstart.add_argument("folder", metavar="RUN", nargs="?", default="runs/sample", help=folder)
    _add_common(quickstart)
    everything = add("run", "every stage that is not fresh", help.RUN, commands.run)
    _add_common(everything)
    everything.add_argument("--reviews", nargs="+", metavar="FILE", help="raw review files")
    everything.add_argument("--items", nargs="+", metavar="FILE", help="raw item files")
    everything.add_argument("--columns", metavar="FILE", help=help.COLUMNS)
    _add_release(everything)
    everything.add_argument("--sample", action="store_true", default=None, help="simulated shoppers instead of files")
    everything.add_argument("--refresh", action="store_true", help=help.REFRESH)
    everything.add_argument("--until", metavar="STAGE", default="figures", help="last stage (default: %(default)s)")


def _add_stage_command(add: Add, name: str, with_settings: bool) -> None:
    summary, description = help.STAGE_HELP[name]
    command = add(name, summary, description, commands.stage)
    command.set_defaults(command=name)
    _add_common(command)
    if with_settings:
        from ..run import STAGES, config_class

        stage = STAGES[name]
        _add_settings(command, stage.section, config_class(stage))
    if name in ("narratives", "ratings", "grounding", "judge"):
        command.add_argument("--dry-run", action="store_true", help="print requests, tokens and USD, send nothing")
    if name == "sequences":
        command.add_argument("--columns", metavar="FILE", help=help.COLUMNS)
        command.add_argument("--refresh", action="store_true", help=help.REFRESH)
    if name == "dataset":
        _add_release(command)
    if name == "judge":
        command.add_argument(
            "--against",
            metavar="OTHER",
            help="another run, or a predictions.parquet, to compare with",
        )


def _add_table_commands(add: Add) -> None:
    compare = add("compare", "evaluated runs -> the paper's table 1", help.COMPARE, commands.compare, folder=False)
    compare.add_argument("folders", metavar="RUN", nargs="+", help="run folders with an evaluation, two or more")
    compare.add_argument("--out", metavar="FOLDER", help="output folder; RUN/comparison of the first run by default")
    score = add("score", "a file of predictions -> scores", help.SCORE, commands.score, folder=False)
    score.add_argument("predictions", metavar="PREDICTIONS", help="parquet file of predictions")
    score.add_argument("--references", metavar="RUN", help="the run with the references and the encoder")
    score.add_argument("--encoder", metavar="NAME", help="sentence-transformers model behind `similarity`")
    score.add_argument("--split", default="test", help="split of --references (default: %(default)s)")
    score.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")
    score.add_argument("--out", metavar="FOLDER", help="output folder; beside the file by default")


def _add_view_commands(add: Add) -> None:
    add("status", "state, counts and seconds of every stage", help.STATUS, commands.status)
    add("report", "the outputs of a run in one HTML file", help.REPORT, commands.report)
    inspect = add("inspect", "one shopper's history and narratives", help.INSPECT, commands.inspect)
    shown = inspect.add_mutually_exclusive_group()
    shown.add_argument("--user", metavar="ID", help="the shopper's reviewer_id")
    shown.add_argument(
        "--request", metavar="ID", help="print the requests about this shopper to a language model, and the raw answers"
    )
    inspect.add_argument("--recommendations", metavar="FILE", help=help.RECOMMENDATIONS)


def _add_push(add: Add) -> None:
    push = add("push", "dataset, model, metric and Space -> the Hub", help.PUSH, commands.push)
    push.add_argument("--namespace", required=True, metavar="ORG", help="the user or organisation on the Hub")
    for part in commands.PARTS:
        push.add_argument(f"--{part}", action="store_true", help=f"push the {part}")
    for part in commands.PARTS:
        push.add_argument(f"--{part}-name", metavar="NAME", help=f"the name of the {part}'s repository")
    push.add_argument("--private", action="store_true", help="create the repositories as private")
    push.add_argument("--tag", metavar="NAME", help="tag the pushed commits, such as v1")
    push.add_argument("--dry-run", action="store_true", help="list files and changes, push nothing")
    push.add_argument("--verify", action="store_true", help="load everything from the Hub after the push and compare")


def _add_serving_commands(add: Add) -> None:
    export = add("export", "model -> folders for a server", help.EXPORT, commands.export)
    export.add_argument("--to", required=True, choices=["vllm"], help="the server: vllm")
    demo = add("demo", "the Gradio app, on this machine", help.DEMO, commands.demo)
    demo.add_argument("--port", type=int, default=7860, help="the port (default: %(default)s)")


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="YAML file with settings, which replace those of the run")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, such as training.max_steps=200"
    )


def _add_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from-release", nargs="+", metavar="FILE", help="files of the official REGEN release")


def _add_settings(command: argparse.ArgumentParser, name: str, cls: type) -> None:
    """Add one option per field of the config dataclass `cls`; its help is the string under the field."""
    from ..config import help_texts

    texts = help_texts(cls)
    group = command.add_argument_group("settings")
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "option" in field.metadata:
            continue  # an option with that name exists already
        default = field.default_factory() if callable(field.default_factory) else field.default
        if isinstance(default, tuple):
            default = " ".join(default)
        shown = "" if default in (None, "", {}) else f" (default: {default})"
        flag = "--" + field.name.replace("_", "-")
        about = (texts.get(field.name, "") + shown).replace("%", "%%")
        destination = f"{name}.{field.name}"
        if types[field.name] in (bool, bool | None):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, dest=destination, help=about)
        elif "mapping" in field.metadata:
            group.add_argument(flag, type=_mapping, metavar="MAPPING", dest=destination, help=about)
        elif any(typing.get_origin(part) is dict for part in (types[field.name], *typing.get_args(types[field.name]))):
            continue  # a mapping comes from a file
        elif typing.get_origin(types[field.name]) is tuple:
            metavar = _metavar(field.name)
            group.add_argument(flag, nargs="+", action="extend", metavar=metavar, dest=destination, help=about)
        else:
            group.add_argument(flag, metavar=_metavar(field.name), dest=destination, help=about)


def _mapping(text: str) -> dict[str, Any]:
    from ..config import parse_yaml

    try:
        value = parse_yaml(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"given {text!r}, expected a mapping as JSON or YAML, such as {{top_k: 20}}")
    return value


def _metavar(name: str) -> str:
    return "FILE" if name in ("reviews", "items", "cf_vectors", "cf_asins") else "VALUE"
