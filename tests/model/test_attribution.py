"""What an interaction does to a narrative's likelihood, and the shares of CF and content in a soft token."""

import pytest
import torch

from tests.tiny_model import EOS, FAMILIES, fused, processor, purchase

TASK = "long_user_summary"
HISTORIES = [
    [purchase("A"), purchase("B", title="red desk", text="bad glue"), purchase("unheard of", text="soft")],
    [],
    [purchase("D", title="bright paper")],
    [purchase(asin, text=f"w{40 + n}") for n, asin in enumerate("ABCD")],
]
NARRATIVES = torch.tensor(
    [[20, 21, 22, 23, 24], [30, 31, 32, -100, -100], [25, EOS, 26, 27, 28], [26, 27, 28, 29, EOS]]
)


def log_likelihood(model, history, narrative, task=TASK):
    """Token by token, with a loop that knows nothing of batches."""
    ids = [token for token in narrative.tolist() if token >= 0]
    if EOS in ids:
        ids = ids[: ids.index(EOS) + 1]
    inputs = dict(processor()(history, task))
    total = 0.0
    for token in ids:
        with torch.no_grad():
            total += model(**inputs).logits[0, -1].float().log_softmax(-1)[token].item()
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_the_effect_is_what_the_likelihood_loses_when_the_purchase_was_not_made(family):
    model = fused(family, recency=2)
    effects = model.leave_one_out(NARRATIVES, batch_size=3, **processor()(HISTORIES, TASK))
    assert effects.shape == (4, 4)
    for row, history in enumerate(HISTORIES):
        whole = log_likelihood(model, history, NARRATIVES[row])
        for place in range(4):
            if place >= len(history):
                assert effects[row, place] == 0
                continue
            without = log_likelihood(model, history[:place] + history[place + 1 :], NARRATIVES[row])
            assert effects[row, place].item() == pytest.approx(whole - without, abs=2e-4)
    assert effects[0].abs().max() > 0.01


@pytest.mark.parametrize("adapter", ["mlp", "transformer"])
def test_the_effects_do_not_depend_on_the_batch_or_on_training_mode(adapter):
    model = fused(adapter=adapter, embedding_mode="both", cf_dropout=0.5)
    inputs = processor()(HISTORIES, TASK)
    expected = model.eval().leave_one_out(NARRATIVES, batch_size=100, **inputs)
    for batch_size in (1, 4):
        torch.testing.assert_close(model.leave_one_out(NARRATIVES, batch_size=batch_size, **inputs), expected)
    torch.testing.assert_close(model.train().leave_one_out(NARRATIVES, **inputs), expected)
    assert model.training
    alone = model.leave_one_out(NARRATIVES[2:3], **processor()([HISTORIES[2]], TASK))
    torch.testing.assert_close(alone, expected[2:3, :1])


def test_what_the_model_generates_goes_in_as_it_is():
    model, inputs = fused(), processor()(HISTORIES, TASK)
    tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert model.leave_one_out(tokens, **inputs).isfinite().all()


def test_a_withheld_review_changes_no_effect():
    model = fused()
    other = [*HISTORIES[0][:-1], purchase("unheard of", text="w50 w51 w52 w53")]
    for task, equal in (("product_endorsement", True), (TASK, False)):
        effects = [
            model.leave_one_out(NARRATIVES[:1], **processor()([history], task)) for history in (HISTORIES[0], other)
        ]
        assert torch.equal(*effects) == equal


def test_without_a_history_there_is_no_effect():
    model, inputs = fused(), processor()([[], []], TASK)
    assert model.leave_one_out(NARRATIVES[:2], **inputs).tolist() == [[0.0], [0.0]]
    prompt = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert model.leave_one_out(NARRATIVES[:2], **prompt).tolist() == [[0.0], [0.0]]


def test_prompts_and_narratives_that_do_not_match_are_told():
    model, inputs = fused(), processor()(HISTORIES, TASK)
    with pytest.raises(ValueError, match=r"shape \(1, 5\), expected \(4, tokens\)"):
        model.leave_one_out(NARRATIVES[:1], **inputs)
    with pytest.raises(ValueError, match="at least one token"):
        model.leave_one_out(NARRATIVES[:, :0], **inputs)
    flipped = {name: x.flip(1) if name in ("input_ids", "attention_mask") else x for name, x in inputs.items()}
    with pytest.raises(ValueError, match="padded on the right, expected on the left"):
        model.leave_one_out(NARRATIVES, **flipped)


@pytest.mark.parametrize("adapter", ["linear", "mlp", "transformer"])
def test_the_shares_are_those_of_the_parts(adapter):
    model, inputs = fused(adapter=adapter), processor()(HISTORIES, TASK)
    shares, mask = model.shares(**inputs), inputs["history_mask"]
    torch.testing.assert_close(shares.sum(-1), mask.float())
    assert not shares[~mask].any()
    if adapter != "transformer":  # which lets a purchase see what its neighbours lose
        assert shares[0, 2].tolist() == [0, 1]  # a cold item
    assert 0.02 < shares[0, 0, 0] < 0.98
    if adapter == "linear":
        _, cf, content = model.soft_tokens(**inputs)
        norms = torch.stack([cf.norm(dim=-1), content.norm(dim=-1)], -1)
        torch.testing.assert_close(shares[mask], (norms / norms.sum(-1, keepdim=True))[mask])


@pytest.mark.parametrize(("mode", "expected"), [("cf", [1.0, 0.0]), ("content", [0.0, 1.0])])
def test_a_model_that_reads_one_half_has_the_whole_share_there(mode, expected):
    shares = fused(embedding_mode=mode).shares(**processor()(HISTORIES[3], TASK))
    torch.testing.assert_close(shares, torch.tensor(expected).expand(1, 4, 2))
    if mode == "cf":  # a cold item has nothing at all
        assert not fused(embedding_mode=mode).shares(**processor()([purchase("unheard of")], TASK)).any()
