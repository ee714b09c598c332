"""The files of each repository that a push writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from ..cards.dataset_card import dataset_card
from ..cards.facts import config_name, figures
from ..cards.model_card import eval_results, model_card
from ..cards.templates import resource
from ..errors import RunError
from ..outputs import MANIFEST, folder, manifest, results
from ..run import STAGES, Run
from ..schema import CONFIGS, is_second_config
from .space import APP, METRIC, metric_card, space_card, space_config, trained_run

Files = dict[str, Path | bytes]
"""Contents by path in a repository."""

PARTS = {"dataset": "dataset", "model": "model", "metric": "space", "space": "space"}
"""The kind of repository of each part, in the order of the push: metrics of `evaluate` are Spaces."""

STAGES_OF = {
    "dataset": ("dataset",),
    "model": ("train", "evaluate", "attribution"),
    "metric": (),
    "space": ("dataset", "train"),
}
"""The commands of the stages whose outputs each part contains."""

OWN_FILES = {
    "model": "*.safetensors *.safetensors.index.json *.py content_encoder/* figures/* .eval_results/regen.yaml",
    "metric": "*.py",
    "space": "*.py *.css *.js",
}
"""Patterns of files that a push wrote and a later one may remove."""


def default_names(run: Path) -> dict[str, str]:
    """The names of the repositories of a run, without their namespace."""
    model = model_name(config_name(run)) if manifest(run, "dataset") else "regen-model"
    return {"dataset": "regen", "model": model, "metric": "regen_narrative", "space": "regen-demo"}


def model_name(dataset: str) -> str:
    """The default name of the repository of the model that is trained on the dataset of this name."""
    return f"regen-{dataset}"


def check_parts(run: Path, parts: tuple[str, ...]) -> None:
    """Check that the run has the outputs that `parts` need.

    Raises:
        RunError: an output is missing.
    """
    Run(run)
    if {"model", "space"} & set(parts):
        trained_run(run)
    elif not manifest(run, "dataset"):
        raise RunError(f"{run} has no dataset. Create one with `regen dataset {run}` or `regen run {run} …`.")
    if is_second_config(name := config_name(run)):  # of an earlier version
        raise RunError(
            f"The dataset of {run} is named {name!r}, like a table of the dataset {name.rpartition('-')[0]!r}, whose "
            f"push would delete it. Name it again with `regen dataset {run} --name NAME`."
        )


def contents(part: str, run: Path, linked: Mapping[str, str], revisions: Mapping[str, str]) -> Files:
    """The files of the repository of `part`.

    Args:
        part: one of `PARTS`.
        run: the run folder.
        linked: the repositories that exist on the Hub after the push, by part.
        revisions: commits of dataset and model that the Space loads, as far as they are known.
    """
    repository = linked[part]
    if part == "dataset":
        return _dataset(run, repository, linked)
    if part == "model":
        return _model(run, repository, linked)
    if part == "metric":
        code = Path(__file__).parents[1] / "metrics"
        module = repository.split("/")[1] + ".py"  # `evaluate` looks for a module of the repository's name
        return {
            **_files(resource(METRIC)),
            module: code / "regen_narrative.py",
            "text_metrics.py": code / "text_metrics.py",
            "README.md": metric_card(repository, linked.get("dataset")),
        }
    return _files(resource(APP)) | {
        "README.md": space_card(resource(APP), linked["model"], linked["dataset"]),
        "config.json": space_config(run, linked["model"], linked["dataset"], revisions),
    }


def _dataset(run: Path, repository: str, linked: Mapping[str, str]) -> Files:
    name = config_name(run)
    output = folder(run, "dataset")
    pictures: Files = {f"figures/{name}/{path.name}": path for path in figures(run, "dataset")}
    card = dataset_card(
        run,
        output,
        name,
        manifest(run, "dataset")["counts"],
        repository=repository,
        figures=tuple(pictures),
        linked=linked,
        evaluations=_evaluations(run, "dataset"),
    )
    return _files(output) | pictures | {"README.md": card.encode()}


def _model(run: Path, repository: str, linked: Mapping[str, str]) -> Files:
    dataset = linked.get("dataset")
    pictures: Files = {f"figures/{path.name}": path for path in figures(run, "model", users=dataset is not None)}
    evaluations = _evaluations(run, "model")
    card = model_card(run, repository, dataset, figures=tuple(pictures), linked=linked, evaluations=evaluations)
    files = _files(folder(run, "train")) | pictures | {"README.md": card.encode()}
    if scores := eval_results(run, dataset):
        files[".eval_results/regen.yaml"] = scores.encode()
    return files


def _evaluations(run: Path, part: str) -> Iterator[tuple[str, str]]:
    """Heading and summary of each optional evaluation for the card of `part`, if it is of the current outputs."""
    for command, stage in STAGES.items():
        # Ranking needs no trained model: without one it says something about the dataset only.
        of_model = command != "next-item" or "fused" in results(run, command).get("models", {})
        if stage.optional and of_model == (part == "model") and _is_current(run, command):
            yield command.replace("-", " ").capitalize(), stage.code.summary(folder(run, command))
    tested = part == "model" and _is_current(run, "attribution")
    if tested and (tests := STAGES["attribution"].code.summary(folder(run, "attribution"))):
        yield "Citations", tests


def _is_current(run: Path, command: str) -> bool:
    """Whether the stage `command` and the stages that it reads, up to the dataset, ran on the current outputs."""
    inputs = manifest(run, command).get("inputs", {}).get("stages", {})
    return bool(inputs) and all(
        manifest(run, name).get("fingerprint") == value and (name == "dataset" or _is_current(run, name))
        for name, value in inputs.items()
    )


def is_own(part: str, path: str, run: Path) -> bool:
    """Whether an earlier push of the same run may have written `path`.

    Other files stay: other runs in the dataset, other formats of the weights, files that were added by hand.
    """
    if part == "dataset":
        name = config_name(run)
        return path.startswith((*(f"{name}{suffix}/" for suffix in CONFIGS), f"figures/{name}/"))
    return any(fnmatchcase(path, pattern) for pattern in OWN_FILES[part].split())


def _files(root: Path) -> Files:
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        # A manifest contains paths of this machine.
        if path.is_file() and path.name != MANIFEST and "__pycache__" not in path.parts
    }
