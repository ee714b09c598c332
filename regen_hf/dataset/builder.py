"""`RegenBuilder`: the dataset built on the spot by `datasets`, through the same stages as the command line.

`load_dataset("regen")` finds it once regen_hf is imported; `RegenBuilder(config_name="sample")` gives the same rows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..config import fingerprint
from ..schema import ITEMS, ROW, SPLITS, features, item_files, split_files

ITEMS_SUFFIX = "-items"


@dataclass
class RegenBuilderConfig(datasets.BuilderConfig):
    """Settings of a dataset that is built on the spot.

    Args:
        shoppers (`int`, *optional*): simulated shoppers, where not the default of `SampleConfig`.
        items (`int`, *optional*): simulated items, where not the default of `SampleConfig`.
        seed (`int`, *optional*, defaults to `0`): seed of the simulation.
    """

    shoppers: int | None = None
    items: int | None = None
    seed: int = 0


class RegenBuilder(datasets.ArrowBasedBuilder):
    """Builds REGEN splits: `sample` (one row per simulated shopper) and `sample-items` (their catalogue)."""

    BUILDER_CONFIG_CLASS = RegenBuilderConfig
    BUILDER_CONFIGS: ClassVar = [
        RegenBuilderConfig(
            name="sample", version=datasets.Version(__version__), description="Simulated shoppers with a known truth."
        ),
        RegenBuilderConfig(
            name="sample" + ITEMS_SUFFIX, version=datasets.Version(__version__), description="Their catalogue."
        ),
    ]
    DEFAULT_CONFIG_NAME = "sample"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without a hash the cache would give the rows of an older version of this package.
        kwargs["hash"] = kwargs.get("hash") or source_hash()
        super().__init__(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        catalogue = self.config.name.endswith(ITEMS_SUFFIX)
        return datasets.DatasetInfo(
            description="REGEN: purchase histories with narratives. The config `sample` holds simulated people.",
            features=features(ITEMS if catalogue else ROW),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        from ..run import Run

        simulation = {
            key: value for key in ("shoppers", "items", "seed") if (value := getattr(self.config, key)) is not None
        }
        name = self.config.name.removesuffix(ITEMS_SUFFIX)
        # Lives as long as the builder: the rows are read from it while the cache, or a stream's user, takes them.
        folder = tempfile.mkdtemp(prefix="regen-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        run = Run(
            Path(folder) / "run",
            {"sequences": {"sample": True}, "sample": simulation, "dataset": {"name": name}},
        )
        with run.locked():
            run.save()
            run.build_all(until="dataset")
        repository = run.folder / "dataset"
        if self.config.name.endswith(ITEMS_SUFFIX):
            files = {"train": item_files(repository)}
        else:
            files = {split: split_files(repository, split) for split in SPLITS}
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"files": [str(path) for path in paths]})
            for split, paths in files.items()
        ]

    def _generate_tables(self, files: list[str]) -> Iterator[tuple[Any, pa.Table]]:
        schema = self.info.features.arrow_schema
        for number, path in enumerate(files):
            with pq.ParquetFile(path) as file:
                for part, batch in enumerate(file.iter_batches()):
                    yield f"{number}-{part}", pa.Table.from_batches([batch]).cast(schema)


def source_hash() -> str:
    """A hash of this package's sources: the cache of a built dataset is good for these alone."""
    package = Path(__file__).parent.parent
    sources = sorted(path for kind in ("*.py", "*.jinja") for path in package.rglob(kind))
    return fingerprint([[os.fspath(path.relative_to(package)), path.read_text(encoding="utf-8")] for path in sources])
