"""What a repository holds before a push, and what the push would change in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RegenError
from .contents import PARTS, Files, is_own

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

EVERYWHERE = (".gitattributes", "README.md", "LICENSE")
"""Files of a repository that was made by hand and is still empty."""
NEW_PAGE = ("index.html", "style.css")
"""What the Hub puts into a static Space when it is made."""


@dataclass(frozen=True)
class There:
    """A repository at the commit that a push starts from."""

    part: str
    name: str
    commit: str
    private: bool
    tags: dict[str, str]
    """Commits by tag."""
    files: dict[str, RepoFile]
    card: str | None
    """Its README.md."""
    config: str | None
    """Its config.json."""
    untouched: bool = False
    """A page on which nothing was pushed since it was made."""


@dataclass(frozen=True)
class Changes:
    """Paths by what a push does with them."""

    new: list[str]
    changed: list[str]
    unchanged: list[str]
    removed: list[str]

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed)

    def __str__(self) -> str:
        """What is done, in numbers.

        >>> print(Changes(["a", "b"], [], ["c"], []))
        2 new, 1 unchanged
        """
        counts = {"new": self.new, "changed": self.changed, "unchanged": self.unchanged, "removed": self.removed}
        return ", ".join(f"{len(paths):,} {what}" for what, paths in counts.items() if paths) or "nothing"

    def of(self, path: str) -> str:
        """What is done with one path."""
        return "new" if path in self.new else "changed" if path in self.changed else "unchanged"


def look(api: HfApi, part: str, name: str) -> There | None:
    """What a repository holds now, None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    kind = PARTS[part]
    try:
        info = api.repo_info(name, repo_type=kind)
    except RepositoryNotFoundError:
        return None
    tree = api.list_repo_tree(name, repo_type=kind, revision=info.sha, recursive=True)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def read(path: str) -> str | None:
        if path not in files:
            return None
        local = api.hf_hub_download(name, path, repo_type=kind, revision=info.sha)
        return Path(local).read_text(encoding="utf-8", errors="replace")

    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(name, repo_type=kind).tags}
    return There(
        part,
        name,
        str(info.sha),
        bool(info.private),
        tags,
        files,
        card=read("README.md"),
        config=read("config.json"),
        untouched=part == "metric"
        and set(files) <= {*EVERYWHERE, *NEW_PAGE}
        and len(api.list_repo_commits(name, repo_type=kind, revision=info.sha)) == 1,
    )


def refuse_foreign(there: There) -> None:
    """Refuse a repository of the right name that holds something else.

    Raises:
        RegenError: with what is in it.
    """
    others = sorted(set(there.files) - {*EVERYWHERE, *(NEW_PAGE if there.untouched else ())})
    if others and not _is_ours(there):
        raise RegenError(
            f"it exists and holds something else ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}). Choose "
            f"another name with --{there.part}-name."
        )
    if there.part == "dataset" and there.card and config_names(there.card) is None:
        raise RegenError(
            "it exists, and the YAML at the top of its README.md cannot be read. Correct it there, or choose another "
            "name with --dataset-name."
        )


def _is_ours(there: There) -> bool:
    if there.part == "dataset":
        names = config_names(there.card or "") or set()
        return any(f"{name}-items" in names for name in names)
    if there.part == "metric":
        return f"{there.name.split('/')[1]}.py" in there.files
    config = settings(there)
    return config.get("model_type") == "regen" if there.part == "model" else {"model", "dataset"} <= set(config)


def settings(there: There) -> dict[str, Any]:
    """What its config.json holds, nothing where that is no object."""
    try:
        config = json.loads(there.config or "")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def config_names(card: str) -> set[str] | None:
    r"""The configs that a dataset card names, None where the YAML at its top cannot be read.

    >>> config_names("---\nconfigs: [{config_name: a}]\n---\n"), config_names("---\nconfigs: [\n---\n")
    ({'a'}, None)
    """
    import yaml
    from huggingface_hub import DatasetCard

    try:
        configs = DatasetCard(card).data.get("configs") or []
        return {str(config["config_name"]) for config in configs}
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return None


def changes(files: Files, there: There | None, run: Path) -> Changes:
    """What a push of `files` does with what is there."""
    if there is None:
        return Changes(list(files), [], [], [])
    same = {path: _is_same(content, there.files[path]) for path, content in files.items() if path in there.files}
    return Changes(
        new=[path for path in files if path not in same],
        changed=[path for path, equal in same.items() if not equal],
        unchanged=[path for path, equal in same.items() if equal],
        removed=[path for path in there.files if path not in files and is_own(there.part, path, run)],
    )


def described(files: Files, found: Changes | None) -> Iterator[str]:
    """A line for each file, with its size and what is done with it; None where the Hub could not be asked."""
    for path, content in files.items():
        yield f"  {path} ({size(content):,} bytes)" + (f": {found.of(path)}" if found is not None else "")
    for path in found.removed if found is not None else ():
        yield f"  {path}: removed"


def size(content: Path | bytes) -> int:
    """Bytes of a file's content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _is_same(content: Path | bytes, entry: RepoFile) -> bool:
    if size(content) != entry.size:
        return False
    if entry.lfs is not None:
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest() == entry.lfs.sha256
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
    data = content if isinstance(content, bytes) else content.read_bytes()
    # How git names a file's content.
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == entry.blob_id
