"""The command line `regen`: thin, each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import ConfigError, RegenError

STAGE_COMMANDS = {
    "sequences": (
        "raw review files -> one purchase history per user",
        """\
Reads review files and item files, joins them, sorts each user's purchases by time, and splits the users.
Files are JSON lines, CSV, TSV (plain, gzip or zstd) or parquet, of the Amazon releases of 2014, 2018 and 2023 or with
columns of your own. Every line read is kept or dropped for a reason that accounting.json counts; rejects.parquet holds
the lines that gave nothing.

  regen sequences runs/office --reviews Office_Products_5.json.gz --items meta_Office_Products.json.gz
  regen sequences runs/mine --reviews 'log/*.csv.gz' --items products.parquet --columns columns.yaml
  regen sequences runs/mine --reviews orders.csv --columns columns.yaml --k-core 5 --since 2020-01-01 --scrub
  regen sequences runs/sample --sample

columns.yaml says which column holds what; user, item and time are needed, and a title here or in the item files:

  columns: {user: customer_id, item: sku, time: created_at, rating: stars, text: body}
  item_columns: {item: sku, title: name, price: price}
""",
    ),
    "narratives": (
        "histories -> six narratives per user",
        """\
Writes the purchase reason, its explanation, an endorsement, two summaries and a profile of every user.
The backend `reference` writes by fixed rules, offline; `openai` asks any OpenAI-compatible server, `openai-batch` its
Batch API at half the price, `transformers` a local model. What was paid for once is never paid for again.

  regen narratives runs/office
  regen narratives runs/office --backend openai --base-url http://localhost:8000/v1 --model my-model
  regen narratives runs/office --backend openai-batch --model gpt-4.1-mini --dry-run
  regen narratives runs/office --backend openai-batch --model gpt-4.1-mini --budget 50
""",
    ),
    "ratings": (
        "narratives -> scores of 1 to 7 by an autorater",
        """\
Rates the history and the narratives of every user (section 3.3 of the paper) and aggregates the votes.

  regen ratings runs/office
  regen ratings runs/office --backend openai --model gpt-4.1-mini --votes 11 --budget 200
""",
    ),
    "dataset": (
        "all of it -> a dataset repository that load_dataset reads",
        """\
Joins histories, narratives and scores to RUN/dataset, a repository as the Hub holds them.
The official REGEN release (office.jsonl, clothing.jsonl) has all three: --from-release takes it in place of raw files.

  regen dataset runs/office --name office
  regen dataset runs/release --from-release office.jsonl --name office
  python -c "from datasets import load_dataset; print(load_dataset('runs/office/dataset'))"
""",
    ),
    "embeddings": (
        "dataset -> CF vectors of items, content vectors of purchases",
        """\
Fits weighted ALS on the train users, and encodes every purchase with a sentence-transformers model.
With no --content-encoder, a small one is trained on the train users' texts, offline.

  regen embeddings runs/office --content-encoder sentence-transformers/all-MiniLM-L6-v2
  regen embeddings runs/office --cf-dim 64
""",
    ),
    "train": (
        "dataset and vectors -> a model repository",
        """\
Trains the fused model with TRL's SFTTrainer and writes RUN/model, a repository as the Hub holds them.
With no --backbone, a small language model is trained from nothing on the narratives, offline.
For several processes: accelerate launch scripts/train.py RUN

  regen train runs/office --backbone Qwen/Qwen3-0.6B --learning-rate 2e-5
  regen train runs/sample --max-steps 200
""",
    ),
    "evaluate": (
        "model -> narratives of held-out users, scored",
        """\
Writes narratives for users whom training has not seen, scores them, and does the same with controls.

  regen evaluate runs/sample --max-users 100
  regen evaluate runs/sample --tasks user_profile long_user_summary
""",
    ),
    "figures": (
        "results -> pictures",
        """\
Draws the scores and the training loss from the files of a run; computes nothing again.

  regen figures runs/sample
