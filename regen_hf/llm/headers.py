"""Address and headers of a request to a server, and the secrets among them.

A secret comes from an environment variable when a request is sent. It is never stored, and replaced in messages.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlencode

from ..errors import ConfigError
from ..version import __version__
from .answers import writable
from .endpoint import KEY, OPENAI, REFERENCE, SECRET
from .settings import LLMConfig

ACCOUNT_HEADERS = (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID"))
"""Headers that the official client sends too, and their environment variables."""
LONG = 20
"""Characters of an environment variable that is replaced in messages whatever its name is."""
_in_headers: set[str] = set()
"""Environment variables whose values were sent in headers and are secrets."""


def api_key(config: LLMConfig) -> str:
    """The key from the environment; `none` if there is none and the server may need none.

    Raises:
        ConfigError: there is no key for the official server, or the key has invalid characters.
    """
    key = _value(KEY)
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"The environment variable {KEY} contains a line break or a character outside of ASCII, expected "
            "only the key. Set it again."
        )
    own = any(header.lower().startswith("authorization") for header in config.extra_header)
    if not key and not own and any(url.rstrip("/") == OPENAI for url in config.base_url):
        raise ConfigError(
            f"The server {OPENAI} needs a key. Set the environment variable {KEY}, or set base_url to a "
            "server that needs none."
        )
    return key or "none"


def headers(config: LLMConfig) -> dict[str, str]:
    """The headers of every request, with the values of environment variables.

    Raises:
        ConfigError: see `api_key`; or a header refers to an environment variable that is not set, or cannot be sent.
    """
    key = api_key(config)
    sent = {"api-key": key} if config.api_version else {"Authorization": f"Bearer {key}"}
    sent |= {"User-Agent": f"regen-hf/{__version__}"}
    sent |= {name: value for name, variable in ACCOUNT_HEADERS if (value := os.environ.get(variable))}
    for header in config.extra_header:
        name, _, value = (part.strip() for part in header.partition(":"))
        sent = {other: text for other, text in sent.items() if other.lower() != name.lower()}
        sent[name] = "".join(
            _expanded(text[1:].strip("{}"), name) if REFERENCE.fullmatch(text) else text
            for text in re.split(rf"({REFERENCE.pattern})", value)
        )
    return sent


def _expanded(variable: str, header: str) -> str:
    value = _value(variable)
    if not value or not value.isascii() or not value.isprintable():
        reason = "contains a line break or a character outside of ASCII" if value else "is not set"
        raise ConfigError(
            f"The header {header} refers to the environment variable {variable}, which {reason}. Set it, or change "
            "extra_header."
        )
    if SECRET.search(header) or SECRET.search(variable) or len(value) >= LONG:
        _in_headers.add(variable)
    return value


def url_of(base_url: str, path: str, config: LLMConfig) -> str:
    """The address of `path`, such as /chat/completions, on a server."""
    query = f"?{urlencode({'api-version': config.api_version})}" if config.api_version else ""
    return base_url.rstrip("/") + path + query


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()  # a value that was read from a file ends with a line break


def redact(message: str) -> str:
    """`message` of a server or a library without the key and the other secrets."""
    # The longest first: one secret may be the start of another one.
    for value in sorted((_value(variable) for variable in (KEY, *_in_headers)), key=len, reverse=True):
        if len(value) > 4:
            message = message.replace(value, "***")
    return writable(message)
