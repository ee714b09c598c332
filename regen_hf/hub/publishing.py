"""Push a run to the Hub: check all files, compare them with the Hub, then write one commit per repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..cards.benchmark import FILE as BENCHMARK
from ..cards.benchmark import eval_yaml
from ..cards.dataset_card import merged_card
from ..errors import ConfigError, RegenError, require
from ..run import Run
from .contents import PARTS, STAGES_OF, Files, check_parts, contents, default_names, model_name
from .hub_errors import check_token, client_errors, explain, is_unreachable
from .privacy import check
from .remote import Changes, Remote, check_replaceable, compare, file_lines, read_repository, size
from .verification import PACKAGES as VERIFICATION
from .verification import verify

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NO_FILE = "No file was pushed."


@dataclass
class Upload:
    """The push of one part."""

    part: str
    name: str
    files: Files
    remote: Remote | None
    """The repository before the push, None if it does not exist or the Hub cannot be reached."""
    changes: Changes | None
    """None if the Hub cannot be reached."""

    def __str__(self) -> str:
        return f"{self.part} {self.name}"


def push(
    folder: Path,
    namespace: str,
    parts: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    verified: bool = False,
) -> Iterator[str]:
    """Push dataset, model, metric and Space of a run to the Hub; yields a line per file and repository.

    Args:
        folder: the run folder.
        namespace: the user or organisation on the Hub.
        parts: some of `contents.PARTS`; all of them if empty.
        names: names of repositories by part, instead of the default ones.
        private: create private repositories.
        tag: a tag for the commits.
        dry_run: only list what would be pushed and what would change.
        verified: load everything from the Hub afterwards and compare it.

    Raises:
        RegenError: the run lacks an output, a file contains private data, the Hub rejects a request, or the
            verification finds a difference.
    """
    from huggingface_hub import HfApi

    if dry_run and verified:
        raise ConfigError("--verify loads the files of a push, but --dry-run pushes none. Omit one of them.")
    chosen = tuple(part for part in PARTS if part in parts or not parts)
    check_parts(folder, chosen)
    if verified:
        require(*(package for part in chosen for package in VERIFICATION.get(part, ())))
    repositories = _repository_names(folder, namespace, names or {})
    api = HfApi()
    remotes = _read_hub(api, namespace, repositories, chosen, private, dry_run)
    uploads = _plan(folder, repositories, chosen, remotes)
    if tag:
        _check_tag(uploads, tag)
    for upload in uploads:
        changes = "" if upload.changes is None else f": {upload.changes}"
        yield f"{upload}: {len(upload.files)} files, {sum(map(size, upload.files.values())):,} bytes{changes}"
        yield from file_lines(upload.files, upload.changes)
    yield from check({upload.part: upload.files for upload in uploads}, folder)
    if stale := Run(folder).stale(*(stage for part in chosen for stage in STAGES_OF[part])):
        yield stale
    if dry_run:
        if remotes is None:
            yield "The Hub cannot be reached: its current files are unknown."
        yield "Nothing was pushed: this was a dry run."
        return

    commits = _commits(remotes)
    done: list[str] = []
    for upload in uploads:
        if upload.part == "space":  # it loads the commits of model and dataset that are pushed with it
            upload.files = contents("space", folder, repositories, commits)
            upload.changes = compare(upload.files, upload.remote, folder)
        try:
            commits[upload.part] = _commit(api, upload, private)
            done.append(upload.name)
            if tag:
                _tag(api, upload, tag, commits[upload.part])
        except RegenError as error:
            raise RegenError(f"{error} " + (f"Already pushed: {', '.join(done)}." if done else NO_FILE)) from error
        url = f"{api.endpoint}/{'' if PARTS[upload.part] == 'model' else PARTS[upload.part] + 's/'}{upload.name}"
        yield f"{'pushed' if upload.changes else 'unchanged'} {url}"
    if verified:
        yield from verify(folder, {upload.part: (upload.name, commits[upload.part]) for upload in uploads})


def check_push(run: Run, namespace: str, parts: Sequence[str] = (), private: bool = False) -> None:
    """Check what a push of a run that is not built yet can be stopped by: names, token, and repositories on the Hub.

    Args:
        run: the run, whose settings name the dataset.
        namespace: the user or organisation on the Hub.
        parts: some of `contents.PARTS`; all of them if empty.
        private: the repositories have to be private.

    Raises:
        RegenError: the push would be rejected, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    chosen = tuple(part for part in PARTS if part in parts or not parts)
    names = {"model": model_name(run.config["dataset"].config_name(run.folder))}
    repositories = _repository_names(run.folder, namespace, names)
    _linked(repositories, chosen, _read_hub(HfApi(), namespace, repositories, chosen, private, dry_run=False))


