"""Tiny parts made in process: language models of several families, a tokenizer, a sentence encoder, a processor."""

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

CF_DIM, CONTENT_DIM, VOCABULARY = 6, 10, 64
PAD, BOS, EOS, ITEM = 0, 1, 2, 3
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "initializer_range": 0.2,  # large, so that logits differ by much where they differ
}
GQA = COMMON | {"num_key_value_heads": 2}
FAMILIES = {
    "llama": ("LlamaConfig", GQA),
    "llama_tied": ("LlamaConfig", GQA | {"tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", {**COMMON, "n_inner": 48}),
    "qwen3": ("Qwen3Config", GQA | {"head_dim": 8}),
    "gemma2": ("Gemma2Config", GQA | {"head_dim": 8, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", GQA | {"head_dim": 8}),
    "gpt_neox": ("GPTNeoXConfig", COMMON),
    "opt": ("OPTConfig", {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16}),  # embeddings narrower than the model
    "phi": ("PhiConfig", GQA),  # a bias in the head
    "granite": ("GraniteConfig", GQA | {"logits_scaling": 8.0}),
    "cohere": ("CohereConfig", GQA | {"logit_scale": 0.25}),
}

WORDS = "pens paper glue soft bright cheap blue red desk gift the a this customer likes good fine 5 of rating price"
TASKS = {"long_user_summary": "this customer likes", "product_endorsement": "this gift", "user_profile": "customer"}


def backbone(family="llama", **changes):
    name, arguments = FAMILIES[family]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(getattr(transformers, name)(**{**arguments, **changes})).eval()


def fused(family="llama", **arguments):
    language_model = backbone(family)
    torch.manual_seed(1)
    arguments = {"cf_dim": CF_DIM, "content_dim": CONTENT_DIM, "item_token_id": ITEM} | arguments
    whitening = {name: arguments.pop(name) for name in ("content_mean", "content_matrix") if name in arguments}
    model = RegenForCausalLM.from_backbone(language_model, RegenConfig(**arguments), **whitening)
    with torch.no_grad():
        for parameter in model.model.adapter.parameters():
            parameter.normal_(std=0.5)
    if "content_mean" not in whitening:
        dim = arguments["content_dim"]
        model.model.adapter.whiten(0.2 * torch.randn(dim), torch.eye(dim) + 0.2 * torch.randn(dim, dim))
    return model


def tokenizer(**arguments):
    words = ["<pad>", "<s>", "</s>", "<|item|>", "<unk>", "\n", *WORDS.split()]
    words += [f"w{number}" for number in range(VOCABULARY - len(words))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|item|>"],
        **arguments,
    )


def encoder():
    weights = np.random.default_rng(0).normal(size=(VOCABULARY, CONTENT_DIM)).astype(np.float32)
    embedding = StaticEmbedding(tokenizer().backend_tokenizer, embedding_weights=weights)
    return SentenceTransformer(modules=[embedding], device="cpu")


def processor(**arguments):
    factors = np.random.default_rng(1).normal(size=(4, CF_DIM)).astype(np.float32)
    parts = {
        "tokenizer": tokenizer(),
        "cf_asins": ["A", "B", "C", "D"],
        "cf_factors": factors,
        "content_encoder": encoder(),
        "task_prompts": TASKS,
        "metadata_only_tasks": ["product_endorsement"],
    }
    return RegenProcessor(**parts | arguments)


def purchase(asin, title="blue pens", text="good pens"):
    item = {"asin": asin, "title": title, "category": "desk", "description": None, "price": 2.5}
    return {"item": item, "review": {"summary": "fine", "rating": 5, "text": text, "unix_time": 1}}


def without(file, part):
    """Remove the weights whose names contain `part` from a file."""
    kept = {name: value for name, value in load_file(file).items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})
