"""The code of the pages in docs/ runs as it stands, on a run called runs/office."""

import base64
import io
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from regen_hf.model import RegenForCausalLM, RegenProcessor
from regen_hf.model.export import export_vllm

PAGES = Path(__file__).parents[1] / "docs"


def code(page):
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def office(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished_run / "model", tmp_path / "runs" / "office" / "model"))


def test_the_page_on_using_a_model(office, capsys):
    blocks = code("use_a_model.md")
    names = {}
    processor = RegenProcessor.from_pretrained(office)
    known = processor.cf_asins[int(processor.cf_factors.any(1).argmax())]
    for block in blocks:
        exec(block.replace("B01", known), names)
    assert "['NEW']\n['NEW']\n" in capsys.readouterr().out
    assert RegenProcessor.from_pretrained(office).unknown_items(names["histories"]) == []
    soft, cf_part, content_part = names["soft"], names["cf_part"], names["content_part"]
    assert soft.shape == cf_part.shape == content_part.shape == (1, 1, 32)


def test_the_page_on_serving_sends_the_prompt_embeddings(office, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    # Remote code that another test has loaded came from another cache.
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    export_vllm(office, "runs/office/export/vllm")
    requests = []

    class Server:
        def __init__(self, **_):
            self.completions = self

        def create(self, **request):
            requests.append(request)
            choice = type("Choice", (), {"text": "A writer."})
            return type("Answer", (), {"choices": [choice]})

    monkeypatch.setattr("openai.OpenAI", Server)
    names = {}
    (block,) = code("serve_on_vllm.md")
    exec(block, names)
    assert capsys.readouterr().out.splitlines()[-1] == "A writer."
    (request,) = requests
    model = RegenForCausalLM.from_pretrained(office)
    sent = torch.load(io.BytesIO(base64.b64decode(request["extra_body"]["prompt_embeds"])), weights_only=True)
    expected = model.model.fused_embeddings(**names["inputs"])[0]
    torch.testing.assert_close(sent, expected.to(torch.bfloat16))
    assert request["logit_bias"] == {str(model.config.item_token_id): -100}
