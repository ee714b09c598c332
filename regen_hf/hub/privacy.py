"""What must not leave this machine with a push: secrets, paths, names of reviewers; and what one should know of.

Text is read as it is, of parquet and safetensors also what their headers tell, and of parquet every text in it.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RegenError
from ..outputs import read_manifest
from ..schema import ITEMS, ROW
from .reviewer_names import signed

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
"""Absolute paths as machines have them. Reviews may speak of /home/garden: they are not searched for these."""
NAMES = re.compile(rb'"(?:reviewer_?name|user_?name|profile_?name|customer_?name)"\s*:', re.IGNORECASE)
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files of a tokenizer, whose pieces may read as the beginning of a path."""
A_NAME = r"^\p{Lu}[\p{L}'’.-]+( \p{Lu}[\p{L}'’.-]*)+$"
"""A user's id that reads as first and last name."""
FREE_TEXT = ("summary", "text", "reason", "explanation", "endorsement", "profile", "brief_summary", "long_summary")
"""Texts in a row in which people, or those who wrote about them, may tell an address or a number."""
ENVIRONMENT = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD)$")


def check(repositories: Mapping[str, Mapping[str, Path | bytes]], run: Path) -> Iterator[str]:
    """Look through the files of every part; yields what one should know of but may be meant.

    Raises:
        RegenError: with all that must not leave, and where it is.
    """
    known = _known(run)
    found: list[str] = []
    notes: Counter[str] = Counter()
    for part, files in repositories.items():
        for path, content in files.items():
            for what in _look(path, content, known, notes):
                found.append(f"  {path} of the {part} holds {what}")
    if found:
        raise RegenError(
            "Nothing was pushed: what must not leave this machine is in what would be pushed. Take it out first.\n"
            + "\n".join(found)
        )
    users = [path for path in repositories.get("dataset", {}).values() if isinstance(path, Path)]
    if number := signed(
        run, [path for path in users if path.suffix == ".parquet" and not path.stem.startswith("items")]
    ):
        yield (
            f"note: {number:,} users have the name that the raw files give them in their reviews or narratives. It may "
            "be a pen name: have a look at whether it may be told."
        )
    for kind, number in sorted(notes.items()):
        yield (
            f"note: {number:,} {kind} in reviews and narratives. `regen sequences {run} --scrub` takes them out of "
            "reviews."
        )


def _known(run: Path) -> dict[str, str]:
    """What only this machine can know to look for: text, and what it is."""
    from huggingface_hub import get_token

    home = str(Path.home())
    known = {
        str(run.resolve()): "the path of the run folder",
        home + "/": "the path of your home folder" if len(home) > 1 else "",
        get_token() or "": "your token of the Hub",
    }
    for path in sorted(_folders(run)):
        known.setdefault(path, "a path of this machine")
    for name, value in os.environ.items():
        if ENVIRONMENT.search(name) and len(value) >= 12 and value not in known:  # shorter: no secret, as "EMPTY"
            known[value] = f"what the environment variable {name} is set to"
    return {text: what for text, what in known.items() if text and what}


def _folders(run: Path) -> set[str]:
    """Where the run found its raw files and models, whatever a machine calls such folders."""
    found: set[str] = set()
    for folder in ("sequences", "release", "narratives", "ratings", "embeddings", "model", "evaluation"):
        made = read_manifest(run / folder) or {}
        found |= {value for value in made.get("config", {}).values() if isinstance(value, str)}
        found |= {str(Path(file).parent) for file in made.get("inputs", {}).get("files", {})}
    home = str(run.resolve())
    # At least two folders deep: "/data" may stand in any address.
    return {path for path in found if path.count("/") > 1 and Path(path).is_absolute() and not path.startswith(home)}


