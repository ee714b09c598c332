"""The push: looked through and compared with what is there before anything leaves this machine, then a commit each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cards.dataset_card import merged_card
from ..errors import ConfigError, RegenError
from .contents import PARTS, Files, check_parts, contents, default_names
from .hub_errors import check_token, errors, is_unreachable, reason
from .privacy import check
from .remote import Changes, There, changes, described, look, refuse_foreign, settings, size
from .verification import verify

if TYPE_CHECKING:
    from huggingface_hub import HfApi


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
        names: names of repositories by part, in place of the default ones.
        private: make them private.
        tag: a name for the commits.
        dry_run: only tell what would be pushed and what it would change.
        verified: load everything back from the Hub and compare.

    Raises:
        RegenError: the run lacks something, a file holds something private, the Hub refuses, or what is loaded back
            differs.
    """
    from huggingface_hub import HfApi

    if dry_run and verified:
        raise ConfigError("--verify loads back what a push has put there. Leave out --dry-run.")
    chosen = tuple(part for part in PARTS if part in parts or not parts)
    check_parts(folder, chosen)
    repositories = _repositories(folder, namespace, names or {})
    api = HfApi()
    there = _look(api, namespace, repositories, chosen, private, tag, dry_run)
    linked = {
        part: name
        for part, name in repositories.items()
        if part in chosen or there is None or ((found := there[part]) and _belongs(found, repositories))
    }
    if "space" in chosen and (missing := {"model", "dataset"} - linked.keys()):
        lacking = " and ".join(f"the {part} {repositories[part]}" for part in sorted(missing))
        raise RegenError(
            f"The Space loads {lacking} from the Hub, where it is not yet. Push it too: "
            + " ".join(f"--{part}" for part in ("dataset", "model", "space") if part in missing or part == "space")
        )
    known = {part: found.commit for part, found in (there or {}).items() if found}
    files: dict[str, Files] = {}
    plans: dict[str, Changes] = {}
    for part in chosen:
        files[part] = contents(part, folder, linked, known)
        found = (there or {}).get(part)
        if part == "dataset":
            files[part]["README.md"] = _merged(files[part]["README.md"], found)
        if there is not None:
            plans[part] = changes(files[part], found, folder)
            if plans[part] and part != "space":
                known.pop(part, None)  # its commit is still to come
            if tag and found and tag in found.tags and (plans[part] or found.tags[tag] != found.commit):
                raise RegenError(
                    _nothing(part, repositories, f"its tag {tag} stands for another commit. Choose another --tag.")
                )
    for part in chosen:
        sizes = sum(map(size, files[part].values()))
        plan = plans.get(part)
        told = f": {plan}" if plan is not None else ""
        yield f"{part} {repositories[part]}: {len(files[part])} files, {sizes:,} bytes{told}"
        yield from described(files[part], plan)
    yield from check(files, folder)
    if dry_run:
        if there is None:
            yield "What is on the Hub now could not be asked: it cannot be reached."
        yield "Nothing was pushed: this was a dry run."
        return

    commits: dict[str, str] = dict(known)
    done: list[str] = []
    for part in chosen:
        name = repositories[part]
        found = (there or {}).get(part)
        if part == "space":  # it runs the code of the model repository: of the commit made above and no later one
            files[part] = contents(part, folder, linked, commits)
            plans[part] = changes(files[part], found, folder)
        try:
            commits[part] = _commit(api, part, name, files[part], plans[part], found, private)
        except RegenError as error:
            raise RegenError(f"The {part} {name} was not pushed: {error} {_so_far(repositories, done)}") from error
        done.append(part)
        if tag and not (found and found.tags.get(tag) == commits[part]):
            try:
                api.create_tag(name, tag=tag, revision=commits[part], repo_type=PARTS[part])
            except errors() as error:
                raise RegenError(
                    f"The {part} {name} was not tagged {tag}: {reason(error)} {_so_far(repositories, done)}"
                ) from error
        address = f"{api.endpoint}/{'' if PARTS[part] == 'model' else PARTS[part] + 's/'}{name}"
        yield f"{'pushed' if plans[part] else 'unchanged'} {address}"
    if verified:
        yield from verify(folder, {part: (repositories[part], commits[part]) for part in chosen})


