"""One HTTP request to an OpenAI-compatible server, and the reason why it failed.

It uses aiohttp directly: the official client reads answers of any size into memory, and takes more CPU per request.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .headers import headers, redact, url_of
from .pace import retry_after
from .settings import LLMConfig

if TYPE_CHECKING:
    import aiohttp

OVERLOADED = (429, 503, 529)
"""Statuses of an overloaded server; the request itself may be fine."""
REJECTED = (400, 413, 422, 451)
"""Statuses of a request that the server never accepts, such as one that is longer than the model's window."""
NO_SUCH_MODEL = re.compile(
    r"model.*(not (exist|found|supported|available|a valid)|\binvalid\b|\bunknown\b)|(unknown|invalid|no such) model",
    re.I | re.S,
)
"""Error messages about a model that the server does not have."""
CONTENT_RULES = re.compile(
    r"content.{0,20}(filter|policy|management)|moderation|flagged|safety|inappropriate|data_inspection", re.I | re.S
)
"""Error messages about the rules of a server for the content of requests."""
ACCOUNT = re.compile(
    r"(api|access|auth\w*|subscription|secret)[ _-]?(key|token)|credential|unauthori[sz]ed|authenticat|quota|billing|"
    r"payment|insufficient.{0,10}(funds|credit|balance)",
    re.I,
)
"""Error messages about the key or the account, which some servers send with status 400 or 403."""
BUSY = re.compile(
    r"queue|too many (requests|connections)|rate.?limit|overload|capacity|throttl|try again|temporar|gateway|upstream",
    re.I,
)
"""Error messages of a server or gateway with too many requests, which some send with status 400 or 403."""
WINDOW = re.compile(
    r"""\d+\ (?:tokens\ )?>\ ([\d,]+)                                         # … > 200000 maximum
    | must\ be\ <=\ ([\d,]+)\.\ given                                          # inputs + max_new_tokens must be <= …
    | ([\d,]+)\ (?:tokens?\ )?maximum\ context\ length
    | maximum\ number\ of\ tokens\ allowed\ \(([\d,]+)
    | \bn_ctx\b\W{0,3}([\d,]+)
    | (?:context\ (?:length|size|window|limit)|max\w*\ (?:model|prompt|sequence)\ length)
      (?:(?!exceed|request)\D){0,30}([\d,]+)(?![\d,]|\ \+)""",
    re.I | re.X,
)
"""Error messages that state the context window of the model."""
PAGE = re.compile(r"<(!doctype|html)", re.I)
"""The start of a web page."""

ANSWER_BYTES = 2**20
"""Maximum bytes of an answer, besides those of its tokens."""
TOKEN_BYTES = 64
"""Maximum bytes per token of an answer; a character outside of ASCII takes up to 12 bytes in JSON."""


