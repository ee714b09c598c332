"""What the command line understands: commands, their options, and the examples by which their help teaches."""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Sequence
from typing import Any

from .. import __version__
from . import commands

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
A training that was stopped or killed goes on exactly from its last checkpoint by the same command.

  regen train runs/office --backbone Qwen/Qwen3-0.6B
  regen train runs/office --backbone Qwen/Qwen3-0.6B --set 'training.lora={r: 16}' --learning-rate 1e-4
  regen train runs/office --config train.yaml
  regen train runs/sample --max-steps 200

The section `training` of a file given as --config also takes any field of TRL's SFTConfig, as they are or as sft: {…}:

  training:
    weight_decay: 0.1
    task_weights: {user_profile: 2}
    lora: {r: 16}
    stages: [{freeze: backbone, max_steps: 200, learning_rate: 1e-3}, {max_steps: 2000}]
""",
    ),
    "evaluate": (
        "model -> narratives of held-out users, scored",
        """\
Writes narratives for users whom training has not seen, scores them, and does the same with controls. What is written
already is scored anew without the model. Several runs, such as three seeds each of training.embedding_mode=cf, content
and both, are compared as in the paper's table 1, with p-values: comparison.json, .md and .tex in RUN/comparison of the
first run, or in --out.

  regen evaluate runs/sample --limit 100
  regen evaluate runs/sample --tasks user_profile long_user_summary --temperature 0.7 --top-p 0.9
  regen evaluate runs/cf runs/content runs/both --out tables/office

Anybody's narratives are scored from a parquet file of reviewer_id, task, model, prediction and reference; a run in
front of it has the references. The scores go into a folder beside the file, or into --out:

  regen evaluate --from predictions.parquet --encoder sentence-transformers/all-MiniLM-L6-v2
  regen evaluate runs/office --from predictions.parquet

Further evaluations, each with settings of its own that its --help tells:

  regen evaluate runs/sample --next-item             the hidden last purchase among the whole catalogue
  regen evaluate runs/sample --grounding             which claims of the narratives the record bears out
  regen evaluate runs/sample --judge runs/other      which of two models a language model judges to write better
""",
    ),
    "reading": (
        "model -> what its soft tokens are made of, which purchases made it say so",
        """\
Looks into the trained model (section 6 of the paper). Of every item's soft token: the norms of its CF and content
part, the nearest word tokens, its place among the words on a map (t-SNE). Of the narratives of a few users: what each
purchase does to their likelihood, found by leaving it out. Writes numbers into RUN/reading; `regen figures` draws them.

  regen reading runs/sample
  regen reading runs/office --points 0 --users 10
""",
    ),
    "figures": (
        "results -> pictures",
        """\
Draws what a run has so far: items, histories, ratings over time and splits, the autorater's scores and agreement, the
training loss, the scores of the evaluation, the soft tokens and purchases of the reading. Computes nothing again.

  regen figures runs/sample
""",
    ),
}

BESIDE = {
    "next-item": (
        "predict the hidden last purchase instead",
        """\
Hides the last purchase of every test user, ranks the whole catalogue but what the user had bought before, and tells
Recall@{1,5,10,50}, NDCG@{5,10} and MRR with 95 % intervals, for all targets and for warm and cold ones apart: by
popularity, item kNN, ALS with new users folded in, content similarity, and a blend whose weights validation users
choose. Nothing of a test user is fitted on. It needs no trained model. Writes RUN/next_item/results.json, and
ranks.parquet with the rank of every target.

  regen evaluate runs/office --next-item
  regen evaluate runs/office --next-item --max-users 5000
""",
    ),
    "grounding": (
        "check the claims of the narratives by each user's record instead",
        """\
Cuts the narratives of every model, and the references, into claims and looks each up in the user's own history and its
item records: items, brands, categories, colours, prices, ratings, counts, verdicts on a named item. Precision: claims
that the record bears out, of those checked. Recall: claims of the reference that the text covers. Both with 95 %
intervals over users. Writes RUN/grounding/results.json, and claims.parquet with every claim, its verdict, and the
things named that the record does not hold.
The rules go by the catalogue's own words. What they cannot check is left unchecked, unless an NLI cross-encoder (--nli)
or a language model (--backend, --model) judges it; what was paid for once is never paid for again.

  regen evaluate runs/sample --grounding
  regen evaluate runs/office --grounding --nli cross-encoder/nli-deberta-v3-base
  regen evaluate runs/office --grounding --backend openai --model gpt-4.1-mini --dry-run
""",
    ),
    "judge": (
        "have a language model judge the narratives beside those of another run, or of a predictions.parquet, instead",
        """\
