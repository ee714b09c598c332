"""Loads models with all of their weights: the fused model, also from PEFT weights, and sentence encoders.

A model in adapter form is a folder with all weights of the model but its new parts, and in `lora/` the weights of PEFT:
the new parts (adapter, item head), and the changes to the language model. It loads to the same plain model as its
merged form.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from os.path import dirname, exists, isdir, join
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

LORA = "lora"
NEW_PARTS = ("model.adapter.", "model.item_head.")
"""Beginnings of the names of weights that no language model has: fully trained beside LoRA, and saved with it."""
PROGRESS_AFTER = 5.0
"""Seconds before the progress bar of a load is shown."""
HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")
STORAGE = ("dtype", "torch_dtype", "device_map", "max_memory", "offload_folder", "quantization_config")
"""Arguments of `from_pretrained` that change how weights are stored."""


class CompletePreTrainedModel(PreTrainedModel):
    """A model that is loaded with all of its weights or with an error."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """See [`PreTrainedModel.from_pretrained`]; a missing weight raises an error and is never a random number.

        Raises:
            ValueError: a weight is missing, unexpected, or has another shape than in config.json.
        """
        path = pretrained_model_name_or_path
        if kwargs.get("config") is None:
            check_folder(path, kwargs.get("subfolder") or "")
        kwargs["ignore_mismatched_sizes"] = True  # `complete` raises the error, which names the weights
        with no_loading_report():
            merged = _merged_as_saved(cls, path, *args, **kwargs)
            if merged is not None:
                weights = {"config": merged.config, "state_dict": merged.state_dict()}
                loaded: Any = super().from_pretrained(None, *args, output_loading_info=True, **kwargs | weights)
                loaded[0].generation_config = merged.generation_config
            else:
                loaded = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        model = complete(model, info, path, **kwargs)
        return (model, info) if output_loading_info else model


def check_folder(path: Any, subfolder: str = "", file: str = "config.json") -> None:
    """Check that a folder contains `file`, as that of a model does; a name on the Hub passes.

    Raises:
        FileNotFoundError: it has no config.json; the message names the model in a run folder.
    """
    folder = join(path, subfolder)
    if isdir(folder) and not exists(join(folder, file)):
        model = join(folder, "model")
        hint = f"It is a run folder: pass {model!r}." if exists(join(model, file)) else "Check the path."
        raise FileNotFoundError(f"{str(folder)!r} has no {file}, expected the folder of a model. {hint}")


def load_encoder(name: str) -> Any:
    """The sentence-transformers model `name`, a name on the Hub or a folder, with all of its weights.

    Raises:
        ImportError: sentence-transformers is not installed.
        OSError: there is no such model.
        ValueError: a weight is missing.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("Content vectors need sentence-transformers: pip install sentence-transformers") from error
    with no_loading_report():  # `missing_weights` names the weights
        encoder = SentenceTransformer(name, model_kwargs={"ignore_mismatched_sizes": True})
        missing = missing_weights(next((m for m in encoder.modules() if isinstance(m, PreTrainedModel)), None))
    if missing:
        raise ValueError(
            f"the files of {name} lack {_first(missing)}, or contain them in another shape than config.json. They "
            "would be random numbers. Download the encoder again."
        )
    return encoder


