"""Measure what the model learns on the sample world, by setting and seed; scripts/ablation.sh runs all of it.

    python benchmarks/ablation.py runs/ablation table1 --seeds 0 1 2
    python benchmarks/ablation.py runs/ablation recipe --seeds 0 1 --set max_steps=300
    python benchmarks/ablation.py runs/ablation steps --seeds 0
    python benchmarks/ablation.py runs/ablation/default table1 --only fused content cf --results OTHER

`table1` trains fused, content and cf models (the paper's table 1); `recipe` trains the default recipe and the recipe
without one of its parts; `text` compares soft tokens with the text of the latest purchases, in quality and in seconds
of training; `joint` trains narratives and the item head together, and each alone; `steps` varies the number of steps.
Every setting and seed has its own run folder on the same dataset and vectors, so an interrupted benchmark resumes.
Writes benchmarks/results/<group>.json, the share of correct facts in the narratives as <group>_facts.md, and table1.md
in the paper's layout; prints one JSON line.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from regen_hf import outputs
from regen_hf.run import Run
from regen_hf.run.stages import STAGES
from regen_hf.schema import TASKS
from regen_hf.stages.sample import narrative_text as words
from regen_hf.stages.sample.settings import SampleConfig

RESULTS = Path(__file__).parent / "results"
GROUPS = {
    "table1": {
        "fused": {},
        "content": {"embedding_mode": "content"},
        "cf": {"embedding_mode": "cf"},
        "empty": {"history": "empty"},
        "shuffled": {"history": "shuffled"},
        "text": {"history": "text"},
    },
    "recipe": {
        "default": {},
        "between_users 0": {"between_users": 0},
        "no whitening": {"whitening": 0},
        "no recency": {"recency": 0},
        "AdamW": {"optimizer": "adamw"},
        "MLP": {"adapter": "mlp"},
        "none of it": {"whitening": 0, "recency": 0, "optimizer": "adamw", "adapter": "mlp"},
    },
    "text": {
        "soft tokens": {},
        "soft tokens of 5": {"max_history": 5},
        "text of 5": {"history": "text", "max_history": 5},
        "text of 10": {"history": "text", "max_history": 10},
        "text of all": {"history": "text"},
    },
    "joint": {
        "narratives only": {},
        "joint 0.3": {"next_item_weight": 0.3},
        "joint 1": {"next_item_weight": 1.0},
        "joint 1, recency 2": {"next_item_weight": 1.0, "recency": 2},
        "joint 1, no recency": {"next_item_weight": 1.0, "recency": 0},
        "items only": {"next_item_weight": 1.0, "tasks": []},
    },
    "steps": {
        "300": {"max_steps": 300},
        "600": {"max_steps": 600},
        "1200": {"max_steps": 1200},
        "2400": {"max_steps": 2400},
    },
}
SHARED = ("sample", "release", "sequences", "narratives", "ratings", "dataset", "embeddings")
"""Commands of the stages whose output all settings share."""


def facts(truth: dict, items: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Phrases by task and fact; a narrative that contains the phrase states that fact about the shopper correctly."""
    first, *_, earlier, before, last = (items[asin] for asin in truth["purchases"])
    circle, concern = words.CIRCLE_WORDS[truth["circle"]], words.CONCERN_WORDS[truth["concern"]]
    short = "{colour} {kind}".format
    phrases = {
        "purchase_reason": {"last purchase": "{colour} {use} {kind}".format(**last), "circle": circle.scene},
        "purchase_reason_explanation": {
            "last purchase": f"{last['brand']} {last['kind']}",
            "purchase before": short(**before),
            "purchase before that": short(**earlier),
            "favourite brand": truth["favourite_brand"],
            "concern": concern.evidence,
            "circle": circle.inference,
        },
        "product_endorsement": {
            "last purchase": "{colour} {brand} {kind}".format(**last),
            "concern": concern.pitch,
            "circle": circle.pitch,
        },
        "brief_user_summary": {
            "circle": truth["circle"],
            "concern": concern.habit,
            "favourite use": words.USE_HABIT[truth["favourite_use"]],
            "favourite brand": truth["favourite_brand"],
            "favourite colour": truth["favourite_colour"],
            "mood": words.MOOD[truth["mood"]].partition(" {")[0],
        },
        "long_user_summary": {
            "circle": circle.portrait,
            "concern": concern.portrait,
            "grumble": words.GRUMBLE_WORDS[truth["grumble"]],
            "first purchase": short(**first),
        },
        "user_profile": {"concern": concern.adjective, "circle": truth["circle"]},
    }
    if truth["recipient"]:
        phrases["user_profile"]["recipient"] = truth["recipient"]
        phrases["long_user_summary"]["recipient"] = truth["recipient"]
    return phrases


