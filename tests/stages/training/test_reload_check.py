"""What is saved is what loads: a fresh process compares the logits of the saved model with those in memory."""

import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, FalconH1Config, FalconH1ForCausalLM, LlamaConfig, LlamaForCausalLM

from regen_hf.errors import RunError
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.stages.training import phases, reload_check
from regen_hf.stages.training.build import build
from regen_hf.stages.training.settings import TrainingConfig
from tests.conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT 0.21
SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 0},
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32, "mamba_d_state": 8, "mamba_n_groups": 1}


@pytest.fixture
def new_process(monkeypatch, finished_run):
    """The check starts a new interpreter, as it does for users, and not a fork."""
    monkeypatch.setattr(reload_check, "subprocess", subprocess)


@pytest.fixture
def train(finished_run, tmp_path):
    """Train for two steps, on a new language model of `config` if one is given."""

    def do(backbone=None, dtype=torch.float32, **changes):
        if backbone:
            tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
            backbone.vocab_size = len(tokenizer)
            kind = {"llama": LlamaForCausalLM, "falcon_h1": FalconH1ForCausalLM}[backbone.model_type]
            kind(backbone).to(dtype).save_pretrained(tmp_path / "backbone")
            tokenizer.save_pretrained(tmp_path / "backbone")
            changes["backbone"] = str(tmp_path / "backbone")
        settings = {**TINY["training"], "max_steps": 2, "sft": {"report_to": "none"}} | changes
        for folder in (tmp_path / "out", tmp_path / "work"):
            folder.mkdir(exist_ok=True)
        build(finished_run, tmp_path / "out", tmp_path / "work", TrainingConfig(**settings))
        return tmp_path / "out"

    return do


def test_a_family_with_buffers_that_are_not_saved_trains_and_loads(train, new_process):
    folder = train(FalconH1Config(**SIZES, **MAMBA, head_dim=16))
    assert not (folder / "trained_logits.safetensors").exists()
    model = RegenForCausalLM.from_pretrained(folder)
    assert model.model.language_model.layers[0].mamba.mup_vector.eq(1).all()


@pytest.mark.parametrize("merge", [True, False])
def test_a_lora_training_of_a_half_precision_backbone_keeps_its_adapter_in_float32(train, merge):
    folder = train(LlamaConfig(**SIZES), torch.bfloat16, lora={"r": 2}, merge=merge)
    assert (folder / "lora").exists() != merge
    model = RegenForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    adapter = model.model.adapter.state_dict()
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    assert not torch.equal(adapter["content_matrix"], adapter["content_matrix"].bfloat16().float())


def test_saved_weights_that_differ_from_the_trained_ones_are_an_error_and_are_kept(
    train, new_process, tmp_path, monkeypatch
):
    def damage(trainer, model, folder, *settings):
        save(trainer, model, folder, *settings)
        file = folder / "model.safetensors"
        weights = load_file(file)
        weights["model.language_model.norm.weight"] *= 2
        save_file(weights, file, metadata={"format": "pt"})

    save = phases.save
    monkeypatch.setattr(phases, "save", damage)
    message = r"computes other logits: .* These tensors differ: model\.language_model\.norm\.weight\. The weights are"
    with pytest.raises(RunError, match=message):
        train()
    monkeypatch.undo()
    assert (tmp_path / "work" / "stage-0" / "model.safetensors").exists()
    with pytest.raises(RunError, match=message):  # the training is not repeated
        train()


def test_a_folder_that_does_not_load_is_an_error(train, new_process, monkeypatch):
    def damage(trainer, model, folder, *settings):
        save(trainer, model, folder, *settings)
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    save = phases.save
    monkeypatch.setattr(phases, "save", damage)
    with pytest.raises(RunError, match=r"a fresh process cannot load it: .*safetensors"):
        train()


def test_a_training_that_diverges_is_an_error(train):
    with pytest.raises(RunError, match="NaN or infinite, so the training diverged"):
        train(learning_rate=1e38, optimizer="adamw", warmup_ratio=0)
