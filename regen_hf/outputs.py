"""The files of a run: which stage owns each, typed readers, and atomic writers.

A stage writes its files into a temporary folder `out`, which becomes `RUN/<folder>` by one rename. Other stages read
them from there. No other module contains the name of a file or folder of a run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .schema import SPLITS
from .version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDERS = {
    "sample": "sample",
    "release": "release",
    "sequences": "sequences",
    "narratives": "narratives",
    "ratings": "ratings",
    "dataset": "dataset",
    "embeddings": "embeddings",
    "train": "model",
    "evaluate": "evaluation",
    "attribution": "attribution",
    "next-item": "next_item",
    "grounding": "grounding",
    "judge": "judge",
    "figures": "figures",
}
"""The output folder of each stage in a run, by the stage's command."""

# Files of the run itself.
RUN = "run.json"
CONFIG = "config.yaml"
WORK = ".work"
"""Folder of unfinished work, lock and temporary folders."""
REQUESTS = "requests"
"""Folder of the cached answers of language models: `<stage>.sqlite`."""
DOWNLOADS, DOWNLOADS_INDEX = "downloads", "downloads.json"
"""Folder of the raw files that were given as URLs, and the list of them."""
TENSORBOARD = "tensorboard"
EXPORT = "export"
COMPARISON = "comparison"
"""Folder of `regen compare`, in the first run that it compares."""
COMPARISON_JSON, COMPARISON_MARKDOWN, COMPARISON_LATEX = "comparison.json", "comparison.md", "comparison.tex"
REPORT = "report.html"

# Files in the output folders of several stages.
MANIFEST = "manifest.json"
RESULTS = "results.json"
FAILED = "failed.jsonl"
"""Requests without a usable answer, one JSON object per line."""
VOTES = "votes.parquet"
ACCOUNTING = "accounting.json"
REJECTS = "rejects.parquet"
CARD = "README.md"

# Files in the output folder of one stage.
SAMPLE_REVIEWS, SAMPLE_ITEMS = "reviews.jsonl.gz", "items.jsonl.gz"
TRUTH, ITEM_TRUTH = "truth.parquet", "item_truth.parquet"
CATALOGUE = "items/items.parquet"
NARRATIVES = "narratives.parquet"
RATINGS = "ratings.parquet"
AGREEMENT = "agreement.json"
EMBEDDED_ITEMS = "items.parquet"
"""The asins of the catalogue, in the order of every item array."""
CF = "cf.safetensors"
CONTENT_ITEMS = "content_items.npy"
CONTENT_ENCODER = "content_encoder"
STORE_VECTORS, STORE_ITEMS, STORE_OFFSETS = "vectors.npy", "items.npy", "offsets.npy"
"""Files of a `VectorStore`, in a folder per split."""
TRAINING_LOG = "training_log.json"
TRAINING_CONFIG = "training_config.json"
TRAINED_LOGITS, CHECKSUMS = "trained_logits.safetensors", "checksums.json"
"""In the folder of an unfinished training: logits of the trained model in memory, and checksums of a checkpoint."""
PREDICTIONS = "predictions.parquet"
SCORES = "scores.parquet"
TABLE_MARKDOWN, TABLE_LATEX = "table.md", "table.tex"
RANKS = "ranks.parquet"
ENDORSEMENTS = "endorsements.parquet"
CLAIMS = "claims.parquet"
LEFT_OUT = "left_out.parquet"
CITED = "cited.parquet"
TOKEN_MAP = "map.parquet"  # noqa: S105 (a file name)

FILES = {RUN: "run", CONFIG: "run", REPORT: "report"} | {
    f"{COMPARISON}/{name}": "compare" for name in (COMPARISON_JSON, COMPARISON_MARKDOWN, COMPARISON_LATEX)
}
"""The command that writes each file, by its path in the run; without shards, figures and the vectors of splits."""
for _stage, _names in {
    "sample": (SAMPLE_REVIEWS, SAMPLE_ITEMS, TRUTH, ITEM_TRUTH),
    "release": (ACCOUNTING, REJECTS, CATALOGUE),
    "sequences": (ACCOUNTING, REJECTS, CATALOGUE),
    "narratives": (NARRATIVES, FAILED),
    "ratings": (RATINGS, VOTES, AGREEMENT, FAILED),
    "dataset": (CARD,),
    "embeddings": (EMBEDDED_ITEMS, CF, CONTENT_ITEMS),
    "train": (TRAINING_LOG, TRAINING_CONFIG, CARD),
    "evaluate": (PREDICTIONS, SCORES, RESULTS, TABLE_MARKDOWN, TABLE_LATEX),
    "attribution": (RESULTS, LEFT_OUT, CITED, TOKEN_MAP, EMBEDDED_ITEMS),
    "next-item": (RESULTS, RANKS, ENDORSEMENTS),
    "grounding": (RESULTS, CLAIMS, FAILED),
    "judge": (RESULTS, VOTES, FAILED),
    "figures": (),
}.items():
    FILES |= {f"{FOLDERS[_stage]}/{_name}": _stage for _name in (*_names, MANIFEST)}