Shows a language model two models' narratives about the same user beside the user's history, each pair in both orders
and in several votes, ties allowed, and tells how often the one of RUN wins: win rates with 95 % intervals over users,
what place and length did to the verdicts, how far the votes agree. Warns where the judge is of the family of the model
that wrote. What was paid for once is never paid for again; --dry-run tells the cost, --budget holds it.
Writes RUN/judge/results.json, and votes.parquet with every vote.

  regen evaluate runs/office --judge runs/office-content --backend openai --model gpt-4.1-mini --dry-run
  regen evaluate runs/office --judge runs/office-content --backend openai --model gpt-4.1-mini --votes 5 --budget 20
  regen evaluate runs/office --judge runs/office --model-of-other nearest --backend openai --model gpt-4.1-mini
  regen evaluate runs/office --judge theirs.parquet --model-of-other their-model --backend openai --model gpt-4.1-mini
""",
    ),
}
"""Evaluations beside that of narratives, by their option of `regen evaluate`."""

COLUMNS = "YAML that maps columns of one's own: columns: {user: …, item: …, time: …}, item_columns: {…}"

EXAMPLES = """\
start here:
  regen quickstart                                   everything, on simulated shoppers, offline, in minutes
  regen run runs/mine --reviews R.json.gz --items I.json.gz
                                                     every stage, on your reviews
  regen status runs/mine                             what is done, and what is out of date
  regen <command> --help                             what a command reads, writes and can be told
"""


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line `arguments`; only the command that they call has the options of its settings."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="regen",
        description="From a log of product reviews to a conversational recommender that explains itself.",
        epilog=EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"regen-hf {__version__}")
    called_by = parser.add_subparsers(title="commands", metavar="<command>")
    # Only the command that is called imports its stage: `regen --help` stays fast.
    called = next((word for word in arguments if not word.startswith("-")), None)
    given = {word.partition("=")[0] for word in arguments}
    extra = next((name for name in BESIDE if called == "evaluate" and f"--{name}" in given), None)

    def add(name: str, about: str, text: str, do: Any, folder: bool = True) -> argparse.ArgumentParser:
        command = called_by.add_parser(
            name, help=about, description=text, formatter_class=raw, allow_abbrev=False, argument_default=None
        )
        command.set_defaults(do=do)
        if folder:
            command.add_argument("folder", metavar="RUN", help="the run folder")
        return command

    quick = add(
        "quickstart",
        "everything, on simulated shoppers, offline",
        "Builds the sample world, its dataset and a small model, and prints scores and examples. The model is trained\n"
        f"for {commands.QUICKSTART_STEPS} steps, enough to see that it works; with the default it learns more.\n\n"
        "  regen quickstart\n"
        "  regen quickstart runs/whole --set training.max_steps=1200\n",
        commands.quickstart,
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
        commands.run,
    )
    _add_common(everything)
    everything.add_argument("--reviews", nargs="+", metavar="FILE", help="raw review files")
    everything.add_argument("--items", nargs="+", metavar="FILE", help="raw item files")
    everything.add_argument("--columns", metavar="FILE", help=COLUMNS)
    _add_release(everything)
    everything.add_argument("--sample", action="store_true", default=None, help="simulated shoppers in place of files")
    everything.add_argument("--until", metavar="STAGE", default="figures", help="the last stage to run (%(default)s)")

    for name, (about, text) in STAGE_COMMANDS.items():
        whole = name != "evaluate"
        do = commands.stage if whole else commands.evaluate
        command = add(name, about, BESIDE[extra][1] if extra and not whole else text, do, folder=whole)
        command.set_defaults(command=name, extra=extra)
        _add_common(command)
        if called == name:
            from ..run import EXTRAS, STAGES, config_class

            stage = EXTRAS[extra] if extra else STAGES[name]
            _add_settings(command, stage.section, config_class(stage))
        if name == "evaluate":
            command.add_argument("folders", metavar="RUN", nargs="*", help="run folders; several are compared")
            command.add_argument(
                "--from", dest="predictions", metavar="FILE", help="score the predictions in this file"
            )
            command.add_argument("--out", metavar="FOLDER", help="where a comparison, or the scores of a file, go")
            command.add_argument(
                "--limit", dest="evaluation.max_users", metavar="VALUE", help="the same as --max-users"
            )
            beside = command.add_mutually_exclusive_group()
            for option, (what, _) in BESIDE.items():
                if option == "judge":
                    beside.add_argument(
                        "--judge", metavar="OTHER_RUN", dest="judge.other", type=_predictions, help=what
                    )
                else:
                    beside.add_argument(f"--{option}", action="store_true", help=what)
        if name in ("narratives", "ratings") or (name == "evaluate" and extra in ("grounding", "judge")):
            command.add_argument("--dry-run", action="store_true", help="tell requests, tokens and USD, send nothing")
        if name == "sequences":
            command.add_argument("--columns", metavar="FILE", help=COLUMNS)
        if name == "dataset":
            _add_release(command)

    add(
        "status",
        "which stages are fresh, their counts and seconds",
        "Lists the stages of a run.\n\n  regen status runs/mine\n",
        commands.status,
    )
    add(
        "report",
        "all of a run in one HTML file",
        """\
