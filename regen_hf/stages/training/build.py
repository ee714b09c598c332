"""Train the fused model and write a model repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ... import outputs
from ...cards.model_card import model_card
from ...errors import ConfigError
from ...model.configuration_regen import RegenConfig
from ...model.modeling_regen import RegenForCausalLM
from ...model.processing_regen import RegenProcessor
from ...schema import MAX_HISTORY, SPLITS, metadata_only_tasks, offered_tasks
from ...vectors.store import VectorStore
from .backbone import ITEM_TOKEN, load_backbone
from .citations import calibrate
from .collator import RegenCollator
from .examples import Examples
from .history_gap import history_gap, interval_of, warn_of_unused_history
from .phases import train_phases
from .reload_check import check_reload
from .settings import TrainingConfig, phases
from .soft_token_norm import SAMPLE, scale_soft_tokens
from .trainer import sft_fields
from .whitening import whitening


def build(run: Path, out: Path, work: Path, config: TrainingConfig) -> dict[str, Any]:
    """Train on the train split and write a model repository into `out`; checkpoints are kept in `work`."""
    set_seed(config.seed)
    tokenizer, causal_lm = load_backbone(outputs.dataset_files(run, "train"), config)
    items = outputs.item_vectors(run)
    processor = make_processor(run, tokenizer, items, config)
    end_generation(causal_lm, processor)
    model = make_model(run, causal_lm, processor, items, config)
    train = Examples.of(run, "train", processor, work / "examples" / "train", config)
    train.check_window()
    processor.reads_critiques = train.critiques > 0
    if config.next_item_weight:
        bought = np.bincount(train.histories.store.items, minlength=len(items.asins))
        model.set_catalogue(**processor.catalogue(), frequencies=torch.from_numpy(bought))
    validation = None
    if any(phase.patience for phase in phases(config)):
        evaluated = dataclasses.replace(config, history_dropout=0.0, task_weights={})
        folder = work / "examples" / "validation"
        users = config.validation_users
        validation = Examples.of(run, "validation", processor, folder, evaluated, users, critiques=False)
    if config.backbone is not None:
        scale_soft_tokens(model, RegenCollator.of(train), train.spread(SAMPLE))
    gap = history_gap(run, processor, work / "examples" / "gap", config)
    board = run / outputs.TENSORBOARD / work.name
    folder, log = train_phases(model, processor, train, validation, work, board, config, gap)
    # SFTConfig can switch off the log of single steps, but not that of a complete phase.
    losses = [entry["loss"] for entry in log if "loss" in entry] or [
        entry["train_loss"] for entry in log if "train_loss" in entry
    ]
    counts = {
        "examples": len(train.rows),
        "critique_examples": train.critiques,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": log[-1]["step"],
        "processes": PartialState().num_processes,
        "device": torch.cuda.get_device_name() if PartialState().device.type == "cuda" else PartialState().device.type,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "learning_rate": log[-1]["peak_learning_rate"],
        "adapter_learning_rate": log[-1]["peak_adapter_learning_rate"],
    }
    if gap is not None:
        counts |= {name: log[-1][name] for name in ("own_loss", "shuffled_loss", "empty_loss")}
        counts["history_gap"] = interval_of(log[-1])
    if PartialState().is_main_process:
        internal = shutil.ignore_patterns(outputs.TRAINED_LOGITS, outputs.CHECKSUMS)
        shutil.copytree(folder, out, dirs_exist_ok=True, ignore=internal)
        processor.save_pretrained(out)
        outputs.write_json(out / outputs.TRAINING_LOG, log, indent=1)
        outputs.write_json(out / outputs.TRAINING_CONFIG, resolved_settings(config, log), indent=1)
        check_reload(out, folder / outputs.TRAINED_LOGITS)
        counts |= calibrate(run, out, config)
        card = model_card(run, training={"config": dataclasses.asdict(config), "counts": counts})
        outputs.write_text(out / outputs.CARD, card)
        if gap is not None:
            warn_of_unused_history(counts["history_gap"], config)
    return counts


def make_processor(
    run: Path, tokenizer: PreTrainedTokenizerBase, items: outputs.ItemArrays, config: TrainingConfig
) -> RegenProcessor:
    """The processor with the encoder and the CF vectors of `run`."""
    # The texts of a model without tasks mean nothing, so it offers no prompts.
    tasks, limit = offered_tasks(config.tasks) if config.tasks else {}, max_history(run)
    embeddings = outputs.manifest(run, "embeddings")["config"]
    trained_encoder = outputs.folder(run, "embeddings") / outputs.CONTENT_ENCODER
    catalogue: dict[str, Any] = {}
    if config.next_item_weight:
        titles = {item["asin"]: item["title"] for item in outputs.rows(outputs.catalogue_files(run))}
        catalogue = {"item_titles": [titles[asin] for asin in items.asins], "item_content": items.content}
    return RegenProcessor(
        tokenizer=tokenizer,
        item_token=ITEM_TOKEN,
        task_prompts={name: task.prompt for name, task in tasks.items()},
        metadata_only_tasks=metadata_only_tasks(tasks, config.leak_safe),
        content_encoder=embeddings["content_encoder"] or str(trained_encoder),
        cf_asins=items.asins,
        cf_factors=items.item_factors,
        cf_user_gram=items.user_gram,
        cf_is_als=items.user_gram is not None,
        cf_alpha=embeddings["cf_alpha"],
        cf_regularization=embeddings["cf_regularization"],
        max_history=min(config.max_history or limit, limit),
        interaction_features=config.interaction_features,
        **catalogue,
    )


def end_generation(causal_lm: PreTrainedModel, processor: RegenProcessor) -> None:
    """Let `generate` stop at the end token of the processor too; some models name only the end of a document."""
    ends = causal_lm.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if processor.end_token_id not in ends:
        ends.append(processor.end_token_id)
    causal_lm.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]


def max_history(run: Path) -> int:
    """The maximum number of purchases per user: the setting of the sequences, or for a release the longest history."""
    if sequences := outputs.manifest(run, "sequences"):
        return int(sequences["config"]["max_history"])
    stores = [VectorStore(outputs.folder(run, "embeddings") / split) for split in SPLITS]
    return max(MAX_HISTORY, *(int(np.diff(store.offsets).max(initial=0)) for store in stores))


def make_model(
    run: Path, causal_lm: PreTrainedModel, processor: RegenProcessor, items: outputs.ItemArrays, config: TrainingConfig
) -> RegenForCausalLM:
    """The fused model around `causal_lm`, with a new adapter that whitens the content vectors of `run`.

    Raises:
        ConfigError: the language model cannot be wrapped.
    """
    mean = matrix = None
    if config.whitening and config.embedding_mode != "cf":
        store = VectorStore(outputs.folder(run, "embeddings") / "train")
        mean, matrix = whitening(store, config.whitening, config.between_users)
    try:
        return RegenForCausalLM.from_backbone(
            causal_lm,
            RegenConfig(
                cf_dim=items.item_factors.shape[1],
                content_dim=items.content.shape[1],
                cf_mean_norm=items.mean_norm,
                item_token_id=processor.item_token_id,
                embedding_mode=config.embedding_mode,
                adapter=config.adapter,
                recency=config.recency,
                interaction_features=list(config.interaction_features),
                cf_dropout=config.cf_dropout,
                max_history=processor.max_history,
                item_dim=config.item_dim if config.next_item_weight else None,
                item_dropout=config.item_dropout,
            ),
            content_mean=mean,
            content_matrix=matrix,
        )
    except ValueError as error:
        raise ConfigError(f"The backbone {config.backbone!r} cannot be wrapped: {error}") from error


def resolved_settings(config: TrainingConfig, log: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings with the defaults that depend on others, for `training_config.json`."""
    settings = {**dataclasses.asdict(config), "backbone": outputs.public_name(config.backbone)}
    settings["sft"] |= sft_fields(config)
    last = [entry for entry in log if "optimizer" in entry]  # one entry per phase
    used = [
        {
            "learning_rate": entry["peak_learning_rate"],
            "adapter_learning_rate": entry["peak_adapter_learning_rate"],
            "optimizer": entry["optimizer"],
        }
        for entry in last
    ]
    if not config.stages:
        return settings | used[0]
    return settings | {"stages": [entry | values for entry, values in zip(config.stages, used, strict=True)]}
