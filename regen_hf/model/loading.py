"""Loading a fused model completely: from one file of weights, or from those of PEFT beside the language model's.

A model in adapter form is a folder with everything of the model but its adapter, and in `lora/` the weights of PEFT:
the adapter, and the changes to the language model. It loads to the same plain model as its merged form.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from os.path import dirname
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file

LORA = "lora"
HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision")


class CompletePreTrainedModel(PreTrainedModel):
    """A model that is loaded with all of its weights, or not at all."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """See [`PreTrainedModel.from_pretrained`]; here a weight that the files lack is an error, never a random one.

        Raises:
            ValueError: a weight is missing, has another shape than the configuration says, or no place in the model.
        """
        path = pretrained_model_name_or_path
        with quiet_about_missing():
            loaded: Any = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        model = complete(model, info, path, **kwargs)
        return (model, info) if output_loading_info else model


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
    with quiet_about_missing() as reports:  # it hands on no loading info
        encoder = SentenceTransformer(name)
    rows = [row for report in reports for row in re.findall(r"^(\S.*?) *\|.*MISSING", report, re.MULTILINE)]
    if missing := [weight for weight in rows if "pooler" not in weight]:  # whose output is not what is pooled
        raise ValueError(
            f"the files of {name} lack {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}, which would be "
            "random numbers. Download the encoder again."
        )
    return encoder


@contextlib.contextmanager
def quiet_about_missing() -> Iterator[list[str]]:
    """Without the report of transformers that missing weights are random now; in its place the reports as texts."""
    reports: list[str] = []

    def says_something_else(record: logging.LogRecord) -> bool:
        reports.append(record.getMessage())
        return record.levelno >= wanted and "MISSING" not in reports[-1]

    logger = logging.getLogger("transformers.modeling_utils")
    level, wanted = logger.level, logger.getEffectiveLevel()
    logger.setLevel(min(logging.WARNING, wanted))  # else it makes no report
    logger.addFilter(says_something_else)
    try:
        yield reports
    finally:
        logger.removeFilter(says_something_else)
        logger.setLevel(level)


def complete(model: PreTrainedModel, info: dict[str, Any], path: Any, **kwargs: Any) -> PreTrainedModel:
    """`model` with all of its weights.

    Args:
        model: as `PreTrainedModel.from_pretrained` loads it.
        info: its loading info.
        path: where it was loaded from, a folder or a name on the Hub.
        **kwargs: the keyword arguments it was loaded with.

    Raises:
        ValueError: a weight is missing, has another shape than the configuration says, or no place in the model.
    """
    adapter = {name for name in model.state_dict() if name.startswith("model.adapter.")}
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    if adapter and adapter <= set(info["missing_keys"]):
        files = _lora_files(path, kwargs)
        if files is not None:
            model = _merged(model, files, path)
            missing -= adapter
            info["missing_keys"] = set(info["missing_keys"]) - adapter
    if missing:
        wrong = sorted(missing)
        raise ValueError(
            f"{path} lacks {len(wrong)} of the model's weights, or holds them in another shape than config.json says: "
            f"{', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}. They would be random numbers. Download the "
            "model again, mend its config.json, or train it again with this version."
        )
    more = sorted(info["unexpected_keys"])
    if more and getattr(model, "hf_quantizer", None) is None:  # quantised weights have names of their own
        raise ValueError(
            f"{path} holds {len(more)} weights for which the model of its config.json has no place: "
            f"{', '.join(more[:5])}{', …' if len(more) > 5 else ''}. Without them the model is another one. Download "
            "the model again, or mend its config.json."
        )
    return model


def _lora_files(path: Any, kwargs: dict[str, Any]) -> tuple[str, str] | None:
    """The configuration and the weights of PEFT, None where the model has none."""
    where = {name: kwargs[name] for name in HUB if name in kwargs}
    folder = "/".join(part for part in (kwargs.get("subfolder"), LORA) if part)
    config, weights = (
        cached_file(path, name, subfolder=folder, _raise_exceptions_for_missing_entries=False, **where)
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    return None if config is None or weights is None else (config, weights)


def _merged(model: PreTrainedModel, files: tuple[str, str], path: Any) -> PreTrainedModel:
    try:
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    except ImportError:
        raise ImportError(
            f"{path} holds a model in adapter form, which the package 'peft' merges. Install it with: pip install peft"
        ) from None
    config = PeftConfig.from_pretrained(dirname(files[0]))
    trained = PeftModel(model, config)
    expected = get_peft_model_state_dict(trained, save_embedding_layers=False)
    with safe_open(files[1], framework="pt") as weights:
        found = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    wrong = sorted(name for name, value in expected.items() if found.get(name) != tuple(value.shape))
    if wrong:
        raise ValueError(
            f"{path}/{LORA} lacks {len(wrong)} of the weights that its adapter_config.json names, or holds them in "
            f"another shape: {', '.join(wrong[:5])}. Download the model again."
        )
    if more := sorted(found.keys() - expected.keys()):
        raise ValueError(
            f"{path}/{LORA} holds {len(more)} weights that its adapter_config.json does not name: "
            f"{', '.join(more[:5])}. Without them the model is another one. Download the model again."
        )
    trained.load_adapter(dirname(files[1]), "default")
    merged: PreTrainedModel = trained.merge_and_unload()
    return merged.eval()
