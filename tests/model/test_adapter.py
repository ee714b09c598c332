"""The prefix encoder: its three kinds, the features beside the embeddings, and cold items."""

import pytest
import torch

from regen_hf.model.modeling_regen import RegenForCausalLM
from tests.model.test_model import history, prompts, row
from tests.tiny_model import BOS, CF_DIM, CONTENT_DIM, ITEM, fused

kinds = pytest.mark.parametrize("adapter", ["linear", "mlp", "transformer"])


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_uneven_histories_equals_its_rows_one_by_one(adapter, side):
    model = fused(adapter=adapter)
    batch = prompts(0, 1, 5, 50, side=side) | history(0, 1, 5, 50)
    together = model(**batch).logits
    for index in range(4):
        real = batch["attention_mask"][index].bool()
        alone = model(**row(batch, index)).logits[0]
        torch.testing.assert_close(together[index][real], alone, rtol=1e-4, atol=1e-4)


@kinds
def test_inference_mode_and_autocast_change_nothing_but_rounding(adapter):
    model, batch = fused(adapter=adapter), prompts(3, 0, 1) | history(3, 0, 1)
    logits = model(**batch).logits
    with torch.inference_mode():
        torch.testing.assert_close(model(**batch).logits, logits, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(**batch).logits.float()
    assert torch.cosine_similarity(rounded.flatten(), logits.flatten(), dim=0) > 0.99


@kinds
def test_a_saved_adapter_reloads_with_no_missing_key(adapter, tmp_path):
    changes = {"adapter": adapter, "adapter_hidden_size": 20, "adapter_layers": 3, "interaction_features": ["age"]}
    model = fused(**changes, cf_dropout=0.5)
    model.save_pretrained(tmp_path)
    again, info = RegenForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = prompts(2, 1) | history(2, 1) | {"history_features": torch.rand(2, 2, 1)}
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    assert again.config.interaction_features == ["age"]
    assert again.config.cf_dropout == 0.5


@kinds
def test_rows_without_a_history_give_finite_logits_and_gradients(adapter):
    model = fused(adapter=adapter).train()
    batch = prompts(3, 0, 0) | history(3, 0, 0)
    outputs = model(**batch, labels=batch["input_ids"].where(batch["input_ids"] > ITEM, -100))
    outputs.loss.backward()
    assert outputs.logits.isfinite().all()
    for name, parameter in model.model.adapter.named_parameters():
        assert parameter.grad.isfinite().all(), name
    empty = prompts(0, 0) | history(0, 0)
    torch.testing.assert_close(model.eval()(**empty).logits, fused()(**prompts(0, 0)).logits)


@kinds
def test_content_is_whitened_inside_the_model_and_the_arrays_are_saved_with_it(adapter, tmp_path):
    given = history(3)
    content = torch.nn.functional.normalize(given["history_content"], dim=-1)
    mean, matrix = content.mean((0, 1)), torch.rand(CONTENT_DIM, CONTENT_DIM)
    model = fused(adapter=adapter, content_mean=mean.numpy(), content_matrix=matrix)
    white = torch.nn.functional.normalize((content - mean) @ matrix, dim=-1)
    torch.testing.assert_close(
        model.model.adapter.fuse(given["history_cf"], 7 * content)[..., -CONTENT_DIM:], white * CONTENT_DIM**0.5
    )
    nothing = torch.zeros_like(content)
    assert not model.model.adapter.fuse(given["history_cf"], nothing)[..., -CONTENT_DIM:].any()
    plain = fused(adapter=adapter, content_mean=None)  # leaves the vectors as they are
    arrays = {name: value for name, value in plain.state_dict().items() if "adapter.content_" in name}
    plain.load_state_dict({**model.state_dict(), **arrays})
    shown = plain.soft_tokens(given["history_cf"], white, given["history_mask"])[0]
    torch.testing.assert_close(model.soft_tokens(**given)[0], shown)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(RegenForCausalLM.from_pretrained(tmp_path).soft_tokens(**given)[0], shown)
    with pytest.raises(ValueError, match=r"content_matrix has the shape \(1,\), expected"):
        fused(content_mean=None, content_matrix=[0.5])
    with pytest.raises(ValueError, match="content_mean contains NaN or infinity"):
        fused(content_mean=[float("nan")] * CONTENT_DIM)


def test_the_transformer_knows_the_place_of_each_purchase_counted_from_the_latest():
    model = fused(adapter="transformer")
    given = history(3)
    same = {name: value[:, :1].expand_as(value).clone() for name, value in given.items()}  # one purchase three times
    soft = model.soft_tokens(**same)[0][0]
    assert not torch.allclose(soft[0], soft[1], atol=1e-2)
    three, two = ({name: value[:, :n] for name, value in given.items()} for n in (3, 2))
    before = [model.soft_tokens(**each)[0] for each in (three, two)]
    with torch.no_grad():
        model.model.adapter.projection.positions.weight[2] *= -1  # the place of the last but two
    after = [model.soft_tokens(**each)[0] for each in (three, two)]
    assert not torch.allclose(before[0], after[0], atol=1e-2)
    torch.testing.assert_close(before[1], after[1])


def test_the_transformer_does_not_read_masked_rows():
    model, given = fused(adapter="transformer"), history(4)
    given["history_mask"] = torch.tensor([[False, True, False, True]])
    picked = {name: value[:, [1, 3]] for name, value in given.items()}
    torch.testing.assert_close(model.soft_tokens(**given)[0][:, [1, 3]], model.soft_tokens(**picked)[0])


def test_the_transformer_reads_the_other_purchases():
    model, given = fused(adapter="transformer"), history(3)
    other = given | {"history_cf": given["history_cf"].clone()}
    other["history_cf"][0, 0] += 1
    first, second = (model.soft_tokens(**each)[0][0, 2] for each in (given, other))
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_transformer_refuses_more_purchases_than_it_has_places_for():
    with pytest.raises(ValueError, match=r"has 4 purchases, expected at most 3 \(max_history\)"):
        fused(adapter="transformer", max_history=3)(**prompts(4), **history(4))


def test_recency_marks_the_latest_purchases_and_leaves_the_older_ones_alike():
    given = history(5, 2)
    same = {name: value[:, :1].expand_as(value).clone() for name, value in given.items()}  # one purchase, repeated
    same["history_mask"] = given["history_mask"]
    soft = fused(recency=3).soft_tokens(**same)[0]
    torch.testing.assert_close(soft[0, 0], soft[0, 2])  # the third latest and all before share a vector
    for one, other in ((2, 3), (3, 4)):
        assert not torch.allclose(soft[0, one], soft[0, other], atol=1e-2)
    torch.testing.assert_close(soft[1, :2] - soft[1, 1], soft[0, 3:] - soft[0, 4])  # counted from each row's latest
    plain = fused(recency=0)
    assert plain.model.adapter.recency is None
    torch.testing.assert_close(plain.soft_tokens(**same)[0][0, 0], plain.soft_tokens(**same)[0][0, 4])


def test_a_cache_that_ends_inside_a_history_is_refused_where_its_soft_tokens_depend_on_each_other():
    inputs = prompts(3) | history(3)
    names = ("history_cf", "history_content", "history_mask")
    for adapter, recency in (("linear", 0), ("linear", 8), ("transformer", 0)):
        model = fused(adapter=adapter, recency=recency)
        first = {name: inputs[name][:, :1] for name in names}
        cache = model(input_ids=inputs["input_ids"][:, :2], **first).past_key_values
        rest = {name: value for name, value in inputs.items() if name != "position_ids"}
        arguments = {"past_key_values": cache, "max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        if (adapter, recency) == ("linear", 0):
            plain = model.generate(**rest, **arguments | {"past_key_values": None})
            assert model.generate(**rest, **arguments).tolist() == plain.tolist()
        else:
            with pytest.raises(ValueError, match="cache ends within a history"):
                model.generate(**rest, **arguments)


@kinds
def test_rating_and_age_are_read_where_asked_for_and_may_be_unknown(adapter):
    model = fused(adapter=adapter, interaction_features=["rating", "age"])
    inputs = prompts(2) | history(2)
    with pytest.raises(ValueError, match="history_features is None"):
        model(**inputs)
    unknown = float("nan")
    logits = []
    for features in ([[5.0, 30.0], [3.0, 0.0]], [[1.0, 30.0], [3.0, 0.0]], [[5.0, 300.0], [3.0, 0.0]]):
        logits.append(model(**inputs, history_features=torch.tensor([features])).logits)
    for features in ([[unknown, 30.0], [3.0, 0.0]], [[5.0, unknown], [3.0, 0.0]]):
        logits.append(model(**inputs, history_features=torch.tensor([features])).logits)
    assert all(each.isfinite().all() for each in logits)
    for number, one in enumerate(logits):
        for other in logits[number + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_a_model_without_features_ignores_them():
    inputs = prompts(2) | history(2)
    logits = fused()(**inputs, history_features=torch.rand(1, 2, 2)).logits
    torch.testing.assert_close(logits, fused()(**inputs).logits)


def test_cf_dropout_hides_cf_in_training_alone_and_never_all_there_is():
    model, given = fused(cf_dropout=0.5), history(*[40] * 20)
    cold = given | {"history_cf": torch.zeros_like(given["history_cf"])}
    kept, without = model.soft_tokens(**given)[0], model.soft_tokens(**cold)[0]
    model.train()
    torch.manual_seed(0)
    soft = model.soft_tokens(**given)[0]
    hidden, shown = ((soft - each).abs().sum(-1) < 1e-3 for each in (without, kept))
    assert (hidden ^ shown).all()
    assert 0.6 < hidden.float().mean() < 0.9  # half of the histories, and half of the purchases of the others
    assert hidden.all(1).any()
    assert shown.any()
    alone = fused(cf_dropout=0.5, embedding_mode="cf")
    before = alone.soft_tokens(**given)[0]
    torch.testing.assert_close(alone.train().soft_tokens(**given)[0], before)


def taught(cf_dropout):
    """Loss with all items warm and with all cold, after learning to name a customer's kind from either half."""
    kinds = 6
    generator = torch.Generator().manual_seed(0)
    codes = [torch.nn.functional.normalize(torch.randn(kinds, d, generator=generator)) for d in (CF_DIM, CONTENT_DIM)]

    def batch(size):
        kind = torch.randint(kinds, (size,), generator=generator)
        cf, content = (
            code[kind][:, None] + noise * torch.randn(size, 3, code.shape[1], generator=generator)
            for code, noise in zip(codes, (0.1, 0.5), strict=True)
        )
        tokens = torch.tensor([[BOS, ITEM, ITEM, ITEM, 20]]).expand(size, 5)
        input_ids = torch.cat([tokens, 30 + kind[:, None]], dim=1)
        labels = input_ids.clone()
        labels[:, :5] = -100
        mask = torch.ones(size, 3, dtype=torch.bool)
        return {
            "input_ids": input_ids,
            "labels": labels,
            "history_cf": cf,
            "history_content": content,
            "history_mask": mask,
        }

    model = fused(cf_dropout=cf_dropout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    torch.manual_seed(2)
    for _ in range(120):
        model(**batch(32)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    warm = batch(256)
    with torch.no_grad():
        model.eval()
        return tuple(
            float(model(**each).loss) for each in (warm, warm | {"history_cf": torch.zeros_like(warm["history_cf"])})
        )


def test_with_cf_dropout_a_cold_catalogue_loses_little():
    warm, cold = taught(0.0)
    warm_dropped, cold_dropped = taught(0.3)
    assert warm < 0.2
    assert warm_dropped < 0.3
    assert cold > 4 * cold_dropped
