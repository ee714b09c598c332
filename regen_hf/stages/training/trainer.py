"""TRL's trainer as a stage of the training sets it up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback
from transformers.integrations import TensorBoardCallback
from trl import SFTConfig, SFTTrainer

from ...errors import ConfigError, missing_extra
from ...model.modeling_regen import RegenForCausalLM
from ...model.processing_regen import RegenProcessor
from ...progress import show_bar
from ...vectors.histories import Histories
from .arguments import checked_lora, checked_sft
from .collator import RegenCollator
from .optimizer import muon_and_adamw

if TYPE_CHECKING:
    from .settings import TrainingConfig

OLD_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Fields of SFTConfig that count only while the new one is not set, and here the first always is."""


@dataclasses.dataclass
class Examples:
    """Tokenized examples of one split, and the vectors of the histories that they name."""

    rows: Dataset
    histories: Histories


class GroupedTrainer(SFTTrainer):
    """TRL's trainer with the examples of each step grouped by length, in an order that `data_seed` sets.

    A step takes its examples at random, of all tasks alike, sorts them by length and passes them in groups of about
    equal cost, so that little is padded and every step still holds every task. The order follows from seed and epoch
    alone: a resumed run goes on where the killed one stopped, and several processes share what one would do.
    """

    eval_collator: RegenCollator | None = None
    """Makes the batches of the validation split, whose histories lie in another store."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(train_dataset)
        sampler.seed = self.args.data_seed  # transformers gives this sampler no seed
        return sampler

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The batches of the validation split."""
        trains = self.data_collator
        self.data_collator = self.eval_collator or trains
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = trains


class Patience(EarlyStoppingCallback):
    """Early stopping that holds also for a training which was killed after it had stopped."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop with the first step of a resumed training that had run out of patience."""
        control.should_training_stop |= self.early_stopping_patience_counter >= self.early_stopping_patience


def forward_passes(examples: int, wanted: int) -> int:
    """In how many forward passes a process takes its `examples` of a step: at most `wanted`, and equally many in each.

    >>> forward_passes(32, 4), forward_passes(6, 4), forward_passes(3, 0)
    (4, 3, 1)
    """
    return next(parts for parts in range(max(1, min(wanted, examples)), 0, -1) if examples % parts == 0)


def make_trainer(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    checkpoints: Path,
    board: Path,
    config: TrainingConfig,
) -> GroupedTrainer:
    """The trainer of one stage.

    Args:
        model: trained in place.
        processor: makes nothing here; its tokenizer pads.
        train: what to learn.
        validation: measured at every checkpoint; None where `config.patience` is 0.
        checkpoints: where they lie.
        board: where TensorBoard's files lie, unless `report_to` names others.
        config: the settings of the stage.

    Raises:
        ConfigError: the trainer refuses a setting.
    """
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if config.batch_size % processes:
        raise ConfigError(f"batch_size is {config.batch_size}, expected a multiple of the {processes} processes.")
    parts = forward_passes(config.batch_size // processes, config.length_groups // processes)
    each = config.batch_size // processes // parts
    chosen = sft_fields(config)
    reports = chosen.pop("report_to")
    reports = [reports] if isinstance(reports, str) else list(reports or ())
    measured: dict[str, Any] = {}
    if validation:
        measured = {
            "eval_strategy": "steps",
            "eval_steps": config.save_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,
        }
    freeze(model, config)
    try:
        arguments = SFTConfig(
            output_dir=str(checkpoints),
            max_steps=config.max_steps,
            per_device_train_batch_size=each,
            per_device_eval_batch_size=config.batch_size // processes,
            gradient_accumulation_steps=parts,
            train_sampling_strategy="batch_rebalance",
            length_column_name="length",
            learning_rate=peak_learning_rate(config),
            warmup_steps=int(config.max_steps * config.warmup_ratio),
            max_length=None,  # placeholders must never be cut off
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},  # tokenized with the processor's own prompts
            save_strategy="steps",
            save_steps=config.save_steps,
            seed=config.seed,
            data_seed=config.seed,
            report_to=[name for name in reports if name not in ("tensorboard", "none")],
            **measured,
            **chosen,
        )
        trainer = GroupedTrainer(
            model=model,
            args=arguments,
            train_dataset=train.rows,
            eval_dataset=validation.rows if validation else None,
            data_collator=collator(processor, train, config, arguments),
            processing_class=processor.tokenizer,
            peft_config=None if config.lora is None else LoraConfig(**checked_lora(config.lora)),
        )
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "install" not in str(error):  # a tracker of report_to that is not there
            raise
        raise ConfigError(f"The trainer refuses the settings of the training: {error}") from error
    if validation:
        trainer.eval_collator = collator(processor, validation, config, arguments)
        trainer.add_callback(Patience(config.patience))
    if "tensorboard" in reports and trainer.is_world_process_zero():
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing_extra("tensorboard", "train") from None
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(board))))
    if config.optimizer == "muon" and trainer.is_fsdp_enabled:
        raise ConfigError("optimizer was given muon, which needs whole matrices, and FSDP shards them: give adamw.")
    if trains_with_muon(config) and trainer.is_fsdp_enabled:
        trainer.args.learning_rate = peak_learning_rate(dataclasses.replace(config, optimizer="adamw"))
    elif trains_with_muon(config):
        betas = (trainer.args.adam_beta1, trainer.args.adam_beta2)
        trainer.optimizer = muon_and_adamw(
            model, trainer.args.learning_rate, trainer.args.weight_decay, betas=betas, eps=trainer.args.adam_epsilon
        )
    show_bar(trainer, "      training")
    return trainer


def sft_fields(config: TrainingConfig) -> dict[str, Any]:
    """SFTConfig's fields that `config` gives, with those that have another default here."""
    given = checked_sft(config.sft)
    given = {OLD_NAMES[name]: value for name, value in given.items() if name in OLD_NAMES} | {
        name: value for name, value in given.items() if name not in OLD_NAMES
    }
    given.pop("model_init_kwargs", None)  # the model is there
    return {
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "adam_beta2": 0.95,
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not given.get("fp16"),
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": False,
        "save_total_limit": 2,
        "logging_steps": min(10, config.max_steps),
        "report_to": "tensorboard",
        "dataloader_pin_memory": torch.cuda.is_available(),
    } | given


def collator(
    processor: RegenProcessor, examples: Examples, config: TrainingConfig, arguments: SFTConfig
) -> RegenCollator:
    """What makes batches of `examples`."""
    return RegenCollator(
        pad_token_id=processor.tokenizer.pad_token_id,
        pad_to_multiple_of=cast("int | None", arguments.pad_to_multiple_of),  # "auto" is resolved
        histories=examples.histories,
        n_features=len(config.interaction_features),
    )


def freeze(model: RegenForCausalLM, config: TrainingConfig) -> None:
    """Let the parameters learn that `config.freeze` leaves free: all, or those of the adapter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not config.freeze or name.startswith("model.adapter."))


def peak_learning_rate(config: TrainingConfig) -> float:
    """The learning rate of `config`, or what suits that which is trained."""
    if config.learning_rate is not None:
        return config.learning_rate
    if config.backbone is None:
        return 0.015 if trains_with_muon(config) else 5e-3
    if config.freeze:
        return 1e-3
    return 2e-5 if config.lora is None else 2e-4


def trains_with_muon(config: TrainingConfig) -> bool:
    """Whether the matrices of the language model learn by Muon: where asked for, or in a small one from nothing."""
    if config.optimizer is None:
        whole = config.freeze is None and config.lora is None and "optim" not in config.sft
        return config.backbone is None and whole
    return config.optimizer == "muon"
