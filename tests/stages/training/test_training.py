import copy
import dataclasses
import itertools
import json
import math
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from regen_hf.errors import ConfigError, InputError
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.interactions import interaction_features, interaction_text
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.outputs import item_vectors, rows, split_files
from regen_hf.run import Run
from regen_hf.run.stages import STAGES
from regen_hf.schema import offered_tasks
from regen_hf.stages.training.backbone import load_backbone, train_tokenizer
from regen_hf.stages.training.build import build, make_processor
from regen_hf.stages.training.collator import RegenCollator
from regen_hf.stages.training.examples import (
    CRITIQUE_REPEATS,
    NONE,
    OF_EARLIER,
    OF_PURCHASE,
    OF_SHOWN,
    SAMPLE,
    Examples,
    columns_of,
    index_of,
    learns,
)
from regen_hf.stages.training.optimizer import muon_and_adamw
from regen_hf.stages.training.settings import TrainingConfig
from regen_hf.stages.training.trainer import GroupedTrainer, make_trainer
from tests.conftest import TINY
from tests.paths import ROOT

TASKS = offered_tasks()


def config(**changes):
    return TrainingConfig(**{**TINY["training"], **changes})


def test_the_loss_goes_down(finished_run):
    log = json.loads((finished_run / "model" / "training_log.json").read_text())
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < math.log(600)  # a uniform guess over the vocabulary


def test_every_user_gives_one_example_per_task_with_the_loss_on_the_completion_only(finished_run, processor, tokenize):
    made = tokenize(processor, config(history_dropout=0.0))
    users = list(rows(split_files(finished_run / "dataset", "train")))
    assert len(made) == len(users) * len(TASKS)
    for example in made[: len(TASKS)]:
        tokens, labels = np.array(example["input_ids"]), np.array(example["labels"])
        learnt = labels != -100
        assert (tokens[learnt] == labels[learnt]).all()
        text = processor.tokenizer.decode(tokens[learnt])
        assert text.endswith(processor.tokenizer.eos_token)
        assert text.removesuffix(processor.tokenizer.eos_token) in {task.text(users[0]) for task in TASKS.values()}
        assert (tokens == processor.item_token_id).sum() == len(users[0]["purchase_history"])
        assert not (tokens[learnt] == processor.item_token_id).any()


