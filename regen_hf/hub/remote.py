"""The content of a repository before a push, and how the push changes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RegenError
from .contents import PARTS, Files, is_own

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

INITIAL_FILES = (".gitattributes", "README.md", "LICENSE")
"""Files of a repository that was created by hand and is still empty."""
INITIAL_PAGE = ("index.html", "style.css")
"""Files that the Hub writes into a new static Space."""


@dataclass(frozen=True)
class Remote:
    """A repository on the Hub before a push."""

    part: str
    name: str
    commit: str
    private: bool
    tags: dict[str, str]
    """Commits by tag."""
    files: dict[str, RepoFile]
    card: str | None
    """The content of README.md."""
    config: dict[str, Any]
    """The content of config.json, empty if it is missing or not an object."""
    never_pushed: bool = False
    """A static Space that was created but never pushed to."""


@dataclass(frozen=True)
class Changes:
    """The paths that a push adds, changes, leaves unchanged and removes."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed)

    def __str__(self) -> str:
        """The number of paths of each kind.

        >>> print(Changes(new=["a", "b"], unchanged=["c"]))
        2 new, 1 unchanged
        """
        return ", ".join(f"{len(paths):,} {kind}" for kind, paths in vars(self).items() if paths) or "nothing"

    def kind(self, path: str) -> str:
        """What the push does with `path`, such as "new"."""
        return next(kind for kind, paths in vars(self).items() if path in paths)


def read_repository(api: HfApi, part: str, name: str) -> Remote | None:
    """The repository `name` on the Hub, None if it does not exist."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    repo_type = PARTS[part]
    try:
        info = api.repo_info(name, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None
    tree = api.list_repo_tree(name, repo_type=repo_type, revision=info.sha, recursive=True)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def read(path: str) -> str | None:
        if path not in files:
            return None
        local = api.hf_hub_download(name, path, repo_type=repo_type, revision=info.sha)
        return Path(local).read_text(encoding="utf-8", errors="replace")

    return Remote(
        part,
        name,
        str(info.sha),
        bool(info.private),
        {tag.name: tag.target_commit for tag in api.list_repo_refs(name, repo_type=repo_type).tags},
        files,
        card=read("README.md"),
        config=_json_object(read("config.json")),
        never_pushed=part == "metric"
        and set(files) <= {*INITIAL_FILES, *INITIAL_PAGE}
        and len(api.list_repo_commits(name, repo_type=repo_type, revision=info.sha)) == 1,
    )


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def check_replaceable(remote: Remote, private: bool) -> None:
    """Check that a repository is empty or was written by `regen push`, and is private if it has to be.

    Raises:
        RegenError: it is public, contains other files, or has a card that cannot be read.
    """
    if private and not remote.private:
        raise RegenError("it exists and is public. Make it private in its settings, or omit --private.")
    others = sorted(set(remote.files) - {*INITIAL_FILES, *(INITIAL_PAGE if remote.never_pushed else ())})
    if others and not _is_ours(remote):
        raise RegenError(
            f"it exists and contains other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}). Choose "
            f"another name with --{remote.part}-name."
        )
    if remote.part == "dataset" and remote.card and config_names(remote.card) is None:
        raise RegenError(
            "it exists, and the YAML at the top of its README.md cannot be read. Correct it on the Hub, or choose "
            "another name with --dataset-name."
        )


def _is_ours(remote: Remote) -> bool:
    if remote.part == "dataset":
        names = config_names(remote.card or "") or set()
        return any(f"{name}-items" in names for name in names)
    if remote.part == "metric":
        return f"{remote.name.split('/')[1]}.py" in remote.files
    if remote.part == "model":
        return remote.config.get("model_type") == "regen"
    return {"model", "dataset"} <= set(remote.config)


def config_names(card: str) -> set[str] | None:
    r"""The configs that a dataset card lists, None if the YAML at its top cannot be read.

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


def compare(files: Files, remote: Remote | None, run: Path) -> Changes:
    """How a push of `files` changes the repository."""
    if remote is None:
        return Changes(new=list(files))
    same = {path: _is_same(content, remote.files[path]) for path, content in files.items() if path in remote.files}
    return Changes(
        new=[path for path in files if path not in same],
        changed=[path for path, equal in same.items() if not equal],
        unchanged=[path for path, equal in same.items() if equal],
        removed=[path for path in remote.files if path not in files and is_own(remote.part, path, run)],
    )


def file_lines(files: Files, changes: Changes | None) -> Iterator[str]:
    """A line per file with its size and its change; `changes` is None if the Hub cannot be reached."""
    for path, content in files.items():
        yield f"  {path} ({size(content):,} bytes)" + (f": {changes.kind(path)}" if changes is not None else "")
    for path in changes.removed if changes is not None else ():
        yield f"  {path}: removed"


def size(content: Path | bytes) -> int:
    """Size of a file's content in bytes."""
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
    git_object = b"blob %d\0" % len(data) + data
    return hashlib.sha1(git_object, usedforsecurity=False).hexdigest() == entry.blob_id
