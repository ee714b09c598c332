"""Why the Hub, or the way to it, keeps a push from going on: in a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RegenError


def check_token(user: Mapping[str, Any], namespace: str) -> None:
    """Refuse a token that cannot write to `namespace`, as far as the Hub tells.

    Raises:
        RegenError: with where it can write.
    """
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise RegenError("the token may only read. Make one that may write at https://huggingface.co/settings/tokens.")
    known = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if namespace not in known:
        raise RegenError(f"the token belongs to {user['name']}, who can push to {', '.join(known)} alone.")


def reason(error: Exception) -> str:
    """What went wrong on the way to the Hub, in a sentence that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:  # an upload wraps what stopped it
        causes.append(cause)  # type: ignore[arg-type]
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return "HF_HUB_OFFLINE is set, which keeps the Hub out of reach. Unset it."
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token. Log in with `hf auth login`, or set HF_TOKEN."
    refusal = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if refusal is not None:
        status = refusal.response.status_code
        told = refusal.server_message or f"status {status}"
        if status == 401:
            return "the Hub does not accept the token. Log in with `hf auth login`, or set HF_TOKEN."
        if status == 403:
            return f"the token may not do this ({told}). Use one that may write there."
        if status in (409, 412):
            return f"someone else has pushed to it at the same time ({told}). Push again."
        return f"the Hub refused ({told}). Push again later: what was uploaded is not uploaded twice."
    if any(is_unreachable(cause) for cause in causes):
        return f"{constants.ENDPOINT} cannot be reached. Check the network, then push again."
    return str(error).strip().splitlines()[0]


def is_unreachable(error: BaseException) -> bool:
    """Whether an error means that there was no answer at all."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    return isinstance(error, HTTPError | ConnectionError) and not isinstance(error, HfHubHTTPError)


def errors() -> tuple[type[Exception], ...]:
    """What the client raises where the Hub refuses or cannot be reached."""
    from huggingface_hub.errors import HTTPError  # that of httpx, of whatever version

    return (HTTPError, OSError, RuntimeError, ValueError)
