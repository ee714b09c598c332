"""Every causal language model of transformers: it is wrapped, saved and loaded again, or refused with a reason."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from regen_hf.model.backbones import check_backbone
from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from tests.paths import ROOT

FAMILIES = {architecture: family for family, architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}.values()
SIZES = {
    **{"vocab_size": 64, "hidden_size": 32, "d_model": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 96},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2, "is_decoder": True},
    # mixtures of experts
    **{"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16},
    **{"n_routed_experts": 4, "num_experts": 4, "num_local_experts": 4, "moe_num_experts": 4},
    **{"num_experts_per_tok": 2, "moe_k": 2, "n_group": 1, "topk_group": 1},
    # latent and sparse attention
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    **{"index_head_dim": 16, "index_n_heads": 2, "index_topk": 8, "rotary_dim": 8},
    # decoders of encoder-decoder models
    **{"decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "decoder_layers": 2, "encoder_layers": 1},
    **{"decoder_attention_heads": 2, "encoder_attention_heads": 2, "ffn_dim": 48},
    # linear attention and state spaces
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    **{"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_chunk_size": 8, "mamba_d_ssm": 64},
    **{"mamba_n_groups": 1, "state_size": 8, "n_groups": 1, "chunk_size": 8},
}
BYTES = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2},
}
VISION = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 16},
}
LINEAR, FULL, HYBRID = "linear_attention", "full_attention", "hybrid"
MORE = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        **dict.fromkeys(("patcher_config", "encoder_config"), BYTES),
        **{"decoder_config": BYTES | {"hidden_size_global": 64}, "global_config": BYTES | {"hidden_size": 64}},
        "encoder_hash_byte_group_vocab": 16,
    },
    "codegen": {"num_attention_heads": 4},
    "cohere_compass_text": {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 1e4}}},
    "cpmant": {"dim_ff": 48, "dim_head": 16},
    "ctrl": {"dff": 48},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48},
    },
    "deepseek_v4": {"o_groups": 2, "o_lora_rank": 8, "head_dim": 16},
    "dots1": {"n_shared_experts": 1},
    "electra": {"embedding_size": 32},
    "gemma3n_text": {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
    "gemma4_text": {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8},
    "git": {"vision_config": VISION},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": [LINEAR, FULL]},
    "inkling_text": {"swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_head_dim": 16},
    "inkling2_text": {"swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": [LINEAR, FULL], "linear_head_dim": 8, "linear_num_heads": 2},
    "lfm2_moe": {"layer_types": ["conv", FULL], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", FULL]},
    "longcat_flash": {
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 16,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "head_dim": 8,
    },
    "mamba2": {"num_heads": 4},
    "mimo_v2_flash": {"num_attention_heads": 4, "head_dim": 48},
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "moe_shared_expert_intermediate_size": 16,
    },
    "phi4_multimodal": {
        "vision_config": VISION | {"crop_size": 32},
        "audio_config": {
            **{"hidden_size": 32, "intermediate_size": 48, "num_blocks": 1, "num_attention_heads": 2},
            **{"nemo_conv_channels": 8, "ext_pw_out_channel": 32},
        },
    },
    "prophetnet": {"num_decoder_layers": 2},
    "qwen3_5_moe_text": {"layer_types": [LINEAR, FULL]},
    "qwen3_5_text": {"layer_types": [LINEAR, FULL]},
    "qwen3_next": {"layer_types": [LINEAR, FULL]},
    "qwen4_exp_text": {
        "layer_types": [LINEAR, FULL],
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roc_bert": {
        "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": 64,
        "pronunciation_vocab_size": 64,
    },
    "xlnet": {"d_head": 16},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": [LINEAR, HYBRID] * 2},
    "zamba2": {"layers_block_type": [LINEAR, HYBRID], "n_mamba_heads": 2},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
REFUSED = {
    "has no cache of keys and values": (
        "bart bigbird_pegasus blenderbot blenderbot-small falcon_mamba mamba mamba2 marian mbart mvp openai-gpt "
        "pegasus plbart prophetnet reformer rwkv trocr whisper xlm xlnet xlstm"
    ),
    "its forward does more than base model, head, scale and cap": (
        "bert big_bird camembert data2vec-text electra ernie inkling_text megatron-bert modernbert-decoder rembert "
        "roberta roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl"
    ),
    "is not a plain causal language model": (
        "fuyu gemma3 gemma4 gemma4_unified got_ocr2 llama4_text mllama moss_transcribe_diarize"
    ),
    "cannot be run on embeddings instead of token ids": "blt cpmant deepseek_v4 recurrent_gemma",
    "cannot be run on plain text: Input language unknown": "xmod",
    "cannot generate after a soft token": "gemma4_text minimax",
    "could not be loaded again": "emu3",
}
NOT_BUILT = {
    "gemma3n": "needs the package timm",
    "gemma4_assistant": "drafts tokens from the keys and values of another model",
    "gemma4_unified_assistant": "drafts tokens from the keys and values of another model",
    "musicgen": "AutoModelForCausalLM cannot create it from its configuration",
    "musicgen_melody": "AutoModelForCausalLM cannot create it from its configuration",
}
INPUTS = {
    "input_ids": torch.tensor([[0, 0, 1, 3, 10, 11, 12], [1, 3, 3, 3, 15, 16, 17]]),
    "history_cf": torch.linspace(-1, 1, 24).reshape(2, 3, 4),
    "history_content": torch.linspace(1, -2, 30).reshape(2, 3, 5),
    "history_mask": torch.tensor([[True, False, False], [True, True, True]]),
}
INPUTS["attention_mask"] = (INPUTS["input_ids"] != 0).long()
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from transformers.utils import logging
from regen_hf.model.modeling_regen import RegenForCausalLM

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)

def load(folder, **arguments):
    # With this setting torch fills memory that nothing initialises with NaN.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        return RegenForCausalLM.from_pretrained(folder, **arguments)
    finally:
        torch.use_deterministic_algorithms(False)

inputs = load_file(sys.argv[1])
differences = {}
for folder in sorted(Path(sys.argv[1]).parent.glob("*/")):
    expected = load_file(folder / "logits.st")["logits"]
    try:
        for arguments in ({}, {"device_map": "cpu"}):
            with torch.no_grad():
                logits = load(folder, **arguments)(**inputs).logits
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        half = load(folder, dtype=torch.bfloat16)
        tensors = {**half.state_dict(), **dict(half.named_buffers())}
        assert not [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.isnan().any()]
        assert {tensor.dtype for tensor in half.model.adapter.state_dict().values()} == {torch.float32}
    except Exception as error:
        differences[folder.name] = f"{type(error).__name__}: {error}"
print(json.dumps(differences))
"""


