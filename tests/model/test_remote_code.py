"""The saved model loads where regen_hf is not installed: in a subprocess that cannot import it, with a fresh cache."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import regen_hf.model
from tests.tiny_model import CONTENT_DIM, fused, processor, purchase

PROGRAM = """
import sys
sys.modules["regen_hf"] = None
import json
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

source, history = json.loads(sys.argv[1])
for Auto in (AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor):
    try:
        Auto.from_pretrained(source, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise SystemExit(f"{Auto.__name__} ran code that was not trusted")

config = AutoConfig.from_pretrained(source, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True)
same = AutoModel.from_pretrained(source, trust_remote_code=True)
inputs = processor(history=history, task="long_user_summary")
tokens = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
with torch.no_grad():
    logits, again = (each(**inputs).logits[0, -1].tolist() for each in (model, same))
print(json.dumps({
    "classes": [type(each).__name__ for each in (config, processor, model, same)],
    "modules": [type(each).__module__.split(".")[0] for each in (config, processor, model, same)],
    "item_token_id": config.item_token_id,
    "logits": [logits, again],
    "texts": processor.batch_decode(tokens[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True),
    "effects": model.leave_one_out(torch.tensor([[20, 21], [22, 23]]), **inputs).tolist(),
    "shares": model.shares(**inputs).tolist(),
    "next": processor.recommend(history, n=2),
    "best": [row[0]["asin"] for row in model.pipeline(processor).recommend(history, n=2)],
    "tied": model.lm_head.weight is model.get_input_embeddings().weight,
}))
if len(sys.argv) > 2:
    model.save_pretrained(sys.argv[2])
    processor.save_pretrained(sys.argv[2])
"""
HISTORY = [[purchase("A"), purchase("unheard of")], []]


def run(tmp_path, source, save_to=None):
    """What PROGRAM prints, run in `tmp_path` with nothing of this process but the interpreter."""
    home = tmp_path / "fresh home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", PROGRAM, json.dumps([str(source), HISTORY])]
    call += [str(save_to)] if save_to else []
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with model and processor, and what this process makes of HISTORY with them."""
    folder = tmp_path_factory.mktemp("a model-v1.0")
    model = fused("llama_tied", adapter="mlp", item_dim=5)
    content = np.random.default_rng(2).normal(size=(4, CONTENT_DIM)).astype(np.float32)
    parts = processor(item_titles=["pens", "glue", None, "desk"], item_content=content)
    model.save_pretrained(folder)
    parts.save_pretrained(folder)
    inputs = parts(history=HISTORY, task="long_user_summary")
    tokens = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    texts = parts.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    looked_into = {
        "effects": model.leave_one_out(torch.tensor([[20, 21], [22, 23]]), **inputs).tolist(),
        "shares": model.shares(**inputs).tolist(),
        "best": [row[0]["asin"] for row in model.pipeline(parts).recommend(HISTORY, n=2)],
        "next": [[list(pair) for pair in pairs] for pairs in parts.recommend(HISTORY, n=2)],
    }
    with torch.no_grad():
        return folder, model(**inputs).logits[0, -1].tolist(), texts, looked_into


def check(result, logits, texts, looked_into):
    assert result["classes"] == ["RegenConfig", "RegenProcessor", "RegenForCausalLM", "RegenForCausalLM"]
    assert set(result["modules"]) == {"transformers_modules"}
    assert result["item_token_id"] == 3
    assert result["texts"] == texts
    assert result["tied"]
    for name in ("effects", "shares"):
        torch.testing.assert_close(*(torch.tensor(each[name]) for each in (result, looked_into)), rtol=1e-3, atol=1e-4)
    assert [[asin for asin, _ in pairs] for pairs in result["next"]] == [
        [asin for asin, _ in pairs] for pairs in looked_into["next"]
    ]
    assert result["best"] == looked_into["best"]
    for each in result["logits"]:
        assert each == pytest.approx(logits, rel=1e-4, abs=1e-5)


def test_a_folder_loads_and_generates_without_regen_hf_and_what_it_saves_does_too(saved, tmp_path):
    folder, *expected = saved
    check(run(tmp_path, folder, save_to=tmp_path / "again"), *expected)
    check(run(tmp_path, tmp_path / "again"), *expected)


def test_a_repository_of_the_hubs_cache_loads_and_generates_without_regen_hf(saved, tmp_path):
    folder, *expected = saved
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "fresh home" / "hub" / "models--org--regen-tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(folder, target_is_directory=True)
    check(run(tmp_path, "org/regen-tiny"), *expected)


def test_a_folder_holds_no_path_of_the_machine_it_was_saved_on(saved):
    folder, *_ = saved
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".py", ".md", ".jinja"}:
            assert str(folder) not in path.read_text(), path
            assert str(Path.home()) + "/" not in path.read_text(), path


def test_the_shipped_files_import_nothing_of_the_rest_of_the_package():
    for path in Path(regen_hf.model.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(from|import)\s+regen_hf", text, flags=re.MULTILINE), path
        assert not re.search(r"^\s*from\s+\.(\s|\.|\w+\.)", text, flags=re.MULTILINE), path


def test_importing_the_model_package_imports_no_heavy_library():
    program = "import sys, regen_hf.model; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_local_registration_needs_no_trust(saved):
    program = (
        "import sys; from regen_hf.model import register; register()\n"
        "from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor\n"
        "for Auto in (AutoModel, AutoModelForCausalLM, AutoProcessor):\n"
        "    print(type(Auto.from_pretrained(sys.argv[1])).__module__)"
    )
    call = [sys.executable, "-c", program, str(saved[0])]
    done = subprocess.run(call, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    model, processing = "regen_hf.model.modeling_regen", "regen_hf.model.processing_regen"
    assert done.stdout.split() == [model, model, processing]
