"""URLs as inputs: files of the Hub, the web, S3 or any other file system of fsspec, fetched once into a folder.

A file is fetched when it is needed for the first time, and is then read from the folder without a request. The folder's
index records for each URL the identity of its file (ETag, or size and time) and the SHA-256 of its content:

    {"patterns": {URL as given: [URL of a file, …]},
     "files": {URL of a file: {"path": relative to the folder, "identity": {…}, "size": bytes, "sha256": …}},
     "unfinished": {URL of a file: identity of the file that a `.part` is the beginning of}}

URLs with a password or a signature are rejected, so that no secret reaches the index or the settings of a run.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError, InputError
from ..outputs import DOWNLOADS_INDEX, write_json
from ..progress import Bar
from . import remote_files
from .remote_files import Cut, Identity, Remote, shown

TRIES = 3
"""Connections without a byte of progress, after which a download is given up."""
PAUSE = 1.0
"""Seconds after the first connection without progress; after the second, twice as many."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECRETS = re.compile(
    r"sig|token|key|secret|passw|pwd|auth|credential|session|jwt|hmac|^x-(amz|goog|ms)-", re.IGNORECASE
)
"""Names of query parameters whose values grant access."""


def is_url(pattern: str) -> bool:
    """Whether a pattern of input files is a URL.

    >>> is_url("hf://datasets/org/name/*.parquet"), is_url("log/*.csv")
    (True, False)
    """
    return URL.match(pattern) is not None


def check_url(url: str) -> None:
    """Check that settings with `url` can be stored: it contains no secret, and no pattern where none works.

    Raises:
        ConfigError: it contains a user name, a password or a signature, or is a pattern of https.
    """
    if re.search(r"://[^/?#]*@", url):
        host = re.sub(r"://[^/?#]*@", "://", shown(url))
        raise ConfigError(
            f"The URL {host} was given with a user name or a password, which the settings would store. "
            "Omit it, and provide the credentials in the environment (HF_TOKEN, AWS_ACCESS_KEY_ID), or download the "
            "file and give its path."
        )
    names = [part.partition("=")[0] for part in re.split(r"[?#&;]", url)[1:] if "=" in part]
    if secret := next((name for name in names if SECRETS.search(name)), None):
        raise ConfigError(
            f"The URL {re.split('[?#&;]', url)[0]}?… is signed: its parameter {secret!r} grants access, and the "
            "settings would store it. Download the file and give its path, or use s3:// or hf:// with credentials in "
            "the environment."
        )
    if url.lower().startswith(("http://", "https://")) and "*" in urlsplit(url).path:
        raise ConfigError(
            f"{shown(url)} is a pattern, and a web server lists no files. Name each file; patterns work for hf:// and "
            "s3://."
        )