def tiny(family):
    """A configuration of `family` with small sizes."""
    kind = CONFIG_MAPPING[family]
    known = {field.name for field in dataclasses.fields(kind)} | kind.attribute_map.keys()
    return kind(**{name: size for name, size in SIZES.items() if name in known} | MORE.get(family, {}))


def fused(family):
    """A fused model of `family`."""
    with torch.device("meta"):
        check_backbone(AutoModelForCausalLM.from_config(tiny(family)), 3)  # before the memory of a large one is needed
    torch.manual_seed(0)
    backbone = AutoModelForCausalLM.from_config(tiny(family)).eval()
    return RegenForCausalLM.from_backbone(backbone, RegenConfig(cf_dim=4, content_dim=5, item_token_id=3))


@pytest.fixture
def quiet():
    """No log of transformers: each family has messages of its own."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the families
def test_every_family_loads_as_it_was_saved_or_is_refused(quiet, tmp_path):
    refused = {}
    for family in sorted(set(FAMILIES) - NOT_BUILT.keys()):
        try:
            model = fused(family)
        except ValueError as error:
            refused[family] = str(error)
            continue
        with torch.no_grad():
            logits = model(**INPUTS).logits
            ids = INPUTS["input_ids"][1:, 4:]
            torch.testing.assert_close(model.to_backbone()(input_ids=ids).logits, model(input_ids=ids).logits)
        assert logits[INPUTS["attention_mask"].bool()].isfinite().all(), family
        model.save_pretrained(tmp_path / family)
        save_file({"logits": logits}, tmp_path / family / "logits.st")
    expected = {family: reason for reason, families in REFUSED.items() for family in families.split()}
    assert refused.keys() == expected.keys(), {name: refused.get(name) for name in refused.keys() ^ expected.keys()}
    wrong = {name: message for name, message in refused.items() if expected[name] not in message}
    assert not wrong
    save_file(INPUTS, tmp_path / "inputs.st")
    call = [sys.executable, "-c", PROGRAM, str(tmp_path / "inputs.st")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}