@pytest.mark.parametrize("tasks", [("user_profile", "product_endorsement"), ()])
def test_each_critique_is_shown_in_an_example_of_its_own_before_an_item_without_review(
    finished_run, processor, load, histories, tasks
):
    settings = config(history_dropout=0.0, tasks=tasks, **({} if tasks else {"next_item_weight": 1.0}))
    examples = load(processor, settings)
    assert examples.critiques
    users = list(rows(split_files(finished_run / "dataset", "train")))
    said = {number: row["last_purchase"]["critique"] for number, row in enumerate(users)}
    index = [row for row in examples.rows if row["critique"] != NONE]
    with_text = [number for number, text in said.items() if text]
    repeats = 1 if tasks else CRITIQUE_REPEATS
    assert [row["user"] for row in index] == [user for user in with_text for _ in range(repeats)]
    assert {row["critique"] for row in index} == {OF_PURCHASE, OF_SHOWN, *([] if tasks else [OF_EARLIER])}
    plain = [row for row in examples.rows if row["critique"] == NONE]
    assert len(plain) == max(1, len(tasks)) * len(users)
    for row, example in zip(index, examples.tokenized(index), strict=True):
        assert example["kept"] == row["latest"] == example["input_ids"].count(processor.item_token_id)
        before, open_item = processor.tokenizer.decode(example["input_ids"]).split("\nThe customer says: ")
        assert before.endswith(processor.item_token)
        assert open_item.startswith(f'"{said[row["user"]]}"\n{processor.item_token}')
        assert open_item.count(processor.item_token) == 1 + (row["critique"] == OF_EARLIER)
        assert (example["withheld"], example["predicted"]) == (row["critique"], 1)
        if tasks:
            learnt = [token for token in example["labels"] if token >= 0]
            assert processor.tokenizer.decode(learnt).startswith(users[row["user"]]["last_purchase"]["endorsement"])
    if not tasks:  # nothing is said of the item that was shown after
        earlier = next(row for row in index if row["critique"] == OF_EARLIER)
        batch = RegenCollator.of(examples)([earlier])
        cf, content = histories.get(earlier["user"], withheld=3)
        order = [*range(len(cf))][-earlier["latest"] :]
        order[-3], order[-2] = order[-2], order[-3]
        torch.testing.assert_close(batch["history_cf"][0], torch.from_numpy(cf[order]))
        torch.testing.assert_close(batch["history_content"][0], torch.from_numpy(content[order]))
    row = next(row for row in index if row["critique"] == OF_SHOWN)["user"]
    reviewed, shown = (histories.get(row, withheld=number)[1] for number in (0, 2))
    assert (reviewed[:-2] == shown[:-2]).all()
    assert (
        shown[-2:] == histories.content_items[histories.store.items[histories.store.offsets[row + 1] - 2 :][:2]]
    ).all()
    for control in ({"history": "shuffled"}, {"history": "text"}, {"history": "empty"}):
        if tasks:
            assert not load(processor, dataclasses.replace(settings, **control)).critiques
    assert not load(processor, config(tasks=("user_profile",))).critiques
    assert not load(processor, settings, critiques=False).critiques
    # A window that keeps one or two purchases, and a dataset of an earlier version.
    for window in (len(processor.tokenize_prompt(1, prompt="")), 40):
        load(processor, dataclasses.replace(settings, interaction_features=("rating",)), window=window).tokenized(index)
    if not tasks:
        users = dataclasses.replace(examples, users=examples.users.select_columns(["reviewer_id"])).users
        made = index_of(users, np.array([5] * len(users)), settings, None)
        assert sum(len(batch) for batch in made) == len(users)
        assert columns_of(settings) == ["reviewer_id", "last_purchase.critique"]


def test_prompts_in_training_are_the_processors_own(finished_run, processor, tokenize):
    made = tokenize(processor, config(history_dropout=0.0))
    user = next(rows(split_files(finished_run / "dataset", "train")))
    for example, task in zip(made, TASKS, strict=False):
        prompt = np.array(example["input_ids"])[np.array(example["labels"]) == -100]
        inputs = processor(history=user["purchase_history"], task=task)
        assert inputs["input_ids"][0].tolist() == prompt.tolist()


def test_a_share_of_the_examples_has_no_history(processor, tokenize):
    made = tokenize(processor, config(history_dropout=0.3))
    empty = [example for example in made if example["row"] < 0]
    assert 0.2 < len(empty) / len(made) < 0.4
    assert not any(processor.item_token_id in example["input_ids"] for example in empty)


def test_a_control_shows_no_history_or_another_shoppers(finished_run, processor, tokenize):
    own = tokenize(processor, config(history_dropout=0.0))
    empty = tokenize(processor, config(history="empty"))
    assert {example["row"] for example in empty} == {-1}
    shuffled = tokenize(processor, config(history="shuffled", history_dropout=0.0))
    assert sorted(e["row"] for e in shuffled) == sorted(e["row"] for e in own)
    purchases = [len(row["purchase_history"]) for row in rows(split_files(finished_run / "dataset", "train"))]
    for example, other in zip(own, shuffled, strict=True):
        assert other["row"] != example["row"]
        assert other["kept"] == purchases[other["row"]]
        assert [t for t in other["labels"] if t >= 0] == [t for t in example["labels"] if t >= 0]


def test_a_history_as_text_holds_what_the_content_vectors_are_made_of(finished_run, processor, tokenize):
    made = tokenize(processor, config(history="text", history_dropout=0.0), window=None)
    user = next(rows(split_files(finished_run / "dataset", "train")))
    for example, task in zip(made, TASKS.values(), strict=False):
        prompt = processor.tokenizer.decode(np.array(example["input_ids"])[np.array(example["labels"]) == -100])
        *before, last = user["purchase_history"]
        assert all(interaction_text(purchase["item"], purchase["review"]) in prompt for purchase in before)
        assert prompt.endswith(task.prompt + "\n")
        assert interaction_text(last["item"], None) in prompt
        assert (last["review"]["text"] in prompt) == (not task.metadata_only)
        assert (example["row"], example["kept"]) == (-1, len(user["purchase_history"]))


