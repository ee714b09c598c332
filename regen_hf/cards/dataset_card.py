"""The card of a dataset repository: its content, counted from its files, and the settings that produced it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import outputs
from ..metrics import counts as statistics
from ..outputs import manifest, public_name, split_files
from ..schema import CONFIGS, SPLITS, features, narratives
from .facts import caption, language, simulated
from .templates import PLACEHOLDER, resource

if TYPE_CHECKING:
    from huggingface_hub import DatasetCardData

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
"""Size categories of the Hub: up to 1,000 rows, then each up to ten times as many as the one before."""


def dataset_card(
    run: Path,
    folder: Path,
    name: str,
    counts: dict[str, Any],
    repository: str = PLACEHOLDER,
    figures: Sequence[str] = (),
    linked: Mapping[str, str] | None = None,
    evaluations: Iterable[tuple[str, str]] = (),
) -> str:
    """The card of a dataset repository, with the YAML that lists its files for `load_dataset`.

    Args:
        run: the run folder, for the manifests of earlier stages.
        folder: the folder with the dataset's parquet files.
        name: the config name.
        counts: counts of the dataset stage: rows of each split, `items`, `interactions`, and `bytes` of each in memory.
        repository: the repository that the card's code loads.
        figures: paths of figures in the repository.
        linked: the repositories of the run on the Hub, by part.
        evaluations: headings and summaries of optional evaluations.
    """
    from huggingface_hub import DatasetCard

    source = outputs.source(run)
    manifests = {stage: manifest(run, stage) for stage in (source, "narratives", "ratings")}
    sample = simulated(run)
    splits = [split for split in SPLITS if counts[split]]
    files = {split: split_files(folder / name, split) for split in splits}
    purchases = {split: statistics.purchases(files[split]) for split in splits}
    every_file = [path for paths in files.values() for path in paths]
    shown = "test" if "test" in splits else splits[0]
    return str(
        DatasetCard.from_template(
            _card_data(folder, name, counts, sample, language(run)),
            template_path=str(resource("dataset_card") / "template.md"),
            repository=repository,
            address=repository if repository == PLACEHOLDER else f"hf://datasets/{repository}",
            name=name,
            split=splits[0],
            shown=shown,
            shown_file=f"{name}/{files[shown][0].name}",
            release=source == "release",
            simulated=sample,
            counts=counts,
            purchases=_purchase_rows(purchases),
            total=_total(purchases),
            narratives=_narrative_rows(statistics.narrative_lengths(every_file)),
            scores=_score_rows(statistics.rating_counts(every_file)),
            accounting=outputs.accounting(run),
            config=manifests[source]["config"],
            sources=_sources(manifests[source]),
            narrator=_writer(manifests["narratives"].get("config", {})),
            failed_checks=manifests["narratives"].get("counts", {}).get("failed_checks"),
            check_warnings=manifests["narratives"].get("counts", {}).get("check_warnings"),
            similar_pairs=manifests["narratives"].get("counts", {}).get("similar_pairs"),
            narrated=manifests["narratives"].get("counts", {}).get("users"),
            critiques=manifests["narratives"].get("counts", {}).get("critiques"),
            from_truth=manifests["narratives"].get("counts", {}).get("from_truth", 0),
            rater=_writer(manifests["ratings"].get("config", {})),
            stages=[_provenance(stage, content) for stage, content in manifests.items() if content],
            figures=[(path, caption(path)) for path in figures],
            linked=linked or {},
            evaluations=list(evaluations),
        )
    )


def _card_data(folder: Path, name: str, counts: dict[str, Any], sample: bool, language: str | None) -> DatasetCardData:
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    def files(config: str, stem: str) -> str | list[str]:
        paths = [f"{config}/{path.name}" for path in split_files(folder / config, stem)]
        return paths if len(paths) != 1 else paths[0]

    splits = [split for split in SPLITS if counts[split]]
    schemas = {f"{name}{suffix}": schema for suffix, schema in CONFIGS.items()}
    # Split -> its key in `counts`; a dataset of an earlier version has no flat table.
    others = {f"{name}{suffix}": {"train": key} for suffix in CONFIGS if (key := suffix.lstrip("-")) in counts}
    rows = {name: {split: split for split in splits}, **others}
    data = DatasetCardData(
        pretty_name="REGEN",
        language=language,
        license="apache-2.0" if sample else "unknown",
        annotations_creators=["machine-generated"],
        task_categories=["text-generation"],
        size_categories=[_size_category(sum(counts[split] for split in splits))],
        tags=["recommendation", "conversational-recommendation", "synthetic", *(["simulated"] if sample else [])],
        configs=[
            {"config_name": config}
            | ({"default": True} if config == name else {})
            | {"data_files": [{"split": split, "path": files(config, key)} for split, key in keys.items()]}
            for config, keys in rows.items()
        ],
    )
    DatasetInfosDict(
        {
            config: DatasetInfo(
                features=features(schemas[config]),
                splits=SplitDict(
                    {
                        split: SplitInfo(split, num_bytes=counts["bytes"][key], num_examples=counts[key])
                        for split, key in keys.items()
                    }
                ),
                download_size=sum(path.stat().st_size for path in (folder / config).glob("*.parquet")),
                dataset_size=sum(counts["bytes"][key] for key in keys.values()),
            )
            for config, keys in rows.items()
        }
    ).to_dataset_card_data(data)
    return data


def _size_category(rows: int) -> str:
    """The size category of the Hub for a number of rows.

    >>> _size_category(458), _size_category(1000), _size_category(100_613), _size_category(43_249_276)
    ('n<1K', '1K<n<10K', '100K<n<1M', '10M<n<100M')
    """
    return SIZES[max(len(str(rows)) - 3, 0)]


def _purchase_rows(purchases: dict[str, statistics.Purchases]) -> list[tuple[Any, ...]]:
    """For each split, and for all: users, purchases, and the least, median and most purchases of a user."""
    everything = sum(purchases.values(), statistics.Purchases())
    return [
        (split, counts.lengths.total(), counts.total, *(statistics.quantile(counts.lengths, at) for at in (0, 0.5, 1)))
        for split, counts in [*purchases.items(), *([("all", everything)] if len(purchases) > 1 else [])]
    ]


def _total(purchases: dict[str, statistics.Purchases]) -> dict[str, Any]:
    """Statistics of the purchases of all splits: items bought, period, ratings."""
    everything = sum(purchases.values(), statistics.Purchases())
    months = [month for month, _ in everything.months]
    ratings: Counter[int | None] = Counter()
    for (_, rating), number in everything.months.items():
        ratings[rating] += number
    return {
        "bought": len(everything.items),
        "item_counts": [statistics.quantile(Counter(everything.items.values()), share) for share in (0.5, 0.9, 1)],
        "first": min(months).strftime("%B %Y") if months else None,
        "last": max(months).strftime("%B %Y") if months else None,
        "ratings": [(rating, ratings[rating]) for rating in (1, 2, 3, 4, 5, None) if ratings[rating]],
    }


def _narrative_rows(lengths: dict[str, Counter[int | None]]) -> list[tuple[Any, ...]]:
    """For each narrative: it, users with and without its text, and the 5 %, 50 % and 95 % quantile of its words."""
    rows = []
    for name, counts in lengths.items():
        written = Counter({words: users for words, users in counts.items() if words is not None})
        quantiles = [statistics.quantile(written, share) for share in (0.05, 0.5, 0.95)] if written else ["–"] * 3
        rows.append((narratives()[name], written.total(), counts[None], *quantiles))
    return rows


def _score_rows(scores: dict[tuple[str, str], Counter[int | None]]) -> list[tuple[Any, ...]]:
    """For each rated attribute: its path, users by score 1..7, users not rated, and the mean."""
    rows = []
    for (part, attribute), counts in scores.items():
        rated = {score: users for score, users in counts.items() if score is not None}
        users = sum(rated.values())
        mean = f"{sum(score * number for score, number in rated.items()) / users:.2f}" if users else "–"
        rows.append((f"{part}.{attribute}", [rated.get(score, 0) for score in range(1, 8)], counts[None], mean))
    return rows


def _sources(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The input files: kind, file name without folders, which are private, and start of the SHA-256."""
    files = content["inputs"]["files"]
    return sorted((entry["kind"], Path(path).name, entry["sha256"][:16]) for path, entry in files.items())


