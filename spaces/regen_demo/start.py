"""The start of the Space: its config.json, what is missing where it cannot start, and a fair queue."""

import asyncio
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub import constants

QUEUE = 64
"""Requests that wait at most."""
FAIR_SHARE = QUEUE // 2
"""Requests of one address that wait at most."""
UNREAD_SECONDS = 10
"""A request whose answers nobody has read for so long is dropped."""

_private = {
    folder
    for folder in (str(Path.home()), str(Path(__file__).parent), constants.HF_HOME, constants.HF_HUB_CACHE)
    if folder != os.sep
}
"""Folders of this machine, which no page may name; `config` adds the model and the dataset."""

EXAMPLE = """{
  "model": "org/model", "model_revision": "main",
  "dataset": "org/dataset", "dataset_revision": "main", "dataset_config": "office",
  "split": "test", "splits": ["train", "validation", "test"], "simulated": false, "item_head": true,
  "tasks": [{"name": "user_profile", "question": "Who is this?", "field": ["user", "profile"], "rated_in": "user"}]
}"""


class NotReadyError(Exception):
    """A part of the Space is missing; the message says which one and what to do."""


def config() -> dict[str, Any]:
    """The content of config.json.

    Raises:
        NotReadyError: there is no such file, or it is incomplete.
    """
    path = Path(os.environ.get("REGEN_DEMO_CONFIG", Path(__file__).parent / "config.json"))
    how = f"`regen push RUN --namespace ORG` writes the file. By hand it looks like this:\n\n```json\n{EXAMPLE}\n```"
    if not path.exists():
        raise NotReadyError(f"**There is no `config.json` beside `app.py`, which names the model and dataset.** {how}")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = sorted(json.loads(EXAMPLE).keys() - values.keys())
    except (ValueError, AttributeError) as error:
        raise NotReadyError(f"**`config.json` is not a JSON object** ({error}). {how}") from error
    if missing:
        raise NotReadyError(f"**`config.json` has no `{'`, `'.join(missing)}`.** {how}")
    _private.update(name for name in (values["model"], values["dataset"]) if Path(name).is_absolute())
    return values


@contextmanager
def loading(part: str, name: str) -> Iterator[None]:
    """Raise NotReadyError where `part` of the repository or folder `name` cannot be loaded."""
    try:
        yield
    except NotReadyError:
        raise
    except Exception as error:
        logging.exception("%s could not be loaded", part)
        reason = f"{type(error).__name__}: {without_paths(str(error)).strip()[:600]}"
        raise NotReadyError(
            f"**{part} of `{shown_name(name)}` could not be loaded.** {reason}\n\n"
            "Check the name and the revision in `config.json`, that the files are complete, and that this page may "
            "read them. Then start it again. Its log has the details."
        ) from error


def shown_name(name: str) -> str:
    """The name of a repository; of a folder of this machine only its last part."""
    return f"path/to/{Path(name).name}" if Path(name).is_absolute() else name


def without_paths(text: str) -> str:
    """The text, without the folders of this machine; of a path with other folders its last part is left.

    What lies between two paths of a line is lost too: any character but a line break can be in the name of a folder.

    >>> without_paths("no file /models/mine/config.json, see https://huggingface.co/docs/hub")
    'no file …/config.json, see https://huggingface.co/docs/hub'
    """
    for folder in sorted(_private, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(folder)}(?!\w)", "…", text)
    parts = re.split(r"(https?://[^\s'\"`]+)", text)
    parts[::2] = [re.sub(r"(?<![\w.])(?:[A-Za-z]:|~\w*|…)?[\\/](?=\S).*[\\/]", "…/", part) for part in parts[::2]]
    return "".join(parts)


def problem(error: NotReadyError) -> gr.Blocks:
    """A page that says what is missing."""
    with gr.Blocks(title="This page is not ready") as page:
        gr.Markdown(f"# This page is not ready\n{error}", elem_id="top")
    return page


def user_error(message: str) -> gr.Error:
    """An error that is shown to the visitor and not logged."""
    return gr.Error(message, print_exception=False)


class Page(gr.Blocks):
    """Blocks that answer malformed requests with a sentence, without a traceback in the log."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """The values of a request, as the components read them.

        Raises:
            gr.Error: a value is missing or is not allowed.
        """
        if len(inputs) < len(block_fn.inputs):
            raise user_error(f"The call has {len(inputs)} values, expected {len(block_fn.inputs)}.")
        if reason := malformed(inputs):
            raise user_error(f"The call {reason}.")
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except Exception as error:
            raise user_error(f"A value of the call is not allowed: {without_paths(str(error))[:300]}") from error


def malformed(value: Any) -> str | None:
    """Why a value of a request cannot be read: a number that is not finite, or text that is not Unicode."""
    waiting = [value]  # not recursive: visitors choose the depth
    while waiting:
        each = waiting.pop()
        if isinstance(each, float) and not math.isfinite(each):
            return f"contains the number {each}, expected finite numbers"
        if isinstance(each, str) and not each.isascii():
            try:
                each.encode()
            except UnicodeEncodeError:
                return "contains half of a surrogate pair, expected valid Unicode text"
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
    return None


def client(request: Any) -> str | None:
    """The address of a visitor.

    On the Hub all connections come from its proxy, which appends the visitor's address to X-Forwarded-For; what
    stands before it is the visitor's own claim.
    """
    forwarded = request.headers.getlist("x-forwarded-for") if "SPACE_ID" in os.environ else []
    if last := ",".join(forwarded).rpartition(",")[2].strip():
        return last
    return request.client.host if request.client else None


def fair(queue: Any) -> None:
    """Limit the waiting requests of one address in gradio's queue, and drop requests that nobody reads."""
    push, watching = queue.push, set()

    async def limited(body: Any, request: Any, username: Any) -> tuple[bool, Any, str]:
        waiting = [event for each in queue.event_queue_per_concurrency_id.values() for event in each.queue]
        own = sum(client(event.request) == client(request) for event in waiting)
        if own >= FAIR_SHARE:
            return (
                False,
                f"{own} requests from your address are waiting. Try again when some are answered.",
                "queue_full",
            )
        if not isinstance(body.fn_index, int) or body.fn_index not in queue.blocks.fns:
            return False, "There is no such step.", "error"
        result: tuple[bool, Any, str] = await push(body, request, username)
        if result[0]:
            task = asyncio.create_task(drop_unread(queue, body.session_hash))
            watching.add(task)
            task.add_done_callback(watching.discard)
        return result

    queue.push = limited


async def drop_unread(queue: Any, session: str) -> None:
    """Drop the requests of a session if nobody reads its messages."""
    await asyncio.sleep(UNREAD_SECONDS)
    for _ in range(5):  # a reader empties the messages at once
        messages = queue.pending_messages_per_session.get(session)
        if messages is None or messages.qsize() == 0:
            return
        await asyncio.sleep(0.2)
    await queue.clean_events(session_hash=session)
