"""Files behind URLs, opened from any position: http and https, and every file system of fsspec (hf://, s3://, …)."""

from __future__ import annotations

import http.client
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from ..errors import InputError
from ..version import __version__

TIMEOUT = 60
"""Seconds without a byte after which a connection counts as cut."""
PIECE = 2**18
"""Most bytes of a piece of http."""
BLOCK = 2**24
"""Bytes of a request to other file systems."""
ETAGS = ("ETag", "etag", "blob_id", "xet_hash", "md5Hash", "checksum")
"""Keys of the information of fsspec that identify the content of a file."""
TIMES = ("LastModified", "mtime", "updated", "modified", "uploaded_at", "created")
"""Keys of the time of the last change, used without an ETag."""

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The package that fsspec needs for a scheme. None is an extra: s3fs has no version for the pinned python-dateutil."""

Identity = dict[str, Any]
"""`etag`, or `size` and `modified`; a value is missing where the server sends none."""


def shown(url: str) -> str:
    """`url` for messages, without the query and the fragment of a web address; elsewhere, "?" is a wildcard.

    >>> shown("https://host/file.csv?download=1"), shown("hf://datasets/org/name/part-?.csv")
    ('https://host/file.csv?…', 'hf://datasets/org/name/part-?.csv')
    """
    return re.sub(r"[?#].*", "?…", url) if re.search(r"(?i)(^|::)https?://", url) else url


class Cut(Exception):
    """The connection failed, or ended early; the message is the reason."""


@dataclass
class Remote:
    """An open file."""

    identity: Identity
    start: int
    """Position of the first byte: the requested one, or 0 where the file changed or its server sends no ranges."""
    total: int | None
    """Bytes of the file, None if unknown."""
    read: Callable[[], bytes]
    """Returns the next bytes, empty at the end."""
    close: Callable[[], object]

    def pieces(self) -> Iterator[bytes]:
        """The bytes from `start` on.

        Raises:
            Cut: the connection failed.
        """
        while True:
            try:
                piece = self.read()
            except Exception as error:  # errors of the file systems have no common class
                raise Cut(reason(error)) from None
            if not piece:
                return
            yield piece

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class System(Protocol):
    """Where the files of a URL are."""

    def expand(self, pattern: str) -> list[str]:
        """The URLs of the files that `pattern` matches, in alphabetical order."""

    def open(self, url: str, known: Identity | None, start: int, identity: Identity | None) -> Remote | None:
        """Open a file.

        Args:
            url: the URL of the file.
            known: the identity of a file that was fetched before; if the file is still the same, the result is None.
            start: the position to read from.
            identity: the identity of the file that the bytes before `start` belong to.

        Raises:
            Cut: the connection failed.
            InputError: the file does not exist or is not accessible.
        """


def open_system(pattern: str, option: str) -> System:
    """The system of a URL given as `option`.

    Raises:
        InputError: there is no such system, or its package is not installed.
    """
    scheme = pattern.partition("://")[0].lower()
    return Web(option) if scheme in ("http", "https") else FileSystem(pattern, scheme, option)


def is_same(one: Identity | None, other: Identity | None) -> bool:
    """Whether two identities prove that the content is the same; a size proves nothing.

    >>> is_same({"etag": '"a"'}, {"etag": '"a"'}), is_same({"size": 3}, {"size": 3})
    (True, False)
    """
    return bool(one and other and one == other and ("etag" in one or {"size", "modified"} <= one.keys()))


def _identity(etag: Any, size: Any, modified: Any) -> Identity:
    if etag:
        return {"etag": str(etag)}
    return {name: value for name, value in (("size", size), ("modified", modified and str(modified))) if value}


class Web:
    """Files of web servers: one request per file, with the header `Range` and a condition on the ETag.

    The client of fsspec is not used: it reports every status as a missing file and stops after five minutes.
    """

    def __init__(self, option: str) -> None:
        self.option = option

    def expand(self, pattern: str) -> list[str]:
        """The URL itself: web servers list no files."""
        return [pattern]

    def open(self, url: str, known: Identity | None, start: int, identity: Identity | None) -> Remote | None:
        """Open a file, as in `System.open`."""
        headers = {"User-Agent": f"regen-hf/{__version__}", "Accept-Encoding": "identity"}
        resumed = start > 0 and is_same(identity, identity)
        if resumed and identity:
            headers["Range"] = f"bytes={start}-"
            if (mark := identity.get("etag") or identity["modified"]) and not mark.startswith("W/"):
                headers["If-Range"] = mark
        elif known and "etag" in known:
            headers["If-None-Match"] = known["etag"]
        elif known and "modified" in known:
            headers["If-Modified-Since"] = known["modified"]
        # Spaces and letters outside ASCII, as browsers accept them.
        request = urllib.request.Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers)  # noqa: S310 (http)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310 (http)
        except HTTPError as error:
            error.close()
            if error.code == 304:
                return None
            if error.code == 416 and resumed:
                return self.open(url, known, 0, None)
            raise _refused(url, self.option, error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise Cut(reason(error)) from None
        except ValueError:
            raise InputError(f"{shown(url)}, given as {self.option}, is no valid URL. Check it.") from None
        sent = response.headers
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", sent.get("Content-Range", ""))
        length = sent.get("Content-Length")
        total = int(span[2]) if span else int(length) if length else None
        new = _identity(sent.get("ETag"), total, sent.get("Last-Modified"))
        if response.status == 206 and not (span and int(span[1]) == start and is_same(new, identity)):
            response.close()
            return self.open(url, known, 0, None)
        if known and is_same(new, known):
            response.close()
            return None
        return Remote(new, start if response.status == 206 else 0, total, lambda: response.read1(PIECE), response.close)


class FileSystem:
    """Files of a file system of fsspec."""

    def __init__(self, pattern: str, scheme: str, option: str) -> None:
        import fsspec

        self.option = option
        try:
            self.system, _ = fsspec.core.url_to_fs(pattern)
        except ImportError as error:
            package = PACKAGES.get(scheme)
            missing = f"The package {package!r} is not installed. Install it with: pip install {package}"
            other = f"{shown(pattern)}, given as {option}, needs a package that is not installed: {reason(error)}"
            raise InputError(missing if package else other) from None
        except ValueError as error:
            raise InputError(
                f"{shown(pattern)}, given as {option}, is no URL that can be read ({reason(error)}), expected "
                "hf://, https:// or s3://. Check it, or download the file and give its path."
            ) from None

    def expand(self, pattern: str) -> list[str]:
        """The URLs of the files that `pattern` matches, in alphabetical order."""
        self.system.invalidate_cache()
        path = self.system._strip_protocol(pattern)
        if not re.search(r"[*?\[]", path):
            return [pattern]
        try:
            matches = self.system.glob(path, detail=True)
        except Exception as error:  # of any file system
            raise self._error(pattern, error) from None
        names = sorted(name for name, info in matches.items() if info["type"] == "file")
        if not names:
            raise InputError(f"No file matches {pattern!r}, given as {self.option}. Check the URL.")
        return [self.system.unstrip_protocol(name) for name in names]

    def open(self, url: str, known: Identity | None, start: int, identity: Identity | None) -> Remote | None:
        """Open a file, as in `System.open`."""
        path = self.system._strip_protocol(url)
        try:
            new, total = self._look(path, url)  # from the listing of `expand`, or of the last look
            if is_same(new, known):
                return None
            start = start if is_same(new, identity) and start <= (total or 0) else 0
            # Without a cache, each read is a request for its bytes.
            file = self.system.open(path, "rb", block_size=BLOCK, cache_type="none")
            file.seek(start)
        except InputError:
            raise
        except Exception as error:  # of any file system
            raise self._error(url, error) from None

        def read() -> bytes:
            piece: bytes = file.read(BLOCK)
            if not piece:
                self.system.invalidate_cache()
                if self._look(path, url)[0] != new:
                    raise OSError("the file changed while it was read")
            return piece

        return Remote(new, start, total, read, file.close)

    def _look(self, path: str, url: str) -> tuple[Identity, int | None]:
        """The identity and the size of a file."""
        info = self.system.info(path)
        if info["type"] == "directory":
            raise InputError(
                f"{url}, given as {self.option}, is a folder. Name its files, for example "
                f"'{url.rstrip('/')}/*.parquet'."
            )
        values = [next((info[key] for key in keys if info.get(key)), None) for keys in (ETAGS, TIMES)]
        return _identity(values[0], info.get("size"), values[1]), info.get("size")

    def _error(self, url: str, error: BaseException) -> Exception:
        status = _status(error)
        if isinstance(error, FileNotFoundError) and status != 403:
            status = 404
        elif isinstance(error, PermissionError):
            status = 403
        return _refused(url, self.option, status) if status else Cut(reason(error))


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of a client library."""
    while error is not None:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None) or getattr(error, "status", None)
        if isinstance(response, dict):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _refused(url: str, option: str, status: int) -> Exception:
    """The error for a status of the server of `url`; `Cut` for one that may pass."""
    if status >= 500 or status in (408, 429):
        return Cut(f"the server answered with status {status}")
    at = f"the URL {shown(url)}, given as {option}"
    if url.startswith("hf://"):
        access = "Check the URL; for a private or gated repository, set HF_TOKEN to a token that can read it."
    elif url.startswith("http"):
        access = "Check the URL; if it needs a login, download the file and give its path."
    else:
        access = "Check the URL and the credentials in the environment."
    if status in (401, 403):
        return InputError(f"Access to {at}, was denied (status {status}). {access}")
    if status in (404, 410):
        return InputError(f"There is no file at {at} (status {status}). {access}")
    return InputError(f"The server of {at}, answered with status {status}. {access}")


def reason(error: BaseException) -> str:
    """The reason of a failed connection, for a message, without queries of URLs, which may be signatures."""
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    text = re.sub(r"(\w+://[^\s'\"?]+)\?[^\s'\"]*", r"\1?…", str(error)).strip().rstrip(".")
    return text.splitlines()[0] if text else type(error).__name__
