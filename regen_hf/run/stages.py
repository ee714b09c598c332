"""The stages of a run in their order, and the settings of all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..config import section, unknown
from ..errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: a module with a config dataclass and a `build` function."""

    command: str
    """Name on the command line."""
    section: str
    """Name of its settings, and of its module in `regen_hf`."""
    config: str
    """Name of its config dataclass."""
    folder: str
    """Where its output lies in the run."""
    reads: tuple[str, ...]
    """Commands of the stages whose output it reads."""
    about: str
    """What it does, in a line."""
    packages: tuple[str, ...] = ()
    """Libraries whose version matters to its output."""
    prompts: tuple[str, ...] = ()
    """Prompt files in `regen_hf/prompts` that its output depends on, where a language model writes it."""
    reads_what_is_there: bool = False
    """It works with those of `reads` that the run has, rather than needing them all."""
    module: str = ""
    """Its module in `regen_hf`, where that is not the name of its settings."""

    @property
    def code(self) -> str:
        """The full name of its module."""
        return f"regen_hf.{self.module or self.section}"


STAGES = {
    stage.command: stage
    for stage in (
        Stage("sample", "sample", "SampleConfig", "sample", (), "simulate shoppers with a known truth", ("numpy",)),
        Stage("release", "release", "ReleaseConfig", "release", (), "read the official REGEN release", ("duckdb",)),
        Stage(
            "sequences",
            "sequences",
            "SequencesConfig",
            "sequences",
            ("sample",),
            "raw review files to one history per user, split by user",
            ("duckdb", "ibis-framework"),
        ),
        Stage(
            "narratives",
            "narratives",
            "NarrativesConfig",
            "narratives",
            ("sequences",),
            "write the narratives",
            ("openai", "outlines", "transformers"),
            ("history", "narratives", "endorsement", "examples"),
        ),
        Stage(
            "ratings",
            "ratings",
            "RatingsConfig",
            "ratings",
            ("sequences", "narratives"),
            "rate the narratives",
            ("openai", "outlines", "transformers"),
            ("history", "ratings"),
        ),
        Stage(
            "dataset",
            "dataset",
            "DatasetConfig",
            "dataset",
            ("release", "sequences", "narratives", "ratings"),
            "join all of it to a Hub dataset repository",
            ("datasets", "pyarrow"),
        ),
        Stage(
            "embeddings",
            "embeddings",
            "EmbeddingsConfig",
            "embeddings",
            ("dataset",),
            "CF vectors of the items, content vectors of the purchases",
            ("implicit", "sentence-transformers", "torch"),
        ),
        Stage(
            "train",
            "training",
            "TrainingConfig",
            "model",
            ("dataset", "embeddings"),
            "train the fused model",
            ("torch", "transformers", "trl", "accelerate"),
        ),
        Stage(
            "evaluate",
            "evaluation",
            "EvaluationConfig",
            "evaluation",
            ("dataset", "embeddings", "train"),
            "write narratives for held-out users and score them",
            ("torch", "transformers", "sacrebleu", "rouge-score"),
        ),
        Stage(
            "reading",
            "reading",
            "ReadingConfig",
            "reading",
            ("dataset", "embeddings", "train", "evaluate"),
            "look into the soft tokens, and which purchases made the model say so",
            ("torch", "transformers", "openTSNE"),
        ),
        Stage(
            "figures",
            "figures",
            "FiguresConfig",
            "figures",
            ("release", "sequences", "narratives", "ratings", "dataset", "train", "evaluate", "reading"),
            "draw the data and the results",
            ("matplotlib",),
            reads_what_is_there=True,
        ),
    )
}

EXTRAS = {
    "next-item": Stage(
        "evaluate --next-item",
        "next_item",
        "NextItemConfig",
        "next_item",
        ("dataset", "embeddings"),
        "rank the catalogue for held-out users",
        ("implicit", "numpy"),
        module="evaluation.next_item",
    ),
    "grounding": Stage(
        "evaluate --grounding",
        "grounding",
        "GroundingConfig",
        "grounding",
        ("dataset", "evaluate"),
        "check the claims of narratives by the record",
        ("numpy", "openai", "outlines", "sentence-transformers", "torch", "transformers"),
        ("history", "grounding"),
        module="evaluation.grounding",
    ),
    "judge": Stage(
        "evaluate --judge",
        "judge",
        "JudgeConfig",
        "judge",
        ("dataset", "evaluate"),
        "judge two models' narratives side by side",
        ("numpy", "openai", "outlines", "transformers"),
        ("history", "judge"),
        module="evaluation.judge",
    ),
}
"""Further evaluations, by their option of `regen evaluate`: made where they are asked for, and read by no stage."""

Config = dict[str, Any]
"""The settings of a run: an instance of the config dataclass of each stage, by section name."""


def config_class(stage: Stage) -> type:
    """The config dataclass of `stage`; imports the stage's module."""
    cls: type = getattr(importlib.import_module(stage.code), stage.config)
    return cls


def make_config(values: Mapping[str, Any]) -> Config:
    """The checked settings of a run from plain nested `values`; what is not given has its default.

    Raises:
        ConfigError: a section or key does not exist, or a value is refused.
    """
    stages = [*STAGES.values(), *EXTRAS.values()]
    sections = [stage.section for stage in stages]
    for name, value in values.items():
        if name not in sections:
            raise ConfigError(unknown(name, sections))
        if not isinstance(value, Mapping):
            raise ConfigError(f"Section {name!r} was given {value!r}, expected settings as 'key: value'.")
    return {
        stage.section: section(config_class(stage), values.get(stage.section, {}), stage.section) for stage in stages
    }


def plain(config: Config) -> dict[str, dict[str, Any]]:
    """`config` as nested plain data, ready for YAML or JSON."""
    return {name: json.loads(json.dumps(dataclasses.asdict(values))) for name, values in config.items()}


def versions(stage: Stage) -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that matter to the output of `stage`."""
    found = {"regen-hf": __version__, "python": sys.version.split()[0]}
    for package in stage.packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