""",
    ),
}

COLUMNS = "YAML that maps columns of one's own: columns: {user: …, item: …, time: …}, item_columns: {…}"

EXAMPLES = """\
start here:
  regen quickstart                                   everything, on simulated shoppers, offline, in minutes
  regen run runs/mine --reviews R.json.gz --items I.json.gz
                                                     every stage, on your reviews
  regen status runs/mine                             what is done, and what is out of date
  regen <command> --help                             what a command reads, writes and can be told
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 for an error that the user can mend."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Tokenizers warn when a process that used their threads forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A run on private reviews tells nobody that it runs.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Threads that sleep while they wait: spinning ones take the cores from whatever else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        parser = _parser(arguments)
        options = parser.parse_args(arguments)
        if "do" not in options:
            parser.print_help()
            return 0
        options.do(options)
    except RegenError as error:
        print(f"regen: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `regen status RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"regen: {error.strerror}{place}. Once that is mended, the same command goes on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("regen: stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="regen",
        description="From a log of product reviews to a conversational recommender that explains itself.",
        epilog=EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"regen-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="<command>")
    # Only the command that is called imports its stage: `regen --help` stays fast.
    called = next((word for word in arguments if not word.startswith("-")), None)

    def add(name: str, about: str, text: str, do: Any, folder: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=text, formatter_class=raw, allow_abbrev=False, argument_default=None
        )
        command.set_defaults(do=do)
        if folder:
            command.add_argument("folder", metavar="RUN", help="the run folder")
        return command

    quick = add(
        "quickstart",
        "everything, on simulated shoppers, offline",
        "Builds the sample world, its dataset and a small model, and prints scores and examples.\n\n"
        "  regen quickstart\n",
        _quickstart,
        folder=False,
    )
    quick.add_argument("folder", metavar="RUN", nargs="?", default="runs/sample", help="the run folder (%(default)s)")
    _add_common(quick)

    everything = add(
        "run",
        "every stage that is not fresh",
        "Runs all stages in order and skips those whose output is up to date.\n\n"
        "  regen run runs/mine --reviews R.json.gz --items I.json.gz\n"
        "  regen run runs/mine --config mine.yaml --set training.max_steps=2000\n"
        "  regen run runs/sample --sample --until dataset\n",
        _run,
    )
    _add_common(everything)
    everything.add_argument("--reviews", nargs="+", metavar="FILE", help="raw review files")
    everything.add_argument("--items", nargs="+", metavar="FILE", help="raw item files")
    everything.add_argument("--columns", metavar="FILE", help=COLUMNS)
    _add_release(everything)
    everything.add_argument("--sample", action="store_true", default=None, help="simulated shoppers in place of files")
    everything.add_argument("--until", metavar="STAGE", default="figures", help="the last stage to run (%(default)s)")

    for name, (about, text) in STAGE_COMMANDS.items():
        command = add(name, about, text, _stage)
        command.set_defaults(command=name)
        _add_common(command)
        if called == name:
            from .run import STAGES, config_class

            _add_settings(command, STAGES[name].section, config_class(STAGES[name]))
        if name in ("narratives", "ratings"):
            command.add_argument("--dry-run", action="store_true", help="tell requests, tokens and USD, send nothing")
        if name == "sequences":
            command.add_argument("--columns", metavar="FILE", help=COLUMNS)
        if name == "dataset":
            _add_release(command)

    add(
        "status",
        "which stages are fresh, their counts and seconds",
        "Lists the stages of a run.\n\n  regen status runs/mine\n",
        _status,
    )
    look = add(
        "inspect",
        "one shopper's history and narratives",
        "Prints the purchases of one shopper, oldest first, and the narratives with their scores.\n"
        "With no --user it shows the first test user and names others.\n\n"
        "  regen inspect runs/sample\n"
        "  regen inspect runs/office --user A101G2KLTWSA51\n",
        _inspect,
    )
    look.add_argument("--user", metavar="ID", help="the shopper's reviewer_id")
    push = add(
        "push",
        "dataset, model and Space -> the Hub",
        "Pushes what a run has made. The token comes from `hf auth login` or HF_TOKEN.\n\n"
        "  regen push runs/mine --namespace my-org --dry-run\n"
        "  regen push runs/mine --namespace my-org --private\n",
        _push,
    )
    push.add_argument("--namespace", required=True, metavar="ORG", help="the user or organisation on the Hub")
    push.add_argument("--private", action="store_true", help="make the repositories private")
    push.add_argument("--dry-run", action="store_true", help="list what would be pushed, push nothing")
    export = add(
        "export",
        "model -> folders for a server",
        """\
Writes RUN/export/vllm: the bare language model, which vLLM serves without code of ours, and the encoder that makes
its prompt embeddings from histories. docs/serve_on_vllm.md tells how to serve them.

  regen export runs/office --to vllm
""",
        _export,
    )
    export.add_argument("--to", required=True, choices=["vllm"], help="the server: vllm")
    demo = add(
        "demo",
        "the Gradio app, on this machine",
        "Serves the app of the Space with the model of a run.\n\n  regen demo runs/sample\n",
        _demo,
    )
    demo.add_argument("--port", type=int, default=7860, help="the port to listen at (%(default)s)")
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="YAML with settings, written over those of the run")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, as training.max_steps=200"
    )


def _add_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from-release", nargs="+", metavar="FILE", help="files of the official REGEN release")