def test_examples_longer_than_the_window_are_left_out_of_the_loss_with_a_warning(processor, load, caplog):
    examples = load(processor, config())
    assert len(examples.rows) > SAMPLE
    all_of_them = examples.tokenized(list(examples.rows))
    examples.check_window()
    assert not caplog.messages
    without_history = sorted(len(example["input_ids"]) - example["kept"] for example in all_of_them)
    examples.window = window = without_history[-len(without_history) // 20]
    made = examples.tokenized(list(examples.rows))
    assert all(len(example["input_ids"]) <= window for example in made)
    fit = [learns(example) for example in made]
    assert 0.9 < sum(fit) / len(fit) < 1
    for example, whole, learnt in zip(made, all_of_them, fit, strict=True):
        assert learnt == (len(whole["input_ids"]) - whole["kept"] <= window)
        assert [token for token in example["labels"] if token >= 0] == (
            [token for token in whole["labels"] if token >= 0] if learnt else []
        )
    examples.check_window()
    shortened, left_out = caplog.messages
    sample = examples.tokenized(examples.spread(SAMPLE))
    assert left_out.startswith(f"{sum(not learns(one) for one in sample)} of {SAMPLE} sampled examples")
    assert f"window of {window} tokens" in left_out
    assert "keep only the latest purchases of their history" in shortened
    examples.window = len(processor.tokenize_prompt(0, task="user_profile"))
    with pytest.raises(InputError, match=f"window of {examples.window} tokens"):
        examples.check_window()


def test_examples_are_tokenized_when_a_batch_is_read_and_their_files_are_reused(
    finished_run, processor, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise AssertionError

    with monkeypatch.context() as patch:
        for name in ("tokenize_prompt", "tokenize_completion"):
            patch.setattr(RegenProcessor, name, fail)
        first = Examples.of(finished_run, "train", processor, tmp_path, config())
        patch.setattr(pq.ParquetFile, "iter_batches", fail)
        again = Examples.of(finished_run, "train", processor, tmp_path, config())
    assert list(first.rows) == list(again.rows)
    estimated = np.array(first.rows["length"])
    measured = [len(example["input_ids"]) for example in again.tokenized(list(again.rows))]
    assert np.corrcoef(estimated, measured)[0, 1] > 0.9


def test_what_is_drawn_for_an_example_depends_on_seed_user_and_task_only(processor, load):
    weights = {"user_profile": 1.5, "long_user_summary": 0.5}

    def drawn(limit=None, tasks=tuple(TASKS), seed=3, **changes):
        settings = config(history_dropout=0.3, tasks=tasks, seed=seed, **changes)
        rows = load(processor, settings, limit).rows
        return [(row["user"], tasks[row["task"]], row["row"]) for row in rows if row["critique"] == NONE]

    whole = drawn(task_weights=weights)
    assert drawn(limit=20, task_weights=weights) == [example for example in whole if example[0] < 20]
    two = ("user_profile", "long_user_summary")
    assert drawn(tasks=two[::-1], task_weights=weights) == sorted(
        (example for example in whole if example[1] in two), key=lambda one: (one[0], one[1] == "user_profile")
    )
    assert drawn(seed=4, task_weights=weights) != whole
    shuffled = drawn(history="shuffled", task_weights=weights)
    assert [row < 0 for *_, row in shuffled] == [row < 0 for *_, row in whole]


def test_a_batch_holds_each_examples_own_history(processor, histories, tokenize):
    made = tokenize(processor, config())
    collator = RegenCollator(pad_token_id=0, histories=histories)
    picked = [next(e for e in made if e["row"] == 2), next(e for e in made if e["row"] < 0), made[-1]]
    batch = collator(picked)
    assert batch["history_mask"].sum(1).tolist() == [
        (np.array(e["input_ids"]) == processor.item_token_id).sum() for e in picked
    ]
    cf, content = histories.get(2, withheld=False)
    torch.testing.assert_close(batch["history_cf"][0, : len(cf)], torch.from_numpy(cf))
    torch.testing.assert_close(batch["history_content"][0, : len(cf)], torch.from_numpy(content))
    assert not batch["history_cf"][1].any()


def test_a_step_is_split_into_groups_of_similar_length_and_has_the_same_examples(
    finished_run, processor, load, tmp_path
):
    learnt = load(processor, config())
    made = learnt.tokenized(list(learnt.rows))
    model = RegenForCausalLM.from_pretrained(finished_run / "model")

    def steps(groups, seed):
        settings = config(length_groups=groups, seed=seed)
        trainer = make_trainer(model, processor, learnt, None, tmp_path, tmp_path / "board", settings)
        passes = list(trainer._get_train_sampler())
        each = trainer.args.gradient_accumulation_steps
        assert each == groups
        padded = sum(len(group) * max(len(made[index]["input_ids"]) for index in group) for group in passes)
        return [sorted(itertools.chain(*passes[at : at + each])) for at in range(0, len(passes), each)], padded

    whole, wasteful = steps(1, seed=3)
    grouped, thrifty = steps(4, seed=3)
    assert grouped[:-1] == whole[:-1]  # the last step of an epoch may be short
    assert len(grouped[0]) == config().batch_size
    assert thrifty < 0.9 * wasteful
    assert steps(4, seed=4)[0] != grouped


def test_gradient_checkpointing_padding_and_adam_settings_reach_the_trainer(finished_run, processor, load, tmp_path):
    model = RegenForCausalLM.from_pretrained(finished_run / "model")
    sft = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "pad_to_multiple_of": 64,
        "report_to": "none",
        "adam_beta1": 0.8,
        "adam_epsilon": 1e-6,
    }
    learnt = load(processor, config())
    trainer = make_trainer(model, processor, learnt, None, tmp_path, tmp_path / "board", config(sft=sft))
    assert trainer.args.activation_checkpointing
    assert trainer.args.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert trainer.data_collator(learnt.spread(3))["input_ids"].shape[1] % 64 == 0
    (group,) = trainer.optimizer.adamw.param_groups
    assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-6)