def _repository_names(run: Path, namespace: str, names: Mapping[str, str]) -> dict[str, str]:
    """The full name of each part's repository; raises ConfigError for a name that the Hub does not accept."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repositories = {part: f"{namespace}/{name}" for part, name in {**default_names(run), **names}.items()}
    for part, name in repositories.items():
        try:
            validate_repo_id(name)
            if name.count("/") != 1:
                raise HFValidationError("expected a name without '/'")
        except HFValidationError as error:
            raise ConfigError(f"The Hub does not accept the repository name {name}: {error}") from None
        if part == "metric" and not name.split("/")[1].isidentifier():
            raise ConfigError(
                f"--metric-name was given {name.split('/')[1]!r}, expected the name of a Python module: letters, "
                "digits and '_'."
            )
    if repositories["metric"] == repositories["space"]:
        raise ConfigError(f"Metric and Space are both named {repositories['space']}. Rename one of them.")
    return repositories


def _read_hub(
    api: HfApi,
    namespace: str,
    repositories: Mapping[str, str],
    chosen: Sequence[str],
    private: bool,
    dry_run: bool,
) -> dict[str, Remote] | None:
    """The repositories that exist on the Hub, by part; None in a dry run if the Hub cannot be reached."""
    from huggingface_hub import get_token

    part = chosen[0]
    expected: tuple[type[Exception], ...] = (RegenError, *client_errors())
    try:
        if not dry_run or get_token():
            check_token(api.whoami(cache=True), namespace)
        remotes = {}
        for part in PARTS:
            if remote := read_repository(api, part, repositories[part]):
                remotes[part] = remote
        for part in chosen:
            if part in remotes:
                check_replaceable(remotes[part], private)
    except expected as error:
        if dry_run and is_unreachable(error):
            return None
        raise RegenError(f"The {part} {repositories[part]} was not pushed: {explain(error)} {NO_FILE}") from error
    return remotes


def _plan(
    run: Path, repositories: Mapping[str, str], chosen: Sequence[str], remotes: Mapping[str, Remote] | None
) -> list[Upload]:
    """The upload of each chosen part."""
    linked = _linked(repositories, chosen, remotes)
    uploads, commits = [], _commits(remotes)
    for part in chosen:
        remote = (remotes or {}).get(part)
        files = contents(part, run, linked, commits)
        if part == "dataset":
            card = _merged(files["README.md"], remote)
            files |= {"README.md": card.encode()}
            if tasks := eval_yaml(card):
                files[BENCHMARK] = tasks.encode()
        changes = None if remotes is None else compare(files, remote, run)
        if changes and part != "space":
            commits.pop(part, None)  # the push replaces it
        uploads.append(Upload(part, repositories[part], files, remote, changes))
    return uploads


def _linked(
    repositories: Mapping[str, str], chosen: Sequence[str], remotes: Mapping[str, Remote] | None
) -> dict[str, str]:
    """The repositories that exist on the Hub after the push, by part; all of them if the Hub cannot be reached."""
    if remotes is None:
        return dict(repositories)

    def is_linked(part: str) -> bool:
        if part == "space" and part in remotes:  # not the demo of another run's model
            return remotes[part].config.get("model") == repositories["model"]
        return part in remotes

    linked = {part: name for part, name in repositories.items() if part in chosen or is_linked(part)}
    missing = [part for part in ("dataset", "model") if part not in linked]
    if "space" in chosen and missing:
        raise RegenError(
            f"The Space needs {' and '.join(f'the {part} {repositories[part]}' for part in missing)} on the Hub. "
            f"Push with {' '.join(f'--{part}' for part in (*missing, 'space'))}."
        )
    return linked


def _commits(remotes: Mapping[str, Remote] | None) -> dict[str, str]:
    return {part: remote.commit for part, remote in (remotes or {}).items()}


def _check_tag(uploads: Sequence[Upload], tag: str) -> None:
    for upload in uploads:
        remote = upload.remote
        if remote and tag in remote.tags and (upload.changes or remote.tags[tag] != remote.commit):
            raise RegenError(
                f"The {upload} was not pushed: its tag {tag} points to another commit. Choose another --tag. {NO_FILE}"
            )


def _merged(card: Path | bytes, remote: Remote | None) -> str:
    """The dataset card with the sections of other runs on the Hub, in the format that a later merge keeps."""
    own = (card if isinstance(card, bytes) else card.read_bytes()).decode()
    return merged_card(own, (remote.card if remote else None) or own)


def _commit(api: HfApi, upload: Upload, private: bool) -> str:
    """Create the repository if it does not exist, commit the changes, and return the hash of the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo_type, remote, changes = PARTS[upload.part], upload.remote, upload.changes or Changes()
    if remote and not changes:
        return remote.commit
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path, upload.files[path]) for path in (*changes.new, *changes.changed)),
        *(CommitOperationDelete(path) for path in changes.removed),
    ]
    created = ""
    try:
        if remote is None:
            sdk = {"space": "gradio", "metric": "static"}.get(upload.part)
            api.create_repo(upload.name, repo_type=repo_type, private=private or None, exist_ok=True, space_sdk=sdk)
            created = " The repository was created and is empty."
        # The Hub rejects the commit if somebody else has pushed since.
        parent = remote.commit if remote else api.repo_info(upload.name, repo_type=repo_type).sha
        message = f"Push {upload.part}"
        commit = api.create_commit(
            upload.name, operations, commit_message=message, repo_type=repo_type, parent_commit=parent
        )
    except client_errors() as error:
        raise RegenError(f"The {upload} was not pushed: {explain(error)}{created}") from error
    return str(commit.oid)


def _tag(api: HfApi, upload: Upload, tag: str, commit: str) -> None:
    if upload.remote and upload.remote.tags.get(tag) == commit:
        return
    try:
        api.create_tag(upload.name, tag=tag, revision=commit, repo_type=PARTS[upload.part])
    except client_errors() as error:
        raise RegenError(f"The {upload} was not tagged {tag}: {explain(error)}") from error
