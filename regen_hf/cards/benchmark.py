"""`eval.yaml` of a dataset repository, with which the Hub can register it as a benchmark.

The format is that of https://huggingface.co/docs/hub/eval-results. A task of the benchmark is one metric of one
narrative of one config; the files in `.eval_results` of models name it by `task_id`. `evaluation_framework` is left
out: the Hub accepts registered names only (`EVALUATION_FRAMEWORKS` of huggingface.js), and this package is not one.
"""

from __future__ import annotations

from ..schema import TASKS, is_second_config, offered_tasks

FILE = "eval.yaml"
SPLIT = "test"
"""The split of the benchmark; validation users may have chosen the model."""
METRICS = {
    "bleu": ("bleu", "BLEU"),
    "rouge1": ("rouge", "ROUGE-1"),
    "rouge2": ("rouge", "ROUGE-2"),
    "rougeL": ("rouge", "ROUGE-L"),
    "rougeLsum": ("rouge", "ROUGE-Lsum"),
    "similarity": ("cosine_similarity", "Similarity"),
}
"""Type on the Hub and name of each metric that the Hub shows, by its key in the results."""


def task_id(config: str, split: str, task: str, metric: str) -> str:
    """The name of a task of the benchmark.

    >>> task_id("office", "test", "user_profile", "rougeLsum")
    'office_test_user_profile_rougeLsum'
    """
    return f"{config}_{split}_{task}_{metric}"


def eval_yaml(card: str) -> str | None:
    """The content of `eval.yaml` for the configs of a dataset card; None if no config has test users."""
    from huggingface_hub import DatasetCard
    from huggingface_hub.utils import yaml_dump

    configs = [
        config["config_name"]
        for config in DatasetCard(card).data["configs"]
        if SPLIT in [file["split"] for file in config["data_files"]] and not is_second_config(config["config_name"])
    ]
    if not configs:
        return None
    narratives = ", ".join(TASKS[name].title.lower() for name in offered_tasks())
    benchmark = {
        "name": "REGEN",
        "description": "Write narratives about a customer from the purchase history, for users who are not in the "
        f"training data: {narratives}. Scores are BLEU and ROUGE in percent and the cosine similarity to the "
        "reference, by `regen score` of regen-hf.",
        "tasks": [
            {"id": task_id(config, SPLIT, task, metric), "config": config, "split": SPLIT}
            for config in configs
            for task in offered_tasks()
            for metric in METRICS
        ],
    }
    return str(yaml_dump(benchmark, sort_keys=False))
