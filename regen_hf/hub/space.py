"""The Space's app: its configuration, its card, and a local server."""

from __future__ import annotations

import glob
import json
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cards.facts import config_name, figures, simulated
from ..cards.templates import PLACEHOLDER, resource
from ..errors import ConfigError, RegenError, RunError, require
from ..outputs import folder as output_folder
from ..outputs import manifest
from ..run import Run
from ..schema import SPLITS, offered_tasks

APP = "spaces/regen_demo"
METRIC = "spaces/regen_narrative"
"""The page of the metric: the Hub keeps metrics of `evaluate` as Spaces."""


def demo(folder: Path, port: int) -> None:
    """Serve the Space's app with the model and dataset of a run, reachable from this machine only.

    Raises:
        RegenError: a package is missing, the run has no model, or the port is in use.
    """
    require("gradio", "mcp", "torch", "transformers")
    opened = trained_run(folder)
    run = opened.folder
    if not 0 < port < 65536:
        raise ConfigError(f"--port was given {port}, expected a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RegenError(f"Port {port} cannot be used ({error.strerror}). Choose another with --port.") from None
    if stale := opened.stale("dataset", "train"):
        print(f"regen: {stale}", file=sys.stderr, flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        model, dataset = output_folder(run, "train"), output_folder(run, "dataset")
        if glob.has_magic(str(dataset)):  # `load_dataset` would take the path for a pattern
            link = Path(scratch) / dataset.name
            link.symlink_to(dataset.resolve())
            dataset = link
        pictures = [str(path) for path in figures(run, "dataset")]
        config.write_bytes(space_config(run, str(model), str(dataset), pictures=pictures))
        os.environ["REGEN_DEMO_CONFIG"] = str(config)
        os.environ["GRADIO_SERVER_PORT"] = str(port)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        sys.path.insert(0, str(resource(APP)))  # the app imports the modules in its folder, as a script does
        runpy.run_path(str(resource(APP) / "app.py"), run_name="__main__")


def trained_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        RunError: it has no model, or a model of another dataset.
    """
    run = Run(folder)
    model, dataset = manifest(folder, "train"), manifest(folder, "dataset")
    if not model:
        raise RunError(f"{folder} has no trained model. Train one with `regen run {folder} …` or `regen quickstart`.")
    if not dataset or dataset["fingerprint"] != model["inputs"]["stages"]["dataset"]:
        raise RunError(f"The model in {folder} was trained on another dataset. Run `regen run {folder}` first.")
    return run


def space_config(
    run: Path,
    model: str,
    dataset: str,
    revisions: Mapping[str, str] | None = None,
    pictures: Sequence[str] | None = None,
) -> bytes:
    """The content of the app's config.json: repositories or folders, their commits, and facts about the tasks.

    Args:
        run: the run folder.
        model: repository on the Hub, or a folder.
        dataset: repository on the Hub, or a folder.
        revisions: the commits of "model" and "dataset".
        pictures: the figures of the dataset; None for those in its repository.

    Raises:
        RunError: the model writes no texts.
    """
    counts, training = manifest(run, "dataset")["counts"], manifest(run, "train")["config"]
    if not training["tasks"]:
        raise RunError(
            f"The model in {run} was trained to rank only (training.tasks is []), but the demo shows its texts. Train "
            "it with tasks, or push without the Space: --dataset --model."
        )
    config = {
        "model": model,
        "model_revision": (revisions or {}).get("model", "main"),
        "dataset": dataset,
        "dataset_revision": (revisions or {}).get("dataset", "main"),
        "dataset_config": config_name(run),
        "split": next((split for split in reversed(SPLITS) if counts[split]), SPLITS[0]),
        "splits": [split for split in SPLITS if counts[split]],
        "simulated": simulated(run),
        "item_head": bool(training.get("next_item_weight")),
        "tasks": [
            {"name": task.name, "question": task.question, "field": list(task.field), "rated_in": task.rated_in}
            for task in offered_tasks(training["tasks"]).values()
        ],
        **({} if pictures is None else {"figures": list(pictures)}),
    }
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def space_card(app: Path, model: str, dataset: str) -> bytes:
    """The Space's card, linked to model and dataset."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(app / "README.md")
    card.data.models, card.data.datasets = [model], [dataset]
    return str(card).encode()


def metric_card(repository: str, dataset: str | None) -> bytes:
    """The metric's card, linked to `dataset` if it is given."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(resource(METRIC) / "README.md")
    if dataset:
        card.data.datasets = [dataset]
    card.text = card.text.replace(PLACEHOLDER, repository)
    return str(card).encode()