@pytest.mark.parametrize(("sharded", "rate"), [(False, 0.015), (True, 5e-3)])
def test_the_rate_of_muon_is_not_that_of_the_adamw_which_takes_its_place_under_fsdp(
    finished_run, processor, load, tmp_path, monkeypatch, sharded, rate
):
    ready = GroupedTrainer.create_accelerator_and_postprocess

    def shard(trainer):
        ready(trainer)
        trainer.is_fsdp_enabled = sharded

    monkeypatch.setattr(GroupedTrainer, "create_accelerator_and_postprocess", shard)
    model = RegenForCausalLM.from_pretrained(finished_run / "model")
    trainer = make_trainer(model, processor, load(processor, config()), None, tmp_path, tmp_path / "board", config())
    assert (trainer.optimizer is None, trainer.args.learning_rate) == (sharded, rate)


def test_muon_takes_the_matrices_of_the_language_model_and_is_saved_with_adamw(finished_run):
    model = RegenForCausalLM.from_pretrained(finished_run / "model")

    def step(optimizer):
        optimizer.zero_grad()
        sum((parameter**2).sum() for parameter in model.parameters()).backward()
        optimizer.step()

    optimizer = muon_and_adamw(model, 0.01, 0.0)
    (chosen,) = (group["params"] for group in optimizer.muon.param_groups)
    names = {name for name, parameter in model.named_parameters() if any(parameter is one for one in chosen)}
    assert names
    assert all(".layers." in name and name.endswith("_proj.weight") for name in names)
    assert len(chosen) + len(optimizer.adamw.param_groups[0]["params"]) == len(list(model.parameters()))
    step(optimizer)
    again = muon_and_adamw(model, 0.5, 0.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["lr"] for group in again.param_groups] == [0.01, 0.01]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step(optimizer)
    after = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    step(again)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, after[name])
    for group in again.param_groups:  # as a schedule does
        group["lr"] = 0.0
    step(again)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, after[name])


