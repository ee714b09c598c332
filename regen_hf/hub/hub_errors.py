"""Errors of the Hub and its client, as a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RegenError


def check_token(user: Mapping[str, Any], namespace: str) -> None:
    """Check that the token of `user` can write to `namespace`, as far as the Hub reports it.

    Raises:
        RegenError: it cannot.
    """
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise RegenError("the token can only read. Create one that can write: https://huggingface.co/settings/tokens.")
    namespaces = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if namespace not in namespaces:
        raise RegenError(
            f"the token of {user['name']} cannot write to {namespace}, only to {', '.join(namespaces)}. Choose one."
        )


def explain(error: Exception) -> str:
    """What `error` means and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:  # an upload wraps its error
        causes.append(cause)  # type: ignore[arg-type]
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return "HF_HUB_OFFLINE is set, so that the Hub cannot be used. Unset it."
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token. Log in with `hf auth login`, or set HF_TOKEN."
    response = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if response is not None:
        status = response.response.status_code
        message = response.server_message or f"status {status}"
        if status == 401:
            return "the Hub does not accept the token. Log in with `hf auth login`, or set HF_TOKEN."
        if status == 403:
            return f"the token does not allow it ({message}). Use one with write access."
        if status in (409, 412):
            return f"another push changed it at the same time ({message}). Push again."
        return f"the Hub rejected the request ({message}). Push again later: uploaded files are not sent again."
    if any(is_unreachable(cause) for cause in causes):
        return f"{constants.ENDPOINT} cannot be reached. Check the network, then push again."
    return str(error).strip().splitlines()[0]


def is_unreachable(error: BaseException) -> bool:
    """Whether `error` means that the Hub did not answer."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    return isinstance(error, HTTPError | ConnectionError) and not isinstance(error, HfHubHTTPError)


def client_errors() -> tuple[type[Exception], ...]:
    """The exceptions that the client raises where the Hub rejects a request or cannot be reached."""
    from huggingface_hub.errors import HTTPError  # that of httpx, whatever its version

    return (HTTPError, OSError, RuntimeError, ValueError)
