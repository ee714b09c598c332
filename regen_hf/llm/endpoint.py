"""Checks of the settings that add addresses, headers and fields to the requests to a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
"""The environment variable of the key."""
OWN_HEADERS = ("content-type", "content-length", "content-encoding", "transfer-encoding", "accept-encoding")
"""Headers that cannot be set."""
OWN_FIELDS = (
    *("model", "messages", "seed", "random_seed", "temperature", "top_p", "max_tokens", "max_completion_tokens"),
    *("response_format", "stream", "n"),
)
"""Fields of a request that extra_body cannot contain."""
SECRET = re.compile(r"auth(?!or\b)|key|token|secret|cookie|password|credential", re.I)
"""Names of headers and environment variables that usually hold a secret."""
REFERENCE = re.compile(r"\$\{\w+\}|\$\w+")
"""A reference to an environment variable."""


def check_addresses(urls: Iterable[str]) -> None:
    """Check the addresses of servers; raises ValueError."""
    addresses = [url.rstrip("/") for url in urls]
    if not addresses:
        raise ValueError("base_url is empty, expected one address or several")
    for url in addresses:
        address = urlsplit(url)
        if "@" in address.netloc or address.query or address.fragment:
            # Without the value, which may contain a key.
            raise ValueError(
                "base_url contains a user name, a query or a fragment, expected only an address; remove the part "
                f"before @ or after ?, and set the environment variable {KEY} to the key and api_version to the "
                "version of Azure's API"
            )
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"base_url is {url!r}, expected an address such as http://localhost:8000/v1")
        if addresses.count(url) > 1:
            raise ValueError(f"base_url contains {url!r} twice, expected different addresses")


def check_headers(headers: Iterable[str]) -> None:
    """Check the setting `extra_header`; raises ValueError without the value of the header."""
    for header in headers:
        name, colon, value = (part.strip() for part in header.partition(":"))
        if not colon or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            shown = repr(name[:40]) if colon else "a text without a colon"
            raise ValueError(f"extra_header has {shown} as a name, expected 'NAME: VALUE', such as 'X-Team: research'")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"extra_header contains {name}, which depends on the request; remove it")
        if SECRET.search(name) and not re.fullmatch(rf"([\w-]+[ =])?({REFERENCE.pattern})", value):
            raise ValueError(
                f"extra_header contains a literal value of {name}, which usually holds a secret, expected an "
                f"environment variable; set, for example, MY_SECRET in the environment and '{name}: $MY_SECRET' here"
            )
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"extra_header contains an invalid character in the value of {name}; remove it")


def check_body(extra_body: Mapping[str, Any], thinking: bool | None) -> None:
    """Check the setting `extra_body`; raises ValueError."""
    for name in OWN_FIELDS:
        if name in extra_body:
            instead = f"set {name}" if name in ("model", "seed", "temperature", "top_p", "max_tokens") else "remove it"
            raise ValueError(f"extra_body contains {name!r}, which regen sets itself; {instead}")
    template = extra_body.get("chat_template_kwargs", {})
    if thinking is not None and not (isinstance(template, dict) and "enable_thinking" not in template):
        raise ValueError(
            "extra_body contains chat_template_kwargs, and thinking is set too; remove enable_thinking from extra_body"
        )
    try:
        json.dumps(extra_body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra_body cannot be written as JSON ({error}), expected plain values") from None
