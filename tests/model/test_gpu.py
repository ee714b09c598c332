"""What needs a CUDA device: quantised backbones and flash attention are passed through."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from tests.model.test_model import generate, history, prompts
from tests.tiny_model import CF_DIM, CONTENT_DIM, ITEM, backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
ARGUMENTS = {"cf_dim": CF_DIM, "content_dim": CONTENT_DIM, "item_token_id": ITEM, "adapter": "mlp"}
WIDE = {"hidden_size": 64, "intermediate_size": 64}


def on_gpu(inputs):
    return {name: value.to("cuda") for name, value in inputs.items()}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_backbone_is_wrapped_saved_and_loaded_and_the_adapter_stays_as_it_is(bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    quantization = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    backbone(**WIDE).save_pretrained(tmp_path / "bare")
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path / "bare", quantization_config=quantization, device_map="cuda"
    )
    model = RegenForCausalLM.from_backbone(quantised, RegenConfig(**ARGUMENTS))
    assert model.is_quantized
    inputs = on_gpu(prompts(3, 1) | history(3, 1))
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert model.model.adapter.projection[0].weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path / "fused")
    again = RegenForCausalLM.from_pretrained(tmp_path / "fused", device_map="cuda")
    full = RegenForCausalLM.from_backbone(backbone(**WIDE), RegenConfig(**ARGUMENTS))
    full.save_pretrained(tmp_path / "full")
    loaded = RegenForCausalLM.from_pretrained(tmp_path / "full", quantization_config=quantization, device_map="cuda")
    kinds = {
        type(layer.mlp.up_proj).__name__
        for each in (model, again, loaded)
        for layer in each.model.language_model.layers
    }
    assert kinds == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    for each in (model, again, loaded):
        assert {type(part) for part in each.model.adapter.projection} == {torch.nn.Linear, torch.nn.GELU}
        assert {parameter.dtype for parameter in each.model.adapter.parameters()} == {torch.float32}
        assert generate(each, inputs).shape == (2, 6)
    assert generate(again, inputs).tolist() == generate(model, inputs).tolist()


def test_flash_attention_agrees_with_eager(tmp_path):
    pytest.importorskip("flash_attn")
    RegenForCausalLM.from_backbone(backbone(dtype=torch.bfloat16), RegenConfig(**ARGUMENTS)).save_pretrained(tmp_path)
    inputs = on_gpu(prompts(3, 1) | history(3, 1))
    logits = []
    for attention in ("eager", "flash_attention_2"):
        model = RegenForCausalLM.from_pretrained(tmp_path, attn_implementation=attention, device_map="cuda")
        assert model.model.language_model.config._attn_implementation == attention
        logits.append(model(**inputs).logits[:, -1].float())
    torch.testing.assert_close(*logits, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", ["llama_tied", "gpt2", "gemma2", "gpt_neox"])
def test_a_cuda_device_gives_what_the_cpu_gives(family):
    model = RegenForCausalLM.from_backbone(backbone(family), RegenConfig(**ARGUMENTS))
    inputs = prompts(5, 0, 2) | history(5, 0, 2)
    expected, tokens = model(**inputs).logits, generate(model, inputs)
    model.to("cuda")
    torch.testing.assert_close(model(**on_gpu(inputs)).logits.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert generate(model, on_gpu(inputs)).cpu().tolist() == tokens.tolist()