def _repositories(run: Path, namespace: str, names: Mapping[str, str]) -> dict[str, str]:
    """The full name of each part's repository.

    Raises:
        ConfigError: the Hub takes no such name, or two Spaces would share one.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repositories = {part: f"{namespace}/{name}" for part, name in {**default_names(run), **names}.items()}
    for part, name in repositories.items():
        try:
            validate_repo_id(name)
            if name.count("/") != 1:
                raise HFValidationError("expected a name without '/'")
        except HFValidationError as error:
            raise ConfigError(f"The Hub takes no repository named {name}: {error}") from None
        if part == "metric" and not name.split("/")[1].isidentifier():
            raise ConfigError(
                f"--metric-name was given {name.split('/')[1]!r}, expected a name that a Python module may have: "
                "letters, digits and '_'."
            )
    if repositories["metric"] == repositories["space"]:
        raise ConfigError(f"Metric and Space are both named {repositories['space']}. Give one another name.")
    return repositories


def _look(
    api: HfApi,
    namespace: str,
    repositories: Mapping[str, str],
    chosen: Sequence[str],
    private: bool,
    tag: str | None,
    dry_run: bool,
) -> dict[str, There | None] | None:
    """What is on the Hub now, by part; None in a dry run where the Hub cannot be reached.

    Raises:
        RegenError: a push could not succeed, so that none is begun.
    """
    from huggingface_hub import get_token

    part = chosen[0]
    try:
        if not dry_run or get_token():
            check_token(api.whoami(cache=True), namespace)
        there: dict[str, There | None] = {}
        for part in PARTS:
            there[part] = look(api, part, repositories[part])
        for part in chosen:
            if found := there[part]:
                refuse_foreign(found)
                if private and not found.private:
                    raise RegenError(
                        "it exists and is public. Make it private in its settings, or leave out --private."
                    )
    except errors() as error:
        if dry_run and is_unreachable(error):
            return None
        raise RegenError(_nothing(part, repositories, reason(error))) from error
    except RegenError as error:
        raise RegenError(_nothing(part, repositories, str(error))) from error
    return there


def _belongs(there: There, repositories: Mapping[str, str]) -> bool:
    """Whether a repository that is not pushed is linked to the others: a demo of another run's model is not."""
    return there.part != "space" or settings(there).get("model") == repositories["model"]


def _nothing(part: str, repositories: Mapping[str, str], why: str) -> str:
    return f"The {part} {repositories[part]} was not pushed: {why} No file was pushed."


def _merged(card: Path | bytes, there: There | None) -> bytes:
    """The dataset card with what is said there of further runs, in the form that a later merge keeps."""
    own = (card if isinstance(card, bytes) else card.read_bytes()).decode()
    return merged_card(own, (there.card if there else None) or own).encode()


def _commit(api: HfApi, part: str, name: str, files: Files, plan: Changes, there: There | None, private: bool) -> str:
    """Make the repository if need be, and one commit of what changes; returns the commit's hash.

    Raises:
        RegenError: with what the Hub said, and what to do.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    made = False
    try:
        if there is None:
            api.create_repo(
                name,
                repo_type=PARTS[part],
                private=private or None,
                exist_ok=True,
                space_sdk={"space": "gradio", "metric": "static"}.get(part),
            )
            made = True
        elif not plan:
            return there.commit
        commit = api.create_commit(
            name,
            repo_type=PARTS[part],
            operations=[
                *(CommitOperationAdd(path, files[path]) for path in (*plan.new, *plan.changed)),
                *(CommitOperationDelete(path) for path in plan.removed),
            ],
            commit_message=f"Push {part}",
            # A push of someone else in between is refused, not lost.
            parent_commit=there.commit if there else api.repo_info(name, repo_type=PARTS[part]).sha,
        )
    except errors() as error:
        empty = " The repository itself was made, and is empty." if made else ""
        raise RegenError(reason(error) + empty) from error
    return str(commit.oid)


def _so_far(repositories: Mapping[str, str], done: Sequence[str]) -> str:
    """What a push that stopped has left on the Hub."""
    return f"On the Hub by now: {', '.join(repositories[part] for part in done)}." if done else "No file was pushed."
