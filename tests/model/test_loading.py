"""Loading and generating print nothing: in fresh interpreters, with the local classes and with remote code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from tests.tiny_model import CONTENT_DIM, fused, processor, tokenizer, without

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
    lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["adapter"])
    get_peft_model(fused(), lora).save_pretrained(form / "lora")
    return form


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of `get_peft_model` above
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
