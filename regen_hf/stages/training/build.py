"""Train the fused model and write a model repository."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import ConfigError, InputError, missing_extra
from ...outputs import split_files
from ...schema import MAX_HISTORY, SPLITS, TASKS, metadata_only_tasks

try:
    import torch
    from accelerate import PartialState
    from datasets import Dataset
    from safetensors.numpy import load_file
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        set_seed,
    )

    from .schedule import (
        LOG,
        train_in_stages,  # with it, TRL, PEFT and TensorBoard
    )
except ImportError as error:
    raise missing_extra(error.name or "trl", "train") from None
from ...cards.model_card import model_card
from ...model.loading import HUB
from ...model.modeling_regen import RegenForCausalLM
from ...model.processing_regen import RegenProcessor
from ...outputs import public_name
from ...vectors.histories import Histories
from ...vectors.store import VectorStore
from .arguments import checked_sft
from .examples import EXAMPLE, tokenized
from .settings import in_stages
from .small import ITEM_TOKEN, small_backbone, train_tokenizer
from .trainer import Examples, sft_fields
from .whitening import whitening

if TYPE_CHECKING:
    from .settings import TrainingConfig


def build(run: Path, out: Path, work: Path, config: TrainingConfig) -> dict[str, Any]:
    """Train on the train split and write a model repository into `out`; checkpoints are kept in `work`."""
    set_seed(config.seed)
    processor, causal_lm = make_parts(run, config)
    embeddings = run / "embeddings"
    item_factors, mean_norm = cf_vectors(run)
    content_items = np.load(embeddings / "content_items.npy", mmap_mode="r", allow_pickle=False)
    mean = matrix = None
    if config.whitening and config.embedding_mode != "cf":
        mean, matrix = whitening(VectorStore(embeddings / "train"), config.whitening, config.between_users)
    try:
        model = RegenForCausalLM.from_backbone(
            causal_lm,
            cf_dim=item_factors.shape[1],
            content_dim=content_items.shape[1],
            cf_mean_norm=mean_norm,
            content_mean=mean,
            content_matrix=matrix,
            item_token_id=processor.tokenizer.convert_tokens_to_ids(ITEM_TOKEN),
            embedding_mode=config.embedding_mode,
            adapter=config.adapter,
            recency=config.recency,
            interaction_features=config.interaction_features,
            cf_dropout=config.cf_dropout,
            max_history=processor.max_history,
        )
    except ValueError as error:
        raise ConfigError(f"The backbone {config.backbone!r} cannot be wrapped: {error}") from error

    longest = processor.tokenizer.model_max_length  # `make_parts` has set it to the model's window, if that is shorter
    window = longest if longest < 1_000_000 else None  # beyond it means "not set"

    def examples(split: str, settings: TrainingConfig, users: int | None = None) -> Examples:
        try:
            made = Dataset.from_generator(
                tokenized,
                features=EXAMPLE,
                gen_kwargs={
                    "files": split_files(run / "dataset", split),
                    "processor": processor,
                    "config": settings,
                    "window": window,
                    "limit": users,
                },
                cache_dir=str(work / "examples"),
                fingerprint=f"regen{split}{config.seed}",  # the work folder belongs to these settings alone
            )
        except ValueError as error:  # what datasets says of a split without rows
            if "corresponds to no data" not in str(error):
                raise
            fits = "" if window is None else f" that fits into the model's window of {window} tokens"
            raise InputError(
                f"The {split} split holds no narrative to learn from{fits}. Run the `narratives` stage on more users, "
                "or name a backbone with a longer window."
            ) from error
        return Examples(made, Histories(VectorStore(embeddings / split), item_factors, content_items))

    train = examples("train", config)
    validation = None
    if any(stage.patience for stage in in_stages(config)):
        whole = dataclasses.replace(config, history_dropout=0.0, task_weights={})
        validation = examples("validation", whole, config.validation_users)
    folder, log = train_in_stages(model, processor, train, validation, work, run / "tensorboard" / work.name, config)
    # SFTConfig's logging may leave out the loss of every step; that of a whole stage is always there.
    losses = [entry["loss"] for entry in log if "loss" in entry] or [
        entry["train_loss"] for entry in log if "train_loss" in entry
    ]
    counts = {
        "examples": len(train.rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": log[-1]["step"],
        "processes": PartialState().num_processes,
        "device": torch.cuda.get_device_name() if PartialState().device.type == "cuda" else PartialState().device.type,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "learning_rate": log[-1]["peak_learning_rate"],
    }
    if PartialState().is_main_process:
        shutil.copytree(folder, out, dirs_exist_ok=True)
        processor.save_pretrained(out)
        (out / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
        settings = {**dataclasses.asdict(config), "backbone": public_name(config.backbone)}
        settings["sft"] |= sft_fields(config)
        used = [  # by the stages, each of which ends its log with it
            {"learning_rate": entry["peak_learning_rate"], "optimizer": entry.get("optimizer")}
            for entry in log
            if "peak_learning_rate" in entry
        ]
        if config.stages:
            settings["stages"] = [given | found for given, found in zip(config.stages, used, strict=True)]
        else:
            settings |= used[0]
        (out / "training_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        card = model_card(run, training={"config": dataclasses.asdict(config), "counts": counts})
        (out / "README.md").write_text(card, encoding="utf-8")
    return counts


def make_parts(run: Path, config: TrainingConfig) -> tuple[RegenProcessor, PreTrainedModel]:
    """The processor with its CF table and encoder, and the bare language model."""
    tokenizer: PreTrainedTokenizerBase
    if config.backbone is None:
        tokenizer = train_tokenizer(split_files(run / "dataset", "train"), config)
        causal_lm = small_backbone(len(tokenizer), config)
    else:
        tokenizer, causal_lm = load_backbone(config)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Not `add_special_tokens`, which would take the tokenizer's own additional tokens away.
        tokenizer.add_tokens([ITEM_TOKEN], special_tokens=True)
        if len(tokenizer) > cast(torch.nn.Embedding, causal_lm.get_input_embeddings()).num_embeddings:
            causal_lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    causal_lm.config.pad_token_id = tokenizer.pad_token_id
    limit = getattr(causal_lm.config, "max_position_embeddings", None)
    tokenizer.model_max_length = min(tokenizer.model_max_length, limit or tokenizer.model_max_length)
    embeddings = run / "embeddings"
    tensors = load_file(embeddings / "cf.safetensors")
    settings = json.loads((embeddings / "manifest.json").read_text(encoding="utf-8"))["config"]
    encoder = settings["content_encoder"]
    processor = RegenProcessor(
        tokenizer=tokenizer,
        item_token=ITEM_TOKEN,
        task_prompts={task.name: task.prompt for task in TASKS.values()},
        metadata_only_tasks=metadata_only_tasks(TASKS, config.leak_safe),
        content_encoder=encoder or str(embeddings / "content_encoder"),
        cf_asins=pq.read_table(embeddings / "items.parquet").column("asin").to_pylist(),
        cf_factors=tensors["item_factors"],
        cf_user_gram=tensors.get("user_gram"),
        cf_alpha=settings["cf_alpha"],
        cf_regularization=settings["cf_regularization"],
        max_history=max_history(run),
        interaction_features=config.interaction_features,
    )
    return processor, causal_lm


def load_backbone(config: TrainingConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The language model that `config` names, with its tokenizer: all of its weights, or an error."""
    name = str(config.backbone)
    sft = checked_sft(config.sft)
    more = dict(sft.get("model_init_kwargs") or {})
    # A model with code of its own cannot be wrapped; many that transformers knows bring some as well.
    trusted = bool(more.pop("trust_remote_code", False) or sft.get("trust_remote_code"))
    where = {key: more[key] for key in (*HUB, "subfolder") if key in more}
    learns = any(stage.freeze is None and stage.lora is None for stage in in_stages(config))
    if learns and not {"dtype", "torch_dtype", "quantization_config"} & more.keys():
        more["dtype"] = torch.float32  # whatever the files hold: steps of 2e-5 are lost in the rounding of bf16
    try:
        settings = AutoConfig.from_pretrained(name, trust_remote_code=False, **where)
        if settings.is_encoder_decoder:
            # transformers would load the decoder of some of them, with a head of random numbers.
            raise ValueError(f"{settings.model_type} is an encoder-decoder model, expected a decoder-only one.")
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted, **where)
        found: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **more)
        causal_lm, info = found
        if lacks := sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}):
            raise ValueError(
                f"its files lack {len(lacks)} of the model's weights, or hold them in another shape than its "
                f"config.json says: {', '.join(lacks[:5])}{', …' if len(lacks) > 5 else ''}. They would be random "
                "numbers."
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The backbone {config.backbone!r} could not be loaded: {error} Give the name or the path of a causal "
            "language model that needs no code of its own, or none to train a small one offline."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"The tokenizer of the backbone {config.backbone!r} has no token for the end of a text (eos_token), so the "
            "model could not learn where a narrative ends: set one in its tokenizer_config.json."
        )
    if learns and causal_lm.dtype in (torch.bfloat16, torch.float16):
        logging.getLogger(__name__).warning(
            "All of %s learns, in %s: small steps are lost in its rounding. Without a dtype in model_init_kwargs it "
            "learns in float32, on GPUs with products in bf16.",
            config.backbone,
            causal_lm.dtype,
        )
    return tokenizer, causal_lm


def max_history(run: Path) -> int:
    """Purchases per user that this run keeps: as its sequences were told, or as the longest history of its dataset."""
    sequences = run / "sequences" / "manifest.json"
    if sequences.exists():
        return int(json.loads(sequences.read_text(encoding="utf-8"))["config"]["max_history"])
    longest = max(int(np.diff(VectorStore(run / "embeddings" / split).offsets).max(initial=0)) for split in SPLITS)
    return max(MAX_HISTORY, longest)


def cf_vectors(run: Path) -> tuple[NDArray[np.float32], float]:
    """The CF vectors of the catalogue, shape (I, d_cf), and the mean norm of those that are not zero."""
    tensors = load_file(run / "embeddings" / "cf.safetensors")
    return tensors["item_factors"], float(tensors["mean_norm"][0])