def test_the_withheld_view_holds_nothing_of_the_last_review(finished_run, processor):
    """The last review says something else: in the withheld view no input changes, in the paper's view one does."""
    history = next(rows(split_files(finished_run / "dataset", "test")))["purchase_history"]
    other = json.loads(json.dumps(history))
    later = history[-1]["review"]["unix_time"] + 1
    other[-1]["review"] = {"summary": "Never again", "rating": 1, "text": "It broke at once.", "unix_time": later}
    for task in TASKS:
        first, second = processor(history=history, task=task), processor(history=other, task=task)
        same = all(torch.equal(first[name], second[name]) for name in first)
        assert same == TASKS[task].metadata_only, task
    assert [task.name for task in TASKS.values() if task.metadata_only] == ["product_endorsement"]


def test_leak_safe_withholds_the_last_review_from_every_task(finished_run, tokenize):
    settings = config(leak_safe=True)
    tokenizer, _ = load_backbone(split_files(finished_run / "dataset", "train"), settings)
    safe = make_processor(finished_run, tokenizer, item_vectors(finished_run), settings)
    assert set(safe.metadata_only_tasks) == set(TASKS)
    assert all(example["withheld"] for example in tokenize(safe, config()))


@pytest.mark.parametrize("history", ["own", "text"])
def test_a_model_is_shown_at_most_max_history_purchases(finished_run, history, load, caplog):
    settings = config(max_history=2, history=history, history_dropout=0.0, tasks=("user_profile",))
    files = split_files(finished_run / "dataset", "train")
    tokenizer, _ = load_backbone(files, settings)
    two = make_processor(finished_run, tokenizer, item_vectors(finished_run), settings)
    assert two.max_history == 2
    examples = load(two, settings)
    for example, user in zip(examples.tokenized(list(examples.rows)), rows(files), strict=True):
        purchases = user["purchase_history"]
        prompt = two.tokenizer.decode(example["input_ids"])
        assert example["kept"] == min(len(purchases), 2)
        if history == "text":
            shown = [interaction_text(purchase["item"], purchase["review"]) in prompt for purchase in purchases]
            assert all(shown[-2:])
            assert sum(shown) < 3 or len({purchase["item"]["asin"] for purchase in purchases}) < len(purchases)
    examples.check_window()
    assert not caplog.messages
    whole = make_processor(finished_run, tokenizer, item_vectors(finished_run), config(max_history=10_000))
    assert (
        whole.max_history == make_processor(finished_run, tokenizer, item_vectors(finished_run), config()).max_history
    )


def test_the_tokenizer_is_trained_on_train_users_only(finished_run, tmp_path):
    for split in ("validation", "test"):
        (tmp_path / f"{split}.parquet").write_text("not even parquet")
    (train,) = split_files(finished_run / "dataset", "train")
    shutil.copy(train, tmp_path / "train.parquet")
    alone = train_tokenizer(split_files(tmp_path, "train"), config())
    whole = train_tokenizer(split_files(finished_run / "dataset", "train"), config())
    assert alone.get_vocab() == whole.get_vocab()


def test_the_model_folder_is_a_repository(finished_run):
    names = {path.name for path in (finished_run / "model").iterdir()}
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_regen.py",
        "configuration_regen.py",
        "processing_regen.py",
        "processor_config.json",
        "tokenizer.json",
        "cf_items.safetensors",
        "content_encoder",
    } <= names
    for file in ("training_config.json", "manifest.json"):  # none was given
        values = json.loads((finished_run / "model" / file).read_text())
        assert values.get("counts", values)["learning_rate"] == 0.015
    model = RegenForCausalLM.from_pretrained(finished_run / "model")
    assert model.config.cf_mean_norm == pytest.approx(
        load_file(finished_run / "embeddings" / "cf.safetensors")["mean_norm"][0]
    )