def cells_parser(description: str | None, cells: list[str], seeds: list[int]) -> argparse.ArgumentParser:
    """The options of a benchmark that trains `cells`, each with several seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--only", nargs="+", choices=cells, default=cells)
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of all cells")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser


def build_world(folder: Path, settings: dict) -> Run:
    """The run with the dataset and the vectors that all settings share."""
    run = Run(folder, settings)
    with run.locked():
        run.save()
        run.build_all(until="embeddings")
    return run


def link_stages(world: Path, folder: Path, stages: Sequence[str] = SHARED) -> None:
    """Link the outputs of `stages`, by default those that all settings share, into `folder`."""
    for stage in stages:
        source, link = outputs.folder(world, stage), outputs.folder(folder, stage)
        if source.exists() and not link.exists():
            os.symlink(source.resolve(), link)


def build_variant(world: Path, folder: Path, training: dict, evaluation: dict) -> None:
    """Train and evaluate one setting and seed on links to the stages of `world`."""
    settings = yaml.safe_load((world / outputs.CONFIG).read_text(encoding="utf-8"))
    run = Run(folder, settings | {"training": training, "evaluation": evaluation})
    with run.locked():
        run.save()
        link_stages(world, folder)
        if training.get("tasks") == []:
            run.build_all(until="train")
        else:
            run.build_all(until="evaluate")
        if training.get("next_item_weight"):
            run.build(STAGES["next-item"])


def next_items(folders: list[Path]) -> dict:
    """The metrics of the item head over the seeds, and those of ALS and the blend on the same users."""
    results = [outputs.read_json(outputs.path(folder, "next-item", outputs.RESULTS)) for folder in folders]
    return {
        model: {
            metric: interval([result["models"][model]["all"][metric]["mean"] for result in results])
            for metric in ("recall@10", "recall@50", "mrr")
        }
        for model in ("fused", "als", "blend")
    }


def correct_facts(folder: Path) -> dict[str, float]:
    """The share of test users for whom the fused model's narrative states a fact correctly, by task and fact."""
    truths, items = (
        {row[key]: row for row in pq.read_table(outputs.path(folder, "sample", name)).to_pylist()}
        for key, name in (("reviewer_id", outputs.TRUTH), ("asin", outputs.ITEM_TRUTH))
    )
    hits: dict[str, list[bool]] = {}
    for row in outputs.predictions(folder).to_pylist():
        if row["model"] == "fused":
            for fact, phrase in facts(truths[row["reviewer_id"]], items)[row["task"]].items():
                hits.setdefault(f"{row['task']}: {fact}", []).append(phrase in row["prediction"])
    return {name: round(float(np.mean(correct)), 4) for name, correct in sorted(hits.items())}