Writes RUN/report.html of what the run has so far: data, narratives, ratings, training curves, tables, figures, ten
shoppers with the reference and the models' narratives side by side, settings, versions, time and cost of every stage.
One file with its pictures in it: it needs no network, runs no script, and opens in any browser. Reviews and narratives
are shown as text, whatever they hold; folders of this machine are left out of the settings.

It tells which numbers come out equal when its settings are run again, and which are only close on another machine.

  regen report runs/sample
""",
        commands.report,
    )
    look = add(
        "inspect",
        "one shopper's history and narratives",
        "Prints the purchases of one shopper, oldest first, and the narratives with their scores.\n"
        "With no --user it shows the first test user and names others.\n\n"
        "  regen inspect runs/sample\n"
        "  regen inspect runs/office --user A101G2KLTWSA51\n",
        commands.inspect,
    )
    look.add_argument("--user", metavar="ID", help="the shopper's reviewer_id")
    push = add(
        "push",
        "dataset, model, metric and Space -> the Hub",
        """\
Pushes what a run has made: the dataset to ORG/regen, beside the runs that are there already, the model to
ORG/regen-<run>, the metric to ORG/regen_narrative, the demo to ORG/regen-demo; all four, or those that are named.
It first tells every file and what changes on the Hub, and refuses secrets, paths of this machine and names of
reviewers. Broken off, the same command goes on. The token comes from `hf auth login` or HF_TOKEN. See docs/publish.md.

  regen push runs/mine --namespace my-org --dry-run
  regen push runs/mine --namespace my-org --private --verify
  regen push runs/mine --namespace my-org --dataset --dataset-name my-reviews --tag v1
""",
        commands.push,
    )
    push.add_argument("--namespace", required=True, metavar="ORG", help="the user or organisation on the Hub")
    for part in ("dataset", "model", "metric", "space"):
        push.add_argument(f"--{part}", action="store_true", help=f"push the {part}")
    for part in ("dataset", "model", "metric", "space"):
        push.add_argument(f"--{part}-name", metavar="NAME", help=f"the name of the {part}'s repository")
    push.add_argument("--private", action="store_true", help="make the repositories private")
    push.add_argument("--tag", metavar="NAME", help="tag what is pushed, as v1")
    push.add_argument("--dry-run", action="store_true", help="tell what would be pushed and changed, push nothing")
    push.add_argument("--verify", action="store_true", help="load everything back from the Hub and compare")
    export = add(
        "export",
        "model -> folders for a server",
        """\
Writes RUN/export/vllm: the bare language model, which vLLM serves without code of ours, and the encoder that makes
its prompt embeddings from histories. docs/serve_on_vllm.md tells how to serve them.

  regen export runs/office --to vllm
""",
        commands.export,
    )
    export.add_argument("--to", required=True, choices=["vllm"], help="the server: vllm")
    demo = add(
        "demo",
        "the Gradio app, on this machine",
        "Serves the app of the Space with the model of a run.\n\n  regen demo runs/sample\n",
        commands.demo,
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
    from ..config import help_texts

    texts = help_texts(cls)
    group = command.add_argument_group("settings")
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "option" in field.metadata:
            continue  # the parser has it already, under that name
        default = field.default_factory() if callable(field.default_factory) else field.default
        shown = "" if default in (None, (), "") else f" (default: {default})"
        flag = "--" + field.name.replace("_", "-")
        about = (texts.get(field.name, "") + shown).replace("%", "%%")
        destination = f"{name}.{field.name}"
        if types[field.name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, dest=destination, help=about)
        elif any(typing.get_origin(part) is dict for part in (types[field.name], *typing.get_args(types[field.name]))):
            continue  # a mapping comes from a file
        elif typing.get_origin(types[field.name]) is tuple:
            group.add_argument(flag, nargs="+", metavar=_metavar(field.name), dest=destination, help=about)
        else:
            group.add_argument(flag, metavar=_metavar(field.name), dest=destination, help=about)


def _predictions(given: str) -> str:
    """The predictions of a run, or a file of them as it is."""
    return os.path.join(given, "evaluation", "predictions.parquet") if os.path.isdir(given) else given


def _metavar(name: str) -> str:
    return "FILE" if name in ("reviews", "items") else "VALUE"
