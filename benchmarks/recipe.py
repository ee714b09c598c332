"""Measure the recipe on a pretrained backbone: how much lower the loss is with the own history than with another's.

    python benchmarks/recipe.py runs/recipe --backbone .models/smollm2-135m
    python benchmarks/recipe.py runs/recipe --backbone .models/smollm2-135m --seeds 0 1 2 --only "lora default"

Trains each cell for 120 steps of 8 examples of two tasks on the sample world. Writes
benchmarks/results/backbone_recipe.json after every cell, and skips the cells that it holds: an interrupted benchmark
resumes. Prints one JSON line.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from ablation import build_world, cells_parser, link_stages, training_settings

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
    "lora learned norm": LORA | {"merge": False},
    "lora no system message": LORA,
    "lora no recency": LORA | {"recency": 0},
    "lora no whitening": LORA | {"whitening": 0},
    "lora between_users 0": LORA | {"between_users": 0},
    "lora no weight decay": LORA | {"sft": {"weight_decay": 0.0}},
    "whole default": {},
    "whole one rate plain start": {"adapter_learning_rate": 2e-5},
}
"""Settings by cell. A `plain start` keeps the adapter's default weights; a `learned norm` is an RMSNorm behind it."""
COMMON = {
    "max_steps": 120,
    "batch_size": 8,
    "save_steps": 120,
    "tasks": ["purchase_reason_explanation", "brief_user_summary"],
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template of SmolLM2 without its default system message."""
MEASURED = ("own_loss", "shuffled_loss", "empty_loss", "history_gap", "seconds")


def with_learned_norm(*arguments: Any) -> Any:
    """The model of a training, with an RMSNorm behind the adapter."""
    model = make_model(*arguments)
    adapter = model.model.adapter
    adapter.projection = torch.nn.Sequential(adapter.projection, torch.nn.RMSNorm(adapter.projection.out_features))
    return model


def without_system_message(*arguments: Any) -> Any:
    """The backbone of a training, whose chat template has no default system message."""
    tokenizer, causal_lm = load_backbone(*arguments)
    tokenizer.chat_template = CHATML
    return tokenizer, causal_lm


make_model, load_backbone = training.make_model, training.load_backbone


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """What a cell changes that is not a setting."""
    with contextlib.ExitStack() as stack:
        if name.endswith("plain start"):
            stack.enter_context(patch.object(training, "scale_soft_tokens", lambda *_: None))
        if name.endswith("learned norm"):  # the saved model lacks the norm: it is not loaded again
            stack.enter_context(patch.object(training, "make_model", with_learned_norm))
            stack.enter_context(patch.object(training, "check_reload", lambda *_: None))
        if name.endswith("no system message"):
            stack.enter_context(patch.object(training, "load_backbone", without_system_message))
        yield


def cell(world: Path, folder: Path, name: str, settings: dict) -> dict:
    """Train one cell on links to the stages of `world`, and return its losses."""
    shared = yaml.safe_load((world / outputs.CONFIG).read_text(encoding="utf-8"))
    run = Run(folder, shared | {"training": settings})
    with variant(name), run.locked():
        run.save()
        link_stages(world, folder)
        run.build_all(until="train")
    manifest = outputs.manifest(folder, "train")
    values = {**manifest["counts"], "seconds": manifest["seconds"]}
    return {key: values[key] for key in MEASURED}


def main() -> None:
    """Run the missing cells."""
    parser = cells_parser(__doc__, list(CELLS), seeds=[0])
    parser.add_argument("--backbone", required=True)
    options = parser.parse_args()
    common = COMMON | training_settings(options.set)
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
