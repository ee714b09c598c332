"""The card of a model repository, and its scores in the two forms that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import outputs
from ..config import read_yaml
from ..outputs import manifest, public_name
from ..schema import TASKS
from .benchmark import METRICS, task_id
from .facts import caption, config_name, language, simulated
from .templates import PLACEHOLDER, resource

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TIMED = ("sequences", "release", "narratives", "ratings", "dataset", "embeddings", "train", "evaluate")
"""Stages whose duration the card lists."""


def model_card(
    run: Path,
    repository: str = PLACEHOLDER,
    dataset: str | None = None,
    training: dict[str, Any] | None = None,
    figures: Sequence[str] = (),
    linked: Mapping[str, str] | None = None,
    evaluations: Iterable[tuple[str, str]] = (),
) -> str:
    """The card of a model repository; it has scores only if the evaluation of the run is of this model.

    Args:
        run: the run folder.
        repository: the repository that the card's code loads.
        dataset: the dataset's name on the Hub.
        training: `config` and `counts` of the training, while the model has no manifest yet.
        figures: paths of figures in the repository.
        linked: the repositories of the run on the Hub, by part.
        evaluations: headings and summaries of optional evaluations.
    """
    from huggingface_hub import ModelCard, ModelCardData

    from ..metrics.tables import PAPER_METRICS, UNITS, markdown, score_grid

    trained = training or manifest(run, "train")
    sample = simulated(run)
    backbone = public_name(trained["config"]["backbone"])
    results = _results(run, trained)
    metric = (linked or {}).get("metric")
    index = list(_model_index(run, results, dataset)) if results and dataset else []
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation" if trained["config"]["tasks"] else None,
        language=language(run),
        license="apache-2.0" if sample and not backbone else None,
        base_model=backbone if backbone and backbone == trained["config"]["backbone"] else None,
        datasets=[dataset] if dataset else None,
        metrics=[metric] if metric and results else None,
        tags=[
            "recommendation",
            *(["conversational-recommendation"] if trained["config"]["tasks"] else []),
            "custom_code",
            *(["simulated"] if sample else []),
        ],
        model_name=repository.split("/")[-1] if index else None,
        eval_results=index or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(resource("model_card") / "template.md"),
        repository=repository,
        dataset=dataset,
        backbone=backbone,
        training=trained,
        simulated=sample,
        withheld=[name for name in trained["config"]["tasks"] if name in TASKS and TASKS[name].metadata_only],
        results=results,
        units=UNITS,
        scores=markdown(score_grid(results["models"], PAPER_METRICS)) if results else None,
        all_scores=markdown(_by_task(score_grid({"fused": results["models"]["fused"]})[1:])) if results else None,
        figures=[(path, caption(path)) for path in figures],
        linked=linked or {},
        evaluations=list(evaluations),
        narrator=_narrator(run),
        cf=_cf_vectors(run) if trained["config"]["embedding_mode"] != "content" else None,
        seconds=_seconds(run, trained),
    )
    return str(card)


def eval_results(run: Path, dataset: str | None) -> str | None:
    """The content of `.eval_results/regen.yaml`, the newer form of `model-index`; None without a dataset or scores."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    results = _results(run, manifest(run, "train"))
    if not results or not dataset:
        return None
    date = manifest(run, "evaluate").get("made")
    name = config_name(run)
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=task_id(name, results["split"], task, key),
            value=interval["mean"],
            date=date,
            notes=f"95 % interval {interval['low']} to {interval['high']}, {results['n_users']} users",
        )
        for task, key, interval in _scores(results)
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries)) if entries else None


def _results(run: Path, trained: dict[str, Any]) -> dict[str, Any] | None:
    """The results of the evaluation, None if it is missing or of another model."""
    evaluation = manifest(run, "evaluate")
    if not evaluation or evaluation["inputs"]["stages"]["train"] != trained.get("fingerprint"):
        return None
    return outputs.results(run)


def _scores(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Task, metric and interval of each score of the fused model."""
    for task, scores in results["models"]["fused"].items():
        for key in METRICS:
            if (scores.get(key) or {}).get("mean") is not None:
                yield task, key, scores[key]


def _model_index(run: Path, results: dict[str, Any], dataset: str) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    name = config_name(run)
    for task, key, interval in _scores(results):
        kind, title = METRICS[key]
        yield EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=f"REGEN: {name}",
            dataset_config=name,
            dataset_split=results["split"],
            metric_type=kind,
            metric_name=f"{title}, {task}",
            metric_value=interval["mean"],
        )


def _by_task(rows: list[list[str]]) -> list[list[str]]:
    """One row per task from rows per task and metric.

    >>> _by_task([["a", "BLEU", "1"], ["a", "ROUGE-1", "2"], ["b", "BLEU", "3"], ["b", "ROUGE-1", "4"]])
    [['task', 'BLEU', 'ROUGE-1'], ['a', '1', '2'], ['b', '3', '4']]
    """
    cells: dict[str, dict[str, str]] = {}
    for task, metric, cell in rows:
        cells.setdefault(task, {})[metric] = cell
    metrics = list(next(iter(cells.values())))
    return [["task", *metrics], *([task, *(row[metric] for metric in metrics)] for task, row in cells.items())]


def _narrator(run: Path) -> str | None:
    """The language model that wrote the narratives, None for fixed rules or the release."""
    config = manifest(run, "narratives").get("config", {})
    return public_name(config["model"]) if config.get("backend", "reference") != "reference" else None


def _cf_vectors(run: Path) -> dict[str, Any]:
    """Where the CF vectors come from: `external`, on whom another recommender was `fitted_on`, items and cold items."""
    embeddings = manifest(run, "embeddings")
    # Words for the card only, which do not make the vectors stale: those of the settings as they are now.
    settings = run / outputs.CONFIG
    stated = (read_yaml(settings).get("embeddings") if settings.exists() else None) or {}
    return {
        "external": bool(embeddings.get("config", {}).get("cf_vectors")),
        "fitted_on": stated.get("cf_fitted_on", "not stated"),
        **embeddings.get("counts", {}),
    }


def _seconds(run: Path, trained: dict[str, Any]) -> list[tuple[str, float]]:
    """Name and seconds of each stage that has a manifest and contributed to this model."""
    if "seconds" not in trained:  # still in training
        return []
    manifests = [(stage, manifest(run, stage)) for stage in TIMED]
    return [
        (content["stage"], content["seconds"])
        for stage, content in manifests
        if content and (stage != "evaluate" or content["inputs"]["stages"]["train"] == trained["fingerprint"])
    ]
