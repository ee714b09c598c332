"""The reply in a chat completion, in the forms in which servers send it."""

from __future__ import annotations

import json
from typing import Any

from .connection import error_in
from .headers import redact
from .request import Reply


def parse_reply(payload: Any, form: str, batched: bool = False) -> Reply | None:
    """The reply in a parsed chat completion, None where it is not one or holds an error.

    The text is that of the content; without content, the arguments of a tool call, a refusal, or the reasoning.
    """
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list) or error_in(payload):
        return None
    choice = (choices or [{}])[0]
    message = (choice.get("message") or {}) if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    text = _text(message.get("content"))
    finish_reason = choice.get("finish_reason")
    if not text.strip():
        refusal = message.get("refusal")
        reasoning = _text(message.get("reasoning_content") or message.get("reasoning"))
        finish_reason = "refusal" if refusal else finish_reason
        text = _arguments(message) or _text(refusal) or (f"<think>{reasoning}" if reasoning.strip() else text)
    usage = payload.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        redact(text),
        finish_reason=None if finish_reason is None else str(finish_reason),
        prompt_tokens=_token_count(usage.get("prompt_tokens")),
        completion_tokens=_token_count(usage.get("completion_tokens")),
        form=form,
        batched=batched,
    )


def _text(content: Any) -> str:
    """The text of a content: a string, an object, or a list of parts, whose reasoning is left out."""
    if isinstance(content, list):
        parts = (part if isinstance(part, dict) else {"text": part} for part in content)
        return "".join(_text(part.get("text")) for part in parts if part.get("type") in (None, "text", "output_text"))
    if isinstance(content, str | None):
        return content or ""
    return json.dumps(content)


def _arguments(message: dict[str, Any]) -> str:
    """The arguments of the first tool call, empty if there is none."""
    calls = message.get("tool_calls") or [{"function": message.get("function_call")}]
    call = calls[0] if isinstance(calls, list) else calls
    function = call.get("function") if isinstance(call, dict) else None
    return _text(function.get("arguments")) if isinstance(function, dict) else ""


def _token_count(reported: Any) -> int:
    """A number of tokens that a server reports; 0 where it is impossible."""
    try:
        tokens = int(reported or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
    return tokens if 0 <= tokens < 2**31 else 0
