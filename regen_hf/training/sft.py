"""From a dataset and its vectors to a model repository, with TRL's SFTTrainer."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import ConfigError, InputError, missing_extra
from ..schema import MAX_HISTORY, SPLITS, TASKS, rows, split_files

try:
    import torch
    from datasets import Dataset, Features, List, Value
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LlamaConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise missing_extra(error.name or "trl", "train") from None

from ..embeddings import VectorStore
from ..hub import model_card
from ..model import RegenForCausalLM, RegenProcessor, interaction_features
from ..model.interactions import interaction_text
from ..progress import show_bar
from .collator import Histories, RegenCollator
from .optimizer import muon_and_adamw
from .text_history import fit_text

if TYPE_CHECKING:
    from . import TrainingConfig

ITEM_TOKEN = "<|item|>"  # noqa: S105 (a token of the vocabulary)
WEIGHT_DECAY = 0.01
EXAMPLE = Features(
    {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "row": Value("int64"),
        "withheld": Value("bool"),
        "length": Value("int32"),  # tokens, by which the trainer groups
        "kept": Value("int32"),
        "features": List(List(Value("float32"))),
    }
)


def build(run: Path, out: Path, work: Path, config: TrainingConfig) -> dict[str, Any]:
    """Train the model of `config`; see `regen_hf.training.build`."""
    set_seed(config.seed)
    processor, causal_lm = make_parts(run, config)
    item_factors, mean_norm = cf_vectors(run)
    histories = Histories(
        VectorStore(run / "embeddings" / "train"),
        item_factors,
        np.load(run / "embeddings" / "content_items.npy", mmap_mode="r", allow_pickle=False),
    )
    try:
        model = RegenForCausalLM.from_backbone(
            causal_lm,
            cf_dim=item_factors.shape[1],
            content_dim=histories.content_items.shape[1],
            cf_mean_norm=mean_norm,
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
    examples = Dataset.from_generator(
        tokenized,
        features=EXAMPLE,
        gen_kwargs={
            "files": split_files(run / "dataset", "train"),
            "processor": processor,
            "config": config,
            "window": model.config.window,
        },
        cache_dir=str(work / "examples"),
        fingerprint=f"regen{config.seed}",  # the work folder belongs to these settings alone
    )
    if len(examples) == 0:
        raise InputError("The train split holds no narrative to learn from. Run the `narratives` stage on more users.")
    trainer = make_trainer(model, processor, examples, histories, work / "checkpoints", config)
    checkpoints = work / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if trainer.is_world_process_zero():
        for checkpoint in checkpoints.glob("checkpoint-*"):
            if not (checkpoint / "trainer_state.json").exists():  # written last: killed in the middle of the others
                shutil.rmtree(checkpoint)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)))
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    counts = {
        "examples": len(examples),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": trainer.state.global_step,
        "processes": trainer.args.world_size,
        "first_loss": losses[0]["loss"],
        "last_loss": losses[-1]["loss"],
    }
    if trainer.is_world_process_zero():
        model.config.use_cache = True  # off while training; whoever generates wants it
        model.save_pretrained(out)
        processor.save_pretrained(out)
        (out / "training_log.json").write_text(json.dumps(trainer.state.log_history, indent=1) + "\n", encoding="utf-8")
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
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.backbone)
            causal_lm = AutoModelForCausalLM.from_pretrained(config.backbone)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The backbone {config.backbone!r} could not be loaded: {error} Give the name or the path of a causal "
                "language model, or none to train a small one offline."
            ) from error
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
        metadata_only_tasks=[task.name for task in TASKS.values() if task.last_review_withheld or config.leak_safe],
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


def train_tokenizer(train: list[Path], config: TrainingConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the task prompts and the train users' narratives, and of histories read as text."""
    as_text = config.history == "text"

    def texts() -> Iterator[str]:
        yield from (task.prompt for task in TASKS.values())
        for row in rows(train, ["last_purchase", "user", *(["purchase_history"] if as_text else [])]):
            if as_text:
                yield from (interaction_text(bought["item"], bought["review"]) for bought in row["purchase_history"])
            for task in TASKS.values():
                if text := task.text(row):
                    yield text

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", ITEM_TOKEN]
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        eos_token=special[1],
        additional_special_tokens=[ITEM_TOKEN],
        model_max_length=1024,
    )