class Downloads:
    """A folder of fetched files and its index. No method except `fetch` sends a request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / DOWNLOADS_INDEX).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # a damaged index: the files are fetched again
            index = {}
        self.patterns: dict[str, list[str]] = index.get("patterns", {})
        self.files: dict[str, dict[str, Any]] = index.get("files", {})
        self.unfinished: dict[str, Identity] = index.get("unfinished", {})

    def entries(self, pattern: str) -> list[dict[str, Any]]:
        """The entries of the files of a URL in the index, in order; empty if one of them is not in the folder."""
        entries = [entry for url in self.patterns.get(pattern, ()) if self._is_complete(entry := self.files.get(url))]
        return entries if len(entries) == len(self.patterns.get(pattern, ())) else []

    def is_fetched(self, pattern: str) -> bool:
        """Whether all files of a URL are in the folder."""
        return bool(self.entries(pattern))

    def paths(self, patterns: Sequence[str]) -> list[str]:
        """`patterns` with the paths of the fetched files in place of each URL.

        Raises:
            InputError: a URL was not fetched yet.
        """
        paths = []
        for pattern in patterns:
            if is_url(pattern) and not self.is_fetched(pattern):
                raise InputError(f"{shown(pattern)} was not downloaded yet. Run `regen sequences` to download it.")
            local = [str(self.folder / entry["path"]) for entry in self.entries(pattern)]
            paths += local if is_url(pattern) else [pattern]
        return paths

    def fetch(self, pattern: str, option: str, refresh: bool = False) -> None:
        """Fetch the files of the URL `pattern`, given as `option`, that are not in the folder.

        A `.part` of an interrupted download is completed, if the file is still the same.

        Args:
            pattern: a URL, with wildcards where the file system can list files.
            option: the option for messages.
            refresh: list and compare the files again, and fetch those that changed.

        Raises:
            InputError: a file does not exist, is no file of data, or cannot be fetched; or the package of its file
                system is not installed.
        """
        if self.is_fetched(pattern) and not refresh:
            return
        system = remote_files.open_system(pattern, option)
        try:
            urls = system.expand(pattern)
        except Cut as cut:
            raise _failed(pattern, 0, cut) from None
        for url in urls:
            entry = self.files.get(url)
            if refresh or not self._is_complete(entry):
                self._fetch(system, url, entry)
        self.patterns[pattern] = urls
        self._save()

    def _fetch(self, system: remote_files.System, url: str, entry: dict[str, Any] | None) -> None:
        target = self.folder / _name(url)
        part = target.with_name(target.name + ".part")
        known = entry["identity"] if self._is_complete(entry) else None
        tries = 0
        while True:
            before = part.stat().st_size if part.exists() and url in self.unfinished else 0
            try:
                remote = system.open(url, known, before, self.unfinished.get(url))
                if remote is None:
                    return  # unchanged
                with remote:
                    self._write(remote, url, part)
                break
            except Cut as cut:
                received = part.stat().st_size if part.exists() else 0
                tries = 0 if received > before else tries + 1
                if tries == TRIES:
                    raise _failed(url, received, cut) from None
                time.sleep(PAUSE * tries)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = part.stat().st_size
        part.replace(target)
        path = target.relative_to(self.folder).as_posix()
        self.files[url] = {"path": path, "identity": remote.identity, "size": size, "sha256": digest}
        del self.unfinished[url]
        self._save()

    def _write(self, remote: Remote, url: str, part: Path) -> None:
        """Append the bytes of `remote` to `part`.

        Raises:
            Cut: the connection ended early.
            InputError: the content is empty or a web page, or the disk is too small.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
        if remote.total is not None and remote.total - remote.start > free:
            raise InputError(
                f"{shown(url)} has {remote.total:,} bytes, and the disk of {self.folder} has {free:,} bytes left. Free "
                "some space and run the same command again to resume."
            )
        position = remote.start
        with part.open("r+b" if position else "wb") as file:
            self.unfinished[url] = remote.identity
            self._save()
            file.truncate(position)
            file.seek(position)
            name = part.name.removesuffix(".part")
            with Bar(about=f"download {name}", total=remote.total, initial=position, unit="B", unit_scale=True) as bar:
                for piece in remote.pieces():
                    if position == 0 and piece.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
                        raise InputError(
                            f"{shown(url)} returned a web page, expected a file of reviews or items. Open it in a "
                            "browser: the download may need another URL or a login."
                        )
                    file.write(piece)
                    position += len(piece)
                    bar.update(len(piece))
        if remote.total is not None and position != remote.total:
            raise Cut(f"the connection ended before {remote.total:,} bytes")
        if position == 0:
            raise InputError(f"{shown(url)} is empty (0 bytes), expected a file of reviews or items. Check the URL.")

    def _is_complete(self, entry: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
        """Whether the file of an entry is in the folder."""
        if entry is None:
            return False
        path = self.folder / entry["path"]
        return path.is_file() and path.stat().st_size == entry["size"]

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        index = {"patterns": self.patterns, "files": self.files, "unfinished": self.unfinished}
        write_json(self.folder / DOWNLOADS_INDEX, index)


def _failed(url: str, received: int, cut: Cut) -> InputError:
    return InputError(
        f"The download of {shown(url)} failed after {received:,} bytes: {cut}. Check the network and run the same "
        "command again to resume."
    )


def _name(url: str) -> str:
    """The path of the file of `url` in the folder: a hash, so that equal file names differ, and the file name."""
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^\w.-]", "_", last).lstrip(".")[-100:] or "file"
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}/{name}"
