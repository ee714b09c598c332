"""The stages of a training one after another, each resumed where it was killed.

    <work>/stage-0/                the model after the first stage, once it is done
    <work>/stage-1.checkpoints/    of a stage at work

A stage begins with the model that the one before left on disk, so a resumed training and an unbroken one take the same
path. All files are safetensors; checkpoints also hold torch's states of optimiser and random numbers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from ...model.modeling_regen import RegenForCausalLM
from ...model.processing_regen import RegenProcessor
from .settings import in_stages
from .trainer import Examples, GroupedTrainer, make_trainer, trains_with_muon

if TYPE_CHECKING:
    from .settings import TrainingConfig

LOG = "training_log.json"
LORA = "lora"
"""Folder of a model in adapter form, where PEFT's weights lie."""


def train_in_stages(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    work: Path,
    board: Path,
    config: TrainingConfig,
) -> tuple[Path, list[dict[str, Any]]]:
    """Train `model` through the stages of `config` that are not done yet.

    Returns:
        The folder of the trained model, and TRL's log, its steps counted through all stages.
    """
    settings = in_stages(config)
    told = config.sft.get("model_init_kwargs") or {}
    attention = {name: told[name] for name in ("attn_implementation",) if name in told}  # config.json does not keep it
    state = PartialState()
    log: list[dict[str, Any]] = []
    before = None
    for number, stage in enumerate(settings):
        folder = work / f"stage-{number}"
        if not folder.exists():
            if before is not None:
                model = RegenForCausalLM.from_pretrained(before, **attention)
            last = number == len(settings) - 1
            checkpoints = work / f"stage-{number}.checkpoints"
            train_stage(
                model,
                processor,
                train,
                validation if stage.patience else None,
                checkpoints,
                board / f"stage-{number}" if len(settings) > 1 else board,
                folder,
                stage,
                merge=config.merge or not last,
            )
            state.wait_for_everyone()
            if state.is_main_process:
                shutil.rmtree(checkpoints)
        passed = log[-1]["step"] if log else 0
        of_stage = json.loads((folder / LOG).read_text(encoding="utf-8"))
        log += [entry | {"step": entry["step"] + passed} for entry in of_stage]
        before = folder
    state.wait_for_everyone()  # the first process goes on to empty `work`, which the others may still have to read
    return work / f"stage-{len(settings) - 1}", log


def train_stage(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    checkpoints: Path,
    board: Path,
    folder: Path,
    config: TrainingConfig,
    merge: bool,
) -> None:
    """Train one stage, on from its last checkpoint, and write `folder`: the model and TRL's log."""
    state = PartialState()
    new = folder.with_suffix(".new")
    if state.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        checkpoints.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints.glob("checkpoint-*"):
            if not _whole(checkpoint):
                shutil.rmtree(checkpoint)
        if config.lora is not None:
            # Without the adapter, which comes with the LoRA weights: so a model that lost them does not load.
            whole = model.state_dict()
            model.save_pretrained(
                new, state_dict={name: value for name, value in whole.items() if not name.startswith("model.adapter.")}
            )
    state.wait_for_everyone()
    set_seed(config.seed)
    trainer = make_trainer(model, processor, train, validation, checkpoints, board, config)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)))
    save(trainer, model, new, config, merge)
    if state.is_main_process:
        log: list[dict[str, Any]] = trainer.state.log_history
        muon = trains_with_muon(config) and not trainer.is_fsdp_enabled
        optimizer = "muon" if muon else config.sft.get("optim", "adamw")
        log[-1] |= {"peak_learning_rate": trainer.args.learning_rate, "optimizer": optimizer}
        (new / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
        new.rename(folder)


def _whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, which is its trainer_state.json."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def save(trainer: GroupedTrainer, model: RegenForCausalLM, folder: Path, config: TrainingConfig, merge: bool) -> None:
    """Write the model that `trainer` has trained into `folder`, merged or with the LoRA weights beside it."""
    gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # from all processes
    weights = {name.replace("_orig_mod.", ""): value for name, value in gathered.items()}  # torch.compile's name
    if not trainer.is_world_process_zero():
        return
    model.config.use_cache = True  # off while training; whoever generates wants it
    if config.lora is None:
        model.save_pretrained(folder, state_dict=weights)
        return
    trained: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
    trained.peft_config["default"].base_model_name_or_path = None  # it lies beside, wherever that is
    trained.save_pretrained(folder / LORA, state_dict=weights, save_embedding_layers=False)
    (folder / LORA / "README.md").unlink()
    if merge:
        merged = RegenForCausalLM.from_pretrained(folder)
        shutil.rmtree(folder)
        merged.save_pretrained(folder)
