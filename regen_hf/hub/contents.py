"""What stands in each repository that a push makes or renews: its files, and which of those there are its own."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from ..cards.card import resource
from ..cards.config_name import config_name
from ..cards.dataset_card import dataset_card
from ..cards.figures import figures
from ..cards.model_card import eval_results, model_card
from ..errors import RunError
from ..outputs import manifest
from ..run import STAGES
from .further import further
from .space import APP, METRIC, finished, metric_card, space_card, space_config

Files = dict[str, Path | bytes]
"""Contents by path in a repository."""

PARTS = {"dataset": "dataset", "model": "model", "metric": "space", "space": "space"}
"""What is pushed, in this order, and the kind of repository that holds it: the Hub keeps metrics as Spaces."""

PRIVATE_FILES = ("manifest.json",)
"""What stays at home: it names paths of the machine that made it."""

OF_THE_DATASET = ("next-item",)
"""Further evaluations that need no model of ours: they stand in the dataset's card, the others in the model's."""

METRIC_FILES = ("regen_narrative.py", "text_metrics.py")


def default_names(run: Path) -> dict[str, str]:
    """The names of the repositories of a run, without their namespace."""
    model = f"regen-{config_name(run)}" if manifest(run, "dataset") else "regen-model"
    return {"dataset": "regen", "model": model, "metric": "regen_narrative", "space": "regen-demo"}


def check_parts(run: Path, parts: tuple[str, ...]) -> None:
    """Refuse to push what the run has not made yet.

    Raises:
        RunError: with the command that makes it.
    """
    if {"model", "space"} & set(parts):
        finished(run)
    elif not manifest(run, "dataset"):
        raise RunError(f"{run} holds no dataset. Make one with `regen dataset {run}` or `regen run {run} …`.")


def contents(part: str, run: Path, linked: Mapping[str, str], revisions: Mapping[str, str]) -> Files:
    """The files of a repository.

    Args:
        part: one of `PARTS`.
        run: the run folder.
        linked: the repositories on the Hub once all is pushed, by part: its own one, and those that it names.
        revisions: the commits of dataset and model that the Space takes, as far as they are known.
    """
    own = linked[part]
    if part == "dataset":
        name = config_name(run)
        drawn = {f"figures/{name}/{path.name}": path for path in figures(run, "dataset")}
        card = dataset_card(
            run,
            run / "dataset",
            name,
            manifest(run, "dataset")["counts"],
            repository=own,
            figures=tuple(drawn),
            linked=linked,
            further=further(run, OF_THE_DATASET),
        )
        return _files(run / "dataset") | drawn | {"README.md": card.encode()}
    if part == "model":
        drawn = {f"figures/{path.name}": path for path in figures(run, "model", users="dataset" in linked)}
        of_the_model = further(
            run, [name for name, stage in STAGES.items() if stage.optional and name not in OF_THE_DATASET]
        )
        card = model_card(run, own, linked.get("dataset"), figures=tuple(drawn), linked=linked, further=of_the_model)
        scores = eval_results(run, linked.get("dataset"))
        return (
            _files(run / "model")
            | drawn
            | {"README.md": card.encode()}
            | ({".eval_results/regen.yaml": scores.encode()} if scores else {})
        )
    if part == "metric":
        code = Path(__file__).parents[1] / "metrics"
        own_module = own.split("/")[1] + ".py"  # `evaluate` looks for a module of the repository's name
        return {
            **_files(resource(METRIC)),
            own_module: code / METRIC_FILES[0],
            **{name: code / name for name in METRIC_FILES[1:]},
            "README.md": metric_card(own, linked.get("dataset")),
        }
    return _files(resource(APP)) | {
        "README.md": space_card(resource(APP), linked["model"], linked["dataset"]),
        "config.json": space_config(run, linked["model"], linked["dataset"], revisions),
    }


def is_own(part: str, path: str, run: Path) -> bool:
    """Whether a file in a repository is one that an earlier push of the same run may have left.

    What others have put beside it stays: further runs in the dataset, other forms of the weights, pages of their own.
    """
    if part == "dataset":
        name = config_name(run)
        return path.startswith((f"{name}/", f"{name}-items/", f"figures/{name}/"))
    patterns = {
        "model": (
            "*.safetensors",
            "*.safetensors.index.json",
            "*.py",
            "content_encoder/*",
            "figures/*",
            ".eval_results/regen.yaml",
        ),
        "metric": ("*.py",),
        "space": ("*.py", "*.css", "*.js"),
    }
    return any(fnmatchcase(path, pattern) for pattern in patterns[part])


def _files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in PRIVATE_FILES and "__pycache__" not in path.parts
    }
