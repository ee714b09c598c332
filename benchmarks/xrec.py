"""The paper's table 1 on real text: explanations that an LLM wrote for real users and books (XRec, Amazon Books).

    python benchmarks/xrec.py runs/xrec ../shared/data/xrec_amazon --encoder all-MiniLM-L6-v2 --set max_steps=300

The data folder contains `explanations.jsonl.gz` (uid, iid, title, user_summary, item_summary, explanation) and
`interactions.csv.gz` (user, item). Each user becomes a line in the form of the official REGEN release: the items of the
user's interactions, which have no order, and last the book of an explanation (the first of a user with several). The
explanation and the summary of the user are the references; titles and summaries of the books are their only text, and
books without an explanation have none. Train, validation and test have distinct users; the CF vectors use only the
interactions of the train users. Training and evaluation follow benchmarks/ablation.py. Writes
benchmarks/results/xrec.json and xrec.md; prints one JSON line.
"""

import argparse
import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path

from ablation import GROUPS, RESULTS, build_variant, build_world, paper_table, summary, training_settings, write_json

from regen_hf import outputs

TASKS = ["purchase_reason_explanation", "brief_user_summary"]


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
    parser.add_argument("--only", nargs="+", choices=list(GROUPS["table1"]), default=["fused", "content", "cf"])
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    common = training_settings(options.set)
    release = options.folder / "xrec.jsonl.gz"
    if not release.exists():
        write_release(options.data, release)
    sources = {"release": {"from_release": [str(release)]}, "embeddings": {"content_encoder": options.encoder}}
    world = build_world(options.folder / "world", sources).folder
    settings = {}
    for name in options.only:
        folders = []
        for seed in options.seeds:
            folder = options.folder / f"{name}-{seed}"
            training = {"tasks": TASKS} | common | GROUPS["table1"][name] | {"seed": seed}
            build_variant(world, folder, training, {"tasks": TASKS, "users": 0, "max_new_tokens": 160})
            folders.append(folder)
        settings[name] = summary(folders)
    report = {
        "group": "xrec",
        "seeds": options.seeds,
        "training": common,
        "encoder": Path(options.encoder).name,
        "dataset": outputs.manifest(world, "dataset")["counts"],
        "settings": settings,
    }
    write_json(options.results / "xrec.json", report)
    if {"fused", "content", "cf"} <= set(settings):
        outputs.write_text(options.results / "xrec.md", paper_table(settings))


if __name__ == "__main__":
    main()
