"""The trainer of one phase: TRL's SFTTrainer with the settings, callbacks and optimiser of this package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer
from transformers.integrations import TensorBoardCallback
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTConfig, SFTTrainer

from ...errors import ConfigError, MissingPackageError
from ...model.backbones import native_bfloat16
from ...model.loading import NEW_PARTS
from ...model.modeling_regen import RegenForCausalLM
from ...model.processing_regen import RegenProcessor
from ...progress.training import show_bar
from .collator import RegenCollator
from .examples import Examples
from .library_fields import checked_lora, trainer_fields
from .optimizer import muon_and_adamw, split_adapter
from .settings import TrainingConfig


class GroupedTrainer(SFTTrainer):
    """TRL's trainer with the examples of each step grouped by length, in an order that `data_seed` sets.

    A step draws its examples at random from all tasks, sorts them by their estimated length and processes them in
    groups of about equal cost, which reduces padding. The order depends only on seed and epoch: a resumed run continues
    where the interrupted one stopped, and several processes share what one would process.
    """

    eval_collator: RegenCollator | None = None
    """Creates the batches of the validation split, whose histories are in another store."""
    adapter_learning_rate: float | None = None
    """Peak learning rate of the adapter; None for that of all other parameters."""

    def log_plain(self, values: dict[str, float]) -> None:
        """Add `values` to the log without the statistics that TRL collects between its own entries."""
        should_log = self.control.should_log  # set for the loss of the same step; `log` clears it
        Trainer.log(self, values)
        self.control.should_log = should_log

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser, with groups of their own for the adapter's parameters."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if new and self.adapter_learning_rate is not None:
            split_adapter(optimizer, cast(torch.nn.Module, model or self.model), self.adapter_learning_rate)
        return optimizer

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """The number of words and purchases to predict in one step."""
        if batch_samples and "item_labels" in batch_samples[0]:
            predicted = [torch.cat([batch["labels"], batch["item_labels"]], dim=1) for batch in batch_samples]
            batch_samples = [{"labels": labels} for labels in predicted]
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss of the words, which does not use the model's own loss, and that of the purchases."""
        if "item_labels" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        weight, predicted = inputs.pop("next_item_weight"), num_items_in_batch
        if predicted is None:
            predicted = (inputs["labels"][:, 1:] >= 0).sum() + (inputs["item_labels"] >= 0).sum()
        fused: Any = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        fused = fused.get_base_model() if hasattr(fused, "get_base_model") else fused
        sums: list[torch.Tensor] = []
        hook = fused.model.register_forward_hook(lambda _module, _inputs, output: sums.append(output.item_loss))
        try:
            result = super().compute_loss(model, inputs, return_outputs, predicted)
        finally:
            hook.remove()
        # As for the words: the number is that of all processes, and their gradients are averaged.
        averaged = self.args.average_tokens_across_devices and num_items_in_batch is not None
        of_items = weight * sums[0] / predicted * (self.accelerator.num_processes if averaged else 1)
        return (result[0] + of_items, result[1]) if return_outputs else result + of_items

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchRebalanceSampler:
        arguments, examples = self.args, cast(Dataset, self.train_dataset)
        return BatchRebalanceSampler(
            # transformers iterates over the column, which takes 9 s per million examples.
            lengths=examples.data.column("length").to_pylist(),
            effective_batch_size=arguments.train_batch_size
            * arguments.gradient_accumulation_steps
            * arguments.world_size,
            dp_size=arguments.world_size,
            grad_accum=arguments.gradient_accumulation_steps,
            seed=cast(int, arguments.data_seed),  # transformers gives this sampler no seed
            rank=arguments.process_index,
            drop_last=arguments.dataloader_drop_last,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The batches of the validation split."""
        train_collator = self.data_collator
        self.data_collator = self.eval_collator or train_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = train_collator


class Patience(EarlyStoppingCallback):
    """Early stopping that also stops a resumed training whose patience had run out before."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the patience has run out."""
        control.should_training_stop |= self.early_stopping_patience_counter >= self.early_stopping_patience


def make_trainer(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    train: Examples,
    validation: Examples | None,
    checkpoints: Path,
    board: Path,
    config: TrainingConfig,
) -> GroupedTrainer:
    """The trainer of one phase, which trains `model` in place.

    It evaluates the `validation` examples, if given, at every checkpoint, and writes TensorBoard's files into `board`,
    unless `report_to` names other trackers.

    Raises:
        ConfigError: the trainer rejects a setting.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not config.freeze or name.startswith(NEW_PARTS))
    try:
        arguments = sft_config(config, checkpoints, evaluates=validation is not None)
        multiple = cast("int | None", arguments.pad_to_multiple_of)  # "auto" is resolved
        trainer = GroupedTrainer(
            model=model,
            args=arguments,
            train_dataset=train.rows,
            eval_dataset=validation.rows if validation else None,
            data_collator=RegenCollator.of(train, multiple),
            processing_class=processor.tokenizer,
            peft_config=None if config.lora is None else LoraConfig(**checked_lora(config.lora)),
        )
    except (ImportError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "install" not in str(error):  # a tracker that is not installed
            raise
        raise ConfigError(f"The trainer rejects the settings of the training: {error}") from error
    if validation:
        trainer.eval_collator = RegenCollator.of(validation, multiple)
        trainer.add_callback(Patience(config.patience))
    if "tensorboard" in trackers(config) and trainer.is_world_process_zero():
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPackageError("tensorboard") from None
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(board))))
    trainer.adapter_learning_rate = adapter_learning_rate(config)
    if trains_with_muon(config):
        use_muon(trainer, model, config)
    show_bar(trainer, "training")
    return trainer


def sft_config(config: TrainingConfig, checkpoints: Path, evaluates: bool) -> SFTConfig:
    """The arguments of the trainer; with `evaluates` it measures the validation loss at every checkpoint.

    Raises:
        ValueError: the processes cannot share a step equally, or SFTConfig rejects a field.
    """
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if config.batch_size % processes:
        raise ValueError(f"batch_size is {config.batch_size}, expected a multiple of the {processes} processes.")
    share = config.batch_size // processes
    passes = forward_passes(share, config.length_groups // processes)
    evaluation: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": config.save_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
    }
    return SFTConfig(
        output_dir=str(checkpoints),
        max_steps=config.max_steps,
        per_device_train_batch_size=share // passes,
        per_device_eval_batch_size=share,
        gradient_accumulation_steps=passes,
        train_sampling_strategy="batch_rebalance",
        length_column_name="length",
        learning_rate=peak_learning_rate(config),
        warmup_steps=int(config.max_steps * config.warmup_ratio),
        max_length=None,  # placeholders must never be cut off
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # the collator tokenizes
        save_strategy="steps",
        save_steps=config.save_steps,
        seed=config.seed,
        data_seed=config.seed,
        **(evaluation if evaluates else {}),
        **sft_fields(config) | {"report_to": [name for name in trackers(config) if name != "tensorboard"]},
    )


def forward_passes(examples: int, wanted: int) -> int:
    """The number of forward passes, at most `wanted`, that divides the `examples` of a step into equal parts.

    >>> forward_passes(32, 4), forward_passes(6, 4), forward_passes(3, 0)
    (4, 3, 1)
    """
    return next(passes for passes in range(max(1, min(wanted, examples)), 0, -1) if examples % passes == 0)


def sft_fields(config: TrainingConfig) -> dict[str, Any]:
    """SFTConfig's fields in `config`, and those that have another default here."""
    fields = trainer_fields(config.sft)
    return {
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "adam_beta2": 0.95,
        "bf16": bf16_products(config) and not fields.get("fp16"),
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": False,
        "save_total_limit": 2,
        "logging_steps": min(10, config.max_steps),
        "report_to": "tensorboard",
        "dataloader_pin_memory": torch.cuda.is_available(),
    } | fields


def bf16_products(config: TrainingConfig) -> bool:
    """Whether matrix products are computed in bf16: where the device can; on a CPU for a pretrained backbone only."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    # SmolLM2-135M with LoRA, 8 examples of 300 tokens: 6.4 instead of 10.0 s per step on 2 cores.
    return config.backbone is not None and native_bfloat16()


def trackers(config: TrainingConfig) -> list[str]:
    """The names in `report_to`."""
    names = sft_fields(config)["report_to"]
    return [name for name in ([names] if isinstance(names, str) else names or ()) if name != "none"]


def use_muon(trainer: GroupedTrainer, model: RegenForCausalLM, config: TrainingConfig) -> None:
    """Give `trainer` its Muon optimiser; under FSDP it keeps AdamW, with the learning rate of AdamW.

    Raises:
        ConfigError: the settings name Muon under FSDP.
    """
    arguments = trainer.args
    if not trainer.is_fsdp_enabled:
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        trainer.optimizer = muon_and_adamw(
            model, arguments.learning_rate, arguments.weight_decay, betas=betas, eps=arguments.adam_epsilon
        )
        if trainer.adapter_learning_rate is not None:
            split_adapter(trainer.optimizer.adamw, model, trainer.adapter_learning_rate)
            trainer.optimizer.join_groups()
    elif config.optimizer == "muon":
        raise ConfigError("optimizer was given muon, which needs complete matrices, but FSDP shards them. Use adamw.")
    else:
        arguments.learning_rate = peak_learning_rate(dataclasses.replace(config, optimizer="adamw"))


def trains_with_muon(config: TrainingConfig) -> bool:
    """Whether the matrices of the language model are trained with Muon: if set, or by default without a backbone."""
    if config.optimizer is None:
        fully_trained = config.freeze is None and config.lora is None and "optim" not in config.sft
        return config.backbone is None and fully_trained
    return config.optimizer == "muon"


def peak_learning_rate(config: TrainingConfig) -> float:
    """The learning rate of `config`, or its default, which depends on what is trained."""
    if config.learning_rate is not None:
        return config.learning_rate
    if config.backbone is None:
        return 0.015 if trains_with_muon(config) else 5e-3
    if config.freeze:
        return 1e-3
    return 2e-5 if config.lora is None else 2e-4


def adapter_learning_rate(config: TrainingConfig) -> float | None:
    """The learning rate of the adapter, None for that of all other parameters.

    At the rate of pretrained weights a new adapter hardly changes, and the model learns to ignore the history.
    """
    if config.adapter_learning_rate is not None or config.backbone is None or config.freeze:
        return config.adapter_learning_rate
    return 2e-3