def missing_weights(model: PreTrainedModel | None) -> list[str]:
    """The weights that the files of `model` lack or contain in another shape, without unused poolers.

    sentence-transformers does not return the loading info, so the model is loaded a second time for it, in less than
    half of the time of the first load (MiniLM: 0.02 and 0.06 CPU seconds).
    """
    if model is None:
        return []
    try:
        loaded: Any = type(model).from_pretrained(
            model.name_or_path, config=model.config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except OSError:  # in a subfolder of a repository on the Hub, whose name the model does not keep
        return []
    missing = {*loaded[1]["missing_keys"], *(name for name, *_ in loaded[1]["mismatched_keys"])}
    return sorted(name for name in missing if "pooler" not in name)


@contextlib.contextmanager
def no_loading_report() -> Iterator[None]:
    """Hide the report of transformers on missing weights, and the progress bars of short loads.

    Missing weights raise an error here or come from PEFT. The report is filtered, and the level of its logger is not
    changed: where the logger has a level of its own, transformers also reports a tensor parallel plan that is not used.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    bars = transformers_logging.set_tqdm_hook(None)

    def delayed(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = {"delay": PROGRESS_AFTER} | kwargs
        return factory(*args, **kwargs) if bars is None else bars(factory, args, kwargs)

    def no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    transformers_logging.set_tqdm_hook(delayed)
    logger.addFilter(no_report)
    try:
        yield
    finally:
        logger.removeFilter(no_report)
        transformers_logging.set_tqdm_hook(bars)


def complete(model: PreTrainedModel, info: dict[str, Any], path: Any, **kwargs: Any) -> PreTrainedModel:
    """`model` with all of its weights; those of PEFT are merged into it.

    Args:
        model: the result of `PreTrainedModel.from_pretrained`.
        info: its loading info.
        path: its folder or name on the Hub.
        **kwargs: the keyword arguments of `from_pretrained`.

    Raises:
        ValueError: a weight is missing, unexpected, or has another shape than in config.json.
    """
    with_lora = {name for name in model.state_dict() if name.startswith(NEW_PARTS)}
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    if with_lora and with_lora <= set(info["missing_keys"]):
        files = _lora_files(path, kwargs)
        if files is not None:
            for name in with_lora:  # transformers creates missing weights in the dtype of the others
                model.get_submodule(name.rpartition(".")[0]).float()
            model = _merged(model, files, path)
            missing -= with_lora
            info["missing_keys"] = set(info["missing_keys"]) - with_lora
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the model's weights, or contains them in another shape than config.json: "
            f"{_first(sorted(missing))}. They would be random numbers. Download the model again, or correct its "
            "config.json."
        )
    unexpected = sorted(info["unexpected_keys"])
    if unexpected and getattr(model, "hf_quantizer", None) is None:  # quantised weights have other names
        raise ValueError(
            f"{path} holds {len(unexpected)} weights that the model of its config.json does not have: "
            f"{_first(unexpected)}. Download the model again, or correct its config.json."
        )
    return model


def _lora_files(path: Any, kwargs: dict[str, Any]) -> tuple[str, str] | None:
    """The configuration and weights of PEFT, None for a model without them."""
    hub = {name: kwargs[name] for name in HUB if name in kwargs}
    folder = "/".join(part for part in (kwargs.get("subfolder"), LORA) if part)
    config, weights = (
        cached_file(path, name, subfolder=folder, _raise_exceptions_for_missing_entries=False, **hub)
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    return None if config is None or weights is None else (config, weights)


def _merged_as_saved(cls: Any, path: Any, *args: Any, **kwargs: Any) -> PreTrainedModel | None:
    """A model in adapter form, merged on the CPU in the dtype of its files as in training, where `kwargs` ask for more.

    That is another dtype, quantisation, or several devices. PEFT changes neither quanto's weights nor offloaded ones,
    without an error. A model that is loaded from the merged weights equals the merged form, loaded in the same way.
    None where `kwargs` ask for nothing of this, and for other models.
    """
    dtype = kwargs.get("dtype", kwargs.get("torch_dtype", "auto"))
    device_map, quantised = kwargs.get("device_map"), kwargs.get("quantization_config") is not None
    dispatched = isinstance(device_map, dict) or device_map in ("auto", "balanced", "balanced_low_0", "sequential")
    if dtype in (None, "auto") and not quantised and not dispatched:
        return None
    if "state_dict" in kwargs or _lora_files(path, kwargs) is None:
        return None
    as_saved = {name: value for name, value in kwargs.items() if name not in STORAGE}
    if "config" in kwargs:  # the auto classes write the dtype into it
        as_saved["config"] = copy.deepcopy(kwargs["config"])
        as_saved["config"].dtype = None
    model: PreTrainedModel = cls.from_pretrained(path, *args, **as_saved)
    return None if getattr(model, "hf_quantizer", None) is not None else model


def _merged(model: PreTrainedModel, files: tuple[str, str], path: Any) -> PreTrainedModel:
    """`model` with the weights of PEFT in `files` merged."""
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    except ImportError:
        raise ImportError(
            f"{path} holds a model in adapter form, which needs the package 'peft': pip install peft"
        ) from None
    config = PeftConfig.from_pretrained(dirname(files[0]))
    with warnings.catch_warnings():
        # PEFT 0.21 reads an attribute of the model by its deprecated name.
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        trained = PeftModel(model, config)
    expected = get_peft_model_state_dict(trained, save_embedding_layers=False)
    with safe_open(files[1], framework="pt") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    missing = sorted(name for name, value in expected.items() if shapes.get(name) != tuple(value.shape))
    if missing:
        raise ValueError(
            f"{path}/{LORA} lacks {len(missing)} of the weights that its adapter_config.json names, or holds them in "
            f"another shape: {_first(missing)}. Download the model again."
        )
    if unexpected := sorted(shapes.keys() - expected.keys()):
        raise ValueError(
            f"{path}/{LORA} holds {len(unexpected)} weights that its adapter_config.json does not name: "
            f"{_first(unexpected)}. Download the model again."
        )
    trained.load_adapter(dirname(files[1]), "default")
    merged: PreTrainedModel = trained.merge_and_unload()
    return merged.eval()


def _first(names: list[str]) -> str:
    """The first five of `names`."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
