"""`regen export --to vllm`: bare model and encoder, where regen_hf is not installed, say what the model says."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from regen_hf.cli import main
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.export import export_vllm, prompt_encoder
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.model.prompt_encoder import RegenPromptEncoder
from regen_hf.outputs import rows, split_files
from tests.tiny_model import FAMILIES, fused, processor, purchase

CHOSEN = {"llama_tied": "mlp", "gpt2": "transformer", "gemma3": "linear", "opt": "linear"}
HISTORIES = [[purchase("A"), purchase("unheard of")], [], [purchase("C")] * 4]
PROGRAM = """
import json
import sys
sys.modules["regen_hf"] = None
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

folders, histories, task = json.loads(sys.argv[1])
found = []
for folder in folders:
    processor = AutoProcessor.from_pretrained(folder + "/encoder", trust_remote_code=True)
    encoder = AutoModel.from_pretrained(folder + "/encoder", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder + "/backbone")
    backbone, info = AutoModelForCausalLM.from_pretrained(folder + "/backbone", output_loading_info=True)
    assert not any(info.values()), info
    assert type(backbone).__module__.startswith("transformers."), type(backbone)
    assert len(tokenizer) <= backbone.get_input_embeddings().num_embeddings
    inputs = processor(history=histories, task=task)
    written = []
    for embeddings in encoder(**inputs):
        tokens = backbone.generate(
            inputs_embeds=embeddings[None],
            attention_mask=torch.ones(1, len(embeddings)),
            max_new_tokens=8,
            do_sample=False,
        )
        written.append(tokens[0].tolist())
    found.append([written, tokenizer.convert_tokens_to_ids(processor.item_token)])
print(json.dumps(found))
"""


def elsewhere(tmp_path, folders, histories, task):
    """What PROGRAM prints, in a process that cannot import regen_hf and has caches of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", PROGRAM, json.dumps([list(map(str, folders)), histories, task])]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def written(model, parts, histories, task):
    """The tokens that the trained model writes, each history on its own and without padding after the end."""
    found = []
    for history in histories:
        inputs = parts(history, task)
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        found.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    return found


def test_backbone_and_encoder_write_the_tokens_of_the_model_without_this_package(tmp_path):
    parts = processor(interaction_features=["rating"])
    expected = []
    for family, adapter in CHOSEN.items():
        model = fused(family, adapter=adapter, interaction_features=["rating"])
        model.save_pretrained(tmp_path / family / "model")
        parts.save_pretrained(tmp_path / family / "model")
        export_vllm(tmp_path / family / "model", tmp_path / family / "export")
        expected.append([written(model, parts, HISTORIES, "long_user_summary"), parts.item_token_id])
    folders = [tmp_path / family / "export" for family in CHOSEN]
    found = elsewhere(tmp_path, folders, HISTORIES, "long_user_summary")
    assert found == expected
    assert len({str(tokens) for of_one, _ in found for tokens in of_one}) > len(CHOSEN)


def test_an_encoder_that_lacks_a_weight_does_not_load(tmp_path):
    prompt_encoder(fused()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["adapter.content_matrix"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights.*: adapter.content_matrix"):
        RegenPromptEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_apart_and_together_again(family):
    model = fused(family)
    with torch.no_grad():
        model.lm_head.weight += 0.1  # trained, as it were; a tied table with it
    again = RegenForCausalLM.from_backbone(model.to_backbone(), RegenConfig(cf_dim=2, content_dim=2, item_token_id=3))
    inputs = processor()([[]], "long_user_summary")
    names = ("input_ids", "attention_mask")
    plain = {name: inputs[name] for name in names}
    torch.testing.assert_close(again(**plain).logits, model(**plain).logits)
    assert not any(parameter.is_meta for parameter in model.to_backbone().parameters())


def test_the_command_exports_the_model_of_a_run_and_again_after_it_was_trained_again(tiny_run, tmp_path, capsys):
    # In a process of its own: in this one, other tests have made the classes known.
    call = [sys.executable, "-m", "regen_hf.cli", "export", str(tiny_run), "--to", "vllm"]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2, "it asks whether to run the code in the model's folder"
    assert main(["export", str(tiny_run), "--to", "vllm"]) == 0
    out = tiny_run / "export" / "vllm"
    assert capsys.readouterr().out.splitlines()[-2:] == [str(out / "backbone"), str(out / "encoder")]
    assert {path.name for path in out.iterdir()} == {"backbone", "encoder", "serving.json"}
    model, parts = (each.from_pretrained(tiny_run / "model") for each in (RegenForCausalLM, RegenProcessor))
    about = json.loads((out / "serving.json").read_text())
    assert about == {"item_token": "<|item|>", "item_token_id": parts.item_token_id, "max_model_len": 1024}
    histories = [row["purchase_history"] for row in rows(split_files(tiny_run / "dataset", "test"), limit=2)]
    found = elsewhere(tmp_path, [out], histories, "user_profile")
    assert found[0][0] == written(model, parts, histories, "user_profile")
    assert not list(out.rglob("*.bin")) + list(out.rglob("*.pkl"))
    sizes = {part: (out / part / "model.safetensors").stat().st_size for part in ("encoder", "backbone")}
    assert sizes["encoder"] < sizes["backbone"]


def test_what_cannot_be_exported_is_told(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), "--to", "vllm"]) == 1
    assert "contains no trained model. Run `regen train" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="no earlier export"):
        export_vllm(tmp_path / "model", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
