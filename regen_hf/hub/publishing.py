"""The push: one commit per repository, checked before anything leaves this machine."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, RegenError
from .cards import model_card, resource, space_card
from .dataset_card import merged_card, on_the_hub
from .space import APP, config_name, finished, space_config

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PRIVATE_FILES = ("manifest.json",)
"""What stays at home: it names paths of the machine that made it."""

BINARY = (".parquet", ".safetensors")
"""Suffixes of files that hold no readable text."""

SECRET = re.compile(rb"\b(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,})")
"""Tokens of the Hub and keys of LLM servers."""

Files = dict[str, Path | bytes]
"""Contents by path in a repository."""


def push(folder: Path, namespace: str, private: bool = False, dry_run: bool = False) -> Iterator[str]:
    """Push dataset, model and Space of a run to the Hub; yields a line per file and repository.

    Raises:
        RegenError: the run has no model yet, a file holds something private, or the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    run = finished(folder).folder
    name = config_name(run)
    dataset, model, space = f"{namespace}/regen", f"{namespace}/regen-{name}", f"{namespace}/regen-demo"
    try:
        for repository in (dataset, model, space):
            validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"The Hub takes no repository named {repository}: {error}") from None
    card = on_the_hub((run / "dataset" / "README.md").read_text(encoding="utf-8"), dataset)
    card = merged_card(card, card)  # in the form that a later merge keeps, so that an equal push commits nothing
    app = resource(APP)
    files: dict[str, Files] = {
        "dataset": _files(run / "dataset") | {"README.md": card.encode()},
        "model": _files(run / "model") | {"README.md": model_card(run, model, dataset).encode()},
        "space": _files(app)
        | {"README.md": space_card(app, model, dataset), "config.json": space_config(run, model, dataset)},
    }
    for kind, repository in (("dataset", dataset), ("model", model), ("space", space)):
        sizes = {path: _size(content) for path, content in files[kind].items()}
        yield f"{kind} {repository}: {len(sizes)} files, {sum(sizes.values()):,} bytes"
        for path, size in sizes.items():
            yield f"  {path} ({size:,} bytes)"
    _refuse_secrets(files, run)
    if dry_run:
        yield "Nothing was pushed: this was a dry run."
        return

    api = HfApi()
    done: list[str] = []
    revisions: dict[str, str] = {}
    for kind, repository in (("dataset", dataset), ("model", model), ("space", space)):
        if kind == "space":  # it runs the code of the model repository: of the commit made above and no later one
            files[kind]["config.json"] = space_config(run, model, dataset, revisions)
        try:
            url, revisions[kind] = _commit(
                api, kind, repository, files[kind], private, f"Push {kind} of the run {name}"
            )
        except RegenError as error:
            there = f" Pushed before it: {', '.join(done)}." if done else " No file was pushed."
            raise RegenError(f"The {kind} {repository} was not pushed: {error}{there}") from error
        done.append(repository)
        yield f"pushed {url}"


def _commit(api: HfApi, kind: str, repository: str, files: Files, private: bool, message: str) -> tuple[str, str]:
    """Make the repository if need be, and one commit; returns its URL and the commit's hash.

    Raises:
        RegenError: with what the Hub said, and what to do.
    """
    from huggingface_hub import CommitOperationAdd, DatasetCard
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # HTTPError: that of httpx, of whatever version

    try:
        _check_token(api.whoami(cache=True), repository.split("/")[0])
        api.create_repo(
            repository,
            repo_type=kind,
            private=private or None,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        info = api.repo_info(repository, repo_type=kind)
        if private and not info.private:
            raise RegenError("it exists and is public. Make it private in its settings, or leave out --private.")
        if kind == "dataset":
            with contextlib.suppress(EntryNotFoundError):  # a new repository has no card
                theirs = DatasetCard.load(repository).content
                files = files | {"README.md": merged_card(_text(files["README.md"]), theirs).encode()}
        commit = api.create_commit(
            repository,
            repo_type=kind,
            operations=[CommitOperationAdd(path, content) for path, content in files.items()],
            commit_message=message,
            parent_commit=info.sha,  # a push of someone else in between is refused, not lost
        )
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RegenError):
            raise
        raise RegenError(_reason(error)) from error
    return str(commit.repo_url), commit.oid


def _check_token(user: Mapping[str, Any], namespace: str) -> None:
    """Refuse a token that cannot write to `namespace`, as far as the Hub tells."""
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise RegenError("the token may only read. Make one that may write at https://huggingface.co/settings/tokens.")
    known = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if namespace not in known:
        raise RegenError(f"the token belongs to {user['name']}, who can push to {', '.join(known)} alone.")


def _reason(error: Exception) -> str:
    """What went wrong on the way to the Hub, in a sentence that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

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
        if status == 412:
            return "someone else has pushed to it at the same time. Push again."
        return f"the Hub refused ({told}). Push again later: what was uploaded is not uploaded twice."
    if any(isinstance(cause, HTTPError | ConnectionError) for cause in causes):
        return f"{constants.ENDPOINT} cannot be reached. Check the network, then push again."
    return str(error).strip().splitlines()[0]


def _refuse_secrets(files: dict[str, Files], run: Path) -> None:
    """Refuse to push a text file that tells of this machine or holds a token.

    Raises:
        RegenError: with the file and what is in it.
    """
    from huggingface_hub import get_token

    home = str(Path.home())
    needles = {
        str(run.resolve()): "the path of the run folder",
        home + "/": "the path of your home folder" if len(home) > 1 else "",
        get_token() or "": "your token of the Hub",
    }
    for kind, contents in files.items():
        for path, content in contents.items():
            if path.endswith(BINARY):
                continue
            data = content if isinstance(content, bytes) else content.read_bytes()
            found = [what for needle, what in needles.items() if needle and what and needle.encode() in data]
            if SECRET.search(data):
                found.append("something that looks like a token")
            if found:
                raise RegenError(f"{path} of the {kind} holds {' and '.join(found)}. Take it out; no file was pushed.")


def _files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in PRIVATE_FILES and "__pycache__" not in path.parts
    }


def _text(content: Path | bytes) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
