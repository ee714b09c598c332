"""The recipe on a pretrained backbone: rate and start of the adapter, and whether the model uses the history."""

import json
import logging

import pytest
import torch
from transformers import AutoTokenizer

from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.stages.training import phases
from regen_hf.stages.training.build import build
from regen_hf.stages.training.history_gap import history_gap, warn_of_unused_history
from regen_hf.stages.training.optimizer import muon_and_adamw, split_adapter
from regen_hf.stages.training.settings import TrainingConfig
from tests.conftest import TINY
from tests.tiny_model import backbone

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT, by its old name


def config(**changes):
    return TrainingConfig(**{**TINY["training"], "max_steps": 3, "save_steps": 2, **changes})


@pytest.fixture(scope="module")
def lm(finished_run, tmp_path_factory):
    """Folders of tiny backbones with the tokenizer of the run; gemma2 scales its input embeddings."""
    folder = tmp_path_factory.mktemp("lm")
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
    for family in ("llama", "gemma2"):
        backbone(family, vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    return folder


@pytest.fixture
def trained(finished_run, tmp_path, monkeypatch):
    """Train and return the folder, the trainer and the norms of a soft token and of a word at the first step."""

    def do(**changes):
        seen = {}
        make = phases.make_trainer

        def made(model, processor, train, *rest):
            trainer = seen["trainer"] = make(model, processor, train, *rest)
            batch = trainer.data_collator([train.rows[n] for n in range(len(train.rows)) if train.rows[n]["row"] >= 0])
            fused = trainer.accelerator.unwrap_model(model)
            with torch.no_grad():
                fused.eval()
                soft, *_ = fused.soft_tokens(**{k: v for k, v in batch.items() if k.startswith("history_")})
                fused.train()
                words = batch["input_ids"].unique()
                words = fused.get_input_embeddings()(words[words != fused.config.item_token_id])
            seen["norms"] = soft[batch["history_mask"]].norm(dim=-1).mean(), words.norm(dim=-1).mean()
            return trainer

        monkeypatch.setattr(phases, "make_trainer", made)
        out, work = tmp_path / "out", tmp_path / "work"
        for folder in (out, work):
            folder.mkdir()
        build(finished_run, out, work, config(**changes))
        return out, seen["trainer"], seen["norms"]

    return do


KINDS = [
    ("llama", {"lora": {"r": 2}}, 2e-4, 2e-3),
    ("gemma2", {"adapter": "mlp", "interaction_features": ("rating", "age")}, 2e-5, 2e-3),
    ("llama", {"freeze": "backbone", "adapter": "transformer"}, 1e-3, 1e-3),
]


@pytest.mark.parametrize(("family", "changes", "rate", "adapter_rate"), KINDS, ids=["lora", "all", "frozen"])
def test_a_new_adapter_starts_as_loud_as_words_and_learns_at_its_own_rate(
    trained, lm, family, changes, rate, adapter_rate
):
    out, trainer, (soft, word) = trained(backbone=str(lm / family), **changes)
    assert float(soft) == pytest.approx(float(word), rel=0.1)  # measured on a sample
    rates = {}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["initial_lr"], group["weight_decay"]
    names = {name: rates[id(p)] for name, p in trainer.model.named_parameters() if p.requires_grad}
    adapter = {name: values for name, values in names.items() if ".adapter." in name}
    assert adapter
    assert {r for r, _ in adapter.values()} == {adapter_rate}
    assert {r for name, (r, _) in names.items() if name not in adapter} <= {rate}
    assert {decay for name, (_, decay) in adapter.items() if name.endswith("bias")} <= {0.0}
    assert len(rates) == len(names) == len([p for g in trainer.optimizer.param_groups for p in g["params"]])
    settings = json.loads((out / "training_config.json").read_text())
    assert (settings["learning_rate"], settings["adapter_learning_rate"]) == (rate, adapter_rate)


def test_muon_leaves_the_adapter_to_adamw_at_its_own_rate(finished_run):
    model = RegenForCausalLM.from_pretrained(finished_run / "model")
    optimizer = muon_and_adamw(model, 0.01, 0.1)
    split_adapter(optimizer.adamw, model, 0.5)
    optimizer.join_groups()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.5, 0.01]
    adapter = {id(parameter) for parameter in model.model.adapter.parameters()}
    assert {id(parameter) for parameter in optimizer.param_groups[1]["params"]} == adapter


def test_the_log_card_and_counts_show_whether_the_history_is_used(finished_run):
    log = json.loads((finished_run / "model" / "training_log.json").read_text())
    measured = [entry for entry in log if "history_gap" in entry]
    steps, every = TINY["training"]["max_steps"], TINY["training"]["save_steps"]
    assert {entry["step"] for entry in measured} == {*range(every, steps + 1, every), steps}
    for entry in measured:
        assert entry["history_gap"] == pytest.approx(entry["shuffled_loss"] - entry["own_loss"])
        assert entry["history_gap_low"] <= entry["history_gap"] <= entry["history_gap_high"]
        assert entry["empty_loss"] > 0
    gap = json.loads((finished_run / "model" / "manifest.json").read_text())["counts"]["history_gap"]
    assert gap["mean"] == measured[-1]["history_gap"]
    card = (finished_run / "model" / "README.md").read_text()
    assert f"{gap['mean']:.3f} [{gap['low']:.3f}, {gap['high']:.3f}]" in card
    assert ("does not use the history" in card) == (gap["low"] <= 0)


def test_the_gap_compares_the_same_texts_after_three_histories(finished_run, processor, tmp_path):
    gap = history_gap(finished_run, processor, tmp_path, config())
    shown = {}
    for indices, batch in gap.batches:
        for index, ids, labels, mask in zip(
            indices, batch["input_ids"], batch["labels"], batch["history_mask"], strict=True
        ):
            shown[index] = labels[labels >= 0].tolist(), int(mask.sum())
            assert int((ids == processor.item_token_id).sum()) == int(mask.sum())
    kinds = [[shown[kind * gap.users + user] for user in range(gap.users)] for kind in range(3)]
    texts = [[text for text, _ in kind] for kind in kinds]
    assert texts[0] == texts[1] == texts[2]
    own, shuffled, empty = ([purchases for _, purchases in kind] for kind in kinds)
    assert sorted(own) == sorted(shuffled)
    assert own != shuffled
    assert not any(empty)


@pytest.mark.parametrize("history", ["empty", "shuffled"])
def test_a_control_without_a_history_of_its_own_is_not_measured(finished_run, processor, tmp_path, history):
    assert history_gap(finished_run, processor, tmp_path, config(history=history)) is None


@pytest.mark.parametrize(("low", "warns"), [(-0.1, True), (0.0, True), (0.01, False), (None, False)])
def test_an_interval_that_holds_0_is_a_warning_with_the_settings_to_try(caplog, low, warns):
    with caplog.at_level(logging.WARNING):
        warn_of_unused_history({"mean": 0.02, "low": low, "high": 0.2}, config())
    assert ("does not use the history" in caplog.text and "adapter_learning_rate" in caplog.text) == warns
