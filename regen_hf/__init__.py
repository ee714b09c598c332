"""regen-hf: from a log of product reviews to a conversational recommender that explains itself.

Importing this package registers `datasets.load_dataset("regen")`. All other names are imported on first use:

    RegenBuilder                                         builds the dataset
    RegenConfig, RegenForCausalLM, RegenProcessor        the fused model
    load                                                 loads a trained model that writes narratives
    record_check                                         compares sentences with a purchase history
    RegenError                                           base class of the errors that a user can fix
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wrapt

from .version import __version__

_MODULES = {
    "RegenBuilder": "regen_hf.builder",
    "RegenConfig": "regen_hf.model",
    "RegenForCausalLM": "regen_hf.model",
    "RegenProcessor": "regen_hf.model",
    "RegenError": "regen_hf.errors",
    "load": "regen_hf.model",
    "record_check": "regen_hf.stages.grounding.record_check",
}
__all__ = [
    "RegenBuilder",
    "RegenConfig",
    "RegenError",
    "RegenForCausalLM",
    "RegenProcessor",
    "__version__",
    "load",
    "record_check",
]

if TYPE_CHECKING:
    from .builder import RegenBuilder
    from .errors import RegenError
    from .model.configuration_regen import RegenConfig
    from .model.load_pipeline import load
    from .model.modeling_regen import RegenForCausalLM
    from .model.processing_regen import RegenProcessor
    from .stages.grounding.record_check import record_check


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from .errors import optional_imports

    with optional_imports():
        return getattr(importlib.import_module(_MODULES[name]), name)


def _register_regen(load: Any) -> None:
    """Register `RegenBuilder` for `load_dataset("regen")`; a local folder `./regen` has priority, as for any name.

    `datasets` has no entry point for this. `load_dataset` resolves a name with `dataset_module_factory`, which is
    wrapped here. An entry in the private table of packaged modules would shadow a local folder and search the current
    folder for files.
    """

    def dataset_module_factory(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        path = args[0] if args else kwargs.get("path")
        if path != "regen" or Path("regen").exists():
            return wrapped(*args, **kwargs)
        from .builder import source_hash
        from .errors import ConfigError

        if kwargs.get("revision") is not None:
            raise ConfigError(
                f"revision was given {kwargs['revision']!r}, expected none: regen-hf builds this dataset, and its "
                "version is that of the package."
            )
        return load.DatasetModule("regen_hf.builder", source_hash(), {"dataset_name": "regen"})

    wrapt.wrap_function_wrapper(load, "dataset_module_factory", dataset_module_factory)
    if inspect := sys.modules.get("datasets.inspect"):  # it has imported the function
        inspect.dataset_module_factory = load.dataset_module_factory  # type: ignore[attr-defined]


# The hook runs when `datasets.load` is imported, now or later, so that importing this package stays fast.
wrapt.register_post_import_hook(_register_regen, "datasets.load")
