"""Fields of TRL's SFTConfig and PEFT's LoraConfig in the settings, checked by the types of the installed versions."""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...errors import ConfigError, optional_imports

with optional_imports():
    import torch
    from peft import LoraConfig
    from transformers.integrations import get_reporting_integration_callbacks
    from transformers.utils import is_liger_kernel_available
    from trl import SFTConfig, SFTTrainer

RESERVED = {
    name: reason
    for names, reason in {
        "output_dir": "checkpoints are kept in the run folder until the training is finished",
        "resume_from_checkpoint save_only_model ignore_data_skip": "the same command resumes an interrupted training",
        "save_strategy eval_strategy eval_steps eval_on_start eval_delay": "save_steps sets the steps of "
        "checkpoints, and with patience the validation loss is measured at each",
        "load_best_model_at_end metric_for_best_model greater_is_better restore_callback_states_from_checkpoint": (
            "patience keeps the checkpoint of the lowest validation loss"
        ),
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps auto_find_batch_size": (
            "they follow from batch_size, length_groups and the number of processes"
        ),
        "train_sampling_strategy length_column_name": "length_groups groups the examples of a step",
        "num_train_epochs": "max_steps sets the length of the training",
        "warmup_steps": "warmup_ratio sets how long the learning rate rises",
        "data_seed": "seed also sets the order of the examples",
        "remove_unused_columns label_names": "the collator reads the columns that identify a history",
        "packing packing_strategy eval_packing padding_free": "each row of a batch has a history of its own",
        "max_length truncation_mode": "a long example loses its oldest purchases, never the middle of a prompt",
        "completion_only_loss assistant_only_loss dataset_text_field dataset_kwargs dataset_num_proc shuffle_dataset "
        "chat_template_path eos_token pad_token": "the processor creates the examples, as it later creates the prompts",
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision": (
            "`regen push` publishes a model"
        ),
        "do_train do_eval do_predict local_rank": "the stage trains, and `accelerate launch` sets the processes",
    }.items()
    for name in names.split()
}
"""Fields of SFTConfig that this package sets itself, each with the reason."""
LORA = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
"""Fields of LoraConfig with another default here: all linear layers of the language model."""


def checked_sft(values: Mapping[str, Any], settings: Sequence[str] = ()) -> dict[str, Any]:
    """`values`, converted to the types of SFTConfig's fields.

    Raises:
        ValueError: one is not a field, is set by this package or by one of the `settings` of the training, or has a
            value of the wrong type.
    """
    for name in values:
        if name in RESERVED:
            raise ValueError(f"{name} is set by this package: {RESERVED[name]}. Leave it out")
        if name in settings:
            raise ValueError(f"sft.{name} was given, but {name} is a setting of the training. Write it beside sft")
    return _checked(SFTConfig, values, settings)


def trainer_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SFTConfig in `values` that the trainer reads, with their current names; raises as `checked_sft`."""
    # transformers ignores the old name if the new one is set, as in this package: TRL's default is True.
    return {
        name.replace("gradient_checkpointing", "activation_checkpointing"): value
        for name, value in checked_sft(values).items()
        if name != "model_init_kwargs"  # the model is already loaded
    }


def check_sft_packages(values: Mapping[str, Any]) -> None:
    """Check that SFTConfig accepts `values`, and that the packages that they name are installed.

    The trainer checks this only when it starts, after all other stages.

    Raises:
        ConfigError: SFTConfig rejects a field, or a package is not installed; with the message of the library.
    """
    fields = trainer_fields(values)
    try:
        with tempfile.TemporaryDirectory() as folder:
            defaults = {
                "report_to": "none",
                "use_cpu": not torch.cuda.is_available(),
                "bf16": False,
                "activation_checkpointing": False,
            }
            arguments = SFTConfig(**{"output_dir": folder, **defaults, **fields})
        for tracker in get_reporting_integration_callbacks(arguments.report_to):
            tracker()
        if arguments.use_liger_kernel and not is_liger_kernel_available():
            raise ImportError("use_liger_kernel needs liger-kernel. Install it with `pip install liger-kernel`")
    except (ImportError, ValueError, RuntimeError) as error:
        raise ConfigError(_rejected(error, values)) from error
    try:
        SFTTrainer.get_optimizer_cls_and_kwargs(arguments)
    except (ImportError, ValueError) as error:
        if "install" in str(error):  # other errors need the model
            raise ConfigError(_rejected(error, values)) from error


def checked_lora(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, converted to the types of LoraConfig's fields, with `LORA` and a fully trained adapter.

    Raises:
        ValueError: one is not a field, has a value of the wrong type, or LoraConfig rejects it.
    """
    checked = LORA | _checked(LoraConfig, values, [], "lora.")
    if checked.get("r", 1) < 1:
        raise ValueError(f"lora.r was given {checked['r']}, expected at least 1")
    checked["modules_to_save"] = sorted({*(checked.get("modules_to_save") or ()), "adapter", "item_head"})
    try:
        LoraConfig(**checked)
    except TypeError as error:
        raise ValueError(f"lora: {error}") from None
    return checked


def _checked(cls: type, values: Mapping[str, Any], settings: Sequence[str], prefix: str = "") -> dict[str, Any]:
    types = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    checked = {}
    for name, value in values.items():
        if name not in fields:
            known = sorted({*fields, *settings} - set(RESERVED))
            close = difflib.get_close_matches(str(name), known, n=3)
            hint = f" Did you mean {' or '.join(repr(prefix + other) for other in close)}?" if close else ""
            raise ValueError(
                f"Unknown setting {prefix + str(name)!r}.{hint} Expected a field of {cls.__name__}"
                + (", or a setting that `regen train --help` lists" if settings else "")
            )
        try:
            checked[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removesuffix(".")
            raise ValueError(f"{prefix}{name} was given {value!r}: {message}") from None
    return checked


def _rejected(error: Exception, values: Mapping[str, Any]) -> str:
    names = ", ".join(f"training.{name}" for name in values)
    return f"The trainer rejects the settings of the training: {error}. Given: {names}."
