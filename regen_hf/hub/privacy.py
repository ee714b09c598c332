"""Search for private data before a push: secrets, paths of this machine, and names of reviewers.

Text files are searched completely; parquet and safetensors files in their headers, and parquet also in every text.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RegenError
from ..outputs import FOLDERS, manifest
from ..schema import CONFIGS, SPLITS, narratives
from .reviewer_names import count_named_users

if TYPE_CHECKING:
    import pyarrow as pa

SECRETS = (
    r"\bhf_[A-Za-z0-9]{30,}"  # the Hub
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic and servers like theirs
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22,}"  # GitHub
    r"|\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bAIza[0-9A-Za-z_-]{35}"  # Google
    r"|\bxox[abprs]-[0-9A-Za-z-]{10,}"  # Slack
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
PATHS = re.compile(
    rb"(?<![\w.:/~-])/(?:home|Users|root|mnt|media|data|scratch|work|workspace|tmp|var|opt|srv|Volumes|private)"
    rb"/[\w.+-]+|\b[A-Za-z]:\\{1,2}Users\\"
)
"""Absolute paths of typical machines. Texts of rows are not searched for them: a review may mention /home/garden."""
NAME_FIELDS = re.compile(rb'"(?:reviewer_?name|user_?name|profile_?name|customer_?name)"\s*:', re.IGNORECASE)
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files of a tokenizer, whose pieces can look like the start of a path."""
FULL_NAME = r"^\p{Lu}[\p{L}'’.-]+( \p{Lu}[\p{L}'’.-]*)+$"
"""A user id that looks like a first and last name."""
EMAIL = r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"
PERSONAL = {"email": "e-mail addresses", "phone": "phone numbers", "card": "payment card numbers"}
"""Kinds of personal data that are counted in reviews and narratives, by their name in `scrub_column`."""
SECRET_VARIABLES = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD)$")


def check(repositories: Mapping[str, Mapping[str, Path | bytes]], run: Path) -> Iterator[str]:
    """Search the files of every part; yields notes on data that may be personal, or too large, but are not an error.

    Raises:
        RegenError: with every file that contains private data.
    """
    private = _private_texts(run)
    notes: Counter[str] = Counter()
    findings = [
        f"  {path} of the {part} contains {finding}"
        for part, files in repositories.items()
        for path, content in files.items()
        for finding in _findings(path, content, private, notes)
    ]
    if findings:
        raise RegenError(
            "Nothing was pushed: files contain private data. Remove it, then push again.\n" + "\n".join(findings)
        )
    shards = [path for path in repositories.get("dataset", {}).values() if isinstance(path, Path)]
    # The flat table repeats the purchases of the rows.
    shards = [path for path in shards if path.suffix == ".parquet" and path.stem.startswith(SPLITS)]
    if number := count_named_users(run, shards):
        yield (
            f"note: the names of {number:,} users in the raw files are also in their reviews or narratives. They may "
            "be pen names: check whether they can be published."
        )
    if "dataset" in repositories and (number := manifest(run, "dataset").get("counts", {}).get("large_rows")):
        yield (
            f"note: {number:,} rows of the dataset have more than 2 MB: the viewer of the Hub cuts their texts. Fewer "
            f"purchases per user (`regen sequences {run} --max-history N`) or shorter reviews make them smaller."
        )
    for kind, number in sorted(notes.items()):
        yield (
            f"note: {number:,} {kind} in reviews and narratives. `regen sequences {run} --scrub` removes them from "
            "reviews."
        )


def _private_texts(run: Path) -> dict[str, str]:
    """Private texts of this machine, each with a description: paths, the token, secrets of the environment."""
    from huggingface_hub import get_token

    home = str(Path.home())
    texts = {
        str(run.resolve()): "the path of the run folder",
        home + "/": "the path of your home folder" if len(home) > 1 else "",
        get_token() or "": "your Hub token",
    }
    for path in sorted(_recorded_paths(run)):
        texts.setdefault(path, "a path of this machine")
    for name, value in os.environ.items():
        # A shorter value, such as "EMPTY", is no secret.
        if SECRET_VARIABLES.search(name) and len(value) >= 12 and value not in texts:
            texts[value] = f"the value of the environment variable {name}"
    return {text: description for text, description in texts.items() if text and description}


