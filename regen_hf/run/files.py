"""Files outside a run that its stages read: their paths and hashes.

A setting names such files if its field has `metadata={"reads": "files"}` (paths or globs), `metadata={"reads":
"files", "urls": True}` (URLs too, which are downloaded into the run) or `metadata={"reads": "model"}` (a model on the
Hub, or the path of its folder). The values in `metadata["words"]` are no files.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import outputs
from ..errors import InputError
from ..reviews.downloads import Downloads, check_url, is_url
from .stages import STAGES, Config, Stage, config_class


def absolute(config: Config) -> Config:
    """`config` with absolute paths, so that a run does not depend on the current folder.

    Raises:
        ConfigError: a URL contains a secret.
    """
    return {
        name: dataclasses.replace(
            values,
            **{
                field.name: _absolute(getattr(values, field.name), field.metadata["reads"])
                for field in dataclasses.fields(values)
                if "reads" in field.metadata and not _is_word(field, getattr(values, field.name))
            },
        )
        for name, values in config.items()
    }


def still_true(section: str, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The `saved` settings of a section, without words about a file (`metadata={"about": …}`) that `given` replaces."""
    kept = dict(saved)
    for field in (field for stage in STAGES.values() if stage.section == section for field in _fields(stage)):
        file: str = field.metadata.get("about", "")
        if file in given and _path(saved.get(file)) != _path(given[file]):
            kept.pop(field.name, None)
    return kept


def _fields(stage: Stage) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config_class(stage))


def _path(value: Any) -> Any:
    return _absolute(value, "files") if isinstance(value, str) else value


def setting(field: dataclasses.Field[Any], value: Any) -> Any:
    """The part of a setting that enters the fingerprint; the path of a file outside the run does not."""
    if _is_word(field, value):
        return value
    if field.metadata.get("reads") == "files" or (field.metadata.get("reads") == "model" and _is_path(value)):
        return "files"
    return value


def is_unset(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether the setting is an optional file and names none: it does not enter the fingerprint.

    So a new setting of this kind leaves the outputs of existing runs fresh.
    """
    return value is None and field.metadata.get("reads") == "files"


def urls(settings: Any) -> dict[str, str]:
    """The URLs that the `settings` of a stage name as raw files, each with its option."""
    return {
        pattern: _option(field)
        for field in dataclasses.fields(settings)
        if field.metadata.get("urls")
        for pattern in _patterns(getattr(settings, field.name))
        if is_url(pattern)
    }


def downloads(run: Path) -> Downloads:
    """The downloaded files of `run`."""
    return Downloads(run / outputs.DOWNLOADS)


def read(settings: Any, run: Path, known: Mapping[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    """The files that the `settings` of a stage name, by path: kind, pattern, state (size, time) and SHA-256.

    The path of a downloaded file is relative to the run. A URL that was not downloaded yet has no SHA-256.

    Args:
        settings: the config dataclass of a stage.
        run: the run folder.
        known: the result of this function in the last run of the stage. A file of the same size and time is not hashed
            again, and a missing file keeps its recorded entry.
        hashes: hashes already computed in this process, by path.

    Raises:
        InputError: a file does not exist, is empty, or is not a regular file.
    """
    entries: dict[str, Any] = {}
    urls_of_run = urls(settings)
    fetched = downloads(run) if urls_of_run else None
    for field in dataclasses.fields(settings):
        kind = field.metadata.get("reads")
        if kind is None or _is_word(field, getattr(settings, field.name)):
            continue
        for pattern in _patterns(getattr(settings, field.name)):
            if kind == "model" and not _is_path(pattern):
                continue  # a name on the Hub
            recorded = {
                path: entry
                for path, entry in known.items()
                if (entry["kind"], entry.get("pattern")) == (field.name, pattern)
            }
            if fetched and pattern in urls_of_run:
                now = {
                    f"{outputs.DOWNLOADS}/{entry['path']}": {
                        "kind": field.name,
                        "pattern": pattern,
                        "state": entry["identity"],
                        "sha256": entry["sha256"],
                    }
                    for entry in fetched.entries(pattern)
                }
                missing = {pattern: {"kind": field.name, "pattern": pattern, "state": None, "sha256": ""}}
                entries |= now or recorded or missing
                continue
            if recorded and not Path(pattern).exists() and not glob.glob(pattern, recursive=True):
                entries |= recorded
                continue
            for path in _find(pattern, kind, _option(field)):
                stat = path.stat()
                state = [stat.st_size, stat.st_mtime_ns]
                before = known.get(str(path), {})
                content = before.get("sha256") if before.get("state") == state else None
                entries[str(path)] = {
                    "kind": field.name,
                    "pattern": pattern,
                    "state": state,
                    "sha256": content or _sha256(path, hashes),
                }
    return entries


def _option(field: dataclasses.Field[Any]) -> str:
    return "--" + str(field.metadata.get("option", field.name)).replace("_", "-")


def _find(pattern: str, kind: str, option: str) -> list[Path]:
    if kind == "files":
        from ..reviews.files import find

        return find([pattern], option)
    folder = Path(pattern)
    if not folder.exists():
        raise InputError(
            f"There is no model at {pattern}, given as {option}. Give the folder of a model, or its name on the Hub."
        )
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]


def _sha256(path: Path, hashes: dict[str, str]) -> str:
    if str(path) not in hashes:
        with path.open("rb") as file:
            hashes[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes[str(path)]


def _patterns(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif value is not None:
        yield from value


def _absolute(value: Any, kind: str) -> Any:
    if isinstance(value, str) and kind == "files" and is_url(value):
        check_url(value)
        return value
    if isinstance(value, str):
        path = os.path.expanduser(value)
        if kind == "files" and glob.has_magic(path) and not Path(path).exists():
            # The name of the current folder is no pattern.
            return os.path.normpath(os.path.join(glob.escape(os.getcwd()), path))
        return os.path.abspath(path) if value and (kind == "files" or _is_path(value)) else value
    return value if value is None else tuple(_absolute(part, kind) for part in value)


def _is_word(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether `value` is one of the words that the setting accepts in place of files."""
    return "words" in field.metadata and any(part in field.metadata["words"] for part in value)


def _is_path(value: Any) -> bool:
    """Whether a model is given as a path; as in transformers, an existing folder has priority over the Hub."""
    return isinstance(value, str) and (value.startswith((os.sep, ".", "~")) or Path(value).exists())