def _look(path: str, content: Path | bytes, known: Mapping[str, str], notes: Counter[str]) -> Iterator[str]:
    """All that is in a file and must not leave; counts in `notes` what is only to be told."""
    if isinstance(content, Path) and content.suffix == ".parquet":
        yield from _look_into_parquet(content, known, notes)
        return
    data = _header(content) if isinstance(content, Path) and content.suffix == ".safetensors" else _bytes(content)
    yield from _look_into_bytes(data, known)
    if path.endswith(".png") or Path(path).name in VOCABULARIES:
        return
    for place in sorted({match[0].decode(errors="replace") for match in PATHS.finditer(data)}):
        if not any(text.startswith(place) or place.startswith(text) for text in known):
            yield f"the path {place}…"
    if NAMES.search(data):
        yield "a field for a reviewer's name"


def _look_into_bytes(data: bytes, known: Mapping[str, str]) -> Iterator[str]:
    for text, what in known.items():
        # JSON writes a quote, a backslash and, often, what is not ASCII in another way.
        if any(form.encode() in data for form in {text, json.dumps(text)[1:-1]}):
            yield what
    if re.search(SECRETS.encode(), data):
        yield "something that looks like a token or a key"


def _look_into_parquet(file: Path, known: Mapping[str, str], notes: Counter[str]) -> Iterator[str]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from ..reviews.scrubbing import scrub_column

    with pq.ParquetFile(file) as opened:
        told = json.dumps({str(key): str(value) for key, value in (opened.metadata.metadata or {}).items()})
        yield from _look_into_bytes(told.encode(), known)
        if PATHS.search(told.encode()):
            yield "an absolute path in its metadata"
        expected = _leaf_names(ROW) | _leaf_names(ITEMS)
        if more := sorted(_leaf_names(opened.schema_arrow) - expected):
            yield f"columns that a row does not have: {', '.join(more)}"
        pattern = "|".join([f"(?:{SECRETS})", *map(re.escape, known)])
        private: Counter[str] = Counter()
        personal: Counter[str] = Counter()
        for batch in opened.iter_batches(2000):
            for name, texts in _texts(batch):
                if hits := pc.sum(pc.match_substring_regex(texts, pattern)).as_py():
                    private[name] += hits
                if name == "reviewer_id":
                    mail = pc.match_substring_regex(texts, r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$")
                    personal["e-mail addresses"] += pc.sum(mail).as_py() or 0
                    personal["names of people"] += pc.sum(pc.match_substring_regex(texts, A_NAME)).as_py() or 0
                elif name.rpartition(".")[2] in FREE_TEXT:
                    counts: Counter[str] = Counter()
                    scrub_column(texts, counts)
                    for kind, what in (("email", "e-mail addresses"), ("phone", "phone numbers"), ("card", "cards")):
                        if number := counts[f"scrubbed_{kind}"]:
                            notes[what.replace("cards", "numbers of payment cards")] += number
    for name, hits in private.items():
        yield f"in {hits:,} texts of the column {name} a secret or a path of this machine"
    for what, number in personal.items():
        if number:
            yield (
                f"{number:,} users whose reviewer_id reads as one of {what}: map the column `user` to an id that tells "
                "nothing"
            )


def _leaf_names(schema: Any) -> set[str]:
    """Dotted names of all columns of an Arrow schema or type, those inside structs and lists too."""
    import pyarrow as pa

    names: set[str] = set()

    def visit(kind: Any, name: str) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                visit(field.type, f"{name}.{field.name}")
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            visit(kind.value_type, name)
        else:
            names.add(name)

    for field in schema:
        visit(field.type, field.name)
    return names


def _texts(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.Array]]:
    """The columns of text of a batch, those inside structs and lists too, with their dotted names."""
    import pyarrow as pa

    def visit(column: pa.Array, name: str) -> Iterator[tuple[str, pa.Array]]:
        kind = column.type
        if pa.types.is_struct(kind):
            for field, part in zip(kind, column.flatten(), strict=True):
                yield from visit(part, f"{name}.{field.name}")
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            yield from visit(column.flatten(), name)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            yield name, column

    for field, column in zip(batch.schema, batch.columns, strict=True):
        yield from visit(column, field.name)


def _header(file: Path) -> bytes:
    """What a safetensors file tells of itself: names and shapes of its tensors, and its metadata."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        return opened.read(length)


def _bytes(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
