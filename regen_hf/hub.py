"""Cards from results, the push to the Hub, and the app on this machine."""

from __future__ import annotations

import json
import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import RegenError, RunError, missing_extra
from .run import Run

PRIVATE_FILES = ("manifest.json",)
"""What stays at home: it names paths of the machine that made it."""


def resource(name: str) -> Path:
    """A folder shipped beside the code: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parent
    return package / name if (package / name).exists() else package.parent / name


def dataset_card(run: Path, name: str, counts: dict[str, int]) -> str:
    """The card of a dataset repository, with the YAML that tells `load_dataset` its files."""
    from huggingface_hub import DatasetCard, DatasetCardData

    from .schema import SPLITS, TASKS

    accounting = json.loads((run / "sequences" / "accounting.json").read_text(encoding="utf-8"))
    manifests = {
        stage: json.loads((run / stage / "manifest.json").read_text(encoding="utf-8"))
        for stage in ("sequences", "narratives", "ratings")
    }
    simulated = manifests["sequences"]["config"]["sample"]
    data = DatasetCardData(
        pretty_name=f"REGEN {name}",
        language="en",
        task_categories=["text-generation"],
        tags=["recommendation", "conversational-recommendation", "synthetic", *(["simulated"] if simulated else [])],
        configs=[
            {
                "config_name": name,
                "default": True,
                "data_files": [
                    {"split": split, "path": f"{name}/{split}.parquet"} for split in SPLITS if counts[split]
                ],
            },
            {"config_name": f"{name}-items", "data_files": [{"split": "train", "path": f"{name}-items/items.parquet"}]},
        ],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(resource("dataset_card") / "template.md"),
        name=name,
        simulated=simulated,
        counts=counts,
        splits=SPLITS,
        tasks=list(TASKS.values()),
        accounting=accounting,
        narrator=_writer(manifests["narratives"]["config"]),
        rater=_writer(manifests["ratings"]["config"]),
    )
    return str(card)


def _writer(config: dict[str, Any]) -> str | None:
    """The model that wrote or rated, None for the fixed rules."""
    return None if config["backend"] == "reference" else config["model"]


def model_card(run: Path) -> str:
    """The card of a model repository; scores stand in it once the run has been evaluated."""
    from huggingface_hub import ModelCard, ModelCardData

    from .evaluation.report import table

    training = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))
    results = run / "evaluation" / "results.json"
    simulated = json.loads((run / "sequences" / "manifest.json").read_text(encoding="utf-8"))["config"]["sample"]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
        base_model=training["config"]["backbone"],
        tags=["recommendation", "conversational-recommendation", "custom_code"],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(resource("model_card") / "template.md"),
        config=training["config"],
        counts=training["counts"],
        simulated=simulated,
        scores=table(json.loads(results.read_text(encoding="utf-8"))) if results.exists() else None,
    )
    return str(card)


def push(folder: Path, namespace: str, private: bool = False, dry_run: bool = False) -> Iterator[str]:
    """Push dataset, model and Space of a run to the Hub; yields a line per file and repository.

    Raises:
        RegenError: the run has no model yet, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    run = _finished(folder)
    name = run.folder.resolve().name
    dataset_id, model_id, space_id = f"{namespace}/regen", f"{namespace}/regen-{name}", f"{namespace}/regen-demo"
    repositories: list[tuple[str, str, dict[str, Path | bytes]]] = [
        (dataset_id, "dataset", _files(run.folder / "dataset")),
        (model_id, "model", _files(run.folder / "model") | {"README.md": model_card(run.folder).encode()}),
        (
            space_id,
            "space",
            _files(resource("spaces/regen_demo")) | {"config.json": _space_config(model_id, dataset_id)},
        ),
    ]
    api = HfApi()
    for repo_id, kind, files in repositories:
        for path, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            yield f"{kind} {repo_id}: {path} ({size:,} bytes)"
        if dry_run:
            continue
        try:
            api.create_repo(
                repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk="gradio" if kind == "space" else None
            )
            commit = api.create_commit(
                repo_id,
                repo_type=kind,
                operations=[CommitOperationAdd(path, content) for path, content in files.items()],
                commit_message=f"Push {kind} of the run {name}",
            )
        except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RegenError(f"The {kind} {repo_id} was not pushed: {reason} Log in with `hf auth login`.") from error
        yield f"pushed {commit.repo_url}"


def demo(folder: Path, port: int) -> None:
    """Serve the Space's app with the model and dataset of a run."""
    try:
        import gradio  # noqa: F401 (told before the model is loaded)
    except ImportError:
        raise missing_extra("gradio", "space") from None
    run = _finished(folder)
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.json"
        config.write_bytes(
            _space_config(str((run.folder / "model").resolve()), str((run.folder / "dataset").resolve()))
        )
        os.environ["REGEN_DEMO_CONFIG"] = str(config)
        os.environ["GRADIO_SERVER_PORT"] = str(port)
        runpy.run_path(str(resource("spaces/regen_demo") / "app.py"), run_name="__main__")


def _finished(folder: Path) -> Run:
    if not (folder / "model" / "manifest.json").exists():
        raise RunError(f"{folder} holds no trained model. Make one with `regen run {folder} …` or `regen quickstart`.")
    return Run(folder)


def _files(folder: Path) -> dict[str, Path | bytes]:
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in PRIVATE_FILES and "__pycache__" not in path.parts
    }


def _space_config(model: str, dataset: str) -> bytes:
    return json.dumps({"model": model, "dataset": dataset}, indent=2).encode() + b"\n"
