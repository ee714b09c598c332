"""`RegenBuilder`: builds the dataset in `load_dataset`, with the same stages as the command line.

After `import regen_hf`, `load_dataset("regen")` uses it; `RegenBuilder(config_name="sample")` gives the same rows.
`office` and `clothing`, the categories of the paper, are built from the official release in `data_dir`, or from the raw
files there; without `data_dir` the raw files of 2018 are downloaded. Narratives and scores come from the release, or
from the fixed rules; only the command line uses a language model.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from . import outputs
from .config import fingerprint
from .errors import ConfigError, InputError
from .schema import CONFIGS, ITEMS, ROW, SPLITS, features
from .version import __version__

ABOUT = {"": "", "-items": " The catalogue.", "-interactions": " One row per purchase."}
"""What the configs of a dataset contain, by the end of their name."""
CATEGORIES = {"office": "Office_Products", "clothing": "Clothing_Shoes_and_Jewelry"}
"""Config -> name of the category in the file names of the 2018 release."""
HOSTS = (
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
)
"""Hosts of the 2018 release, in the order of the attempts."""
DESCRIPTIONS = {
    "sample": "Simulated shoppers with a known truth.",
    "office": "Office Products, Amazon Reviews 2018, 5-core, or the official REGEN release.",
    "clothing": "Clothing, Shoes and Jewelry, Amazon Reviews 2018, 5-core, or the official REGEN release.",
}


@dataclass
class RegenBuilderConfig(datasets.BuilderConfig):
    """Settings of `RegenBuilder`.

    Args:
        shoppers (`int`, *optional*): number of simulated shoppers, by default that of `SampleConfig`.
        items (`int`, *optional*): number of simulated items, by default that of `SampleConfig`.
        seed (`int`, *optional*, defaults to `0`): seed of the simulation.
    """

    shoppers: int | None = None
    items: int | None = None
    seed: int = 0


class RegenBuilder(datasets.ArrowBasedBuilder):
    """Builds REGEN splits: `sample`, `office` and `clothing` (one row per user), `…-items` and `…-interactions`.

    Raises:
        ConfigError: the config does not use an argument, such as `data_dir` of the sample.
        InputError: the files of `office` or `clothing` are not in `data_dir`, or cannot be downloaded.
    """

    BUILDER_CONFIG_CLASS = RegenBuilderConfig
    BUILDER_CONFIGS: ClassVar = [
        RegenBuilderConfig(name=name + suffix, version=datasets.Version(__version__), description=about + more)
        for name, about in DESCRIPTIONS.items()
        for suffix, more in ABOUT.items()
    ]
    DEFAULT_CONFIG_NAME = "sample"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _check_arguments(**inspect.signature(datasets.DatasetBuilder).bind(*args, **kwargs).arguments)
        # Without this hash, the cache would return rows of an older version of this package or of changed raw files.
        folder = kwargs.get("data_dir")
        raw = sorted(path for path in Path(folder).glob("*") if path.is_file()) if folder else []
        state = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in raw]
        kwargs["hash"] = fingerprint([source_hash(), state])
        super().__init__(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=f"REGEN: purchase histories with narratives. {self.config.description}",
            features=features(CONFIGS[_parts(self.config.name)[1]]),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        from .run import Run

        name, suffix = _parts(self.config.name)
        # The folder exists as long as the builder: the cache, or the user of a stream, reads the rows from it.
        folder = tempfile.mkdtemp(prefix="regen-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        run = Run(Path(folder) / "run", {**self._source(name, dl_manager), "dataset": {"name": name}})
        with run.locked():
            run.save()
            run.build_all(until="dataset")
        if CONFIGS[suffix] is ROW:
            files = {split: outputs.dataset_files(run.folder, split) for split in SPLITS}
        elif CONFIGS[suffix] is ITEMS:
            files = {"train": outputs.catalogue_files(run.folder)}
        else:
            files = {"train": outputs.interaction_files(outputs.folder(run.folder, "dataset"))}
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"files": [str(path) for path in paths]})
            for split, paths in files.items()
            if outputs.count(paths)  # `datasets` cannot load a split without rows
        ]

    def _source(self, name: str, dl_manager: Any) -> dict[str, Any]:
        """The settings of a run for the source of its histories."""
        if name == "sample":
            simulation = {key: getattr(self.config, key) for key in ("shoppers", "items", "seed")}
            given = {key: value for key, value in simulation.items() if value is not None}
            return {"sequences": {"sample": True}, "sample": given}
        category = CATEGORIES[name]
        if self.config.data_dir is None:
            reviews, items = _downloaded(dl_manager, name)
            return {"sequences": {"reviews": [reviews], "items": [items]}}
        folder = Path(self.config.data_dir)
        if released := sorted(folder.glob(f"{name}.jsonl*")):
            return {"release": {"from_release": [str(released[0])]}}
        # Compressed or not; one file if both exist.
        raw = {
            kind: sorted(folder.glob(f"{stem}.json*"))[:1]
            for kind, stem in (("reviews", f"{category}_5"), ("items", f"meta_{category}"))
        }
        if missing := [kind for kind, paths in raw.items() if not paths]:
            raise InputError(f"There is no file of {' and '.join(missing)} in {folder}. {_expected_files(name)}")
        return {"sequences": {kind: [str(path) for path in paths] for kind, paths in raw.items()}}

    def _generate_tables(self, files: list[str]) -> Iterator[tuple[Any, pa.Table]]:
        schema = self.info.features.arrow_schema
        for number, path in enumerate(files):
            with pq.ParquetFile(path) as file:
                for part, batch in enumerate(file.iter_batches()):
                    yield f"{number}-{part}", pa.Table.from_batches([batch]).cast(schema)


def _parts(config: str) -> tuple[str, str]:
    """The name of the dataset of a config, and the end of its name, a key of CONFIGS.

    >>> _parts("office"), _parts("office-items")
    (('office', ''), ('office', '-items'))
    """
    suffix = next((suffix for suffix in CONFIGS if suffix and config.endswith(suffix)), "")
    return config.removesuffix(suffix), suffix


def _check_arguments(
    config_name: str | None = None,
    features: Any = None,
    data_files: Any = None,
    data_dir: Any = None,
    config_kwargs: Mapping[str, Any] | None = None,
    **_: Any,
) -> None:
    """Check that the config uses the arguments, which are those of a builder.

    Raises:
        ConfigError: it does not.
    """
    config = config_name or RegenBuilder.DEFAULT_CONFIG_NAME
    name = _parts(config)[0]
    if data_files is not None or (data_dir is not None and name not in CATEGORIES):
        given = f"data_dir={data_dir!r}" if data_files is None else f"data_files={data_files!r}"
        from_files = ", ".join(f"{one}{suffix}" for one in CATEGORIES for suffix in CONFIGS)
        raise ConfigError(
            f"The config {config!r} does not use {given}. The configs {from_files} are built from files in a folder: "
            'load_dataset("regen", CONFIG, data_dir=FOLDER). For your own reviews, run `regen run RUN --reviews FILE… '
            "--items FILE…` and load RUN/dataset."
        )
    if features is not None:
        raise ConfigError(f"features was given for the config {config!r}, expected none: they are fixed. Omit it.")
    simulation = {field.name for field in dataclasses.fields(RegenBuilderConfig)}
    simulation -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    known = sorted(simulation) if name == "sample" else ["data_dir"]
    for key in config_kwargs or ():
        if key not in known:
            raise ConfigError(f"The config {config!r} has no argument {key!r}. Its arguments: {', '.join(known)}.")


def _downloaded(dl_manager: Any, name: str) -> list[str]:
    """Paths of the 2018 review file and item file of a config, from the cache of `datasets` or the network."""
    from aiohttp import ClientError

    if dl_manager.is_streaming:  # the manager of a stream downloads nothing, and histories need all reviews
        dl_manager = datasets.DownloadManager(download_config=dl_manager.download_config)
    category = CATEGORIES[name]
    failed = []
    for host in HOSTS:
        urls = [f"{host}/categoryFilesSmall/{category}_5.json.gz", f"{host}/metaFiles2/meta_{category}.json.gz"]
        try:
            paths: list[str] = dl_manager.download(urls)
        except (OSError, ClientError) as error:
            failed.append(f"{host}: {str(error) or type(error).__name__}")
        else:
            return paths
    raise InputError(f"The raw files of {name!r} cannot be downloaded ({'; '.join(failed)}). {_expected_files(name)}")


def _expected_files(name: str) -> str:
    """The files that a config is built from, and how to provide them, for messages."""
    category = CATEGORIES[name]
    return (
        f"{name!r} is built from {category}_5.json.gz and meta_{category}.json.gz of the Amazon Reviews of 2018 "
        f"({HOSTS[0]}, folders categoryFilesSmall and metaFiles2), or from {name}.jsonl of the official REGEN release. "
        f'Put them into one folder and give it: load_dataset("regen", "{name}", data_dir=FOLDER).'
    )


def source_hash() -> str:
    """A hash of the sources of this package, which the cached rows of a dataset depend on."""
    package = Path(__file__).parent
    sources = sorted(path for kind in ("*.py", "*.jinja") for path in package.rglob(kind))
    return fingerprint([[os.fspath(path.relative_to(package)), path.read_text(encoding="utf-8")] for path in sources])