def small_backbone(vocab_size: int, config: TrainingConfig) -> PreTrainedModel:
    """A small Llama with random weights: enough for the sample, and for seeing that own data go through."""
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size * 3,
            num_hidden_layers=config.num_layers,
            num_attention_heads=max(1, config.hidden_size // 32),
            num_key_value_heads=max(1, config.hidden_size // 32),
            max_position_embeddings=1024,
            # The default of 0.02 is meant for wide models; here the variance of a row's output is to be about 1/2.
            initializer_range=0.06,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def tokenized(
    files: list[Path], processor: RegenProcessor, config: TrainingConfig, window: int | None
) -> Iterator[dict[str, Any]]:
    """One tokenized example per user and task: prompt masked out of the labels, completion and end token learnt.

    A history that does not fit into the window beside its prompt and completion keeps its latest purchases. An example
    that does not fit without any is left out and told.
    """
    chance = random.Random(config.seed)  # noqa: S311 (no secret)
    too_long = shortened = 0
    for row, shown, history in users(files, config.history == "shuffled"):
        purchases = len(history)
        for name in config.tasks:
            text = TASKS[name].text(row)
            if not text:
                continue
            dropped = chance.random() < config.history_dropout or config.history == "empty"
            completion = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            completion = [*completion, processor.tokenizer.eos_token_id]
            room = None if window is None else window - len(completion)
            if room is not None and room < len(processor.tokenize_prompt(0, task=name)):
                too_long += 1
                continue
            if config.history == "text":
                kept, prompt = fit_text(processor, [] if dropped else history, name, room)
            else:
                kept, prompt = processor.fit(0 if dropped else purchases, task=name, max_length=room)
            shortened += not dropped and kept < purchases
            withheld = name in processor.metadata_only_tasks
            soft = 0 if config.history == "text" else kept
            yield {
                "input_ids": prompt + completion,
                "labels": [-100] * len(prompt) + completion,
                "row": shown if soft else -1,
                "length": len(prompt) + len(completion),
                "withheld": withheld,
                "kept": soft,
                "features": interaction_features(history[purchases - soft :], config.interaction_features, withheld),
            }
    if shortened:
        logging.getLogger(__name__).warning(
            "%d examples keep only the latest purchases of their history, as many as fit into %s tokens.",
            shortened,
            window,
        )
    if too_long:
        logging.getLogger(__name__).warning(
            "%d examples are longer than the model's window of %s tokens and were left out.", too_long, window
        )


def users(files: list[Path], shuffled: bool) -> Iterator[tuple[dict[str, Any], int, list[dict[str, Any]]]]:
    """Each user's row with the number and the history of the user to show: the same one, or where `shuffled` the next.

    Users lie in the order of a hash, so the next one is like any other.
    """
    first = before = None
    for number, row in enumerate(rows(files)):
        if not shuffled:
            yield row, number, row["purchase_history"]
        elif before is not None:
            yield before, number, row["purchase_history"]
        first, before = first or row, row
    if shuffled and first is not None and before is not None:
        yield before, 0, first["purchase_history"]


class GroupedTrainer(SFTTrainer):
    """TRL's trainer with the examples of each step grouped by length, in an order that `data_seed` sets.

    A step takes its examples at random, of all tasks alike, sorts them by length and passes them in groups of about
    equal cost, so that little is padded and every step still holds every task. The order follows from seed and epoch
    alone: a resumed run goes on where the killed one stopped, and several processes share what one would do.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(train_dataset)
        sampler.seed = self.args.data_seed  # transformers gives this sampler no seed
        return sampler


def forward_passes(examples: int, wanted: int) -> int:
    """In how many forward passes a process takes its `examples` of a step: at most `wanted`, and equally many in each.

    >>> forward_passes(32, 4), forward_passes(6, 4), forward_passes(3, 0)
    (4, 3, 1)
    """
    return next(parts for parts in range(max(1, min(wanted, examples)), 0, -1) if examples % parts == 0)


def make_trainer(
    model: RegenForCausalLM,
    processor: RegenProcessor,
    examples: Dataset,
    histories: Histories,
    checkpoints: Path,
    config: TrainingConfig,
) -> SFTTrainer:
    """TRL's trainer over tokenized `examples`."""
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if config.batch_size % processes:
        raise ConfigError(f"batch_size is {config.batch_size}, expected a multiple of the {processes} processes.")
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    parts = forward_passes(config.batch_size // processes, config.length_groups // processes)
    trainer = GroupedTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(checkpoints),
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size // processes // parts,
            gradient_accumulation_steps=parts,
            train_sampling_strategy="batch_rebalance",
            length_column_name="length",
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=int(config.max_steps * config.warmup_ratio),
            weight_decay=WEIGHT_DECAY,
            adam_beta2=0.95,
            max_length=None,  # placeholders must never be cut off
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=False,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},  # tokenized with the processor's own prompts
            save_strategy="steps",
            save_steps=config.save_steps,
            save_total_limit=2,
            logging_steps=min(10, config.max_steps),
            report_to="none",
            seed=config.seed,
            data_seed=config.seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=examples,
        data_collator=RegenCollator(
            pad_token_id=processor.tokenizer.pad_token_id,
            histories=histories,
            n_features=len(config.interaction_features),
        ),
        processing_class=processor.tokenizer,
    )
    if config.optimizer == "muon" or (config.optimizer is None and config.backbone is None):
        trainer.optimizer = muon_and_adamw(model, config.learning_rate, WEIGHT_DECAY)
    show_bar(trainer, "      training")
    return trainer
