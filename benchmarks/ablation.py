"""What the model learns on the sample world, by setting and seed: what scripts/ablation.sh runs.

    python benchmarks/ablation.py runs/ablation table1 --seeds 0 1 2
    python benchmarks/ablation.py runs/ablation recipe --seeds 0 1 --set max_steps=300
    python benchmarks/ablation.py runs/ablation steps --seeds 0
    python benchmarks/ablation.py runs/ablation/default table1 --only fused content cf --results OTHER

`table1` trains fused, content and cf models (the paper's table 1); `recipe` trains the default recipe and the same with
one part of it taken away; `steps` trains it for fewer steps and more. Every setting and seed is a run folder of its
own on the same dataset and vectors, so a killed benchmark goes on where it stopped. Writes
benchmarks/results/<group>.json, the facts that the narratives get right as <group>_facts.md, and table1.md in the
paper's layout; prints one JSON line.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from regen_hf import sample
from regen_hf.run import Run
from regen_hf.schema import TASKS
from regen_hf.stages.sample import narrative_text as words

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
    "steps": {
        "300": {"max_steps": 300},
        "600": {"max_steps": 600},
        "1200": {"max_steps": 1200},
        "2400": {"max_steps": 2400},
    },
}
READ = ("sample", "release", "sequences", "narratives", "ratings", "dataset", "embeddings")


def facts(truth: dict, items: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Phrases that say something true of a shopper, by task: a narrative that holds one has got that fact right."""
    first, *_, earlier, before, last = (items[asin] for asin in truth["purchases"])
    circle, concern = words.CIRCLE_WORDS[truth["circle"]], words.CONCERN_WORDS[truth["concern"]]
    short = "{colour} {kind}".format
    found = {
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
        found["user_profile"]["recipient"] = truth["recipient"]
        found["long_user_summary"]["recipient"] = truth["recipient"]
    return found


def build_world(folder: Path, settings: dict) -> Run:
    """The dataset and the vectors that all runs share."""
    run = Run(folder, settings)
    with run.locked():
        run.save()
        run.build_all(until="embeddings")
    return run


def build_variant(world: Path, folder: Path, training: dict, evaluation: dict) -> None:
    """Train and evaluate one setting and seed on links to the stages of `world`."""
    settings = yaml.safe_load((world / "config.yaml").read_text(encoding="utf-8"))
    run = Run(folder, settings | {"training": training, "evaluation": evaluation})
    with run.locked():
        run.save()
        for name in READ:
            if (world / name).exists() and not (folder / name).exists():
                os.symlink((world / name).resolve(), folder / name)
        run.build_all(until="evaluate")


def right(folder: Path) -> dict[str, float]:
    """The share of test users of whom the fused model's narrative gets a fact right, by task and fact."""
    truths = {row["reviewer_id"]: row for row in pq.read_table(folder / "sample" / "truth.parquet").to_pylist()}
    items = {row["asin"]: row for row in pq.read_table(folder / "sample" / "item_truth.parquet").to_pylist()}
    hits: dict[str, list[bool]] = {}
    for row in pq.read_table(folder / "evaluation" / "predictions.parquet").to_pylist():
        if row["model"] == "fused":
            for fact, phrase in facts(truths[row["reviewer_id"]], items)[row["task"]].items():
                hits.setdefault(f"{row['task']}: {fact}", []).append(phrase in row["prediction"])
    return {name: round(float(np.mean(found)), 4) for name, found in sorted(hits.items())}


def interval(values: list[float]) -> dict[str, float | list[float]]:
    """The mean over the seeds with its 95 % interval (Student's t); without an interval for a single seed."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5) if count > 1 else float("nan")
    found: dict[str, float | list[float]] = {"mean": round(mean, 4), "values": [round(value, 4) for value in values]}
    return found | ({"low": round(mean - half, 4), "high": round(mean + half, 4)} if count > 1 else {})


def summary(folders: list[Path]) -> dict:
    """Scores of one setting over its seeds: metrics by model and task, parameters, seconds."""
    results = [json.loads((folder / "evaluation" / "results.json").read_text(encoding="utf-8")) for folder in folders]
    manifests = [json.loads((folder / "model" / "manifest.json").read_text(encoding="utf-8")) for folder in folders]
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
        # A model that reads the history as text has no halves: nothing was written for them.
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


def learned(folders: list[Path]) -> dict:
    """The share of test users of whom a fact is right, over the seeds, by fact and over all of them."""
    rights = [right(folder) for folder in folders]
    return {
        "facts": {name: interval([found[name] for found in rights]) for name in rights[0]},
        "all facts": interval([float(np.mean(list(found.values()))) for found in rights]),
    }


def paper_table(settings: dict) -> str:
    """Table 1 of the paper as Markdown: CF, content and both, what both gains over each, and the controls.

    The controls of both are the same model shown another history; after them stand models trained on it.
    """
    trained = [name for name in ("empty", "shuffled", "text") if name in settings]
    lines = [
        "| task | metric | cf | content | both | % vs cf | % vs content | empty history | shuffled history |"
        + "".join(f" trained on {name} |" for name in trained),
        "|---|---|---|---|---|---|---|---|---|" + "---|" * len(trained),
    ]
    both = settings["fused"]["models"]
    for task, metrics in both["fused"].items():
        for metric, found in metrics.items():
            halves = [settings[name]["models"]["fused"][task][metric] for name in ("cf", "content")]
            gains = [f"{100 * (found['mean'] / half['mean'] - 1):+.1f}%" for half in halves]
            controls = [both[name][task][metric] for name in ("empty_history", "shuffled_history")]
            controls += [settings[name]["models"]["fused"][task][metric] for name in trained]
            cells = [*map(_cell, [*halves, found]), *gains, *map(_cell, controls)]
            lines.append(f"| {task} | {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def facts_table(settings: dict) -> str:
    """The shares of test users of whom a fact is right as Markdown: a row for each fact, a column for each setting."""
    lines = [
        "| task | fact | " + " | ".join(settings) + " |",
        "|---|---|" + "---|" * len(settings),
    ]
    for name in next(iter(settings.values()))["facts"]:
        task, _, fact = name.partition(": ")
        cells = [f"{of['facts'][name]['mean']:.2f}" for of in settings.values()]
        lines.append(f"| {task} | {fact} | " + " | ".join(cells) + " |")
    for name in ("all facts", "rougeLsum over tasks"):
        cells = [_cell(of[name]) for of in settings.values()]
        lines.append(f"| all | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: dict) -> str:
    span = f" [{found['low']:.3g}, {found['high']:.3g}]" if "low" in found else ""
    return f"{found['mean']:.3g}{span}"


def main() -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs lie")
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="settings of the group (all of them), beside those written before")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results are written")
    parser.add_argument("--max-users", type=int, default=100)
    parser.add_argument("--shoppers", type=int, default=sample.SampleConfig.shoppers)
    parser.add_argument("--items", type=int, default=sample.SampleConfig.items)
    options = parser.parse_args()
    common = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in options.set)}
    report: dict = {"group": options.group, "seeds": options.seeds, "training": common}
    report["world"] = {"shoppers": options.shoppers, "items": options.items, "test users at most": options.max_users}
    written = options.results / f"{options.group}.json"
    before = json.loads(written.read_text(encoding="utf-8")) if options.only and written.exists() else {}
    for name, value in report.items():
        if before.get(name, value) != value:
            parser.error(f"{written} was made with {name} {before[name]}, this is {value}: give --results elsewhere.")
    world = build_world(
        options.folder / "world",
        {"sequences": {"sample": True}, "sample": {"shoppers": options.shoppers, "items": options.items}},
    ).folder
    found = {}
    for name, changes in GROUPS[options.group].items():
        if options.only and name not in options.only:
            continue
        folders = []
        for seed in options.seeds:
            folder = options.folder / options.group / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            build_variant(world, folder, common | changes | {"seed": seed}, {"max_users": options.max_users})
            folders.append(folder)
        found[name] = summary(folders) | learned(folders)
    found = before.get("settings", {}) | found
    order = {name: found[name] for name in GROUPS[options.group] if name in found}
    report |= {"settings": order | found}
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    options.results.mkdir(parents=True, exist_ok=True)
    written.write_text(text, encoding="utf-8")
    if report["settings"]:
        facts = facts_table(report["settings"])
        (options.results / f"{options.group}_facts.md").write_text(facts, encoding="utf-8")
    if {"fused", "content", "cf"} <= set(report["settings"]):
        (options.results / f"{options.group}.md").write_text(paper_table(report["settings"]), encoding="utf-8")
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
