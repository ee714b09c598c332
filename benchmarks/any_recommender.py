"""Measure how many facts are right with the item vectors of other recommenders in place of ALS, on the sample world.

    python benchmarks/any_recommender.py runs/any
    python benchmarks/any_recommender.py runs/any --seeds 0 1 --only "implicit, BPR" "RecTools, SASRec"

Runs each recipe of docs/any_recommender.md on the purchases of the train users, and trains on its vectors with the
content vectors, steps and seeds of the model on our ALS. `make recommenders` installs the other libraries; a recipe
whose library is missing is skipped. Writes benchmarks/results/any_recommender.json after every model, and skips those
that it holds: an interrupted benchmark resumes. Prints one JSON line.

The circle of a shopper is the fact that only purchases of the same people show, so its share is reported beside that of
all facts. The seeds are those of the training; each recommender is fitted once.
"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ablation import SHARED, build_world, cells_parser, correct_facts, link_stages, training_settings

from regen_hf import outputs
from regen_hf.run import Run
from regen_hf.stages.sample.settings import SampleConfig

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "any_recommender.md"
ENVIRONMENTS = {"LightFM": "light", "Surprise": "light", "Cornac": "light", "RecTools": "rectools"}
"""Folder of `make recommenders` by library; implicit is a dependency of regen-hf."""
OURS = "ALS of regen-hf"
STEPS = 600
MARGIN = 0.02
"""Difference in the share of facts that counts as none."""


def recipes() -> dict[str, str]:
    """The code of each recipe of the page, by its heading."""
    page = PAGE.read_text(encoding="utf-8").split("## Recipes", 1)[1]
    return dict(re.findall(r"^### (.+?)$.*?```python\n(.*?)```", page, flags=re.MULTILINE | re.DOTALL))


def python_of(name: str) -> Path | None:
    """The interpreter that has the library of a recipe; None if it is not installed."""
    folder = ENVIRONMENTS.get(name.partition(",")[0])
    python = Path(sys.executable) if folder is None else ROOT / ".recommenders" / folder / "bin" / "python"
    return python if python.exists() else None


def write_purchases(run: Path, file: Path) -> None:
    """Write the purchases of the train users of `run`, as the page does."""
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["user", "item", "rating", "time"])
        for user in outputs.rows(outputs.dataset_files(run, "train"), ["reviewer_id", "purchase_history"]):
            for purchase in user["purchase_history"]:
                review = purchase["review"]
                values = user["reviewer_id"], purchase["item"]["asin"], review["rating"] or 3, review["unix_time"] or 0
                writer.writerow(values)


def run_recipe(name: str, python: Path, folder: Path) -> None:
    """Run a recipe in `folder`, which contains purchases.csv.

    Raises:
        RuntimeError: it fails.
    """
    call = [str(python), "-c", recipes()[name]]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The recipe {name} failed: {done.stderr[-2000:]}")


def embed(world: Path, folder: Path, name: str) -> Run:
    """A run on the dataset and the encoder of `world`, with the vectors of the recipe `name`."""
    settings = yaml.safe_load((world / outputs.CONFIG).read_text(encoding="utf-8"))
    if name != OURS:
        vectors, asins = folder / "vectors.npy", folder / "asins.txt"
        settings["embeddings"] |= {
            "cf_vectors": str(vectors),
            "cf_asins": str(asins),
            "cf_fitted_on": "the train users",
        }
        encoder = outputs.folder(world, "embeddings") / outputs.CONTENT_ENCODER
        settings["embeddings"]["content_encoder"] = str(encoder)
    run = Run(folder / "run", settings)
    with run.locked():
        run.save()
        link_stages(world, run.folder, [stage for stage in SHARED if name == OURS or stage != "embeddings"])
        run.build_all(until="embeddings")
    return run


def cell(embedded: Run, folder: Path, settings: dict[str, Any], users: int) -> dict[str, Any]:
    """Train and evaluate one model on links to the stages of `embedded`."""
    shared = yaml.safe_load((embedded.folder / outputs.CONFIG).read_text(encoding="utf-8"))
    run = Run(folder, shared | {"training": settings, "evaluation": {"users": users}})
    with run.locked():
        run.save()
        link_stages(embedded.folder, folder)
        run.build_all(until="evaluate")
    facts = correct_facts(folder)
    circle = [share for fact, share in facts.items() if fact.endswith(": circle")]
    counts = outputs.manifest(folder, "embeddings")["counts"]
    return {
        "all facts": round(float(np.mean(list(facts.values()))), 4),
        "circle": round(float(np.mean(circle)), 4),
        "facts": facts,
        "cold items": counts["cold_items"],
        "width": int(outputs.item_vectors(folder).item_factors.shape[1]),
        "seconds": outputs.manifest(folder, "train")["seconds"],
    }


def differences(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By recipe, the shares minus those of our ALS, as means over the seeds that both have."""
    found = {}
    for name, by_seed in cells.items():
        seeds = sorted(by_seed.keys() & cells.get(OURS, {}).keys())
        if name != OURS and seeds:
            minus = {
                share: round(float(np.mean([by_seed[seed][share] - cells[OURS][seed][share] for seed in seeds])), 4)
                for share in ("all facts", "circle")
            }
            found[name] = {**minus, "seeds": len(seeds), "within margin": abs(minus["all facts"]) <= MARGIN}
    return found


def main() -> None:
    """Run the missing cells."""
    parser = cells_parser(__doc__, [OURS, *recipes()], seeds=[0, 1])
    parser.add_argument("--users", type=int, default=100, help="test users (%(default)s)")
    parser.add_argument("--shoppers", type=int, default=SampleConfig.shoppers)
    parser.add_argument("--items", type=int, default=SampleConfig.items)
    options = parser.parse_args()
    common = {"max_steps": STEPS} | training_settings(options.set)
    report: dict[str, Any] = {"training": common}
    report["world"] = {"shoppers": options.shoppers, "items": options.items, "test users at most": options.users}
    target = options.results / "any_recommender.json"
    before = outputs.read_json(target) or {}
    for name, value in report.items():
        if before.get(name, value) != value:
            parser.error(f"{target} has {name} {before[name]}, expected {value}. Name another folder with --results.")
    sample = {"shoppers": options.shoppers, "items": options.items}
    world = build_world(options.folder / "world", {"sequences": {"sample": True}, "sample": sample}).folder
    cells = report["cells"] = before.get("cells", {})
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        missing = [seed for seed in options.seeds if str(seed) not in cells.get(name, {})]
        folder = options.folder / re.sub(r"\W+", "-", name)
        if name != OURS and missing:
            if (python := python_of(name)) is None:
                print(f"{name} is skipped: its library is missing. Run `make recommenders`.", file=sys.stderr)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "asins.txt").exists():  # the last file that a recipe writes
                write_purchases(world, folder / "purchases.csv")
                run_recipe(name, python, folder)
        for seed in missing:
            settings = common | {"seed": seed}
            result = cell(embed(world, folder, name), folder / f"seed-{seed}", settings, options.users)
            cells.setdefault(name, {})[str(seed)] = result
            report["differences"] = differences(cells)
            outputs.write_json(target, report, indent=1)
    print(json.dumps(report | {"differences": differences(cells), "margin": MARGIN}, ensure_ascii=False))


if __name__ == "__main__":
    main()
