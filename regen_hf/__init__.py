"""regen-hf: from a log of product reviews to a conversational recommender that explains itself.

Importing this package makes `datasets.load_dataset("regen")` known. Everything else is imported when it is first named:

    RegenBuilder                                         builds the dataset
    RegenConfig, RegenForCausalLM, RegenProcessor        the fused model
    load                                                 a trained model, ready to narrate
    RegenError                                           base of the errors that a user can mend
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import wrapt

from .version import __version__

_HOMES = {
    "RegenBuilder": "regen_hf.builder",
    "RegenConfig": "regen_hf.model",
    "RegenForCausalLM": "regen_hf.model",
    "RegenProcessor": "regen_hf.model",
    "RegenError": "regen_hf.errors",
    "load": "regen_hf.model",
}
__all__ = ["RegenBuilder", "RegenConfig", "RegenError", "RegenForCausalLM", "RegenProcessor", "__version__", "load"]

if TYPE_CHECKING:
    from .builder import RegenBuilder
    from .errors import RegenError
    from .model.configuration_regen import RegenConfig
    from .model.modeling_regen import RegenForCausalLM
    from .model.pipeline import load
    from .model.processing_regen import RegenProcessor


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def _register_regen(load: Any) -> None:
    """Let `load_dataset("regen")` find `RegenBuilder`; a folder `./regen` goes first, as it does for any name.

    `datasets` has no entry point for this. Its one public door, the name given to `load_dataset`, is resolved by
    `dataset_module_factory`; wrapping that has neither flaw of its private table of packaged modules, which shadows a
    local folder and searches the current one for files.
    """

    def dataset_module_factory(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        path = args[0] if args else kwargs.get("path")
        if path != "regen" or Path("regen").exists():
            return wrapped(*args, **kwargs)
        from .builder import source_hash

        return load.DatasetModule("regen_hf.builder", source_hash(), {"dataset_name": "regen"})

    wrapt.wrap_function_wrapper(load, "dataset_module_factory", dataset_module_factory)


# When `datasets.load` is imported, now or later: importing this package stays fast, and `datasets.inspect`, which takes
# the function from there, gets the wrapped one.
wrapt.register_post_import_hook(_register_regen, "datasets.load")
