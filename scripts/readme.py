"""Write the scores and a text of a quickstart run into README.md, and all scores into docs/sample_scores.md.

    python scripts/readme.py runs/sample
    python scripts/readme.py

The numbers go through benchmarks/results/quickstart.json, from which a test compares both files. Recall@10 of the item
head comes from benchmarks/results/next_item.json, also without a run.
"""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from regen_hf import outputs
from regen_hf.intervals import format_interval
from regen_hf.metrics.tables import markdown, score_table
from regen_hf.schema import TASKS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quickstart.json"
NEXT_ITEM = ROOT / "benchmarks" / "results" / "next_item.json"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "sample_scores.md"
BEGIN, END = "<!-- scores of the quickstart: begin -->", "<!-- scores of the quickstart: end -->"
HEADLINES = ("purchase_reason", "product_endorsement", "user_profile")
COLUMNS = {"fused": "model", "nearest": "most similar train user", "shuffled_history": "history of another user"}


def setting(results: dict) -> str:
    """The size, steps, duration and users of the run, for both texts."""
    counts, minutes = results["training"]["counts"], sum(results["seconds"].values()) / 60
    return (
        f"`make quickstart`: {counts['parameters']:,} parameters, {counts['steps']:,} steps, one seed, "
        f"{minutes:.1f} minutes on {results['cores']} cores, {results['n_users']} {results['split']} users"
    )


def headlines(results: dict) -> str:
    """The section of the README: ROUGE-Lsum of three narratives, with the controls."""
    rows = [
        [TASKS[task].title, *(format_interval(results["models"][model][task]["rougeLsum"], 1) for model in COLUMNS)]
        for task in HEADLINES
    ]
    return (
        f"{BEGIN}\n{markdown([['ROUGE-Lsum (%)', *COLUMNS.values()], *rows])}\n\n"
        f"{setting(results)}. Brackets are 95 % intervals over users. "
        f"[All scores and controls](docs/sample_scores.md).\n"
        f"{END}"
    )


def page(results: dict) -> str:
    """The page with all scores."""
    controls = "\n".join(f"- `{model}`: {about}" for model, about in results["about"].items())
    return (
        f"# Scores of the quickstart\n\n{setting(results)}. Written by `scripts/readme.py` from "
        f"`benchmarks/results/quickstart.json`. The sample world is simulated: these findings do not generalise to "
        f"other data.\n\n{score_table(results)}\n\n{controls}\n"
    )


def recall(results: dict) -> str:
    """The sentence of the README on Recall@10 of the item head on real purchases."""
    measured = results["office_2014"]
    model, items, seeds = measured["models"]["fused"]["all"], measured["sizes"]["items"], len(measured["seeds"])
    among = f"among {items:,} office products ({model['n']} users, {seeds} seeds)"
    return f"Trained to rank only: Recall@10 {format_interval(model['recall@10'])} {among}."


def example(readme: str, run: Path) -> str:
    """The text that the Python lines of the README print with the model of `run`."""
    code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].replace("runs/sample", str(run.resolve()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return textwrap.fill(done.stdout.strip(), 112)


def main() -> None:
    """Copy the results of the run, if one is given, and write the texts."""
    sentence = recall(outputs.read_json(NEXT_ITEM))
    text = README.read_text(encoding="utf-8")
    README.write_text(re.sub("^Trained to rank only: .*", sentence, text, flags=re.MULTILINE), encoding="utf-8")
    if len(sys.argv) == 1:
        return
    run = Path(sys.argv[1])
    results = outputs.results(run)
    for name, stage in (("training", "train"), ("evaluation", "evaluate")):
        manifest = outputs.manifest(run, stage)
        results[name] = {key: manifest[key] for key in ("counts", "versions")}
    manifests = [outputs.manifest(run, stage) for stage in outputs.FOLDERS]
    results["seconds"] = {manifest["stage"]: manifest["seconds"] for manifest in manifests if manifest}
    results["cores"] = os.cpu_count()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_json(RESULTS, results, indent=1)
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    text = before + headlines(results) + rest.partition(END)[2]
    output = f"```text\n{example(text, run)}\n```"
    README.write_text(re.sub(r"```text\n.*?```", lambda _: output, text, flags=re.DOTALL), encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
