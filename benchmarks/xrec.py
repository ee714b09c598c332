"""The paper's table 1 on real text: explanations that an LLM wrote for real users and books (XRec, Amazon Books).

    python benchmarks/xrec.py runs/xrec ../shared/data/xrec_amazon --encoder all-MiniLM-L6-v2 --set max_steps=300
    python benchmarks/xrec.py runs/xrec ../shared/data/xrec_amazon --encoder ENCODER --backbone .models/smollm2-135m

The data folder contains `explanations.jsonl.gz` (uid, iid, title, user_summary, item_summary, explanation) and
`interactions.csv.gz` (user, item). Each user becomes a line in the form of the official REGEN release: the items of the
user's interactions, which have no order, and last the book of an explanation (the first of a user with several). The
explanation and the summary of the user are the references; titles and summaries of the books are their only text, and
books without an explanation have none. Train, validation and test have distinct users; the CF vectors use only the
interactions of the train users. Training and evaluation follow benchmarks/ablation.py. Writes
benchmarks/results/xrec.json and xrec.md; prints one JSON line.

With a backbone it is trained with LoRA for 300 steps of 8 explanations, and evaluated on 100 users. The result is
xrec_<backbone>.json, with the own history against another user's, none and the nearest train user's explanation; the
losses are those of the validation users at the end of the training.
"""

import argparse
import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path

from ablation import GROUPS, RESULTS, build_variant, build_world, paper_table, summary, training_settings, write_json

from regen_hf import outputs
from regen_hf.stages.evaluation.comparison import compare

TASKS = ["purchase_reason_explanation", "brief_user_summary"]
SETTINGS = GROUPS["table1"] | GROUPS["text"]
LOSSES = ("own_loss", "shuffled_loss", "empty_loss", "history_gap")


def write_release(data: Path, path: Path) -> None:
    """Write the users of `data` as gzipped lines of the official release to `path`."""
    with gzip.open(data / "explanations.jsonl.gz", "rt", encoding="utf-8") as lines:
        explained = [json.loads(line) for line in lines]
    books = {
        str(row["iid"]): {"asin": f"B{row['iid']}", "title": row["title"], "description": row["item_summary"]}
        for row in explained
    }
    bought: dict[str, list[str]] = defaultdict(list)
    with gzip.open(data / "interactions.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            bought[row["user"]].append(row["item"])
    narratives: dict[str, dict] = {}
    for row in explained:
        narratives.setdefault(str(row["uid"]), row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", compresslevel=3, encoding="utf-8") as out:
        for user in sorted(bought.keys() | narratives.keys(), key=int):
            texts = narratives.get(user)
            items = [item for item in sorted(set(bought[user]), key=int) if not texts or item != str(texts["iid"])]
            items += [str(texts["iid"])] if texts else []
            line = {
                "reviewer_id": f"U{user}",
                "purchase_history": [  # the release needs times, which the data lack: one day apart, in no text
                    {"item": books.get(item, {"asin": f"B{item}"}), "review": {"unix_time": 86_400 * day}}
                    for day, item in enumerate(items, 1)
                ],
                "last_purchase": {"explanation": texts["explanation"]} if texts else {},
                "user": {"brief_summary": texts["user_summary"]} if texts else {},
                "metadata": {},
            }
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Run the missing settings and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("data", type=Path, help="folder of the two files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--encoder", required=True, help="a sentence-transformers model, by name or path")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=["fused", "content", "cf"])
    parser.add_argument("--backbone", help="a pretrained causal LM; by default a small one from nothing")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    common, tasks, users, name = training_settings(options.set), TASKS, 0, "xrec"
    if options.backbone:
        lora = {"backbone": str(Path(options.backbone).resolve()), "lora": {"r": 16}, "max_steps": 300, "batch_size": 8}
        common, tasks, users, name = lora | common, TASKS[:1], 100, f"xrec_{Path(options.backbone).name}"
    release = options.folder / "xrec.jsonl.gz"
    if not release.exists():
        write_release(options.data, release)
    sources = {"release": {"from_release": [str(release)]}, "embeddings": {"content_encoder": options.encoder}}
    world = build_world(options.folder / "world", sources).folder
    settings = {}
    for setting in options.only:
        folders = []
        for seed in options.seeds:
            folder = options.folder / f"{name}-{setting.replace(' ', '-')}-{seed}"
            training = {"tasks": tasks} | common | SETTINGS[setting] | {"seed": seed}
            build_variant(world, folder, training, {"tasks": tasks, "users": users, "max_new_tokens": 160})
            folders.append(folder)
        settings[setting] = summary(folders)
        if options.backbone:
            counts = [outputs.manifest(folder, "train")["counts"] for folder in folders]
            settings[setting]["losses"] = {loss: [of_seed.get(loss) for of_seed in counts] for loss in LOSSES}
            settings[setting]["compared"] = compare(folders, options.folder / f"{name}-{setting.replace(' ', '-')}")
    report = {
        "group": "xrec",
        "seeds": options.seeds,
        "training": common | ({"backbone": Path(options.backbone).name} if options.backbone else {}),
        "encoder": Path(options.encoder).name,
        "dataset": outputs.manifest(world, "dataset")["counts"],
        "settings": settings,
    }
    write_json(options.results / f"{name}.json", report)
    if name == "xrec" and {"fused", "content", "cf"} <= set(settings):
        outputs.write_text(options.results / "xrec.md", paper_table(settings))


if __name__ == "__main__":
    main()
