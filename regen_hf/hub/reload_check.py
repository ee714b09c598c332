"""A program that loads repositories from the Hub and compares them with the files of a run.

`regen push --verify` runs it with an empty cache and without this package. It reads its request as JSON from stdin and
prints a line that starts with `= ` for each comparison; the first difference ends it with an error.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

USERS = 4
"""Histories in the batch whose logits are compared."""
PAIRS = {
    "predictions": ["A red pen. It writes.", "They like soft blue things.", ""],
    "references": ["It writes. A red pen.", "They like cheap blue things.", "A gift."],
}


def main() -> None:
    """Compare each part that was pushed."""
    sys.modules["regen_hf"] = None  # type: ignore[assignment]  # users of the Hub do not have it
    request = json.load(sys.stdin)
    for part, compare in (("dataset", dataset), ("model", model), ("metric", metric), ("space", space)):
        if part in request["pushed"]:
            name, commit = request["pushed"][part]
            for line in compare(request, name, commit):
                print(f"= {part} {name}: {line}", flush=True)  # noqa: T201


def dataset(request: dict[str, Any], name: str, commit: str) -> Iterator[str]:
    """Compare every row of every split of both configs."""
    import pyarrow.parquet as pq
    from datasets import load_dataset

    for config, splits in request["configs"].items():
        for split, files in splits.items():
            loaded = load_dataset(name, config, split=split, revision=commit).with_format("arrow")
            start = 0
            for file in files:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(1000):
                        end = start + len(batch)
                        if loaded[start:end].to_pylist() != batch.to_pylist():
                            raise SystemExit(f"{config}, {split}: rows {start} to {end} differ")
                        start = end
            if len(loaded) != start:
                raise SystemExit(f"{config}, {split}: {len(loaded)} rows, expected {start}")
            yield f"{config}, {split}: {start:,} rows are equal"


def model(request: dict[str, Any], name: str, commit: str) -> Iterator[str]:
    """Compare the logits of a batch of users with those of the model on disk."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModelForCausalLM, AutoProcessor

    splits = next(iter(request["configs"].values()))
    file = next(splits[split][0] for split in ("test", "validation", "train") if split in splits)
    with pq.ParquetFile(file) as opened:
        users = next(opened.iter_batches(USERS, columns=["purchase_history"])).to_pylist()
    logits = []
    for source, revision in ((name, commit), (request["model"], None)):
        arguments = {"trust_remote_code": True} | ({"revision": revision} if revision else {})
        processor = AutoProcessor.from_pretrained(source, **arguments)
        loaded = AutoModelForCausalLM.from_pretrained(source, **arguments).eval()
        instruction = {"task": min(processor.task_prompts)} if processor.task_prompts else {"prompt": ""}
        inputs = processor(history=[user["purchase_history"] for user in users], **instruction)
        with torch.inference_mode():
            logits.append(loaded(**inputs).logits)
        del loaded
    if logits[0].shape != logits[1].shape or not torch.equal(*logits):
        raise SystemExit(f"{name}: the logits of {len(users)} users differ from those of the model on disk")
    yield f"{logits[0].numel():,} logits of {len(users)} users are equal"


def metric(request: dict[str, Any], name: str, commit: str) -> Iterator[str]:
    """Compare the scores of a few pairs of texts with those of the metric on disk."""
    import evaluate

    scores = [
        evaluate.load(source, **more).compute(**PAIRS)
        for source, more in ((name, {"revision": commit}), (request["metric"], {}))
    ]
    if scores[0] != scores[1]:
        raise SystemExit(f"{name}: {scores[0]}, expected {scores[1]}")
    yield f"the scores of {len(PAIRS['predictions'])} pairs are equal"


def space(request: dict[str, Any], name: str, commit: str) -> Iterator[str]:
    """Compare the files of the app with those on disk, and look up the commits that it loads."""
    from huggingface_hub import HfApi, SpaceCard, snapshot_download

    folder = Path(snapshot_download(name, repo_type="space", revision=commit))
    app = SpaceCard.load(folder / "README.md").data.app_file
    code = sorted(folder.glob("*.py"))
    for file in code:
        compile(file.read_text(encoding="utf-8"), file.name, "exec")
    if app not in [file.name for file in code]:
        raise SystemExit(f"{name}: {app} is missing")
    written_by_push = ("README.md", "config.json")
    for file in sorted(path for path in Path(request["space"]).glob("*.*") if path.name not in written_by_push):
        pushed = folder / file.name
        if not pushed.exists() or pushed.read_bytes() != file.read_bytes():
            raise SystemExit(f"{name}: {file.name} differs from the file on disk")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for kind in ("model", "dataset"):
        HfApi().repo_info(config[kind], repo_type=kind, revision=config[f"{kind}_revision"])
    yield (
        f"{app} and {len(code) - 1} other modules are equal, and the commits of {config['model']} and "
        f"{config['dataset']} exist"
    )


if __name__ == "__main__":
    main()
