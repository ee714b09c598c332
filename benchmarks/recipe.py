"""Measure the recipe on a pretrained backbone: how much lower the loss is with the own history than with another's.

    python benchmarks/recipe.py runs/recipe --backbone .models/smollm2-135m
    python benchmarks/recipe.py runs/recipe --backbone .models/smollm2-135m --seeds 0 1 2 --only "lora default"

Trains each cell for 120 steps of 8 examples on the sample world. Writes benchmarks/results/backbone_recipe.json after
every cell, and skips the cells that it holds: an interrupted benchmark resumes. Prints one JSON line.
"""

import argparse
import json
from pathlib import Path

import yaml
from ablation import RESULTS, build_world, link_stages, training_settings

from regen_hf import outputs
from regen_hf.run import Run
from regen_hf.stages.training import build as training

LORA = {"lora": {"r": 16}}
FROZEN = {"freeze": "backbone"}
WARM_UP = {"stages": [{"freeze": "backbone", "max_steps": 40}, {"lora": {"r": 16}, "max_steps": 80}]}
CELLS = {
    "nothing default": {"backbone": None},
    "frozen default": FROZEN,
    "frozen 2e-3": FROZEN | {"adapter_learning_rate": 2e-3},
    "frozen 5e-3": FROZEN | {"adapter_learning_rate": 5e-3},
    "lora default": LORA,
    "lora one rate": LORA | {"adapter_learning_rate": 2e-4},
    "lora 1e-3": LORA | {"adapter_learning_rate": 1e-3},
    "lora 5e-3": LORA | {"adapter_learning_rate": 5e-3},
    "lora plain start": LORA,
    "lora one rate plain start": LORA | {"adapter_learning_rate": 2e-4},
    "lora adapter first": WARM_UP,
    "lora mlp": LORA | {"adapter": "mlp"},
    "lora no whitening": LORA | {"whitening": 0},
    "lora between_users 0": LORA | {"between_users": 0},
    "lora no weight decay": LORA | {"sft": {"weight_decay": 0.0}},
    "whole default": {},
    "whole one rate plain start": {"adapter_learning_rate": 2e-5},
}
"""Settings by cell; those of a `plain start` keep the adapter's default weights."""
MEASURED = ("own_loss", "shuffled_loss", "empty_loss", "history_gap", "seconds")


def cell(world: Path, folder: Path, name: str, settings: dict) -> dict:
    """Train one cell on links to the stages of `world`, and return its losses."""
    scale = training.scale_soft_tokens
    if name.endswith("plain start"):
        training.scale_soft_tokens = lambda *_: None
    try:
        shared = yaml.safe_load((world / outputs.CONFIG).read_text(encoding="utf-8"))
        run = Run(folder, shared | {"training": settings})
        with run.locked():
            run.save()
            link_stages(world, folder)
            run.build_all(until="train")
    finally:
        training.scale_soft_tokens = scale
    manifest = outputs.manifest(folder, "train")
    values = {**manifest["counts"], "seconds": manifest["seconds"]}
    return {key: values[key] for key in MEASURED}


def main() -> None:
    """Run the missing cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--only", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of all cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    common = {"max_steps": 120, "batch_size": 8, "save_steps": 40} | training_settings(options.set)
    world = build_world(options.folder / "world", {"sequences": {"sample": True}}).folder
    target = options.results / "backbone_recipe.json"
    report = outputs.read_json(target) if target.exists() else {}
    report |= {"backbone": Path(options.backbone).name, "training": common}
    cells = report.setdefault("cells", {})
    for seed in options.seeds:
        for name in options.only:
            if str(seed) not in cells.setdefault(name, {}):
                folder = options.folder / f"{name.replace(' ', '-')}-{seed}"
                settings = {"backbone": options.backbone} | common | CELLS[name] | {"seed": seed}
                cells[name][str(seed)] = cell(world, folder, name, settings)
                target.parent.mkdir(parents=True, exist_ok=True)
                outputs.write_json(target, report, indent=1)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
