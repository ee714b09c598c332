"""The stages of a run in their order, and the settings of all of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..config import section, unknown
from ..errors import ConfigError
from ..outputs import FOLDERS
from ..schema import narrative_prompts


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: a package in `regen_hf/stages` with the modules `settings` and `build`."""

    command: str
    """Name on the command line."""
    section: str
    """Name of its settings and of its package."""
    reads: tuple[str, ...]
    """Commands of the stages whose output it reads."""
    about: str
    """What it does, in a line."""
    prompts: tuple[str, ...] = ()
    """Prompt files in `regen_hf/prompts` that its output depends on, where a language model writes it."""
    reads_available: bool = False
    """It reads those of `reads` that the run has, and needs only one of them."""
    reads_optional: tuple[str, ...] = ()
    """Commands of the stages whose output it reads too where it is fresh."""
    reads_texts: bool = False
    """It needs a model that writes texts: `regen run` skips it where `training.tasks` is empty."""
    optional: bool = False
    """It is run only by its own command, and no stage needs it."""

    @property
    def folder(self) -> str:
        """Its output folder in a run."""
        return FOLDERS[self.command]

    @property
    def settings(self) -> ModuleType:
        """Its module `settings`: the config dataclass, and PACKAGES, the libraries that its output depends on."""
        return importlib.import_module(f"regen_hf.stages.{self.section}.settings")

    @property
    def code(self) -> ModuleType:
        """Its module `build`."""
        return importlib.import_module(f"regen_hf.stages.{self.section}.build")


STAGES = {
    stage.command: stage
    for stage in (
        Stage("sample", "sample", (), "simulate shoppers with a known truth"),
        Stage("release", "release", (), "read the official REGEN release"),
        Stage("sequences", "sequences", ("sample",), "raw review files to one history per user, split by user"),
        Stage(
            "narratives",
            "narratives",
            ("sequences",),
            "write the narratives",
            prompts=("history", *narrative_prompts(), "examples"),
        ),
        Stage("ratings", "ratings", ("sequences", "narratives"), "rate the narratives", prompts=("history", "ratings")),
        Stage(
            "dataset",
            "dataset",
            ("release", "sequences", "narratives", "ratings"),
            "join histories, narratives and scores to a dataset repository",
        ),
        Stage("embeddings", "embeddings", ("dataset",), "CF vectors of the items, content vectors of the purchases"),
        Stage("train", "training", ("dataset", "embeddings"), "train the fused model"),
        Stage(
            "evaluate",
            "evaluation",
            ("dataset", "embeddings", "train"),
            "write narratives for held-out users and score them",
            reads_texts=True,
        ),
        Stage(
            "attribution",
            "attribution",
            ("dataset", "embeddings", "train", "evaluate"),
            "measure what soft tokens contain and which purchases influence a text",
            reads_texts=True,
        ),
        Stage(
            "figures",
            "figures",
            ("release", "sequences", "narratives", "ratings", "dataset", "train", "evaluate", "attribution"),
            "draw the data and the results",
            reads_available=True,
        ),
        Stage(
            "next-item",
            "next_item",
            ("dataset", "embeddings"),
            "rank the catalogue for held-out users",
            reads_optional=("train",),
            optional=True,
        ),
        Stage(
            "grounding",
            "grounding",
            ("dataset", "evaluate"),
            "check the claims of narratives against the record",
            prompts=("history", "grounding"),
            reads_optional=("next-item",),
            optional=True,
        ),
        Stage(
            "judge",
            "judge",
            ("dataset", "evaluate"),
            "judge two models' narratives side by side",
            prompts=("history", "judge"),
            optional=True,
        ),
    )
}

Config = dict[str, Any]
"""The settings of a run: an instance of the config dataclass of each stage, by section name."""


def config_class(stage: Stage) -> type:
    """The config dataclass of `stage`, such as `NextItemConfig`; imports the settings of the stage, not its code."""
    cls: type = getattr(stage.settings, f"{stage.section.title().replace('_', '')}Config")
    return cls


def make_config(values: Mapping[str, Any]) -> Config:
    """The checked settings of a run from plain nested `values`; a missing value has its default.

    Raises:
        ConfigError: a section or key does not exist, or a value is invalid.
    """
    sections = [stage.section for stage in STAGES.values()]
    for name, value in values.items():
        if name not in sections:
            raise ConfigError(unknown(name, sections))
        if not isinstance(value, Mapping):
            raise ConfigError(f"Section {name!r} was given {value!r}, expected settings as 'key: value'.")
    return {
        stage.section: section(config_class(stage), values.get(stage.section, {}), stage.section)
        for stage in STAGES.values()
    }


def plain(config: Config) -> dict[str, dict[str, Any]]:
    """`config` as nested plain data, ready for YAML or JSON."""
    return {name: json.loads(json.dumps(dataclasses.asdict(values))) for name, values in config.items()}
