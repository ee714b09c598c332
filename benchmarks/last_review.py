"""Real reviews as references: the model writes a user's last review from the purchases before it, and the last item.

    python benchmarks/last_review.py runs/last_review ../shared/data/film_reviews --backbone .models/smollm2-135m

The data folder contains `reviews.jsonl.gz`, `items.jsonl.gz` and `columns.yaml` (real words, real days). The run starts
with these raw files and trains the task `last_review`, whose history lacks the review to write. No narrator takes part:
the rows have the narratives of fixed rules, which are not used. For each seed the model with the user's own history is
compared with another user's history, with none, and with the last review of the most similar train user (`nearest`).
An interrupted benchmark resumes. Writes benchmarks/results/last_review.json (figures, no text); prints one JSON line.
"""

import argparse
from pathlib import Path

import yaml
from ablation import RESULTS, build_variant, build_world, training_settings, write_json

from regen_hf import outputs
from regen_hf.stages.evaluation.comparison import compare

TASKS = ["last_review"]
METRICS = ("bleu", "rougeLsum", "similarity")
LOSSES = ("own_loss", "shuffled_loss", "empty_loss", "history_gap")


def main() -> None:
    """Run the missing seeds and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("data", type=Path, help="folder of the three files")
    parser.add_argument("--backbone", required=True, help="a pretrained causal LM, trained with LoRA")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--users", type=int, default=100, help="users of the evaluation (%(default)s; 0: all)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    data = options.data.resolve()
    sequences = yaml.safe_load((data / "columns.yaml").read_text(encoding="utf-8"))
    sequences |= {"reviews": [str(data / "reviews.jsonl.gz")], "items": [str(data / "items.jsonl.gz")]}
    world = build_world(options.folder / "world", {"sequences": sequences | {"min_history": 2}}).folder
    common = {"max_steps": 300, "batch_size": 8, "lora": {"r": 16}} | training_settings(options.set)
    folders = []
    for seed in options.seeds:
        training = common | {"tasks": TASKS, "backbone": str(Path(options.backbone).resolve()), "seed": seed}
        folders.append(options.folder / f"{Path(options.backbone).name}-{seed}")
        build_variant(world, folders[-1], training, {"tasks": TASKS, "users": options.users, "max_new_tokens": 64})
    compared = compare(folders, options.folder / "comparison")
    manifests = [outputs.manifest(folder, "train") for folder in folders]
    write_json(
        options.results / "last_review.json",
        {
            "backbone": Path(options.backbone).name,
            "seeds": options.seeds,
            "training": common,
            "dataset": outputs.manifest(world, "dataset")["counts"],
            "test users": compared["n_users"],
            "losses": {name: [manifest["counts"][name] for manifest in manifests] for name in LOSSES},
            "scores": {metric: compared["tasks"]["last_review"][metric] for metric in METRICS},
        },
    )


if __name__ == "__main__":
    main()
