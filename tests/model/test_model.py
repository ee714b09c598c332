"""The fused model: what reaches the language model, what is refused, what generation does with it."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertGenerationConfig,
    BertGenerationDecoder,
    GenerationConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from regen_hf.model.configuration_regen import RegenConfig
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.stages.training.settings import TrainingConfig
from tests.tiny_model import BOS, CF_DIM, CONTENT_DIM, EOS, FAMILIES, ITEM, PAD, VOCABULARY, backbone, fused

family = pytest.mark.parametrize("family", FAMILIES)


def history(*lengths, seed=0):
    """Random vectors for rows of these many purchases."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(1, *lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return {
        "history_cf": torch.randn(*shape, CF_DIM, generator=generator),
        "history_content": torch.randn(*shape, CONTENT_DIM, generator=generator),
        "history_mask": mask,
    }


def prompts(*lengths, side="left", seed=0):
    """Prompts with these many placeholders and seven words, padded on one side, with their own positions."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(10, VOCABULARY, (len(lengths), 7), generator=generator)
    rows = [[BOS] + [ITEM] * length + row.tolist() for length, row in zip(lengths, words, strict=True)]
    width = max(map(len, rows))
    pad = [[PAD] * (width - len(row)) for row in rows]
    rows = [p + row if side == "left" else row + p for p, row in zip(pad, rows, strict=True)]
    input_ids = torch.tensor(rows)
    mask = (input_ids != PAD).long()
    return {"input_ids": input_ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def row(inputs, index):
    """One row of a batch without its padding."""
    real = inputs["attention_mask"][index].bool()
    tokens = {name: inputs[name][index : index + 1][:, real] for name in ("input_ids", "attention_mask")}
    n = max(1, int(inputs["history_mask"][index].sum()))
    names = ("history_cf", "history_content", "history_mask")
    return tokens | {name: inputs[name][index : index + 1, :n] for name in names}


def generate(model, inputs, **arguments):
    inputs = {name: value for name, value in inputs.items() if name != "position_ids"}
    arguments = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False} | arguments
    start = inputs["input_ids"].shape[1]
    return model.generate(**inputs, **arguments)[:, start:]


@family
def test_logits_on_plain_text_are_the_bare_models(family):
    inputs = prompts(0, 0)
    torch.testing.assert_close(fused(family)(**inputs).logits, backbone(family)(**inputs).logits)


@family
def test_a_saved_model_reloads_with_the_same_logits_and_no_missing_keys(family, tmp_path):
    model = fused(family)
    inputs = prompts(3, 1) | history(3, 1)
    model.save_pretrained(tmp_path)
    again, info = RegenForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    tied = again.lm_head.weight is again.get_input_embeddings().weight
    assert tied == again.config.tie_word_embeddings


@family
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_uneven_histories_equals_its_rows_one_by_one(family, side):
    model = fused(family)
    batch = prompts(0, 1, 5, 50, side=side) | history(0, 1, 5, 50)
    together = model(**batch).logits
    for index in range(4):
        alone = model(**row(batch, index)).logits[0]
        real = batch["attention_mask"][index].bool()
        torch.testing.assert_close(together[index][real], alone, rtol=1e-4, atol=1e-4)


@family
def test_greedy_decoding_is_the_same_with_and_without_a_cache(family):
    model = fused(family)
    inputs = prompts(4, 2) | history(4, 2)
    assert generate(model, inputs).tolist() == generate(model, inputs, use_cache=False).tolist()


@pytest.mark.parametrize("n_columns", [0, 1, 3])
def test_an_empty_history_gives_the_prompts_own_logits(n_columns):
    inputs = prompts(0, 0)
    empty = {
        "history_cf": torch.zeros(2, n_columns, CF_DIM),
        "history_content": torch.zeros(2, n_columns, CONTENT_DIM),
        "history_mask": torch.zeros(2, n_columns, dtype=torch.bool),
    }
    torch.testing.assert_close(fused()(**inputs, **empty).logits, backbone()(**inputs).logits)


def test_masked_rows_are_not_read():
    model, inputs = fused(), prompts(2)
    given = history(4)
    given["history_mask"] = torch.tensor([[False, True, False, True]])
    picked = {name: value[:, [1, 3]] for name, value in given.items()}
    torch.testing.assert_close(model(**inputs, **given).logits, model(**inputs, **picked).logits)


def test_placeholders_and_purchases_must_be_as_many_in_each_row():
    with pytest.raises(ValueError, match=r"\[3, 1\] placeholder tokens .* \[2, 2\] purchases"):
        fused()(**prompts(3, 1), **history(2, 2))


def test_a_prompt_with_placeholders_is_refused_without_a_history():
    model, inputs = fused(), prompts(3)
    with pytest.raises(ValueError, match=r"3 placeholder tokens .* no history"):
        model(**inputs, labels=inputs["input_ids"])
    with pytest.raises(ValueError, match="no history"):
        generate(model, inputs)


def test_a_history_is_refused_without_placeholders():
    model, inputs = fused(), prompts(0) | history(2)
    with pytest.raises(ValueError, match=r"\[0\] placeholder tokens .* \[2\] purchases"):
        model(**inputs)
    with pytest.raises(ValueError, match=r"\[0\] placeholder tokens .* \[2\] purchases"):
        generate(model, inputs)
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(ValueError, match="passed with inputs_embeds"):
        model(inputs_embeds=embeddings, **history(2))


def test_a_history_is_refused_without_its_mask_or_a_half_the_model_reads_or_with_another_width():
    model, inputs, given = fused(), prompts(2), history(2)
    with pytest.raises(ValueError, match="history_mask is None"):
        model(**inputs, history_cf=given["history_cf"], history_content=given["history_content"])
    with pytest.raises(ValueError, match=r"history_content is None.* this model reads history_content"):
        model(**inputs, history_cf=given["history_cf"], history_mask=given["history_mask"])
    with pytest.raises(ValueError, match=r"history_cf has the shape \(1, 2, 5\), expected \(batch, history, 6\)"):
        model(**inputs, **given | {"history_cf": given["history_cf"][..., :5]})


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"do_sample": True}, {"use_cache": False}])
def test_the_placeholder_is_never_generated(how, tmp_path):
    model, inputs = fused(), prompts(2) | history(2)
    with torch.no_grad():
        model.lm_head.weight[ITEM] = 50 * model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    assert model(**inputs).logits[0, -1].argmax() == ITEM
    assert ITEM not in generate(model, inputs, **how)
    model.save_pretrained(tmp_path)
    again = RegenForCausalLM.from_pretrained(tmp_path)
    again.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)  # whatever a user sets
    assert again(**inputs).logits[0, -1].argmax() == ITEM
    assert ITEM not in generate(again, inputs, **how)
    assert again.to_backbone().generation_config.suppress_tokens == [ITEM]


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"do_sample": True, "top_p": 0.9}, {"prompt_lookup_num_tokens": 2}]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error_of_generation_and_attribution(how, value):
    model, inputs = fused(), prompts(2) | history(2)
    with torch.no_grad():
        model.lm_head.weight[7] = value
    with pytest.raises(FloatingPointError, match="logits contain NaN or infinity"):
        generate(model, inputs, **how)
    with pytest.raises(FloatingPointError, match="logits contain NaN or infinity"):
        model.leave_one_out(torch.tensor([[20, 21]]), **{n: v for n, v in inputs.items() if n != "position_ids"})


def test_a_lookup_in_the_prompt_guesses_no_placeholder():
    model = fused()
    inputs = prompts(3) | history(3)
    inputs["input_ids"][0, -1] = BOS  # at the beginning, placeholders follow it
    assert generate(model, inputs, prompt_lookup_num_tokens=5).tolist() == generate(model, inputs).tolist()


def test_the_fused_embeddings_generate_what_the_history_generates():
    model, inputs = fused(), prompts(3, 1) | history(3, 1)
    names = ("input_ids", "history_cf", "history_content", "history_mask")
    embeddings = model.model.fused_embeddings(**{name: inputs[name] for name in names})
    plain = model.generate(
        inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], max_new_tokens=6, min_new_tokens=6
    )
    assert plain.tolist() == generate(model, inputs).tolist()


def test_generation_continues_from_a_cache_that_holds_the_history():
    model, inputs = fused(), prompts(3) | history(3)
    first = model.generate(
        **{name: value for name, value in inputs.items() if name != "position_ids"},
        max_new_tokens=3,
        min_new_tokens=3,
        return_dict_in_generate=True,
    )
    mask = torch.ones_like(first.sequences)
    rest = {name: inputs[name] for name in ("history_cf", "history_content", "history_mask")}
    more = model.generate(
        first.sequences,
        attention_mask=mask,
        past_key_values=first.past_key_values,
        max_new_tokens=3,
        min_new_tokens=3,
        **rest,
    )
    assert more[:, -6:].tolist() == generate(model, inputs).tolist()


@family
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_of_a_batch_are_the_beams_of_its_rows(family, use_cache):
    model = fused(family)
    batch = prompts(0, 1, 5) | history(0, 1, 5)
    arguments = {"num_beams": 3, "num_return_sequences": 2, "use_cache": use_cache}
    together = generate(model, batch, **arguments)
    assert together.shape == (6, 6)
    for index in range(3):
        alone = generate(model, row(batch, index), **arguments)
        assert together[2 * index : 2 * index + 2].tolist() == alone.tolist()


@family
def test_sampling_returns_several_sequences_per_history(family):
    model = fused(family)
    batch = prompts(2, 4) | history(2, 4)
    torch.manual_seed(0)
    sampled = generate(model, batch, do_sample=True, num_return_sequences=3)
    greedy = generate(model, batch, do_sample=True, top_k=1, num_return_sequences=3)
    assert sampled.shape == (6, 6)
    assert len({tuple(tokens) for tokens in sampled.tolist()}) > 2
    assert greedy.tolist() == generate(model, batch).repeat_interleave(3, dim=0).tolist()


@family
def test_a_static_cache_generates_what_a_growing_one_does(family):
    model = fused(family)
    batch = prompts(4, 0, 2) | history(4, 0, 2)
    assert generate(model, batch, cache_implementation="static").tolist() == generate(model, batch).tolist()


def test_drafts_of_tokens_change_no_token():
    """One history: transformers drafts for a single sequence only."""
    model, small = fused(), fused()
    batch = prompts(4) | history(4)
    expected = generate(model, batch).tolist()
    assert generate(model, batch, prompt_lookup_num_tokens=3).tolist() == expected
    assert generate(model, batch, assistant_model=small).tolist() == expected


def test_the_config_states_the_size_of_the_language_model():
    config = fused().config
    inner = config.get_text_config()
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        assert getattr(config, name) == getattr(inner, name)
        assert name not in config.to_dict()


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # while torch looks at what it compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_computes_the_same():
    model = fused()
    batch = prompts(3, 1) | history(3, 1)
    torch.testing.assert_close(torch.compile(model, backend="eager")(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("adapter", ["linear", "mlp", "transformer"])
def test_the_gradient_reaches_every_parameter_of_the_adapter(adapter):
    model = fused(adapter=adapter).train()
    inputs = prompts(3, 1) | history(3, 1)
    model(**inputs, labels=inputs["input_ids"].where(inputs["input_ids"] > ITEM, -100)).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.model.adapter.parameters())


def test_a_batch_of_empty_histories_gives_the_adapter_a_gradient_of_zero_not_none():
    model = fused().train()
    inputs = prompts(0, 0) | history(0, 0)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(parameter.grad is not None for parameter in model.model.adapter.parameters())


@family
def test_gradient_checkpointing_gives_the_same_gradients(family):
    inputs = prompts(3, 1) | history(3, 1)
    gradients = []
    for checkpointing in (False, True):
        model = fused(family).train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        torch.manual_seed(0)  # some families drop out
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert any("adapter" in name for name in gradients[0])
    torch.testing.assert_close(*gradients)


def test_the_loss_of_two_halves_adds_up_to_the_loss_of_the_whole():
    model = fused()
    batch = prompts(4, 1) | history(4, 1)
    labels = batch["input_ids"].where(batch["input_ids"] > ITEM, -100)
    labels[1, :-2] = -100  # the halves have unequal numbers of labels
    n_labels = (labels[:, 1:] != -100).sum()
    batch["labels"] = labels
    rows = [{name: value[half] for name, value in batch.items()} for half in (slice(0, 1), slice(1, 2))]
    halves = [model(**row, num_items_in_batch=n_labels).loss for row in rows]
    torch.testing.assert_close(halves[0] + halves[1], model(**batch).loss)


def test_the_order_of_the_history_matters():
    model, inputs, given = fused(), prompts(3), history(3)
    turned = {name: value.flip(1) for name, value in given.items()}
    assert not torch.allclose(model(**inputs, **given).logits, model(**inputs, **turned).logits, atol=1e-2)


def test_a_cold_item_is_flagged_and_not_a_vector_near_zero():
    model, given = fused(), history(2)
    cold, nearly = (torch.full_like(given["history_cf"], value) for value in (0.0, 1e-6))
    mask = given["history_mask"]
    difference = (
        model.soft_tokens(nearly, given["history_content"], mask)[0]
        - model.soft_tokens(cold, given["history_content"], mask)[0]
    )
    flag = model.model.adapter.projection.weight[:, CF_DIM]
    torch.testing.assert_close(difference, flag.expand_as(difference), rtol=1e-3, atol=1e-4)


def test_cf_vectors_are_divided_by_the_mean_norm_and_content_is_normalised():
    given = history(2)
    plain, scaled = fused(), fused(cf_mean_norm=4.0)
    scaled_up = given | {"history_cf": 4 * given["history_cf"], "history_content": 7 * given["history_content"]}
    torch.testing.assert_close(scaled.soft_tokens(**scaled_up)[0], plain.soft_tokens(**given)[0])


def test_the_parts_of_a_linear_adapter_add_up_to_the_soft_token():
    model, given = fused(recency=0), history(3, 1)
    soft, cf_part, content_part = model.soft_tokens(**given)
    bias = model.model.adapter.projection.bias * given["history_mask"][..., None]
    torch.testing.assert_close(cf_part + content_part + bias, soft)
    assert soft[1, 1:].abs().sum() == 0
    for other in ("mlp", "transformer"):
        assert fused(adapter=other).soft_tokens(**given)[1:] == (None, None)
    assert fused(embedding_mode="cf").soft_tokens(**given)[2] is None


@pytest.mark.parametrize(("mode", "dropped"), [("cf", "history_content"), ("content", "history_cf")])
def test_an_embedding_mode_ignores_the_other_half(mode, dropped):
    model, inputs, given = fused(embedding_mode=mode), prompts(3), history(3)
    kept = "history_cf" if dropped == "history_content" else "history_content"
    logits = model(**inputs, **given).logits
    assert torch.equal(model(**inputs, **given | {dropped: None}).logits, logits)
    assert torch.equal(model(**inputs, **given | {dropped: 2 + given[dropped]}).logits, logits)
    assert not torch.allclose(model(**inputs, **given | {kept: given[kept].flip(-1)}).logits, logits, atol=1e-2)


def test_logits_to_keep_keeps_the_last_positions():
    model, inputs = fused(), prompts(3, 1) | history(3, 1)
    whole = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, whole[:, -2:])
    torch.testing.assert_close(model(**inputs, logits_to_keep=torch.tensor([0, 4])).logits, whole[:, [0, 4]])


def test_base_model_and_head_give_the_logits_as_trl_computes_them():
    model, inputs = fused(), prompts(3, 1) | history(3, 1)
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    torch.testing.assert_close(model.get_output_embeddings()(hidden), model(**inputs).logits)


@family
def test_eager_and_sdpa_attention_agree(family, tmp_path):
    fused(family).save_pretrained(tmp_path)
    inputs = prompts(3, 1) | history(3, 1)
    if not type(backbone(family))._supports_sdpa:  # gemma2: its attention has a soft cap
        with pytest.raises(ValueError, match="does not support"):
            RegenForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa")
        return
    logits = []
    for attention in ("eager", "sdpa"):
        model = RegenForCausalLM.from_pretrained(tmp_path, attn_implementation=attention)
        assert model.model.language_model.config._attn_implementation == attention
        logits.append(model(**inputs).logits[:, -1])
    torch.testing.assert_close(*logits)


@family
def test_the_vocabulary_can_be_resized(family, tmp_path):
    model, inputs = fused(family), prompts(2) | history(2)
    before = model(**inputs).logits
    model.resize_token_embeddings(VOCABULARY + 5, mean_resizing=False)
    assert model.lm_head.weight.shape[0] == model.config.text_config.vocab_size == VOCABULARY + 5
    torch.testing.assert_close(model(**inputs).logits[..., :VOCABULARY], before)
    model.save_pretrained(tmp_path)
    again = RegenForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_a_resized_backbone_keeps_its_weights():
    language_model = backbone()
    language_model.resize_token_embeddings(VOCABULARY + 1, mean_resizing=False)
    weights = copy.deepcopy(language_model.state_dict())
    model = RegenForCausalLM.from_backbone(
        language_model, RegenConfig(cf_dim=2, content_dim=2, item_token_id=VOCABULARY)
    )
    torch.testing.assert_close(model.model.language_model.embed_tokens.weight, weights["model.embed_tokens.weight"])
    torch.testing.assert_close(model.lm_head.weight, weights["lm_head.weight"])


@family
def test_a_bf16_backbone_keeps_its_dtype_and_the_adapter_stays_in_fp32(family, tmp_path):
    language_model = backbone(family, dtype=torch.bfloat16)
    arguments = {"cf_dim": CF_DIM, "content_dim": CONTENT_DIM, "item_token_id": ITEM}
    model = RegenForCausalLM.from_backbone(language_model, RegenConfig(**arguments))
    model.save_pretrained(tmp_path)
    again = RegenForCausalLM.from_pretrained(tmp_path)
    inputs = prompts(2) | history(2)
    for each in (model, again):
        assert each.dtype == each.lm_head.weight.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in each.model.adapter.parameters()} == {torch.float32}
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_half_precision_vectors_from_the_store_are_read():
    model, inputs, given = fused(), prompts(3), history(3)
    half = {name: value if value.dtype == torch.bool else value.half() for name, value in given.items()}
    torch.testing.assert_close(model(**inputs, **half).logits, model(**inputs, **given).logits, rtol=0.1, atol=0.1)


def test_the_backbones_generation_settings_are_kept():
    language_model = backbone()
    language_model.generation_config.suppress_tokens = [7]
    language_model.generation_config.eos_token_id = [EOS, 9]
    model = RegenForCausalLM.from_backbone(language_model, RegenConfig(cf_dim=2, content_dim=2, item_token_id=ITEM))
    assert model.generation_config.suppress_tokens == [7]
    bare = model.to_backbone()
    assert bare.generation_config.suppress_tokens == [ITEM, 7]
    again = RegenForCausalLM.from_backbone(bare, RegenConfig(cf_dim=2, content_dim=2, item_token_id=ITEM))
    assert again.generation_config.suppress_tokens == [7]
    assert model.generation_config.eos_token_id == [EOS, 9]


def test_language_models_that_cannot_be_wrapped_are_refused_with_a_sentence():
    arguments = {"cf_dim": 2, "content_dim": 2, "item_token_id": ITEM}
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8))
    with pytest.raises(ValueError, match="encoder-decoder"):
        RegenForCausalLM.from_backbone(t5, RegenConfig(**arguments))
    with pytest.raises(ValueError, match="not a plain causal language model"):
        RegenForCausalLM.from_backbone(backbone().base_model, RegenConfig(**arguments))
    with pytest.raises(ValueError, match="expected a causal language model"):
        RegenForCausalLM.from_backbone(torch.nn.Linear(2, 2), RegenConfig(**arguments))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(ValueError, match="state space"):
        RegenForCausalLM.from_backbone(mamba, RegenConfig(**arguments))
    without = backbone()
    without.set_input_embeddings(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no table of token embeddings for soft tokens"):
        RegenForCausalLM.from_backbone(without, RegenConfig(**arguments))
    with pytest.raises(ValueError, match="64 token embeddings: call resize_token_embeddings"):
        RegenForCausalLM.from_backbone(backbone(), RegenConfig(**arguments | {"item_token_id": 64}))


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_language_model_that_reads_later_tokens_is_refused(is_decoder):
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    settings = BertGenerationConfig(**sizes, num_attention_heads=2, is_decoder=is_decoder, initializer_range=0.2)
    arguments = {"cf_dim": 2, "content_dim": 2, "item_token_id": ITEM}
    language_model = BertGenerationDecoder(settings)
    if is_decoder:
        RegenForCausalLM.from_backbone(language_model, RegenConfig(**arguments))
        return
    with pytest.raises(ValueError, match=r"logits of BertGenerationDecoder depend on later tokens.* set is_decoder"):
        RegenForCausalLM.from_backbone(language_model, RegenConfig(**arguments))


def test_a_language_model_whose_forward_does_more_is_refused():
    language_model = backbone()
    original = language_model.forward

    def louder(*arguments, **keywords):
        outputs = original(*arguments, **keywords)
        outputs.logits = 3 * outputs.logits
        return outputs

    language_model.forward = louder
    with pytest.raises(ValueError, match="logits differ from those of LlamaForCausalLM"):
        RegenForCausalLM.from_backbone(language_model, RegenConfig(cf_dim=2, content_dim=2, item_token_id=ITEM))


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding_mode": "all"},
        {"adapter": "none"},
        {"cf_dim": 0},
        {"cf_mean_norm": 0.0},
        {"cf_mean_norm": float("nan")},
        {"cf_dropout": 1.0},
        {"adapter_layers": 0},
        {"recency": -1},
        {"interaction_features": ["price"]},
        {"interaction_features": ["age", "age"]},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(Exception, match=next(iter(wrong))):
        RegenConfig(**wrong)


def test_a_model_without_a_placeholder_is_refused():
    with pytest.raises(ValueError, match="item_token_id is None"):
        RegenForCausalLM(RegenConfig(text_config=backbone().config))


def test_a_weight_that_the_files_lack_or_hold_in_another_shape_is_an_error(tmp_path):
    fused().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    bias = weights.pop("model.adapter.projection.bias")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights.* model\.adapter\.projection\.bias"):
        RegenForCausalLM.from_pretrained(tmp_path)
    save_file(
        weights | {"model.adapter.projection.bias": bias[:5].clone()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    for arguments in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(ValueError, match=r"another shape.* model\.adapter\.projection\.bias"):
            RegenForCausalLM.from_pretrained(tmp_path, **arguments)


def test_no_path_of_the_machine_is_saved(tmp_path):
    backbone().save_pretrained(tmp_path / "bare")
    arguments = {"cf_dim": 2, "content_dim": 2, "item_token_id": ITEM}
    causal_lm = LlamaForCausalLM.from_pretrained(tmp_path / "bare")
    assert causal_lm.config._name_or_path == str(tmp_path / "bare")
    model = RegenForCausalLM.from_backbone(causal_lm, RegenConfig(**arguments))
    for folder in ("first", "second"):
        model.save_pretrained(tmp_path / folder)
        for path in (tmp_path / folder).glob("*.json"):
            assert str(tmp_path) not in path.read_text(), path
        model = RegenForCausalLM.from_pretrained(tmp_path / folder)
    causal_lm.config._name_or_path = "org/name"  # a name on the Hub says what the backbone was
    assert RegenConfig(text_config=causal_lm.config).to_dict()["text_config"]["_name_or_path"] == "org/name"


def test_settings_of_the_training_have_the_defaults_of_the_configuration():
    config, settings = RegenConfig(), TrainingConfig()
    for name in ("adapter", "embedding_mode", "recency", "cf_dropout"):
        assert getattr(settings, name) == getattr(config, name)
    assert list(settings.interaction_features) == config.interaction_features


def test_from_backbone_takes_the_language_models_configuration_and_leaves_its_argument_unchanged():
    config, language_model = RegenConfig(cf_dim=2, content_dim=2, item_token_id=ITEM), backbone("llama_tied")
    before = config.to_dict()
    model = RegenForCausalLM.from_backbone(language_model, config)
    assert config.to_dict() == before
    assert model.config.text_config is language_model.config
    assert model.config.tie_word_embeddings
