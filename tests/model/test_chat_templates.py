"""Chat templates of several kinds: the prompt, and the token that ends a turn."""

import pytest

from tests.tiny_model import processor, tokenizer

LOOP = "{% for m in messages %}"
END = "{% endfor %}{% if add_generation_prompt %}"
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    + LOOP
    + "<|im_start|>"
    "{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n" + END + "<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}"
    + LOOP
    + "<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    + END
    + "<|start|>"
    "assistant<|stop|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + LOOP
    + "<turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    + END
    + "<turn>model\n"
    "{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + LOOP + "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %}"
    " {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start|>",
    "<|stop|>",
    "<|eot_id|>",
    "<turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
]
KINDS = {
    "chatml": (
        CHATML,
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "llama": (LLAMA, "<s><|start|>user<|stop|>\n\n", "<|start|>assistant<|stop|>\n\n", "<|eot_id|>"),
    "gemma": (GEMMA, "<s><turn>user\n", "<turn>model\n", "<end_of_turn>"),
    "mistral": (MISTRAL, "<s>[INST] ", " [/INST]", "</s>"),
    "base": (None, "<|item|><|item|>this", "gift\n", "</s>"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_are_those_of_the_template(kind):
    template, begin, ask, end = KINDS[kind]
    words = tokenizer(chat_template=template)
    words.add_tokens(SPECIAL, special_tokens=True)
    parts = processor(tokenizer=words)
    prompt = parts.prompt_text(2, task="product_endorsement")
    assert prompt.startswith(begin)
    assert prompt.endswith(ask)
    assert prompt.count("<|item|><|item|>this gift") == 1
    ids = parts.tokenize_completion("good pens")
    assert words.convert_ids_to_tokens(ids) == ["good", "pens", end]
