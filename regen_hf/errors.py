"""Errors that a user can fix.

    RegenError
    ├── ConfigError   an unknown or invalid setting
    ├── InputError    a missing, empty, damaged or unsupported file
    ├── RunError      a run folder that is locked, not a run, or lacks the output of a stage
    └── MissingPackageError   an optional package that is not installed

A message states what is wrong, what was expected, and what to do. The command line prints only the message and exits
with 1. Any other exception is a bug of this package and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class RegenError(Exception):
    """Base class of the errors that a user can fix."""


class ConfigError(RegenError, ValueError):
    """An unknown or invalid setting."""


class InputError(RegenError, ValueError):
    """A missing, empty, damaged or unsupported file."""


class RunError(RegenError, RuntimeError):
    """A run folder that is locked, not a run, or lacks the output of a stage."""


_TRAIN = frozenset(
    [
        "accelerate",
        "implicit",
        "peft",
        "safetensors",
        "scipy",
        "sentence-transformers",
        "tensorboard",
        "threadpoolctl",
        "tokenizers",
        "torch",
        "transformers",
        "trl",
    ]
)
EXTRAS = {
    "llm": frozenset(("aiohttp", "openai", "outlines")),
    "train": _TRAIN,
    "eval": frozenset(("evaluate", "matplotlib", "nltk", "openTSNE", "rouge-score", "sacrebleu")),
    "space": _TRAIN | {"gradio", "mcp"},
    "spark": frozenset(("pyspark",)),
}
"""The optional packages, by extra, as in pyproject.toml. A package is imported by its name, with `_` for `-`."""
OPTIONAL = sorted(frozenset[str]().union(*EXTRAS.values()))


class MissingPackageError(RegenError, ImportError):
    """An optional package that is not installed; the message names its extra.

    >>> print(MissingPackageError("trl"))
    The package 'trl' is not installed. Install it with: pip install "regen-hf[train]"
    >>> print(MissingPackageError("torch", "gradio", "nltk"))
    The packages 'torch', 'gradio', 'nltk' are not installed. Install them with: pip install "regen-hf[eval,space]"
    """

    def __init__(self, *packages: str) -> None:
        extras = {next(extra for extra in EXTRAS if package in EXTRAS[extra]) for package in packages}
        extras = {extra for extra in extras if not any(EXTRAS[extra] < EXTRAS[other] for other in extras)}
        verb, them = ("is", "it") if len(packages) == 1 else ("are", "them")
        super().__init__(
            f"The package{'s' * (len(packages) > 1)} {', '.join(map(repr, packages))} {verb} not installed. "
            f'Install {them} with: pip install "regen-hf[{",".join(sorted(extras))}]"'
        )
        self.packages = packages


def require(*names: str) -> None:
    """Check that the optional packages among `names` are installed, without importing them.

    Raises:
        MissingPackageError: some are not.
    """
    if missing := [name for name in names if name in OPTIONAL and find_spec(name.replace("-", "_")) is None]:
        raise MissingPackageError(*missing)


@contextmanager
def optional_imports() -> Iterator[None]:
    """Raise `MissingPackageError` for an optional package that an import needs and that is not installed."""
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        require(*(name for name in OPTIONAL if name.replace("-", "_") == module))
        raise
