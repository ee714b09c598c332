"""What `training` takes beyond its own settings: the fields of TRL's SFTConfig and, under `lora`, of PEFT's LoraConfig.

Both are checked by the fields and types that the installed version declares. SFTConfig's fields that this package sets
itself are refused with the reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import missing_extra

OURS = {
    name: reason
    for names, reason in {
        "output_dir": "checkpoints lie in the run folder until the training is done",
        "resume_from_checkpoint save_only_model ignore_data_skip": "the same command resumes a killed training exactly",
        "save_strategy eval_strategy eval_steps eval_on_start eval_delay": "save_steps says when checkpoints are made, "
        "and with patience the validation loss is measured at each",
        "load_best_model_at_end metric_for_best_model greater_is_better restore_callback_states_from_checkpoint": (
            "patience keeps the checkpoint of the lowest validation loss"
        ),
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps auto_find_batch_size": (
            "they follow from batch_size, length_groups and the number of processes"
        ),
        "train_sampling_strategy length_column_name": "length_groups groups the examples of a step",
        "num_train_epochs": "max_steps says how long to train",
        "warmup_steps": "warmup_ratio says how long the learning rate rises",
        "data_seed": "seed sets the order of the examples too",
        "remove_unused_columns label_names": "the collator reads the columns that name a history",
        "packing packing_strategy eval_packing padding_free": "every row of a batch carries a history of its own",
        "max_length truncation_mode": "a long example loses its oldest purchases, never the middle of a prompt",
        "completion_only_loss assistant_only_loss dataset_text_field dataset_kwargs dataset_num_proc shuffle_dataset "
        "chat_template_path eos_token pad_token": "the processor makes the examples, as it makes the prompts later",
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision": (
            "`regen push` publishes a model"
        ),
        "do_train do_eval do_predict local_rank": "the stage trains, and `accelerate launch` sets the processes",
    }.items()
    for name in names.split()
}
"""Fields of SFTConfig that are not the user's, each with the reason."""
LORA = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
"""Fields of LoraConfig that have another default here: every linear layer of the language model."""


def checked_sft(values: Mapping[str, Any], settings: Sequence[str] = ()) -> dict[str, Any]:
    """`values`, coerced to the types of SFTConfig's fields.

    Args:
        values: fields of SFTConfig.
        settings: names of the settings of the training, which are no fields of `sft`.

    Raises:
        ValueError: one is no field, is set by this package, or holds a value of the wrong type.
    """
    try:
        from trl import SFTConfig
    except ImportError as error:
        raise missing_extra(error.name or "trl", "train") from None
    for name in values:
        if name in OURS:
            raise ValueError(f"{name} is set by this package: {OURS[name]}. Leave it out")
        if name in settings:
            raise ValueError(f"sft.{name} was given, and {name} is a setting of its own: give it beside sft")
    return _checked(SFTConfig, values, settings)


def checked_lora(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as LoraConfig's fields hold them, with what this package adds; the adapter is always trained whole.

    Raises:
        ValueError: one is no field, holds a value of the wrong type, or LoraConfig refuses it.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise missing_extra(error.name or "peft", "train") from None

    found = LORA | _checked(LoraConfig, values, [], "lora.")
    found["modules_to_save"] = sorted({*(found.get("modules_to_save") or ()), "adapter"})
    try:
        LoraConfig(**found)
    except TypeError as error:
        raise ValueError(f"lora: {error}") from None
    return found


def _checked(cls: type, values: Mapping[str, Any], more: Sequence[str], prefix: str = "") -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    types = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    found = {}
    for name, value in values.items():
        if name not in fields:
            known = sorted({*fields, *more} - set(OURS))
            close = difflib.get_close_matches(str(name), known, n=3)
            hint = f" Did you mean {' or '.join(repr(prefix + other) for other in close)}?" if close else ""
            raise ValueError(
                f"Unknown setting {prefix + str(name)!r}.{hint} The fields of {cls.__name__} are taken"
                + (", and the settings that `regen train --help` lists" if more else "")
            )
        try:
            found[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removesuffix(".")
            raise ValueError(f"{prefix}{name} was given {value!r}: {message}") from None
    return found