def _writer(config: dict[str, Any]) -> str | None:
    """The names of the language models that wrote or rated, None for the fixed rules."""
    if config.get("backend", "reference") == "reference":
        return None
    return "`, `".join(str(public_name(name)) for name in (config["model"], *config.get("more_models", ())))


def _provenance(stage: str, content: dict[str, Any]) -> dict[str, Any]:
    """Date, version and duration of a stage; sampling settings and prompts if it called a language model."""
    uses_model = content["config"].get("backend", "reference") != "reference"
    return {
        "stage": stage,
        "date": content.get("made", "")[:10],
        "version": content["versions"]["regen-hf"],
        "seconds": content["seconds"],
        "sampling": {
            key: content["config"][key]
            for key in ("temperature", "seed", "votes")
            if key in content["config"] and uses_model
        },
        "prompts": (content["counts"].get("prompts") or {}) if uses_model else {},
    }


def merged_card(card: str, other: str) -> str:
    """`card` with the other configs and sections of `other`, the card on the Hub, whose default config stays default.

    A card has one section per dataset, headed `# REGEN: <name>`; `card` replaces its own, and its configs.
    """
    from huggingface_hub import DatasetCard

    ours, theirs = DatasetCard(card), DatasetCard(other)
    before = theirs.data.get("configs") or []
    name = ours.data["configs"][0]["config_name"]
    family = {f"{name}{suffix}" for suffix in CONFIGS}
    configs = _by_config(before, ours.data["configs"], family)
    default = next((config for config in before if config.get("default")), configs[0])["config_name"]
    ours.data["configs"] = [
        {"config_name": config["config_name"]}
        | ({"default": True} if config["config_name"] == default else {})
        | {key: value for key, value in config.items() if key not in ("config_name", "default")}
        for config in configs
    ]
    if ours.data.get("dataset_info"):
        ours.data["dataset_info"] = _by_config(theirs.data.get("dataset_info") or [], ours.data["dataset_info"], family)
    for key in ("tags", "size_categories"):
        if ours.data.get(key):
            ours.data[key] = list(dict.fromkeys([*(theirs.data.get(key) or []), *ours.data[key]]))
    if before and theirs.data.get("license") != ours.data.get("license"):
        ours.data["license"] = "other"  # each section states its own
    sections = {}
    for text in (theirs.text, ours.text):
        for section in re.split(r"(?m)^(?=# REGEN: )", text):
            if section.strip():
                sections[section.splitlines()[0]] = section.strip()
    ours.text = "\n" + "\n\n".join(sections.values()) + "\n"
    return str(ours)


def _by_config(before: Any, own: Any, family: Collection[str]) -> list[dict[str, Any]]:
    """The entries of `before` and then `own`, which replaces those of its `family` of config names, in their places."""
    entries, ours = (
        {entry.get("config_name", "default"): entry for entry in (part if isinstance(part, list) else [part])}
        for part in (before, own)
    )
    kept = {name: entry for name, entry in entries.items() if name not in family or name in ours}
    return list((kept | ours).values())
