"""A program of its own: loads from the Hub what it is told on stdin, and compares it with the files of the run.

It runs as `regen push --verify` starts it: in a fresh cache, with this package out of reach. Every line that begins
with `= ` tells what was found equal; what differs ends it.
"""

import json
import sys
from pathlib import Path
from typing import Any

SHOPPERS = 4
"""Histories in the batch whose logits are compared."""
PAIRS = {
    "predictions": ["A red pen. It writes.", "They like soft blue things.", ""],
    "references": ["It writes. A red pen.", "They like cheap blue things.", "A gift."],
}


def main() -> None:
    """Compare each part that was pushed."""
    sys.modules["regen_hf"] = None  # type: ignore[assignment]  # whoever loads from the Hub does not have it
    asked = json.load(sys.stdin)
    for part, compare in (("dataset", dataset), ("model", model), ("metric", metric), ("space", space)):
        if part in asked["pushed"]:
            name, commit = asked["pushed"][part]
            for line in compare(asked, name, commit):
                print(f"= {part} {name}: {line}", flush=True)  # noqa: T201


def dataset(asked: dict[str, Any], name: str, commit: str) -> Any:
    """Every row of every split of both configs."""
    import pyarrow.parquet as pq
    from datasets import load_dataset

    for config, splits in asked["configs"].items():
        for split, files in splits.items():
            loaded = load_dataset(name, config, split=split, revision=commit).with_format("arrow")
            place = 0
            for file in files:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(1000):
                        there = loaded[place : place + len(batch)]
                        if there.to_pylist() != batch.to_pylist():
                            raise SystemExit(f"{config}, {split}: rows {place} to {place + len(batch)} differ")
                        place += len(batch)
            if len(loaded) != place:
                raise SystemExit(f"{config}, {split}: {len(loaded)} rows, expected {place}")
            yield f"{config}, {split}: {place:,} rows are equal"


def model(asked: dict[str, Any], name: str, commit: str) -> Any:
    """The logits of a batch of users, beside those of the model on disk."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModelForCausalLM, AutoProcessor

    splits = next(iter(asked["configs"].values()))
    file = next(splits[split][0] for split in ("test", "validation", "train") if split in splits)
    with pq.ParquetFile(file) as opened:
        users = next(opened.iter_batches(SHOPPERS, columns=["purchase_history"])).to_pylist()
    logits = []
    for source, revision in ((name, commit), (asked["model"], None)):
        arguments = {"trust_remote_code": True} | ({"revision": revision} if revision else {})
        processor = AutoProcessor.from_pretrained(source, **arguments)
        loaded = AutoModelForCausalLM.from_pretrained(source, **arguments).eval()
        inputs = processor(history=[user["purchase_history"] for user in users], task=min(processor.task_prompts))
        with torch.inference_mode():
            logits.append(loaded(**inputs).logits)
        del loaded
    if logits[0].shape != logits[1].shape or not torch.equal(*logits):
        raise SystemExit(f"{name}: the logits of {len(users)} users differ from those of the model on disk")
    yield f"the logits of {len(users)} users are equal, {logits[0].numel():,} of them"


def metric(asked: dict[str, Any], name: str, commit: str) -> Any:
    """The scores of a few pairs of texts, beside those of the metric on disk."""
    import evaluate

    scores = [
        evaluate.load(source, **more).compute(**PAIRS)
        for source, more in ((name, {"revision": commit}), (asked["metric"], {}))
    ]
    if scores[0] != scores[1]:
        raise SystemExit(f"{name}: {scores[0]}, expected {scores[1]}")
    yield f"its scores of {len(PAIRS['predictions'])} pairs are equal"


def space(asked: dict[str, Any], name: str, commit: str) -> Any:
    """The files of the app, beside those on disk, and that the commits which it takes are there."""
    from huggingface_hub import HfApi, SpaceCard, snapshot_download

    folder = Path(snapshot_download(name, repo_type="space", revision=commit))
    app = SpaceCard.load(folder / "README.md").data.app_file
    code = sorted(folder.glob("*.py"))
    for file in code:
        compile(file.read_text(encoding="utf-8"), file.name, "exec")
    if app not in [file.name for file in code]:
        raise SystemExit(f"{name}: {app} is not there")
    made = ("README.md", "config.json")  # by the push
    for file in sorted(path for path in Path(asked["space"]).glob("*.*") if path.name not in made):
        there = folder / file.name
        if not there.exists() or there.read_bytes() != file.read_bytes():
            raise SystemExit(f"{name}: {file.name} differs from the one on disk")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for kind in ("model", "dataset"):
        HfApi().repo_info(config[kind], repo_type=kind, revision=config[f"{kind}_revision"])
    yield (
        f"{app} and {len(code) - 1} files of its code are equal, and the commits of {config['model']} and "
        f"{config['dataset']} that it takes are there"
    )


if __name__ == "__main__":
    main()