def test_another_causal_lm_can_be_the_backbone(finished_run, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer, small = load_backbone(split_files(finished_run / "dataset", "train"), config())
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=24, n_layer=1, n_head=2, n_positions=256))
    plain.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    counts = build(finished_run, out, work, config(backbone=str(tmp_path / "lm"), max_steps=2, embedding_mode="cf"))
    assert counts["steps"] == 2
    model = RegenForCausalLM.from_pretrained(out)
    assert model.config.text_config.model_type == "gpt2"
    assert model.config.embedding_mode == "cf"
    assert small.config.model_type == "llama"
    for path in out.rglob("*"):  # a model repository says nothing of the machine it was trained on
        if path.suffix in {".json", ".md", ".py", ".jinja"}:
            assert str(tmp_path) not in path.read_text(), path


def test_a_backbone_that_does_not_exist_is_an_error(finished_run, tmp_path):
    with pytest.raises(ConfigError, match="no/such-model"):
        build(finished_run, tmp_path, tmp_path, config(backbone="no/such-model"))


def test_a_backbone_that_cannot_be_wrapped_is_an_error(finished_run, tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    tokenizer = train_tokenizer(split_files(finished_run / "dataset", "train"), config())
    MambaForCausalLM(
        MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    ).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(ConfigError, match="cannot be wrapped: MambaForCausalLM has no cache of keys and values"):
        build(finished_run, tmp_path, tmp_path, config(backbone=str(tmp_path / "lm")))


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_backbone_that_brings_its_own_code_is_refused_before_any_training(finished_run, tmp_path):
    tokenizer, small = load_backbone(split_files(finished_run / "dataset", "train"), config())
    folder = tmp_path / "lm"
    small.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "own.py").write_text(OWN_CODE)
    values = json.loads((folder / "config.json").read_text())
    values |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(values))
    for sft in ({}, {"trust_remote_code": True}, {"model_init_kwargs": {"trust_remote_code": True}}):
        with pytest.raises(ConfigError, match="without code of its own"):
            build(finished_run, tmp_path, tmp_path, config(backbone=str(folder), sft=sft))
    own = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    with pytest.raises(ValueError, match="OwnForCausalLM is defined by code of its own"):
        RegenForCausalLM.from_backbone(own, RegenConfig(cf_dim=4, content_dim=4, item_token_id=0))


def losses(model):
    return [entry["loss"] for entry in json.loads((model / "training_log.json").read_text()) if "loss" in entry]


TRAIN = str(ROOT / "scripts" / "train.py")


def launch(program, *words):
    """Run `program` in two processes."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(ROOT / "scripts" / "accelerate" / "cpu2.yaml"),
            str(program),
            *map(str, words),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("given", "message"),
    [("max_steps=[", "expected KEY=VALUE"), ("max_steps", "expected KEY=VALUE"), ("steps=2", "Did you mean")],
)
def test_an_invalid_setting_of_the_script_is_an_error(tmp_path, monkeypatch, given, message):
    monkeypatch.setattr(sys, "argv", [TRAIN, str(tmp_path / "run"), "--set", given])
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(TRAIN, run_name="__main__")
    assert not (tmp_path / "run").exists()


LATE = """
import runpy
import time

from accelerate import PartialState

wait = PartialState.wait_for_everyone


def late(self):
    wait(self)
    if not self.is_main_process:
        time.sleep(4)


PartialState.wait_for_everyone = late
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_although_the_second_lags(finished_run, tmp_path, monkeypatch):
    one, two = (Path(shutil.copytree(finished_run, tmp_path / name)) for name in ("one", "two"))
    for run in (one, two):
        Run(run, {"training": {"max_steps": 20, "save_steps": 20, "history_dropout": 0.3}}).save()
    monkeypatch.setattr(sys, "argv", [TRAIN, str(one)])
    runpy.run_path(TRAIN, run_name="__main__")
    program = tmp_path / "late.py"
    program.write_text(LATE.format(script=TRAIN))
    launch(program, two)
    assert Run(two).is_fresh(STAGES["train"])
    counts = [json.loads((run / "model" / "manifest.json").read_text())["counts"] for run in (one, two)]
    assert [each["processes"] for each in counts] == [1, 2]
    found = [losses(run / "model") for run in (one, two)]
    assert len(found[0]) == 2
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