def folder(run: Path, stage: str) -> Path:
    """The output folder of `stage`, named by its command."""
    return run / FOLDERS[stage]


def path(run: Path, stage: str, name: str) -> Path:
    """The path of the file `name` that `stage` wrote."""
    if FILES.get(f"{FOLDERS[stage]}/{name}") != stage:
        raise KeyError(f"{stage} writes no file {name!r}; add it to outputs.FILES.")
    return run / FOLDERS[stage] / name


def requests_path(run: Path, stage: str) -> Path:
    """The SQLite file with the cached answers of language models to the requests of `stage`."""
    return run / REQUESTS / f"{stage}.sqlite"


def examples_path(run: Path, key: str) -> Path:
    """The file with the few-shot examples that were chosen from the users of `run` for the settings behind `key`."""
    return run / REQUESTS / f"narratives-examples-{key}.json"


def is_run(run: Path) -> bool:
    """Whether `run` is a run folder."""
    return (run / RUN).exists()


# Readers


def read_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest in the output folder of a stage, None where there is no complete one."""
    try:
        manifest: dict[str, Any] = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        complete = {"fingerprint", "inputs", "counts", "seconds"} <= manifest.keys()
        complete = complete and {"stages", "files"} <= manifest["inputs"].keys()
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def manifest(run: Path, stage: str) -> dict[str, Any]:
    """The manifest of `stage` in `run`, empty where the stage has no finished output."""
    return read_manifest(folder(run, stage)) or {}


def read_json(file: Path) -> Any:
    """The content of a JSON file, None where the file does not exist."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def results(run: Path, stage: str = "evaluate") -> dict[str, Any]:
    """The `results.json` of `stage`, empty where there is none."""
    return read_json(path(run, stage, RESULTS)) or {}


def source(run: Path) -> str:
    """The stage that read the raw files of `run`: `release`, where the run has one, or `sequences`."""
    return "release" if folder(run, "release").exists() else "sequences"


def accounting(run: Path) -> dict[str, Any]:
    """Numbers of lines read, kept and dropped: `accounting.json` of the release or the sequences, empty without one."""
    return read_json(path(run, source(run), ACCOUNTING)) or {}


def agreement(run: Path) -> dict[str, Any]:
    """The `agreement.json` of the ratings, empty where there is none."""
    return read_json(path(run, "ratings", AGREEMENT)) or {}


def predictions(run: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The narratives that the evaluation wrote: reviewer_id, task, model, prediction, reference."""
    return pq.read_table(path(run, "evaluate", PREDICTIONS), columns=columns)


def preview(run: Path) -> str:
    """A sentence for errors about a split without users: of how many users the dataset of `run` is a preview, if so."""
    counts = manifest(run, "dataset").get("counts", {})
    if not counts.get("preview_of"):
        return ""
    return (
        f" The dataset is a preview of {sum(counts[split] for split in SPLITS):,} of {counts['preview_of']:,} users: "
        f"write narratives of more users with `regen narratives {run} --users N` (0 for all), then `regen run {run}`."
    )


def split_files(output: Path, split: str) -> list[Path]:
    """The parquet files of `split` below `output` (the output of a stage, or a dataset repository), in order."""
    return sorted(output.glob(f"**/{split}*.parquet"))


def item_files(output: Path) -> list[Path]:
    """The parquet files of the catalogue below `output`, in order."""
    return sorted(output.glob("**/items*.parquet"))


def interaction_files(output: Path) -> list[Path]:
    """The parquet files of the flat table of purchases below `output`, in order."""
    return sorted(output.glob("**/interactions*.parquet"))


def dataset_files(run: Path, split: str) -> list[Path]:
    """The parquet files of `split` in the dataset of `run`, in order."""
    return split_files(folder(run, "dataset"), split)


def catalogue_files(run: Path) -> list[Path]:
    """The parquet files of the catalogue in the dataset of `run`, in order."""
    return item_files(folder(run, "dataset"))


def sequence_files(run: Path) -> list[Path]:
    """The parquet files of the histories of all splits of `run`, in order."""
    return [file for split in SPLITS for file in split_files(folder(run, "sequences"), split)]


def shard_name(stem: str, number: int = 0, total: int = 1) -> str:
    """The file name of shard `number` of `total`.

    >>> shard_name("train"), shard_name("test", 1, 3)
    ('train-00000-of-00001.parquet', 'test-00001-of-00003.parquet')
    """
    return f"{stem}-{number:05d}-of-{total:05d}.parquet"


def rows(
    files: Sequence[Path], columns: list[str] | None = None, batch_size: int = 512, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of parquet `files` in order, at most `limit`, holding `batch_size` of them in memory."""
    return itertools.islice(_rows(files, columns, batch_size), limit)


def _rows(files: Sequence[Path], columns: list[str] | None, batch_size: int) -> Iterator[dict[str, Any]]:
    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=batch_size, columns=columns):
                yield from batch.to_pylist()