def interval(values: list[float]) -> dict[str, float | list[float]]:
    """The mean over the seeds with its 95 % interval (Student's t), which a single seed does not have."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5) if count > 1 else float("nan")
    cell: dict[str, float | list[float]] = {"mean": round(mean, 4), "values": [round(value, 4) for value in values]}
    return cell | ({"low": round(mean - half, 4), "high": round(mean + half, 4)} if count > 1 else {})


def summary(folders: list[Path]) -> dict:
    """Scores of one setting over its seeds: metrics by model and task, parameters, seconds."""
    results = [outputs.results(folder) for folder in folders]
    manifests = [outputs.manifest(folder, "train") for folder in folders]
    models = {
        model: {
            task: {
                metric: interval([result["models"][model][task][metric]["mean"] for result in results])
                for metric in ("bleu", "rougeLsum", "similarity")
            }
            for task in TASKS
            if task in tasks
        }
        for model, tasks in results[0]["models"].items()
        # A model that reads the history as text has no variants with one embedding, so these have no scores.
        if all(result["models"][model][task]["bleu"]["mean"] is not None for result in results for task in tasks)
    }
    return {
        "models": models,
        "rougeLsum over tasks": interval(
            [float(np.mean([s["rougeLsum"]["mean"] for s in result["models"]["fused"].values()])) for result in results]
        ),
        "parameters": manifests[0]["counts"]["parameters"],
        "seconds": [manifest["seconds"] for manifest in manifests],
        "test users": results[0]["n_users"],
        "versions": manifests[0]["versions"],
    }


def fact_shares(folders: list[Path]) -> dict:
    """The shares of `correct_facts` over the seeds, by fact and as the mean of all facts."""
    shares = [correct_facts(folder) for folder in folders]
    return {
        "facts": {name: interval([of_seed[name] for of_seed in shares]) for name in shares[0]},
        "all facts": interval([float(np.mean(list(of_seed.values()))) for of_seed in shares]),
    }


def paper_table(settings: dict) -> str:
    """Table 1 of the paper as Markdown: CF, content and both, the gain of both over each, and controls.

    The controls are first the same model with another history, then models that were trained with one.
    """
    trained = [name for name in ("empty", "shuffled", "text") if name in settings]
    lines = [
        "| task | metric | cf | content | both | % vs cf | % vs content | empty history | shuffled history |"
        + "".join(f" trained on {name} |" for name in trained),
        "|---|---|---|---|---|---|---|---|---|" + "---|" * len(trained),
    ]
    both = settings["fused"]["models"]
    for task, metrics in both["fused"].items():
        for metric, cell in metrics.items():
            halves = [settings[name]["models"]["fused"][task][metric] for name in ("cf", "content")]
            gains = [f"{100 * (cell['mean'] / half['mean'] - 1):+.1f}%" for half in halves]
            controls = [both[name][task][metric] for name in ("empty_history", "shuffled_history")]
            controls += [settings[name]["models"]["fused"][task][metric] for name in trained]
            cells = [*map(_cell, [*halves, cell]), *gains, *map(_cell, controls)]
            lines.append(f"| {task} | {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def facts_table(settings: dict) -> str:
    """The shares of correct facts as Markdown: a row for each fact, a column for each setting."""
    lines = [
        "| task | fact | " + " | ".join(settings) + " |",
        "|---|---|" + "---|" * len(settings),
    ]
    for name in next(iter(settings.values()))["facts"]:
        task, _, fact = name.partition(": ")
        cells = [f"{results['facts'][name]['mean']:.2f}" for results in settings.values()]
        lines.append(f"| {task} | {fact} | " + " | ".join(cells) + " |")
    for name in ("all facts", "rougeLsum over tasks"):
        cells = [_cell(results[name]) for results in settings.values()]
        lines.append(f"| all | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(cell: dict) -> str:
    span = f" [{cell['low']:.3g}, {cell['high']:.3g}]" if "low" in cell else ""
    return f"{cell['mean']:.3g}{span}"


def training_settings(options: list[str]) -> dict:
    """The settings of the training in the values of `--set`."""
    return {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in options)}


def write_json(target: Path, report: dict) -> None:
    """Write `report` to `target`, and print it as one line."""
    target.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_json(target, report, indent=1)
    print(json.dumps(report, ensure_ascii=False))


def main() -> None:
    """Run the missing settings and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="settings to run; earlier results of the others are kept")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--shoppers", type=int, default=SampleConfig.shoppers)
    parser.add_argument("--items", type=int, default=SampleConfig.items)
    options = parser.parse_args()
    common = training_settings(options.set)
    report: dict = {"group": options.group, "seeds": options.seeds, "training": common}
    report["world"] = {"shoppers": options.shoppers, "items": options.items, "test users at most": options.users}
    written = options.results / f"{options.group}.json"
    before = json.loads(written.read_text(encoding="utf-8")) if options.only and written.exists() else {}
    for name, value in report.items():
        if before.get(name, value) != value:
            parser.error(f"{written} has {name} {before[name]}, expected {value}. Name another folder with --results.")
    world = build_world(
        options.folder / "world",
        {"sequences": {"sample": True}, "sample": {"shoppers": options.shoppers, "items": options.items}},
    ).folder
    settings = before.get("settings", {})
    for name, changes in GROUPS[options.group].items():
        if options.only and name not in options.only:
            continue
        folders = []
        for seed in options.seeds:
            folder = options.folder / options.group / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            build_variant(world, folder, common | changes | {"seed": seed}, {"users": options.users})
            folders.append(folder)
        written_texts = (common | changes).get("tasks") != []
        settings[name] = summary(folders) | fact_shares(folders) if written_texts else {}
        if (common | changes).get("next_item_weight"):
            settings[name]["next item"] = next_items(folders)
    settings = {name: settings[name] for name in GROUPS[options.group] if name in settings} | settings
    write_json(written, report | {"settings": settings})
    if settings:
        texts = {name: results for name, results in settings.items() if "facts" in results}
        outputs.write_text(options.results / f"{options.group}_facts.md", facts_table(texts))
    if {"fused", "content", "cf"} <= set(settings):
        outputs.write_text(options.results / f"{options.group}.md", paper_table(settings))


if __name__ == "__main__":
    main()
