"""The phases of one training (the setting `stages`) in order, each resumed from its last checkpoint.

    <work>/stage-0/                the model after the first phase
    <work>/stage-1.checkpoints/    checkpoints of an unfinished phase

A phase starts from the files of the previous one, so a resumed training gives the same weights as an uninterrupted one.
A damaged checkpoint or phase is removed and trained again from the one before. All files are safetensors; checkpoints
also contain torch's states of optimiser and random numbers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from ... import outputs, progress
from ...model import RegenForCausalLM, RegenProcessor
from ...model.loading import NEW_PARTS
from .checkpoints import Checksums, is_intact, remove_damaged, write_checksums
from .examples import Examples
from .history_gap import HistoryGap
from .reload_check import save_logits
from .settings import TrainingConfig, phases
from .trainer import GroupedTrainer, make_trainer, trains_with_muon

LORA = "lora"
"""Folder of PEFT's weights in a model that is not merged."""


def train_phases(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    work: Path,
    board: Path,
    config: TrainingConfig,
    gap: HistoryGap | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Train `model` through the phases of `config` that are not finished.

    Returns:
        The folder of the trained model, and TRL's log with the steps counted over all phases.
    """
    settings = phases(config)
    arguments = config.sft.get("model_init_kwargs") or {}
    attention = {name: arguments[name] for name in ("attn_implementation",) if name in arguments}  # not in config.json
    log: list[dict[str, Any]] = []
    folders = [work / f"stage-{number}" for number in range(len(settings))]
    state = PartialState()
    for number, (phase, folder) in enumerate(zip(settings, folders, strict=True)):
        if state.is_main_process and folder.exists() and not is_intact(folder):
            progress.say(f"warning: the files of {folder} are incomplete or damaged. The phase is trained again.")
            shutil.rmtree(folder)
        state.wait_for_everyone()
        if not folder.exists():
            if number > 0:
                catalogue = model.model.items_to_rank
                model = RegenForCausalLM.from_pretrained(folders[number - 1], **attention)
                model.model.items_to_rank = catalogue
            phase_board = board / folder.name if len(settings) > 1 else board
            merge = config.merge or folder != folders[-1]
            train_phase(model, processor, train, validation, folder, phase_board, phase, merge, gap)
        steps = log[-1]["step"] if log else 0
        log += [entry | {"step": entry["step"] + steps} for entry in outputs.read_json(folder / outputs.TRAINING_LOG)]
    state.wait_for_everyone()  # the first process then empties `work`, which the others may still be reading
    return folders[-1], log


def train_phase(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    folder: Path,
    board: Path,
    config: TrainingConfig,
    merge: bool,
    gap: HistoryGap | None,
) -> None:
    """Train one phase from its last checkpoint, and write the model and TRL's log into `folder`."""
    state = PartialState()
    new, checkpoints = folder.with_suffix(".new"), folder.with_suffix(".checkpoints")
    if state.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        checkpoints.mkdir(parents=True, exist_ok=True)
        remove_damaged(checkpoints)
        if config.lora is not None:
            # The new parts are saved with the LoRA weights, so a model without them does not load.
            weights = model.state_dict()
            weights = {name: value for name, value in weights.items() if not name.startswith(NEW_PARTS)}
            model.save_pretrained(new, state_dict=weights)
    state.wait_for_everyone()
    set_seed(config.seed)
    trainer = make_trainer(model, processor, train, validation if config.patience else None, checkpoints, board, config)
    trainer.add_callback(Checksums())
    if gap is not None:
        gap.trainer = trainer
        trainer.add_callback(gap)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)))
    final = {} if gap is None else gap.measure()  # with patience, of the best checkpoint
    save(trainer, model, new, config, merge)
    save_logits(trainer, new / outputs.TRAINED_LOGITS)
    if state.is_main_process:
        log: list[dict[str, Any]] = trainer.state.log_history
        muon = trains_with_muon(config) and not trainer.is_fsdp_enabled
        optimizer = "muon" if muon else config.sft.get("optim", "adamw")
        log[-1] |= {"peak_learning_rate": trainer.args.learning_rate, "optimizer": optimizer} | final
        log[-1]["peak_adapter_learning_rate"] = trainer.adapter_learning_rate or trainer.args.learning_rate
        outputs.write_json(new / outputs.TRAINING_LOG, log, indent=1)
        write_checksums(new)
        new.rename(folder)
    state.wait_for_everyone()
    if state.is_main_process:
        shutil.rmtree(checkpoints)


def save(trainer: GroupedTrainer, model: RegenForCausalLM, folder: Path, config: TrainingConfig, merge: bool) -> None:
    """Write the trained model into `folder`; LoRA weights are merged or written beside it."""
    gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # from all processes
    weights = {name.replace("_orig_mod.", ""): value for name, value in gathered.items()}  # torch.compile's prefix
    if not trainer.is_world_process_zero():
        return
    model.config.use_cache = True  # training disables it, generation needs it
    if config.lora is None:
        model.save_pretrained(folder, state_dict=weights)
        return
    trained: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
    trained.peft_config["default"].base_model_name_or_path = None  # it is beside the LoRA weights
    trained.save_pretrained(folder / LORA, state_dict=weights, save_embedding_layers=False)
    (folder / LORA / outputs.CARD).unlink()
    if merge:
        merged = RegenForCausalLM.from_pretrained(folder)
        shutil.rmtree(folder)
        merged.save_pretrained(folder)