def _add_settings(command: argparse.ArgumentParser, name: str, cls: type) -> None:
    """One option per field of the config dataclass `cls`; its help is the string under the field."""
    from .config import help_texts

    texts = help_texts(cls)
    group = command.add_argument_group("settings")
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        shown = "" if default in (None, (), "") else f" (default: {default})"
        flag = "--" + field.name.replace("_", "-")
        about = (texts.get(field.name, "") + shown).replace("%", "%%")
        destination = f"{name}.{field.name}"
        if types[field.name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, dest=destination, help=about)
        elif typing.get_origin(types[field.name]) is dict:
            continue  # a mapping comes from a file
        elif typing.get_origin(types[field.name]) is tuple:
            group.add_argument(flag, nargs="+", metavar=_metavar(field.name), dest=destination, help=about)
        else:
            group.add_argument(flag, metavar=_metavar(field.name), dest=destination, help=about)


def _metavar(name: str) -> str:
    return "FILE" if name in ("reviews", "items") else "VALUE"


def _overrides(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings that the command line gives: the file's, then single ones, then the command's own options."""
    from .config import parse_yaml, read_yaml

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
        from .reviews.formats import read_mapping

        values.setdefault("sequences", {}).update(read_mapping(Path(given["columns"])))
    sources = {"reviews": "sequences", "items": "sequences", "sample": "sequences", "from_release": "release"}
    for key, name in sources.items():
        if given.get(key) is not None:
            values.setdefault(name, {})[key] = given[key]
    return values


def _open(options: argparse.Namespace, **more: Any) -> Any:
    from .run import Run

    overrides = _overrides(options)
    for name, keys in more.items():
        overrides[name] = {**keys, **overrides.get(name, {})}
    return Run(options.folder, overrides)


def _run(options: argparse.Namespace) -> None:
    run = _open(options)
    known = [stage.command for stage in run.stages]
    if options.until not in known:
        raise ConfigError(f"--until was given {options.until!r}, expected one of: {', '.join(known)}.")
    run.check(options.until)
    with run.locked():
        run.save()
        run.build_all(options.until)


def _stage(options: argparse.Namespace) -> None:
    from .run import STAGES

    run = _open(options)
    stage = STAGES[options.command]
    run.check(options.command)
    if getattr(options, "dry_run", False):
        run.need(stage)
        print(importlib.import_module(f"regen_hf.{stage.section}").estimate(run.folder, run.config[stage.section]))
        return
    with run.locked():
        # They have no command of their own: they are what `regen sequences --sample` and `regen dataset
        # --from-release` begin with.
        for source in run.reads(stage):
            if source.command in ("sample", "release"):
                run.tell(source)
        run.need(stage)
        run.save()
        run.tell(stage)


def _status(options: argparse.Namespace) -> None:
    from .run import Run, describe

    folder = Path(options.folder)
    if not (folder / "run.json").exists():
        raise RegenError(f"{folder} is not a run folder. Make one with `regen quickstart` or `regen run {folder} …`.")
    run = Run(folder)
    for stage in run.stages:
        manifest = run.manifest(stage)
        if manifest is None:
            state, seconds, counts = "missing", "", ""
        else:
            state = "fresh" if run.is_fresh(stage) else "stale"
            seconds, counts = f"{manifest['seconds']:.1f} s", describe(manifest["counts"])
        print(f"{stage.command:<11} {state:<8} {seconds:>9}  {counts}".rstrip())


def _quickstart(options: argparse.Namespace) -> None:
    from .evaluation import report

    run = _open(options, sequences={"sample": True})
    with run.locked():
        run.save()
        run.build_all()
    print(report.summary(run.folder))


def _inspect(options: argparse.Namespace) -> None:
    from .inspection import inspect

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # not every terminal has stars
    for line in inspect(Path(options.folder), options.user):
        print(line)


def _push(options: argparse.Namespace) -> None:
    from . import hub

    for line in hub.push(Path(options.folder), options.namespace, private=options.private, dry_run=options.dry_run):
        print(line)


def _export(options: argparse.Namespace) -> None:
    from .model.export import export_vllm
    from .run import STAGES, Run

    run = Run(options.folder)
    if run.manifest(STAGES["train"]) is None:
        raise RegenError(f"{run.folder} holds no trained model. Run `regen train {run.folder}` first.")
    out = run.folder / "export" / options.to
    with run.locked():
        export_vllm(run.folder / "model", out)
    print(f"{out / 'backbone'}\n{out / 'encoder'}")


def _demo(options: argparse.Namespace) -> None:
    from . import hub

    hub.demo(Path(options.folder), port=options.port)


if __name__ == "__main__":
    sys.exit(main())
