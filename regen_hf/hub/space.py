"""The Space's app: what it reads, and serving it on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..cards.card import PLACEHOLDER, resource, simulated
from ..cards.config_name import config_name
from ..cards.figures import figures
from ..errors import ConfigError, RegenError, RunError, missing_extra
from ..outputs import manifest
from ..run import Run
from ..schema import SPLITS, TASKS

APP = "spaces/regen_demo"


METRIC = "spaces/regen_narrative"
"""The Hub keeps a metric of `evaluate` as a Space: this one is a page, beside the metric's code."""


def demo(folder: Path, port: int) -> None:
    """Serve the Space's app with the model and dataset of a run, on this machine alone.

    Raises:
        RegenError: a package is missing, the run has no model yet, or the port is taken.
    """
    for package, extra in (("gradio", "space"), ("torch", "train"), ("transformers", "train")):
        if importlib.util.find_spec(package) is None:  # told before the model is loaded
            raise missing_extra(package, extra)
    run = finished(folder).folder
    if not 0 < port < 65536:
        raise ConfigError(f"--port was given {port}, expected a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RegenError(
                f"Port {port} cannot be used ({error.strerror}). Choose another one with --port."
            ) from None
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        drawn = [str(path) for path in figures(run, "dataset")]
        config.write_bytes(space_config(run, str(run / "model"), str(run / "dataset"), drawn=drawn))
        os.environ["REGEN_DEMO_CONFIG"] = str(config)
        os.environ["GRADIO_SERVER_PORT"] = str(port)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        sys.path.insert(0, str(resource(APP)))  # as for a script: the app imports the files beside it
        runpy.run_path(str(resource(APP) / "app.py"), run_name="__main__")


def finished(folder: Path) -> Run:
    """The run in `folder`, whose model is there and belongs to its dataset.

    Raises:
        RunError: it is not.
    """
    model, dataset = manifest(folder, "train"), manifest(folder, "dataset")
    if not model:
        raise RunError(f"{folder} holds no trained model. Make one with `regen run {folder} …` or `regen quickstart`.")
    run = Run(folder)
    if not dataset or dataset["fingerprint"] != model["inputs"]["stages"]["dataset"]:
        raise RunError(f"The model in {folder} was trained on another dataset. Run `regen run {folder}` first.")
    return run


def space_config(
    run: Path,
    model: str,
    dataset: str,
    revisions: Mapping[str, str] | None = None,
    drawn: Sequence[str] | None = None,
) -> bytes:
    """What the app reads: names on the Hub or folders, and the commits to take.

    Args:
        run: the run folder.
        model: repository on the Hub, or a folder.
        dataset: repository on the Hub, or a folder.
        revisions: the commits of "model" and "dataset".
        drawn: the figures of the dataset; None for those in its repository.
    """
    counts = manifest(run, "dataset")["counts"]
    config = {
        "model": model,
        "model_revision": (revisions or {}).get("model", "main"),
        "dataset": dataset,
        "dataset_revision": (revisions or {}).get("dataset", "main"),
        "dataset_config": config_name(run),
        "split": next((split for split in reversed(SPLITS) if counts[split]), SPLITS[0]),
        "splits": [split for split in SPLITS if counts[split]],
        "simulated": simulated(run),
        "tasks": [
            {"name": task.name, "question": task.question, "field": list(task.field), "rated_in": task.rated_in}
            for task in TASKS.values()
        ],
        **({} if drawn is None else {"figures": list(drawn)}),
    }
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def space_card(app: Path, model: str, dataset: str) -> bytes:
    """The Space's card, linked to model and dataset."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(app / "README.md")
    card.data.models, card.data.datasets = [model], [dataset]
    return str(card).encode()


def metric_card(repository: str, dataset: str | None) -> bytes:
    """The metric's card, linked to the dataset, if there is one."""
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(resource(METRIC) / "README.md")
    if dataset:
        card.data.datasets = [dataset]
    card.text = card.text.replace(PLACEHOLDER, repository)
    return str(card).encode()
