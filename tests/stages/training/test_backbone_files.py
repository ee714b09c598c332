"""Backbones and encoders whose files lack something or contain something else than expected."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from regen_hf.cli import main
from regen_hf.errors import ConfigError, InputError
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.load_pipeline import load
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.outputs import split_files
from regen_hf.stages.training.backbone import load_backbone, train_tokenizer
from regen_hf.stages.training.build import build
from regen_hf.stages.training.settings import TrainingConfig
from tests.conftest import TINY
from tests.tiny_model import ITEM, backbone, without

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT, by its old name


def config(**changes):
    return TrainingConfig(**{**TINY["training"], "max_steps": 2, **changes})


@pytest.fixture
def llama(finished_run, tmp_path):
    """A folder with a tiny language model of two layers and the tokenizer of the run."""
    tokenizer = train_tokenizer(split_files(finished_run / "dataset", "train"), config())
    folder = tmp_path / "lm"
    backbone("llama", vocab_size=len(tokenizer), max_position_embeddings=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(run, tmp_path, name="out", **changes):
    out, work = tmp_path / name, tmp_path / f"{name}.work"
    out.mkdir()
    build(run, out, work, config(**changes))
    return out


def refused(run, tmp_path, message, **changes):
    with pytest.raises(ConfigError, match=message):
        trained(run, tmp_path, **changes)


def test_a_backbone_that_lacks_weights_is_refused(finished_run, tmp_path, llama):
    without(llama / "model.safetensors", "layers.1.")
    refused(finished_run, tmp_path, r"lack 9 of the model's weights.*layers\.1\..*random", backbone=str(llama))


def test_a_backbone_whose_weights_have_another_shape_is_refused(finished_run, tmp_path, llama):
    values = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(values | {"intermediate_size": 40}))
    refused(finished_run, tmp_path, "could not be loaded", backbone=str(llama))


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_an_encoder_decoder_is_refused_before_its_decoder_is_loaded(finished_run, tmp_path, family):
    sizes = {"d_model": 16, "vocab_size": 600, "decoder_start_token_id": 0}
    sizes |= {"T5": {"num_layers": 1, "d_kv": 8, "d_ff": 16, "num_heads": 2}, "Bart": {"encoder_layers": 1}}[family]
    whole = getattr(transformers, f"{family}ForConditionalGeneration")
    folder = tmp_path / "seq2seq"
    whole(getattr(transformers, f"{family}Config")(**sizes)).save_pretrained(folder)
    refused(finished_run, tmp_path, f"{family.lower()} is an encoder-decoder model", backbone=str(folder))


def test_a_tokenizer_without_an_end_is_refused(finished_run, tmp_path, llama):
    values = json.loads((llama / "tokenizer_config.json").read_text())
    values.pop("eos_token")
    (llama / "tokenizer_config.json").write_text(json.dumps(values))
    refused(finished_run, tmp_path, "no token for the end of a text", backbone=str(llama))


def test_a_window_too_small_for_any_narrative_is_an_error(finished_run, tmp_path, llama):
    values = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 12}))
    with pytest.raises(InputError, match="no narrative to learn from that fits into the model's window of 12 tokens"):
        trained(finished_run, tmp_path, backbone=str(llama))


def test_training_keeps_to_the_window_of_the_tokenizer_as_the_processor_does(finished_run, tmp_path, llama, caplog):
    values = json.loads((llama / "tokenizer_config.json").read_text())
    (llama / "tokenizer_config.json").write_text(json.dumps(values | {"model_max_length": 40}))
    with caplog.at_level(logging.WARNING):
        trained(finished_run, tmp_path, backbone=str(llama))
    assert "fit into 40 tokens" in caplog.text or "window of 40 tokens" in caplog.text


def test_a_whole_bf16_backbone_learns_in_fp32_and_others_stay_as_they_are(finished_run, llama, caplog):
    transformers.AutoModelForCausalLM.from_pretrained(llama).to(torch.bfloat16).save_pretrained(llama)

    def dtype(**changes):
        return load_backbone([], config(backbone=str(llama), **changes))[1].dtype

    assert dtype() == torch.float32
    assert dtype(lora={"r": 2}) == dtype(freeze="backbone") == torch.bfloat16
    assert dtype(lora={"r": 2}, stages=({"freeze": "backbone"}, {"lora": None})) == torch.float32
    assert not caplog.records
    assert dtype(sft={"model_init_kwargs": {"dtype": "bfloat16"}}) == torch.bfloat16
    assert "rounds small steps away" in caplog.text


def test_a_whole_bf16_backbone_really_learns(finished_run, tmp_path, llama):
    bare = transformers.AutoModelForCausalLM.from_pretrained(llama).to(torch.bfloat16)
    bare.save_pretrained(llama)
    out = trained(finished_run, tmp_path, backbone=str(llama))
    weight = "model.language_model.layers.0.mlp.up_proj.weight"
    after = load_file(out / "model.safetensors")[weight]
    assert after.dtype == torch.float32
    moved = after != bare.model.layers[0].mlp.up_proj.weight.float()
    assert moved.float().mean() > 0.99  # most of it stays, bit for bit, where bf16 rounds the steps away


def test_a_backbone_that_cannot_write_after_a_soft_token_is_refused():
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96, "pad_token_id": 0}
    settings = transformers.Gemma4TextConfig(**sizes, vocab_size_per_layer_input=64, hidden_size_per_layer_input=8)
    language_model = transformers.AutoModelForCausalLM.from_config(settings)
    with pytest.raises(ValueError, match="Gemma4ForCausalLM cannot generate after a soft token"):
        RegenForCausalLM.from_backbone(language_model, RegenConfig(cf_dim=6, content_dim=10, item_token_id=ITEM))


def test_a_model_with_weights_that_its_config_has_no_place_for_does_not_load(finished_run, tmp_path):
    folder = Path(shutil.copytree(finished_run / "model", tmp_path / "model"))
    values = json.loads((folder / "config.json").read_text())
    values["text_config"] |= {"num_hidden_layers": 1, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"weights that the model of its config\.json does not have.*layers\.1\."):
        RegenForCausalLM.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # while torch looks at what it compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("changes", [{}, {"lora": {"r": 2}, "backbone": "lm"}], ids=["whole", "lora"])
def test_a_compiled_training_leaves_a_model_that_loads(finished_run, tmp_path, llama, changes):
    changes = changes | ({"backbone": str(llama)} if changes else {})
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}  # no compiler is needed for it
    changes |= {"num_layers": 1, "max_steps": 1, "length_groups": 1}  # each layer and each length is compiled
    out = trained(finished_run, tmp_path, sft=compiled, **changes)
    assert not [name for name in load_file(out / "model.safetensors") if "_orig_mod" in name]
    RegenForCausalLM.from_pretrained(out)


def test_a_tracker_that_is_not_installed_is_an_error(finished_run, tmp_path):
    refused(finished_run, tmp_path, r"requires comet-ml.* to be installed", sft={"report_to": "comet_ml"})


def test_the_model_folder_states_the_defaults(finished_run, tmp_path, llama):
    values = json.loads((finished_run / "model" / "training_config.json").read_text())
    assert (values["optimizer"], values["learning_rate"]) == ("muon", 0.015)
    assert values["sft"]["lr_scheduler_type"] == "cosine"
    stages = ({"freeze": "backbone"}, {"lora": {"r": 2}})
    out = trained(finished_run, tmp_path, backbone=str(llama), stages=stages, sft={"weight_decay": 0.0})
    values = json.loads((out / "training_config.json").read_text())
    assert [(stage["learning_rate"], stage["optimizer"]) for stage in values["stages"]] == [
        (1e-3, "adamw"),
        (2e-4, "adamw"),
    ]
    assert values["sft"]["weight_decay"] == 0.0


def test_a_missing_model_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match="There is no folder '/no/such/model'"):
        load("/no/such/model")


def test_the_quickstart_trains_for_less_and_can_be_told_otherwise(tmp_path, monkeypatch):
    from regen_hf.cli import commands
    from regen_hf.run import Run
    from regen_hf.stages.evaluation import summary

    monkeypatch.setattr(Run, "build_all", lambda run, until: steps.append(run.config["training"].max_steps))
    monkeypatch.setattr(summary, "summary", lambda folder: "")
    steps: list[int] = []
    folder = str(tmp_path / "run")
    assert main(["quickstart", folder]) == 0
    assert main(["quickstart", folder, "--set", "training.max_steps=70"]) == 0
    assert main(["quickstart", folder]) == 0  # the run folder remembers
    assert main(["quickstart", str(tmp_path / "other"), "--set", "training.max_steps=80"]) == 0
    assert steps == [commands.QUICKSTART_STEPS, 70, 70, 80]
    assert TrainingConfig().max_steps > commands.QUICKSTART_STEPS