BOTH = """
import runpy
import sys

script, run = sys.argv[1:]
for stage in ("embeddings", "evaluate"):
    sys.argv = [script, run, "--stage", stage]
    runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(finished_run, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    folders = {"embeddings": "embeddings", "evaluate": "evaluation"}
    for folder in folders.values():
        shutil.rmtree(run / folder)
    program = tmp_path / "both.py"
    program.write_text(BOTH)
    launch(program, TRAIN, run)
    for stage, folder in folders.items():
        assert Run(run).is_fresh(STAGES[stage])
        files = [file for kind in ("npy", "parquet") for file in (finished_run / folder).rglob(f"*.{kind}")]
        assert files
        for file in files:
            other = run / folder / file.relative_to(finished_run / folder)
            assert other.read_bytes() == file.read_bytes(), file.name


def test_a_history_too_long_for_the_window_keeps_its_latest_purchases_in_training(processor, histories, tokenize):
    settings = config(history_dropout=0.0, tasks=("user_profile",))
    whole = tokenize(processor, settings, window=None)
    window = max(len(example["input_ids"]) for example in whole) - 2
    cut = tokenize(processor, settings, window=window)
    assert len(cut) == len(whole)
    assert max(len(example["input_ids"]) for example in cut) == window
    number = max(range(len(whole)), key=lambda n: len(whole[n]["input_ids"]))
    assert cut[number]["kept"] == whole[number]["kept"] - 2
    batch = RegenCollator(pad_token_id=0, histories=histories)([cut[number]])
    cf, content = histories.get(cut[number]["row"], withheld=False)
    torch.testing.assert_close(batch["history_cf"][0], torch.from_numpy(cf[2:]))
    torch.testing.assert_close(batch["history_content"][0], torch.from_numpy(content[2:]))


@pytest.mark.parametrize("history", ["own", "shuffled"])
def test_the_features_of_an_example_are_those_of_the_history_that_it_shows(finished_run, processor, tokenize, history):
    names = ("rating", "age")
    settings = config(interaction_features=names, history=history, tasks=("product_endorsement",))
    users = list(rows(split_files(finished_run / "dataset", "train")))
    made = tokenize(processor, settings)
    assert len({example["row"] for example in made}) > 10
    for example in made:
        shown = users[example["row"]]["purchase_history"] if example["row"] >= 0 else []
        np.testing.assert_equal(example["features"], interaction_features(shown, names, withheld=True))


def test_features_a_transformer_and_a_longer_history_reach_the_model(tiny_run):
    overrides = {
        "sequences": {"max_history": 60},
        "training": {
            "adapter": "transformer",
            "interaction_features": ["rating", "age"],
            "cf_dropout": 0.2,
            "max_steps": 3,
            "tasks": ["product_endorsement"],
        },
        "evaluation": {"tasks": ["product_endorsement"], "users": 3, "max_new_tokens": 8},
    }
    run = Run(tiny_run, overrides)
    with run.locked():
        run.save()
        run.build_all("evaluate")
    model = RegenForCausalLM.from_pretrained(tiny_run / "model")
    processor = RegenProcessor.from_pretrained(tiny_run / "model")
    assert model.config.interaction_features == processor.interaction_features == ["rating", "age"]
    assert model.config.max_history == processor.max_history == 60
    assert model.config.cf_dropout == 0.2
    assert model.config.window == processor.tokenizer.model_max_length == 1024
    assert processor.cf_user_gram.shape == (12, 12)
    users = rows(split_files(tiny_run / "dataset", "test"), limit=2)
    logits = model(**processor(list(users), "product_endorsement")).logits
    assert logits.isfinite().all()