def _recorded_paths(run: Path) -> set[str]:
    """Folders of raw files and models in the manifests of the run, outside the run."""
    paths: set[str] = set()
    for stage in FOLDERS:
        content = manifest(run, stage)
        paths |= {value for value in content.get("config", {}).values() if isinstance(value, str)}
        paths |= {str(Path(file).parent) for file in content.get("inputs", {}).get("files", {})}
    root = str(run.resolve())
    # At least two folders deep: "/data" is part of many URLs.
    return {path for path in paths if path.count("/") > 1 and Path(path).is_absolute() and not path.startswith(root)}


def _findings(path: str, content: Path | bytes, private: Mapping[str, str], notes: Counter[str]) -> Iterator[str]:
    """Descriptions of the private data in a file; counts personal data that is no error in `notes`."""
    if isinstance(content, Path) and content.suffix == ".parquet":
        yield from _parquet_findings(content, private, notes)
        return
    if isinstance(content, bytes):
        data = content
    else:
        data = _header(content) if content.suffix == ".safetensors" else content.read_bytes()
    yield from _secrets(data, private)
    if path.endswith(".png") or Path(path).name in VOCABULARIES:
        return
    for start in sorted({match[0].decode(errors="replace") for match in PATHS.finditer(data)}):
        if not any(text.startswith(start) or start.startswith(text) for text in private):
            yield f"the path {start}…"
    if NAME_FIELDS.search(data):
        yield "a field for a reviewer's name"


def _secrets(data: bytes, private: Mapping[str, str]) -> Iterator[str]:
    for text, description in private.items():
        # JSON escapes quotes, backslashes and often all characters outside of ASCII.
        if any(form.encode() in data for form in {text, json.dumps(text)[1:-1]}):
            yield description
    if re.search(SECRETS.encode(), data):
        yield "a possible token or key"


def _parquet_findings(file: Path, private: Mapping[str, str], notes: Counter[str]) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        metadata = opened.metadata.metadata or {}
        header = json.dumps({str(key): str(value) for key, value in metadata.items()}).encode()
        yield from _secrets(header, private)
        if PATHS.search(header):
            yield "an absolute path in its metadata"
        expected = set().union(*map(_leaf_names, CONFIGS.values()))
        if more := sorted(_leaf_names(opened.schema_arrow) - expected):
            yield f"columns that a row does not have: {', '.join(more)}"
        pattern = "|".join([f"(?:{SECRETS})", *map(re.escape, private)])
        free_text = _free_text()
        hits: Counter[str] = Counter()
        users: Counter[str] = Counter()
        for batch in opened.iter_batches(2000):
            for name, texts in _leaves(batch.to_struct_array()):
                if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
                    continue
                hits[name] += pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0
                if name == "reviewer_id":
                    for kind, form in (("e-mail addresses", EMAIL), ("names of people", FULL_NAME)):
                        users[kind] += pc.sum(pc.match_substring_regex(texts, form)).as_py() or 0
                elif name in free_text:
                    _count_personal(texts, notes)
    for name, number in (+hits).items():
        yield f"a secret or a path of this machine in {number:,} texts of the column {name}"
    for kind, number in (+users).items():
        yield f"{kind} as the reviewer_id of {number:,} users: map the column `user` to anonymous ids"


def _free_text() -> set[str]:
    """Dotted names of the columns with texts that people or language models wrote: reviews and narratives."""
    texts = {".".join(key for key in text.field if isinstance(key, str)) for text in narratives().values()}
    return {"purchase_history.review.summary", "purchase_history.review.text"} | texts


def _count_personal(texts: pa.Array, notes: Counter[str]) -> None:
    from ..reviews.scrubbing import scrub_column

    counts: Counter[str] = Counter()
    scrub_column(texts, counts)
    for kind, description in PERSONAL.items():
        if number := counts[f"scrubbed_{kind}"]:
            notes[description] += number


def _leaves(column: pa.Array, name: str = "") -> Iterator[tuple[str, pa.Array]]:
    """Dotted name and values of each column inside structs and lists."""
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        for field, values in zip(column.type, column.flatten(), strict=True):
            yield from _leaves(values, f"{name}.{field.name}".lstrip("."))
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield from _leaves(column.flatten(), name)
    else:
        yield name, column


def _leaf_names(schema: pa.Schema) -> set[str]:
    import pyarrow as pa

    return {name for name, _ in _leaves(pa.array([], pa.struct(list(schema))))}


def _header(file: Path) -> bytes:
    """The header of a safetensors file: names and shapes of its tensors, and its metadata."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        return opened.read(length)
