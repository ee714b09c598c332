"""Loading: nothing is printed, weights may be offloaded or quantised, PEFT adds its own to a loaded model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, QuantoConfig, TorchAoConfig

from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from tests.model.test_model import generate, history, prompts
from tests.tiny_model import CONTENT_DIM, backbone, fused, processor, tokenizer, without

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT, by its old name
INPUTS = prompts(3, 1) | history(3, 1)
HISTORY = [{"item": {"asin": "A", "title": "blue pens"}, "review": {"rating": 5}}]
LOCAL = """
import sys, regen_hf
for folder in sys.argv[1:]:
    regen = regen_hf.load(folder)
    regen.narrate(HISTORY, task="user_profile", max_new_tokens=5)
    "".join(regen.stream(HISTORY, task="user_profile", max_new_tokens=5))
    regen.processor.recommend(HISTORY, n=2)
"""
REMOTE = """
import sys
sys.modules["regen_hf"] = None
from transformers import AutoModelForCausalLM, AutoProcessor
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = processor(history=HISTORY, task="user_profile")
    tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    model.leave_one_out(tokens[:, inputs["input_ids"].shape[1] :], **inputs)
    processor.recommend(HISTORY, n=2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose encoder is a transformer, which transformers loads too."""
    folder = tmp_path_factory.mktemp("model")
    bert = BertConfig(
        vocab_size=64, hidden_size=CONTENT_DIM, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(bert).save_pretrained(folder / "bert")
    tokenizer(model_max_length=64).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(CONTENT_DIM)]
    fused().save_pretrained(folder)
    processor(content_encoder=SentenceTransformer(modules=modules, device="cpu")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter_folder(folder, tmp_path_factory):
    """The same model in adapter form."""
    form = Path(shutil.copytree(folder, tmp_path_factory.mktemp("adapter") / "model"))
    without(form / "model.safetensors", "model.adapter.")
    lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["adapter"], init_lora_weights=False)
    get_peft_model(fused(), lora).save_pretrained(form / "lora")
    return form


@pytest.mark.parametrize("program", [LOCAL, REMOTE], ids=["regen_hf.load", "remote code"])
def test_loading_and_generating_print_nothing(program, folder, adapter_folder, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", f"HISTORY = {HISTORY!r}\n{program}", str(folder), str(adapter_folder)],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(params=["folder", "adapter_folder"])
def form(request):
    """Both forms of a model."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("share", [0.6, 0.9, 0.999, 2])
def test_a_part_of_the_weights_may_stay_on_disk(form, share, tmp_path):
    expected = RegenForCausalLM.from_pretrained(form)
    memory = int(share * sum(parameter.nbytes for parameter in expected.parameters()))
    model = RegenForCausalLM.from_pretrained(
        form, device_map="auto", max_memory={"cpu": memory}, offload_folder=tmp_path
    )
    devices = getattr(model, "hf_device_map", {"": "cpu"})  # no map where everything is on one device
    assert set(devices.values()) == ({"cpu", "disk"} if share < 1 else {"cpu"})
    torch.testing.assert_close(model(**INPUTS).logits, expected(**INPUTS).logits)
    assert generate(model, INPUTS).tolist() == generate(expected, INPUTS).tolist()


@pytest.mark.parametrize("library", ["torchao", "quanto"])
def test_a_model_is_quantised_when_it_is_loaded(form, library):
    """Not on CI: it runs where these libraries are installed."""
    pytest.importorskip({"quanto": "optimum.quanto"}.get(library, library))
    if library == "quanto":
        quantization = QuantoConfig(weights="int8")
    else:
        from torchao.quantization import Int8WeightOnlyConfig

        quantization = TorchAoConfig(Int8WeightOnlyConfig())
    expected = RegenForCausalLM.from_pretrained(form)(**INPUTS).logits
    model = RegenForCausalLM.from_pretrained(form, quantization_config=quantization)
    assert type(model.model.language_model.layers[0].mlp.up_proj.weight) is not torch.nn.Parameter
    assert {type(parameter) for parameter in model.model.adapter.parameters()} == {torch.nn.Parameter}
    assert (model(**INPUTS).logits - expected).norm() < 0.1 * expected.norm()
    assert generate(model, INPUTS).shape == (2, 6)


def test_peft_adds_the_weights_beside_a_model_to_a_new_one(adapter_folder):
    model = RegenForCausalLM.from_backbone(backbone(), RegenConfig.from_pretrained(adapter_folder))
    trained = PeftModel.from_pretrained(model, adapter_folder / "lora")
    expected = RegenForCausalLM.from_pretrained(adapter_folder)(**INPUTS).logits
    torch.testing.assert_close(trained(**INPUTS).logits, expected)
    with trained.disable_adapter():
        assert not torch.allclose(trained(**INPUTS).logits, expected, atol=1e-2)


@pytest.mark.parametrize("part", ["fused model", "language model"])
def test_lora_weights_of_a_fused_model_and_of_its_language_model_are_added_to_a_loaded_one(form, part, tmp_path):
    def chosen(model):
        return model if part == "fused model" else model.to_backbone()  # shares the modules of the model

    lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    models = [RegenForCausalLM.from_pretrained(form) for _ in range(3)]
    get_peft_model(chosen(models[1]), lora).save_pretrained(tmp_path / "lora")
    added = PeftModel.from_pretrained(chosen(models[2]), tmp_path / "lora")
    before, trained, loaded = (model(**INPUTS).logits for model in models)
    torch.testing.assert_close(loaded, trained)
    assert not torch.allclose(loaded, before, atol=1e-2)
    assert generate(models[2], INPUTS).tolist() == generate(models[1], INPUTS).tolist()
    added.merge_and_unload()
    models[2].save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        RegenForCausalLM.from_pretrained(tmp_path / "merged")(**INPUTS).logits, trained, rtol=1e-4, atol=1e-4
    )