def count(files: Sequence[Path]) -> int:
    """The number of rows in parquet `files`, from their footers."""
    return sum(pq.read_metadata(file).num_rows for file in files)


@dataclass(frozen=True)
class ItemArrays:
    """The vectors of the catalogue (section 4.2). I items, in the order of `asins`."""

    asins: list[str]
    item_factors: NDArray[np.float32]
    """CF vectors, shape (I, d_cf); a row of zeros is a cold item."""
    mean_norm: float
    """Mean norm of the CF vectors that are not zero."""
    user_gram: NDArray[np.float32] | None
    """Sum of x x' over the ALS vectors x of the train users, shape (d_cf, d_cf); folds in new items.

    None where the CF vectors are those of another recommender.
    """
    content: NDArray[np.float16]
    """Content vectors of the metadata only, shape (I, d_s), memory-mapped."""


def item_vectors(run: Path) -> ItemArrays:
    """The vectors that the embeddings stage of `run` wrote for the catalogue."""
    import numpy as np
    from safetensors.numpy import load_file

    tensors = load_file(path(run, "embeddings", CF))
    return ItemArrays(
        asins=pq.read_table(path(run, "embeddings", EMBEDDED_ITEMS)).column("asin").to_pylist(),
        item_factors=tensors["item_factors"],
        mean_norm=float(tensors["mean_norm"][0]),
        user_gram=tensors.get("user_gram"),
        content=np.load(path(run, "embeddings", CONTENT_ITEMS), mmap_mode="r", allow_pickle=False),
    )


# Writers


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which becomes `target` by one rename if the block succeeds."""
    new = target.with_name(target.name + ".new")
    try:
        yield new
    except BaseException:
        if new.is_dir():
            shutil.rmtree(new)
        else:
            new.unlink(missing_ok=True)
        raise
    os.replace(new, target)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically."""
    with replacing(target) as new:
        new.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any, indent: int = 2) -> None:
    """Write plain data to `target` atomically."""
    write_text(target, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_parquet(target: Path, table: pa.Table) -> None:
    """Write `table` to `target` atomically."""
    with replacing(target) as new:
        pq.write_table(table, new)


@contextlib.contextmanager
def row_writer(target: Path, schema: pa.Schema, batch_size: int = 1024) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends a row to the parquet file `target`; `batch_size` rows are held in memory."""
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:

        def append(row: dict[str, Any]) -> None:
            rows.append(row)
            if len(rows) == batch_size:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()

        yield append
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def write_results(out: Path, values: Mapping[str, Any]) -> None:
    """Write the `results.json` of a stage into its output folder `out`."""
    write_json(out / RESULTS, values)


def append_failed(out: Path, reviewer_id: str, request: str, failure: Mapping[str, Any]) -> None:
    """Add a request without a usable answer, by its name, and its `llm.Failure` as a dict to `out/failed.jsonl`."""
    line = json.dumps({"reviewer_id": reviewer_id, "request": request, **failure}, ensure_ascii=False)
    with (out / FAILED).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


# Values in manifests and results


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, of this package and of the installed ones among `packages`."""
    versions = {"regen-hf": __version__, "python": sys.version.split()[0]}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def public_name(model: str | None) -> str | None:
    """A model's name without the folders of this machine.

    >>> public_name("google/gemma-3-270m"), public_name("/data/models/gemma-3-270m")
    ('google/gemma-3-270m', 'gemma-3-270m')
    """
    return Path(model).name if model and (Path(model).is_absolute() or Path(model).exists()) else model
