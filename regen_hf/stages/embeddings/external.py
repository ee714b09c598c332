"""CF vectors of another recommender, from files: the vectors of its items in place of those of ALS.

Shapes: K vectors of the files, I items of the catalogue, d width of the vectors.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ... import progress
from ...errors import InputError
from ...model.histories import item_ids
from ...reviews.files import find
from .settings import EmbeddingsConfig

ASIN, VECTOR = "asin", "vector"
"""Columns of a parquet file of vectors."""
SMALLEST, LARGEST = 1e-18, 1e18
"""Norms of vectors, whose squares must be numbers of 32 bits."""


def read(config: EmbeddingsConfig, asins: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, int]]:
    """The vectors of the items `asins` from the files of the settings, shape (I, d), and counts of the vectors.

    An item without a vector, or with a vector of zeros, is cold: its row is zero.

    Raises:
        InputError: a file cannot be read, the vectors are not finite or do not fit to their asins, an asin occurs
            twice, or no item of the catalogue has a vector.
    """
    files = find([str(config.cf_vectors)], "--cf-vectors")
    names, vectors = _read_files(files, config.cf_asins)
    about = ", ".join(file.name for file in files)
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(
            f"{about} has {len(twice)} asins more than once, such as {twice[0]!r}, expected one vector per item. "
            "Remove the others."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        wide = vectors.astype(np.float32)  # (K, d)
        norms = np.linalg.norm(wide.astype(np.float64), axis=1)  # (K,)
    wrong = ~((norms == 0) | ((norms > SMALLEST) & (norms < LARGEST)))  # NaN fails too
    if wrong.any():
        raise InputError(
            f"{wrong.sum()} vectors of {about}, such as that of {names[int(wrong.argmax())]!r}, contain NaN or "
            f"infinity, or have a norm out of range, expected norms from {SMALLEST} to {LARGEST}. Fit the recommender "
            "again, for example with a lower learning rate."
        )
    if wide.shape[1] == 0:
        raise InputError(f"The vectors of {about} have no numbers, expected at least one for each item.")
    rows = {asin: row for row, asin in enumerate(asins)}
    known = np.array([name in rows for name in names], dtype=bool)  # (K,)
    if not known.any():
        given, expected = next(iter(names), "none"), next(iter(asins), "none")
        raise InputError(
            f"None of the {len(names):,} asins of {about}, such as {given!r}, is an item of the catalogue, expected "
            f"asins such as {expected!r}. Write the ids of the items, not their row numbers in the recommender."
        )
    if not norms[known].any():
        raise InputError(f"All vectors of {about} are zero, expected others. Fit the recommender again.")
    factors = np.zeros((len(asins), wide.shape[1]), np.float32)  # (I, d)
    factors[[rows[name] for name, inside in zip(names, known, strict=True) if inside]] = wide[known]
    if not known.all():
        other = names[int((~known).argmax())]
        progress.say(
            f"{(~known).sum():,} of {len(names):,} vectors are of no item of the catalogue, such as {other!r}."
        )
    return factors, {"vectors": len(names), "vectors_left_out": int((~known).sum())}


def check_fit(factors: NDArray[np.float32], buyers: NDArray[np.integer]) -> dict[str, int]:
    """Counts of what the vectors `factors` (I, d) cover; `buyers` (I,) is the number of train users of each item.

    Vectors of items that no train user bought are reported, because a recommender of purchases that was fitted on the
    train split has none.
    """
    warm = factors.any(axis=1)  # (I,)
    unseen = int((warm & (buyers == 0)).sum())
    if unseen:
        progress.say(
            f"warning: {unseen:,} items that no train user bought have a vector: the recommender was fitted on more "
            "than the train split, or computes vectors from features. Scores are too high if it has seen test users."
        )
    covered = int(buyers[warm].sum())
    progress.say(f"{covered:,} of {int(buyers.sum()):,} purchases of the train users are of items with a vector.")
    return {"covered_interactions": covered, "vectors_without_buyers": unseen}


def _read_files(files: Sequence[Path], asins_file: str | None) -> tuple[list[str], NDArray[Any]]:
    """The asins (K) and their vectors (K, d) of the files of `--cf-vectors` and of `--cf-asins`."""
    kinds = {file.suffix.lower() for file in files}
    if kinds == {".parquet"}:
        parts = [_read(_parquet, file) for file in files]
        names = [name for part, _ in parts for name in part]
        widths = {vectors.shape[1]: file.name for file, (_, vectors) in zip(files, parts, strict=True) if len(vectors)}
        if len(widths) > 1:
            raise InputError(f"The vectors have different widths by file ({widths}), expected one width.")
        full = [vectors for _, vectors in parts if len(vectors)]
        return names, np.concatenate(full) if full else np.zeros((0, 0), np.float32)
    readers: dict[str, Callable[[Path], NDArray[Any]]] = {".npy": _npy, ".safetensors": _safetensors}
    if len(files) != 1 or files[0].suffix.lower() not in readers:
        raise InputError(
            f"--cf-vectors was given {', '.join(file.name for file in files)}, expected parquet files with the columns "
            f"{ASIN} and {VECTOR}, or one file of {' or '.join(readers)} with --cf-asins."
        )
    vectors = _read(readers[files[0].suffix.lower()], files[0])
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError(
            f"{files[0].name} holds an array of {vectors.dtype} and the shape {vectors.shape}, expected numbers of the "
            "shape (items, width)."
        )
    (path,) = find([str(asins_file)], "--cf-asins")
    names = _read(_asins, path)
    if len(names) != len(vectors):
        transposed = " It seems to be transposed." if vectors.shape[1] == len(names) else ""
        raise InputError(
            f"{path.name} has {len(names):,} asins, but {files[0].name} has the shape {vectors.shape}, expected one "
            f"row per asin.{transposed}"
        )
    return names, vectors


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    """The result of `reader`.

    Raises:
        InputError: it fails on the content of the file.
    """
    from safetensors import SafetensorError

    try:
        return reader(path)
    except (pa.ArrowException, SafetensorError, OSError, ValueError, EOFError) as error:
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path.name} cannot be read: {problem.removesuffix('.')}. Write the file again.") from None


def _parquet(path: Path) -> tuple[list[str], NDArray[Any]]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := [name for name in (ASIN, VECTOR) if name not in names]:
            raise ValueError(f"it has the columns {', '.join(names)}, but not {' and '.join(missing)}")
        table = file.read(columns=[ASIN, VECTOR])
    asins, column = item_ids(ASIN, table[ASIN].to_pylist()), table[VECTOR].combine_chunks()
    lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    numbers = isinstance(column.type, lists) and column.type.value_type
    if not numbers or not (pa.types.is_floating(numbers) or pa.types.is_integer(numbers)):
        raise ValueError(f"{VECTOR} has the type {column.type}, expected lists of numbers")
    if column.null_count:
        raise ValueError(
            f"{column.null_count} vectors are null, such as that of {asins[column.is_null().index(True).as_py()]!r}"
        )
    if not asins:
        return [], np.zeros((0, 0), np.float32)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (other := lengths != lengths[0]).any():
        row = int(other.argmax())
        raise ValueError(
            f"the vector of {asins[0]!r} has {lengths[0]} numbers and that of {asins[row]!r} {lengths[row]}, expected "
            "one width"
        )
    # A null number becomes NaN, which is reported with its asin.
    return asins, column.flatten().to_numpy(zero_copy_only=False).reshape(len(asins), lengths[0])


def _npy(path: Path) -> NDArray[Any]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive of arrays, expected one array of np.save")
    return array


def _safetensors(path: Path) -> NDArray[Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        name = names[0] if len(names) == 1 else f"{VECTOR}s"
        if name not in names:
            raise ValueError(f"it holds the tensors {', '.join(names) or 'none'}, expected one, or one called {name}")
        tensor = file.get_tensor(name)
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _asins(path: Path) -> list[str]:
    """The asins of a file, in order: text with one per line, a JSON list, an array of np.save or a parquet column."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        values = pq.read_table(path, columns=[ASIN])[ASIN].to_pylist()
    elif suffix == ".npy":
        values = _npy(path).tolist()
    elif suffix == ".json":
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    else:
        values = path.read_text(encoding="utf-8-sig").splitlines()
    if not isinstance(values, list):
        raise ValueError("it holds no list of asins")
    return item_ids("asins", values)
