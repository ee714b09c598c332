"""The backend vllm: its settings, its error where it is missing, and answers of a tiny model where it is installed."""

from importlib.util import find_spec

import pytest

from regen_hf import llm
from regen_hf.errors import RegenError
from regen_hf.llm.vllm import VllmModel
from tests.llm.test_llm_local import Purchase, save_tiny_llama


def settings(**changes):
    return llm.LLMConfig(**{"backend": "vllm", "model": "m", "max_tokens": 60} | changes)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_error_has_the_command_to_install_it():
    with pytest.raises(RegenError, match="environment of its own, with: pip install vllm regen-hf"):
        settings().check_packages()
    with pytest.raises(RegenError, match="'vllm' is not installed"):
        VllmModel("m")


def test_top_p_is_supported_and_extra_body_is_not():
    assert settings(top_p=0.9).top_p == 0.9
    with pytest.raises(ValueError, match="extra_body is set, but the vllm backend does not support it"):
        settings(extra_body={"top_k": 3})


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed; it needs an environment of its own")
def test_a_tiny_model_gives_answers_of_the_schema(tmp_path):
    model = save_tiny_llama(tmp_path / "m")
    config = settings(model=model, window=4000)
    asked = [llm.Request.of(config, ({"role": "user", "content": f"{n}"},), Purchase) for n in range(3)]
    with llm.Store(tmp_path / "requests.sqlite") as store:
        llm.ask(lambda: asked, config, store, 3, "test")
        assert all(store.get(one.key).text.startswith("{") for one in asked)
