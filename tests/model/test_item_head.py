"""The item head: causal queries, a loss over all items or a sample, recommendations with a reason from one pass."""

import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

import regen_hf
from regen_hf.model import item_head
from regen_hf.model.item_head import ItemHead, next_item_loss
from regen_hf.model.pipeline import RegenPipeline
from tests.tiny_model import CONTENT_DIM, FAMILIES, fused, processor, purchase

ITEMS = ["A", "B", "C", "D"]
HISTORY = [purchase("A"), purchase("B", text="bad"), purchase("C", "red glue"), purchase("D", "soft paper")]
OPEN = {"item": {"asin": "A"}}


def catalogue(**arguments):
    content = np.random.default_rng(2).normal(size=(4, CONTENT_DIM)).astype(np.float32)
    return processor(item_titles=["pens", "glue", None, "desk"], item_content=content, **arguments)


def model(family="llama", **arguments):
    made = fused(family, **{"item_dim": 5, "recency": 2} | arguments)
    made.set_catalogue(**catalogue().catalogue())
    return made


@pytest.fixture(scope="module")
def regen():
    return RegenPipeline(model(), catalogue())


def queries(made, history, task="product_endorsement"):
    with torch.no_grad():
        return made.item_queries(**catalogue()(history, task))[0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_query_reads_only_what_is_before_its_purchase(family):
    made = model(family)
    complete = queries(made, HISTORY)
    for kept in range(1, len(HISTORY)):
        removed = queries(made, [*HISTORY[:kept], OPEN])
        torch.testing.assert_close(removed[: kept + 1], complete[: kept + 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(complete[1], complete[2], atol=1e-3)


def test_with_several_marks_of_recency_a_query_reads_how_many_purchases_follow_but_not_which():
    made = model(recency=4)
    complete = queries(made, HISTORY)
    others = queries(made, [*HISTORY[:2], purchase("D", "gift"), purchase("B", "desk")])
    torch.testing.assert_close(others[:3], complete[:3])
    assert not torch.allclose(queries(made, [*HISTORY[:2], OPEN])[2], complete[2], atol=1e-3)


def test_queries_are_the_same_in_a_padded_batch_and_for_every_task():
    made = model()
    batch = made.item_queries(**catalogue()([HISTORY, HISTORY[:2], []], ["product_endorsement"] * 3))
    assert batch.shape == (3, 4, 5)
    torch.testing.assert_close(batch[1, :2], queries(made, HISTORY[:2]), rtol=1e-4, atol=1e-5)
    assert not batch[1, 2:].any()
    assert not batch[2].any()
    torch.testing.assert_close(queries(made, HISTORY[:3], "user_profile"), queries(made, HISTORY[:3]))


def test_the_scores_of_the_output_are_the_products_of_queries_and_embeddings():
    made = model()
    inputs = catalogue()(HISTORY, "user_profile")
    with torch.no_grad():
        logits = made(**inputs, output_item_logits=True).item_logits  # (1, N, I)
        expected = queries(made, HISTORY, "user_profile") @ made.item_embeddings().T / 0.07
    torch.testing.assert_close(logits[0], expected)
    torch.testing.assert_close(made.item_embeddings().norm(dim=1), torch.ones(4))


def test_the_loss_is_the_mean_over_words_and_purchases():
    made = model(recency=0)
    inputs = catalogue()(HISTORY, "user_profile")
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    rows = torch.tensor([[0, 1, 2, 3]])
    with torch.no_grad():
        both = made(**inputs, labels=labels, item_labels=rows, next_item_weight=3.0)
        words = made(**inputs, labels=labels).loss * 2
        logits = made(**inputs, output_item_logits=True).item_logits
        items = torch.nn.functional.cross_entropy(logits[0], rows[0], reduction="sum")
        only = made(**inputs, item_labels=rows, labels=torch.full_like(labels, -100))
    torch.testing.assert_close(both.loss, (words + 3.0 * items) / 6)
    torch.testing.assert_close(only.loss, items / 4)


def test_the_sampled_loss_estimates_that_over_all_items(monkeypatch):
    torch.manual_seed(0)
    config = fused(item_dim=5).config
    head = ItemHead(config, (5, 3), 12).eval()
    head.log_temperature.data.fill_(1.0)
    states, items, frequencies = torch.randn(20, 12), torch.randn(400, 8), torch.arange(400.0) ** 2
    labels = [torch.multinomial(frequencies, 20) for _ in range(200)]  # as frequent as in the training
    complete = [next_item_loss(head, states, rows, items, frequencies).item() for rows in labels]
    monkeypatch.setattr(item_head, "FULL_SOFTMAX", 100)
    monkeypatch.setattr(item_head, "SAMPLED", 100)
    sampled = [next_item_loss(head, states, rows, items, frequencies).item() for rows in labels]
    uncorrected = 20 * math.log(400 / 120)  # about the error of a sample without correction
    assert abs(np.mean(sampled) - np.mean(complete)) < 0.05 * uncorrected


def test_recommendations_are_ranked_and_leave_out_the_history(regen):
    best = regen.recommend(HISTORY[:1], n=10)
    assert {entry["asin"] for entry in best} == {"B", "C", "D"}
    assert [entry["score"] for entry in best] == sorted((entry["score"] for entry in best), reverse=True)
    assert best[0].keys() == {"asin", "title", "score", "cold"}
    everything = regen.recommend(HISTORY[:1], exclude=[])
    assert {entry["asin"] for entry in everything} == set(ITEMS)
    with torch.no_grad():
        scores = queries(regen.model, [HISTORY[0], OPEN])[1] @ regen.model.item_embeddings().T
    assert everything[0]["asin"] == ITEMS[int(scores.argmax())]
    assert [entry["asin"] for entry in regen.recommend(HISTORY[:1], candidates=["D", "A"])] == ["D"]
    assert regen.recommend(HISTORY, candidates=ITEMS) == []
    assert len(regen.recommend([], n=2)) == 2


def test_several_histories_give_the_lists_of_each(regen):
    histories = [HISTORY[:3], [], HISTORY[:1]]
    together = regen.recommend(histories, n=4, batch_size=2)
    for history, entries in zip(histories, together, strict=True):
        alone = regen.recommend(history, n=4)
        assert [entry["asin"] for entry in entries] == [entry["asin"] for entry in alone]
        assert [entry["score"] for entry in entries] == pytest.approx([entry["score"] for entry in alone], abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt"])
@pytest.mark.parametrize("recency", [0, 4])
def test_the_reason_from_the_cache_is_that_of_a_complete_pass(family, recency):
    regen = RegenPipeline(model(family, recency=recency), catalogue())
    regen.model.generation_config.eos_token_id = None
    histories = [HISTORY[:3], [], HISTORY[:1]]
    explained = regen.recommend(histories, n=1, explain=True, max_new_tokens=6)
    for history, (first,) in zip(histories, explained, strict=True):
        inputs = regen.processor([*history, {"item": {"asin": first["asin"]}}], "product_endorsement")
        row = ITEMS.index(first["asin"])
        inputs["history_content"][0, -1] = torch.from_numpy(regen.processor.item_content[row].astype(np.float32))
        tokens = regen.model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        assert first["endorsement"] == regen.processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        assert regen.endorse(history, first["asin"], max_new_tokens=6) == first["endorsement"]
        items, pieces = regen.stream_recommendation(history, n=1, max_new_tokens=6)
        assert "".join(pieces).strip() == first["endorsement"]
        assert items[0]["asin"] == first["asin"]


def test_an_item_of_another_system_is_explained_as_its_purchase_would_be(regen):
    item = {"title": "red glue", "category": "desk"}
    text = regen.endorse(HISTORY[:2], item, max_new_tokens=6)
    assert text == regen.narrate([*HISTORY[:2], {"item": item}], "product_endorsement", max_new_tokens=6)
    assert regen.endorse([HISTORY[:2], HISTORY[:1]], item, max_new_tokens=6)[0] == text


def test_a_list_of_another_system_is_explained_item_by_item(regen):
    more = {"title": "red glue", "category": "desk"}
    histories, lists = [HISTORY[:3], [], HISTORY[:1]], [["D", more], ["B"], []]
    found = regen.explain(histories, lists, batch_size=2, max_new_tokens=6)
    for history, items, entries in zip(histories, lists, found, strict=True):
        reasons = [regen.endorse(history, item, max_new_tokens=6) for item in items]
        assert [entry["reason"] for entry in entries] == reasons
    assert [[(entry["asin"], entry["title"]) for entry in entries] for entries in found] == [
        [("D", "desk"), (None, "red glue")],
        [("B", "glue")],
        [],
    ]
    assert regen.explain(HISTORY[:3], iter(lists[0]), max_new_tokens=6) == found[0]
    assert regen.explain([], []) == []
    for history, items, message in (
        (HISTORY, "D", "items is 'D', expected a list of items"),
        (HISTORY, more, "items is .*red glue.*, expected a list"),
        ([HISTORY, []], ["D", "B"], "items is 'D', expected a list of items, or one list per history"),
        ([HISTORY, []], [["D"]], "items has 1 lists, expected 2, one per history"),
        (HISTORY, ["unknown"], "items has 'unknown', expected items of the catalogue"),
    ):
        with pytest.raises(ValueError, match=message):
            regen.explain(history, items)


def test_an_added_item_is_ranked_at_once_and_a_removed_one_never_again():
    regen = RegenPipeline(model(), catalogue())
    before = {entry["asin"]: entry for entry in regen.recommend(HISTORY[:1])}
    assert regen.processor.add_items([{"asin": "N", "title": "cheap gift"}, {"asin": "B", "title": "blue"}]) == ["N"]
    entries = {entry["asin"]: entry for entry in regen.recommend(HISTORY[:1])}
    assert entries["N"]["cold"]
    assert entries["N"]["title"] == "cheap gift"
    assert entries["B"]["title"] == "blue"
    assert not entries["B"]["cold"]
    assert entries["B"]["score"] != before["B"]["score"]
    regen.processor.remove_items(["B"])
    assert {entry["asin"] for entry in regen.recommend(HISTORY[:1])} == {"C", "D", "N"}


@pytest.mark.parametrize(
    "item", [{"title": "glue"}, {"asin": "Q", "title": float("nan")}, {"asin": "Q", "price": "dear"}, "Q"]
)
def test_an_item_is_added_completely_or_not_at_all(item):
    regen = RegenPipeline(model(), catalogue())
    before = regen.recommend(HISTORY[:1])
    try:
        added = regen.processor.add_items([{"asin": "N"}, item])
    except ValueError:
        assert regen.processor.cf_asins == ITEMS
        assert regen.recommend(HISTORY[:1]) == before
    else:
        assert added == ["N", "Q"]
        assert {"N", "Q"} < {entry["asin"] for entry in regen.recommend(HISTORY[:1])}


def test_folding_in_adds_an_item_to_the_catalogue():
    parts = catalogue(cf_user_gram=np.eye(6, dtype=np.float32))
    regen = RegenPipeline(model(), parts)
    regen.recommend(HISTORY[:1])
    assert parts.fold_in([[*HISTORY, purchase("N", "cheap gift")]]) == ["N"]
    entries = {entry["asin"]: entry for entry in regen.recommend(HISTORY[:1])}
    assert entries["N"]["title"] == "cheap gift"
    assert not entries["N"]["cold"]


def test_a_reason_cites_purchases_and_never_the_items():
    regen = RegenPipeline(model(), catalogue())
    regen.model.config.citation_threshold = 1e-4
    regen.model.generation_config.eos_token_id = None
    history, options = HISTORY[:3], {"max_new_tokens": 6}
    (sentence,) = regen.endorse(history, "D", cite=True, **options)
    assert sentence["text"] == regen.endorse(history, "D", **options)
    assert {citation["purchase"] for citation in sentence["citations"]} <= {0, 1, 2}
    assert sentence["citations"]
    tokens = regen._tokens(endorsement_of_d(regen, history), 6, {})
    own, none = (log_likelihood(regen, endorsement_of_d(regen, bought), tokens) for bought in (history, []))
    assert sentence["strength"] == pytest.approx(own - none, abs=1e-3)

    def check(record, sentences):
        assert [purchase["item"]["asin"] for purchase in record] == ["A", "B", "B", "D"]
        assert record[-1]["item"]["title"] == "desk"
        return [{"verdict": "supported"} for _ in sentences]

    shown = regen.endorse(history[:2], "D", shown=["B"], cite=True, check=check, **options)
    assert {citation["purchase"] for one in shown for citation in one["citations"]} <= {0, 1}
    assert [one["verdict"] for one in shown] == ["supported"]
    (nothing,) = regen.endorse([], "D", cite=True, **options)
    assert (nothing["citations"], nothing["strength"]) == ([], 0)
    listed = regen.explain([history, []], [["D", "B"], ["D"]], cite=True, **options)
    assert [[entry["reason"] for entry in entries] for entries in listed] == [
        [[sentence], regen.endorse(history, "B", cite=True, **options)],
        [[nothing]],
    ]
    with pytest.raises(ValueError, match="check was passed without cite=True"):
        regen.explain(history, ["D"], check=check)


def endorsement_of_d(regen, history):
    """The inputs for the endorsement of D, with its vectors in the catalogue."""
    inputs = regen.processor([*history, {"item": {"asin": "D"}}], "product_endorsement")
    inputs["history_content"][0, -1] = torch.from_numpy(regen.processor.item_content[3].astype(np.float32))
    return dict(inputs)


def log_likelihood(regen, inputs, tokens):
    """Of the words in `tokens`."""
    ids = torch.cat([inputs["input_ids"], tokens], 1)
    with torch.no_grad():
        logits = regen.model(**inputs | {"input_ids": ids, "attention_mask": None}).logits[0, -tokens.shape[1] - 1 : -1]
    words = ~torch.isin(tokens[0], torch.tensor(regen.processor.tokenizer.all_special_ids))
    return logits.log_softmax(-1).gather(1, tokens.T)[words].sum().item()


def test_another_processor_or_dtype_is_noticed():
    regen = RegenPipeline(model(), catalogue())
    regen.recommend(HISTORY[:1])
    regen.processor = catalogue(cf_asins=["E", "F", "G", "H"])
    assert {entry["asin"] for entry in regen.recommend([])} == {"E", "F", "G", "H"}
    regen.model.to(torch.bfloat16)
    assert len(regen.recommend(HISTORY[:1], explain=True, max_new_tokens=2)) == 4
    regen.model.item_embeddings().sum().backward()


def test_options_of_generate_reach_an_endorsement_and_are_refused_where_the_cache_is_continued(regen):
    greedy = regen.endorse(HISTORY[:2], "D", max_new_tokens=4)
    assert regen.endorse(HISTORY[:2], "D", max_new_tokens=4, prompt_lookup_num_tokens=2) == greedy
    beams = regen.endorse([HISTORY[:2], []], "D", max_new_tokens=4, num_beams=2, num_return_sequences=2)
    assert [len(texts) for texts in beams] == [2, 2]
    for options in ({"num_beams": 2}, {"num_return_sequences": 2}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(ValueError, match="Pass the item to endorse"):
            regen.recommend(HISTORY[:2], explain=True, max_new_tokens=4, **options)
    with pytest.raises(ValueError, match="top_n was passed without explain"):
        regen.recommend(HISTORY[:2], top_n=1)


def test_a_model_without_an_item_head_endorses_too():
    regen = RegenPipeline(fused(), processor())
    item = {"title": "red glue"}
    text = regen.endorse(HISTORY[:2], item, max_new_tokens=4)
    assert text == regen.narrate([*HISTORY[:2], {"item": item}], "product_endorsement", max_new_tokens=4)
    with pytest.raises(ValueError, match=r"items is 'A', expected an item with one of title, .* no item head"):
        regen.explain(HISTORY[:2], ["A"])  # its vectors of content would be those of no text
    ranks_only_cf = RegenPipeline(fused(embedding_mode="cf"), processor(content_encoder=None))
    assert ranks_only_cf.explain(HISTORY[:2], ["D"], max_new_tokens=4)[0]["asin"] == "D"


def test_a_window_without_room_for_the_item_is_named(regen):
    with pytest.raises(ValueError, match="no room for the item"):
        regen.recommend(HISTORY, explain=True, max_new_tokens=94)


def test_candidates_may_be_a_generator_for_several_batches(regen):
    found = regen.recommend([[], [], []], candidates=(asin for asin in ["D", "A"]), batch_size=1)
    assert [{entry["asin"] for entry in entries} for entries in found] == [{"A", "D"}] * 3


def test_a_saved_model_recommends_the_same(regen, tmp_path):
    regen.model.save_pretrained(tmp_path)
    regen.processor.save_pretrained(tmp_path)
    loaded = regen_hf.load(str(tmp_path))
    before, after = regen.recommend(HISTORY[:2]), loaded.recommend(HISTORY[:2])
    assert [entry["asin"] for entry in after] == [entry["asin"] for entry in before]
    assert after[0]["title"] == before[0]["title"]


@pytest.mark.parametrize("part", ["query", "item"])
def test_a_head_with_nan_recommends_nothing_silently(part):
    broken = RegenPipeline(model(), catalogue())
    getattr(broken.model.model.item_head, part).weight.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="train"):
        broken.recommend(HISTORY[:2])


def test_integers_name_items_as_in_a_history():
    regen = RegenPipeline(model(), catalogue(cf_asins=[1, 2, 3, 4]))
    assert {entry["asin"] for entry in regen.recommend([], candidates=[3, "4"])} == {"3", "4"}
    text = regen.endorse(HISTORY[:1], 3, max_new_tokens=4)
    assert (
        regen.endorse(HISTORY[:1], {"asin": 3}, max_new_tokens=4)
        == text
        == regen.endorse(HISTORY[:1], "3", max_new_tokens=4)
    )


def test_of_a_history_longer_than_the_window_the_latest_purchases_are_read(regen, caplog):
    long = RegenPipeline(regen.model, catalogue(max_history=200))
    history = [HISTORY[number % 4] for number in range(150)]
    best = long.recommend(history, exclude=[], explain=True, max_new_tokens=4)
    assert "Only the latest" in caplog.text
    assert best[0]["endorsement"]


def test_wrong_requests_are_named(regen):
    with pytest.raises(ValueError, match="no item head"):
        RegenPipeline(fused(), catalogue()).recommend(HISTORY)
    with pytest.raises(ValueError, match="no items to rank"):
        RegenPipeline(model(), processor(cf_asins=(), cf_factors=None)).recommend(HISTORY)
    with pytest.raises(ValueError, match="item_content is None"):
        RegenPipeline(model(), processor()).recommend(HISTORY)
    with pytest.raises(ValueError, match=r"candidates has 'Z', expected items of the catalogue \(4 items\)"):
        regen.recommend(HISTORY, candidates=["A", "Z"])
    for wrong, told in ((3, "candidates is 3"), ([None], r"candidates\[0\] is None"), ([["A"]], r"candidates\[0\] is")):
        with pytest.raises(ValueError, match=told):
            regen.recommend(HISTORY, candidates=wrong)
    with pytest.raises(ValueError, match=r"item\[0\] is None"):
        regen.endorse(HISTORY, None)
    with pytest.raises(ValueError, match="The catalogue has no items"):
        regen.model.set_catalogue(torch.zeros(0, 6), torch.zeros(0, CONTENT_DIM))
    with pytest.raises(ValueError, match="n is 0"):
        regen.recommend(HISTORY, n=0)
    with pytest.raises(ValueError, match="got 2 histories"):
        regen.stream_recommendation([HISTORY, HISTORY])
    with pytest.raises(ValueError, match="no item to recommend"):
        regen.stream_recommendation(HISTORY, max_new_tokens=6)
    with pytest.raises(ValueError, match="NaN"):
        processor(item_content=np.full((4, CONTENT_DIM), np.nan))
    for arguments in ({"adapter": "transformer"}, {"interaction_features": ["age"]}):
        with pytest.raises(StrictDataclassClassValidationError, match="item_dim is 5 and the model has"):
            fused(item_dim=5, **arguments)


def test_cf_dropout_hides_the_cf_vectors_of_random_items_of_the_catalogue_in_training(monkeypatch):
    made = model(cf_dropout=0.5, item_dropout=0.0)
    head, (items, _) = made.model.item_head, made.model.items_to_rank
    inputs = catalogue()(HISTORY, "product_endorsement") | {"item_labels": torch.tensor([[0, 1, 2, 3]])}
    read = []
    monkeypatch.setattr(head, "items", lambda fused, items=head.items: read.append(items(fused)) or read[-1])
    torch.manual_seed(0)
    for training in (False, True):
        made.train(training).model(**inputs)
    complete, hidden = read
    cf, content = items.split(made.model.adapter.columns[:2], dim=1)
    without = head.eval().items(torch.cat([0 * cf, content], dim=1))
    kept = hidden.isclose(complete).all(dim=1)
    torch.testing.assert_close(hidden, torch.where(kept[:, None], complete, without))
    assert 0 < kept[cf.any(dim=1)].sum() < cf.any(dim=1).sum()