class AttemptFailed(Exception):
    """One attempt of a request failed.

    Args:
        message: The server's message, or the cause.
        status: The HTTP status; 0 if there is no answer or no valid one.
        wait: The server's retry-after, in seconds.
        code: The code of the error in the answer.
        timed_out: Whether no answer came in time.
        unreachable: Whether there was no connection to the server.
        page: Whether the answer is a web page, which comes from a gateway and not from the server of the model.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        wait: float | None = None,
        code: str | None = None,
        timed_out: bool = False,
        page: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.wait, self.code = message, status, wait, code
        self.timed_out, self.page, self.unreachable = timed_out, page, unreachable

    @property
    def overloaded(self) -> bool:
        """Whether the server has too many requests."""
        return self.status in OVERLOADED or (
            self.status in (400, 403) and not self.rejected and (self.busy or self.page)
        )

    @property
    def busy(self) -> bool:
        """Whether the message is about too many requests."""
        return bool(BUSY.search(self.message))

    @property
    def rejected(self) -> bool:
        """Whether the server never accepts this request."""
        return is_rejection(self.status, self.message, self.page)

    @property
    def by_content_rules(self) -> bool:
        """Whether the server rejects the content of the request."""
        return self.rejected and bool(CONTENT_RULES.search(self.message))

    @property
    def about_account(self) -> bool:
        """Whether the key or the account is the reason, so that a retry is useless."""
        return self.status in (401, 402) or (self.status in (400, 403) and not self.rejected and not self.overloaded)


def is_rejection(status: int, message: str = "", page: bool = False) -> bool:
    """Whether an error means that the server never accepts the request, so that a retry is useless.

    >>> [is_rejection(status) for status in (200, 400, 403, 404, 422, 429, 500)]
    [False, True, False, False, True, False, False]
    >>> is_rejection(403, "flagged by moderation"), is_rejection(400, "You exceeded your current quota")
    (True, False)
    """
    if status in (400, 403) and CONTENT_RULES.search(message):
        return True
    if status in (*REJECTED, 500) and stated_window(message) is not None:
        return True
    elsewhere = page or ACCOUNT.search(message) or BUSY.search(message)
    return status in REJECTED and not (status == 400 and elsewhere)


def stated_window(message: str) -> int | None:
    """The context window that an error message states, in tokens; None if it states none.

    >>> stated_window("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens")
    4096
    >>> stated_window("Requested tokens (2371) exceed context window of 2048"), stated_window("You sent 5000 tokens")
    (2048, None)
    """
    match = WINDOW.search(message)
    digits = next(filter(None, match.groups())).replace(",", "") if match else ""
    return int(digits) or None if 1 <= len(digits) <= 9 else None


def error_in(payload: Any) -> AttemptFailed | None:
    """The error in an answer with status 200; None if there is none. It may be retried."""
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    choices = payload.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):  # an error while the model wrote
        unnamed = "the server stopped with an error" if choices[0].get("finish_reason") == "error" else None
        error = error or choices[0].get("error") or unnamed
    if not error:
        return None
    message, code = _error_parts({"error": error})
    status = int(code) if code and re.fullmatch("[45][0-9][0-9]", code) else 0
    if is_rejection(status) and not CONTENT_RULES.search(message):
        status = 0
    return AttemptFailed(message, status, code=code)


def _error_parts(payload: Any) -> tuple[str, str | None]:
    """The message and the code in the JSON of an error, in any of the forms that servers use."""
    if isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    error = payload
    if isinstance(payload, dict):
        error = payload.get("error") or payload.get("detail") or payload
    if not isinstance(error, dict):
        return redact(error if isinstance(error, str) else json.dumps(error))[:500], None
    message, code = error.get("message"), error.get("code")
    if not isinstance(message, str) or not message or "metadata" in error:  # a router's details are in its metadata
        message = json.dumps(error)
    if isinstance(error.get("n_ctx"), int):  # the only statement of the window in some versions of llama.cpp
        message += f" (n_ctx {error['n_ctx']})"
    if isinstance(code, str) and code in ("content_filter", "content_policy_violation"):
        message = f"content filter: {message}"
    return redact(message)[:500], None if code is None else str(code)


class Connection:
    """A session with a server, to be closed by its user; needs a running event loop.

    Raises:
        ConfigError: see `headers.headers`.
    """

    def __init__(self, config: LLMConfig, base_url: str) -> None:
        import aiohttp

        self.timeout = config.timeout
        self.connect_timeout = min(30.0, config.timeout)
        self.url = url_of(base_url, "/chat/completions", config)
        address = urlsplit(base_url)
        bypass = urllib.request.proxy_bypass(address.hostname or "")
        self._proxy = None if bypass else urllib.request.getproxies().get(address.scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.connect_timeout),
            headers={**headers(config), "Content-Type": "application/json", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, body: dict[str, Any], max_tokens: int) -> Any:
        """The parsed JSON of the answer to `body`, which has at most `max_tokens` tokens.

        Raises:
            AttemptFailed: there is no answer, or it is an error or not JSON.
        """
        import aiohttp

        data = json.dumps(body).encode()
        most = ANSWER_BYTES + TOKEN_BYTES * max_tokens
        try:
            async with (
                asyncio.timeout(self.timeout),
                # A redirect could send the prompts and the secrets in the headers to another host.
                self._session.post(self.url, data=data, proxy=self._proxy, allow_redirects=False) as response,
            ):
                status, headers = response.status, response.headers
                content = await _content(response, most)
        except AttemptFailed:
            raise
        except aiohttp.ConnectionTimeoutError:
            message = f"no connection within {self.connect_timeout} seconds"
            raise AttemptFailed(message, unreachable=True) from None
        except TimeoutError:
            raise AttemptFailed(f"no answer within {self.timeout} seconds", timed_out=True) from None
        except Exception as error:  # a library's exceptions for malformed answers have no common class
            unreachable = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientSSLError)
            raise AttemptFailed(redact(_cause(error)), unreachable=unreachable) from None
        if 300 <= status < 400:
            address = redact(headers.get("Location", "another address"))[:200]
            raise AttemptFailed(f"the server redirects to {address}; base_url should be the final address", status)
        try:
            payload = json.loads(content)
        except (ValueError, RecursionError):
            payload = None
        if status >= 400:
            text = redact(content.decode(errors="replace").strip())[:500]
            message, code = (text, None) if payload is None else _error_parts(payload)
            failure = f"Error code: {status} - {message or 'no message'}"
            raise AttemptFailed(failure, status, retry_after(headers), code, page=bool(PAGE.match(text)))
        if payload is None:
            shown = redact(content[:1000].decode(errors="replace"))[:200]
            raise AttemptFailed(f"the reply is not JSON but {shown!r}; base_url should end in /v1")
        return payload


async def _content(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The decompressed body of `response`; raises AttemptFailed if it has more than `most` bytes."""
    chunks, size = [], 0
    too_large = AttemptFailed(f"the answer has more than {most:,} bytes", response.status)
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            raise too_large
    content = b"".join(chunks)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding in ("gzip", "deflate"):
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
        content = decompressor.decompress(content, most + 1)
        if len(content) > most:
            raise too_large
    elif encoding != "identity":
        raise AttemptFailed(f"the answer has the encoding {encoding[:50]!r}, which was not requested", response.status)
    return content


def _cause(error: Exception) -> str:
    """What an exception of aiohttp means, with its message."""
    import aiohttp

    causes: tuple[tuple[type[Exception], str], ...] = (
        (aiohttp.ClientConnectorDNSError, "the name of the host cannot be resolved (DNS)"),
        (aiohttp.ClientSSLError, "the TLS connection failed"),
        (aiohttp.ServerDisconnectedError, "the server closed the connection without an answer"),
        (aiohttp.ClientPayloadError, "the answer is cut off"),
        (aiohttp.ClientResponseError, "the answer is malformed HTTP"),
    )
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return f"the connection is refused, no server listens at that address: {error}"
    named = next((words for kind, words in causes if isinstance(error, kind)), type(error).__name__)
    return f"{named}: {error}"[:500]
