"""The processor: raw history in, tensors out; what it withholds, drops, refuses, saves and loads."""

import logging

import numpy as np
import pytest
import torch

from regen_hf.model.interactions import interaction_text
from regen_hf.model.processing_regen import RegenProcessor
from tests.tiny_model import CF_DIM, CONTENT_DIM, ITEM, PAD, TASKS, encoder, fused, processor, purchase, tokenizer

TASK = "long_user_summary"


def test_a_batch_is_padded_on_the_left_and_its_histories_on_the_right():
    histories = [[], [purchase("A")], [purchase("B"), purchase("C"), purchase("D")]]
    inputs = processor()(history=histories, task=TASK)
    prompt = tokenizer()(TASKS[TASK] + "\n")["input_ids"]
    pads = [[PAD] * (3 - n) + [ITEM] * n for n in (0, 1, 3)]
    assert inputs["input_ids"].tolist() == [pad + prompt for pad in pads]
    assert inputs["attention_mask"].tolist() == (inputs["input_ids"] != PAD).long().tolist()
    assert inputs["history_mask"].tolist() == [[False] * 3, [True, False, False], [True] * 3]
    assert inputs["history_cf"].shape == (3, 3, CF_DIM)
    assert inputs["history_content"].shape == (3, 3, CONTENT_DIM)
    factors = processor().cf_factors
    np.testing.assert_array_equal(inputs["history_cf"][2].numpy(), factors[[1, 2, 3]])
    np.testing.assert_array_equal(inputs["history_cf"][1, 0].numpy(), factors[0])
    assert inputs["history_cf"][~inputs["history_mask"]].abs().sum() == 0


def test_one_history_is_a_batch_of_one():
    one, batch = processor()([purchase("A")], TASK), processor()([[purchase("A")]], TASK)
    assert one.keys() == batch.keys()
    assert all(torch.equal(one[name], batch[name]) for name in one)


@pytest.mark.parametrize("history", [[], [[]], [[], []]])
def test_an_empty_history_makes_a_prompt_that_generates(history):
    inputs = processor()(history, TASK)
    assert inputs["history_mask"].shape == (max(1, len(history)), 1)
    assert not inputs["history_mask"].any()
    assert fused().generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_the_processor_feeds_generation_and_decodes_its_text():
    parts = processor()
    inputs = parts([[purchase("A")], [purchase("B"), purchase("A")]], ["user_profile", TASK])
    tokens = fused().generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    texts = parts.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert len(texts) == 2
    assert all(texts)


def test_content_vectors_are_the_encoded_text_of_each_interaction():
    purchases = [purchase("A", text="soft glue"), purchase("B", title="red desk")]
    texts = [interaction_text(each["item"], each["review"]) for each in purchases]
    expected = encoder().encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(processor()(purchases, TASK)["history_content"][0], expected, rtol=1e-5)


@pytest.mark.parametrize(("task", "withheld"), [("product_endorsement", True), (TASK, False)])
def test_a_metadata_only_task_never_sees_the_last_review(task, withheld):
    seen, other = ([purchase("A", text="red glue"), purchase("B", text=text)] for text in ("soft soft", "cheap desk"))
    first, second = (processor()(history, task)["history_content"] for history in (seen, other))
    assert torch.equal(first[0, 1], second[0, 1]) == withheld
    other[0]["review"]["text"] = "blue blue paper"
    assert not torch.equal(first[0, 0], processor()(other, task)["history_content"][0, 0])


def test_only_the_latest_purchases_are_kept():
    history = [purchase("A"), purchase("B"), purchase("C")]
    kept = processor(max_history=2)(history, TASK)
    assert torch.equal(kept["history_cf"], processor()(history[1:], TASK)["history_cf"])
    assert (kept["input_ids"] == ITEM).sum() == 2


def test_a_history_longer_than_the_window_loses_its_oldest_purchases_with_a_warning(caplog):
    history = [purchase("A"), purchase("B"), purchase("C")]
    n_prompt = len(tokenizer()(TASKS[TASK] + "\n")["input_ids"])
    parts = processor(tokenizer=tokenizer(model_max_length=n_prompt + 2))
    inputs = parts(history, TASK)
    assert torch.equal(inputs["history_cf"], processor()(history[1:], TASK)["history_cf"])
    assert "Only the latest 2 purchases fit with this prompt: the oldest 1 of 3 were left out" in caplog.text
    assert parts([], TASK, max_length=n_prompt)["input_ids"].shape == (1, n_prompt)
    with pytest.raises(ValueError, match=f"without purchases has {n_prompt} tokens, expected at most {n_prompt - 1}"):
        parts(history, TASK, max_length=n_prompt - 1)


def test_unknown_items_are_cold_and_told_once(caplog):
    parts = processor()
    history = [purchase("A"), purchase("unheard of"), purchase(None)]
    for _ in range(2):
        cf = parts(history, TASK)["history_cf"][0]
    assert cf.abs().sum(1).gt(0).tolist() == [True, False, False]
    assert [record.getMessage()[:15] for record in caplog.records] == ["2 of 3 purchase"]


def test_reviews_and_fields_may_be_missing():
    bare = {"item": {"title": "pens"}}
    nulls = {
        "item": {"asin": None, "title": "pens", "category": None, "description": None, "price": None},
        "review": None,
    }
    empty = bare | {"review": {"summary": None, "rating": None, "text": None, "unix_time": None}}
    vectors = [processor()([each], TASK)["history_content"] for each in (bare, nulls, empty)]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("A", "The history is a str, expected a list of purchases, oldest first"),
        ({"item": {}}, "The history is a dict, expected a list"),
        ([{"asin": "A"}], 'Purchase 0 of the history has no "item" mapping'),
        ([purchase("A"), "B"], 'Purchase 1 of the history has no "item" mapping'),
        ([[purchase("A")], purchase("B")], 'Purchase 0 of the history has no "item" mapping'),
        ([purchase("A") | {"review": "good"}], '"review" of purchase 0 of the history is a str'),
        ([purchase("A", title=["pens"])], r'"item"."title" of purchase 0 .* is \[\'pens\'\], expected text or None'),
        ([{"item": {"price": "$9"}}], r'"item"."price" of purchase 0 .* is \'\$9\', expected a number of at'),
    ],
)
def test_a_malformed_history_is_refused_with_what_was_expected(history, message):
    with pytest.raises(ValueError, match=message):
        processor()(history, TASK)


def test_unknown_tasks_and_unclear_prompts_are_refused():
    parts = processor()
    with pytest.raises(
        ValueError, match=r"Unknown task 'poem'. Tasks: long_user_summary, product_endorsement, user_pro"
    ):
        parts([], "poem")
    with pytest.raises(ValueError, match="Both or none of task and prompt"):
        parts([])
    with pytest.raises(ValueError, match="Both or none of task and prompt"):
        parts([], TASK, prompt="gift")
    with pytest.raises(ValueError, match="the placeholder of a purchase"):
        parts([], prompt="gift <|item|>")
    with pytest.raises(ValueError, match="task has 2 values for 1 histories"):
        parts([], [TASK, TASK])
    with pytest.raises(ValueError, match="prompt is 5, expected text, or a list with one text per history"):
        parts([], prompt=5)


def test_a_prompt_of_ones_own_replaces_the_task():
    parts = processor()
    assert parts.prompt_text(2, prompt="the gift") == "<|item|><|item|>the gift\n"
    assert parts([purchase("A")], prompt="the gift")["input_ids"].tolist() == [
        parts.tokenize_prompt(1, prompt="the gift")
    ]


def test_a_chat_template_wraps_the_prompt_and_the_text_begins_once():
    template = (
        "{{ bos_token }} {% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} a{% endif %}"
    )
    parts = processor(tokenizer=tokenizer(chat_template=template))
    assert parts.prompt_text(1, TASK) == f"<s> <|item|>{TASKS[TASK]} a"
    from tokenizers.processors import TemplateProcessing

    adds_bos = tokenizer(chat_template=template)
    adds_bos.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokens = processor(tokenizer=adds_bos)([purchase("A")], TASK)["input_ids"][0].tolist()
    assert tokens == parts([purchase("A")], TASK)["input_ids"][0].tolist()
    assert tokens.count(1) == 1


def test_numpy_and_plain_lists_can_be_asked_for():
    assert isinstance(processor()([purchase("A")], TASK, return_tensors="np")["history_cf"], np.ndarray)


def test_a_saved_processor_reloads_to_the_same_inputs(tmp_path):
    parts, history = processor(), [[purchase("A"), purchase("Z")], []]
    first, second = tmp_path / "first", tmp_path / "second"
    parts.save_pretrained(first)
    again = RegenProcessor.from_pretrained(first)
    again.save_pretrained(second)  # from the folder's encoder, not from the model in memory
    again.save_pretrained(first)  # over itself
    for each in (again, RegenProcessor.from_pretrained(second), RegenProcessor.from_pretrained(first)):
        for task in TASKS:
            expected, inputs = parts(history, task), each(history, task)
            assert expected.keys() == inputs.keys()
            assert all(torch.equal(expected[name], inputs[name]) for name in expected)
    names = {"processor_config.json", "processing_regen.py", "interactions.py", "cf_items.json", "cf_items.safetensors"}
    assert names | {"tokenizer.json", "content_encoder"} <= {path.name for path in second.iterdir()}
    for path in second.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_a_processor_saves_into_a_subfolder_of_a_repository(tmp_path):
    processor().save_pretrained(tmp_path / "inside")
    again = RegenProcessor.from_pretrained(tmp_path, subfolder="inside")
    expected = processor()([purchase("A")], TASK)
    assert torch.equal(again([purchase("A")], TASK)["history_content"], expected["history_content"])


def test_an_encoder_on_the_hub_is_only_named(tmp_path):
    processor(content_encoder="org/encoder").save_pretrained(tmp_path)
    assert not (tmp_path / "content_encoder").exists()
    assert RegenProcessor.from_pretrained(tmp_path).content_encoder == "org/encoder"


def test_a_processor_without_one_kind_of_vector_leaves_it_out(tmp_path):
    cf_only = processor(content_encoder=None)
    cf_only.save_pretrained(tmp_path)
    for each in (cf_only, RegenProcessor.from_pretrained(tmp_path)):
        inputs = each([purchase("A")], TASK)
        assert "history_content" not in inputs
        assert fused(embedding_mode="cf")(**inputs).logits.isfinite().all()
    content_only = processor(cf_asins=[], cf_factors=None)([purchase("A")], TASK)
    assert "history_cf" not in content_only
    assert fused(embedding_mode="content")(**content_only).logits.isfinite().all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"item_token": "<|unheard|>"}, "'<|unheard|>' is not one token"),
        ({"cf_factors": None}, "has 4 items, but cf_factors is None"),
        ({"cf_asins": ["A", "B"]}, r"cf_factors has the shape \(4, 6\), expected \(2, cf_dim\)"),
        ({"cf_asins": ["A", "B", "C", "A"]}, "contains an item twice"),
        ({"cf_factors": np.full((4, CF_DIM), np.nan)}, "NaN or infinity"),
        ({"metadata_only_tasks": ["poem"]}, "metadata_only_tasks contains poem"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(parts, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        processor(**parts)


def test_a_long_description_leaves_room_for_the_review():
    text = interaction_text({"title": "Pen", "description": "word " * 1000}, {"text": "I love it", "rating": 1.0})
    assert len(text) < 600
    assert text.endswith("Rating: 1 of 5\nI love it")


def test_an_unknown_price_is_not_a_price():
    for price in (None, 0.0, float("nan")):
        assert interaction_text({"title": "Pen", "price": price}, None) == "Pen"


@pytest.fixture(autouse=True)
def warnings_are_captured(caplog):
    caplog.set_level(logging.WARNING)


def test_rows_of_the_dataset_are_histories():
    import datasets

    histories = [[purchase("A")], [purchase("B"), purchase("C")]]
    rows = [{"reviewer_id": str(n), "purchase_history": each} for n, each in enumerate(histories)]
    parts, table = processor(), datasets.Dataset.from_list(rows)
    expected = parts(histories, TASK)
    for given in (rows, table, table[:2], table["purchase_history"], {"purchase_history": histories}, tuple(histories)):
        inputs = parts(given, TASK)
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    one = parts(rows[1], TASK)
    assert torch.equal(one["history_cf"], expected["history_cf"][1:])
    with pytest.raises(ValueError, match=r"Purchase 0 of the history has no \"item\" mapping.* a row of the dataset"):
        parts({"purchase_history": [{"asin": "A"}]}, TASK)


def test_numbers_of_numpy_and_pandas_are_numbers():
    each = purchase("A")
    each["item"]["price"], each["review"]["rating"] = np.float32(2.5), np.int64(5)
    assert torch.equal(
        processor()([each], TASK)["history_content"], processor()([purchase("A")], TASK)["history_content"]
    )


def test_rating_and_age_go_to_a_model_that_reads_them(tmp_path):
    day = 24 * 3600
    history = [purchase("A"), purchase("B"), purchase("C")]
    for each, time, rating in zip(history, (1 * day, None, 11 * day), (4, 5, 1), strict=True):
        each["review"] |= {"unix_time": time, "rating": rating}
    processor(interaction_features=["rating", "age"]).save_pretrained(tmp_path)
    parts = RegenProcessor.from_pretrained(tmp_path)
    nan = float("nan")
    seen = parts([history, []], TASK)["history_features"].numpy()
    np.testing.assert_array_equal(seen, [[[4, 10], [5, nan], [1, 0]], [[0, 0]] * 3])
    hidden = parts(history, "product_endorsement")["history_features"].numpy()
    np.testing.assert_array_equal(hidden, [[[4, 10], [5, nan], [nan, 0]]])  # the last review's rating is withheld
    assert "history_features" not in processor()(history, TASK)
    assert parts([], TASK)["history_features"].shape == (1, 1, 2)
    model = fused(interaction_features=["rating", "age"])
    assert model(**parts([history, []], TASK)).logits.isfinite().all()


def test_items_without_a_vector_can_be_asked_for_and_a_row_of_zeros_is_none():
    factors = processor().cf_factors.copy()
    factors[1] = 0.0
    parts = processor(cf_factors=factors)
    history = [purchase("A"), purchase("B"), purchase("unheard of"), purchase("B"), purchase(None)]
    assert parts.unknown_items(history) == ["B", "unheard of", "B", None]
    assert parts.unknown_items([[purchase("A")], {"purchase_history": [purchase("Z")]}][:1]) == []
    assert processor(cf_asins=[], cf_factors=None).unknown_items(history) == []


def test_new_items_get_a_vector_from_those_who_bought_them_and_keep_it(tmp_path):
    factors = np.eye(4, CF_DIM, dtype=np.float32)
    factors[2] = 0.0  # C is in the catalogue, but cold
    parts = processor(cf_factors=factors, cf_user_gram=np.eye(CF_DIM), cf_regularization=0.1)
    fans_of_a, fans_of_b = ([[purchase(old), purchase(new)]] * 3 for old, new in (("A", "new"), ("B", "C")))
    loners = [[purchase("alone"), purchase("alone too")]]
    assert parts.fold_in([*fans_of_a, *fans_of_b, *loners]) == ["C", "new"]
    parts.save_pretrained(tmp_path)
    for each in (parts, RegenProcessor.from_pretrained(tmp_path)):
        cf = each([purchase("A"), purchase("new"), purchase("B"), purchase("C"), purchase("alone")], TASK)["history_cf"]
        cosine = torch.cosine_similarity(cf[0, :, None], cf[0, None], dim=-1)
        assert cosine[0, 1] > 0.99
        assert cosine[2, 3] > 0.99
        assert cosine[0, 3].abs() < 0.01
        assert not cf[0, 4].any()
    np.testing.assert_array_equal(parts.cf_factors[0], factors[0])  # what had a vector keeps it
    with pytest.raises(ValueError, match=r"cf_user_gram is None, expected .*, which new items need"):
        processor().fold_in(fans_of_a)


def test_the_next_items_are_those_that_implicit_recommends():
    import implicit
    from scipy.sparse import csr_matrix

    bought = np.random.default_rng(0).random((30, 12)) < 0.3
    bought[:, 11] = False
    ratings = np.where(bought, np.random.default_rng(1).integers(1, 6, (30, 12)), 0)
    user_items = csr_matrix(np.where(bought, 1.0 + 2.0 * ratings, 0).astype(np.float32))
    als = implicit.als.AlternatingLeastSquares(factors=CF_DIM, regularization=0.2, iterations=3, random_state=0)
    als.fit(user_items, show_progress=False)
    factors = als.item_factors.copy()
    factors[11] = 0.0  # nobody bought it: no vector
    asins = [f"i{item}" for item in range(12)]
    parts = processor(cf_asins=asins, cf_factors=factors, cf_alpha=2.0, cf_regularization=0.2)
    histories = [
        [
            {"item": {"asin": asins[item]}, "review": {"rating": int(ratings[user, item])}}
            for item in np.flatnonzero(row)
        ]
        for user, row in enumerate(bought[:5])
    ]
    items, scores = als.recommend(np.arange(5), user_items[:5], N=3, recalculate_user=True)
    found = parts.recommend(histories, n=3)
    assert [[asin for asin, _ in each] for each in found] == [[asins[item] for item in row] for row in items]
    np.testing.assert_allclose([[score for _, score in each] for each in found], scores, rtol=1e-3, atol=1e-4)
    assert parts.recommend(histories[0], n=3) == found[0]
    everything = [asin for asin, _ in parts.recommend(histories[0], n=100)]
    assert set(everything) == set(asins[:11]) - {purchase["item"]["asin"] for purchase in histories[0]}
    assert parts.recommend([[], [purchase("unheard of")]]) == [[], []]
    assert parts.recommend([]) == []


def test_what_keeps_the_next_items_from_being_told_is_told():
    with pytest.raises(ValueError, match=r"no CF vectors, expected .* recommend needs them"):
        processor(cf_asins=[], cf_factors=None).recommend([purchase("A")])
    with pytest.raises(ValueError, match="n is 0, expected"):
        processor().recommend([purchase("A")], n=0)


def test_the_window_counts_the_prompt_and_what_is_to_be_written():
    parts = processor()
    n_prompt = len(parts.tokenize_prompt(0, TASK))
    assert parts.fit(3, TASK) == (3, parts.tokenize_prompt(3, TASK))
    assert parts.fit(3, TASK, max_length=n_prompt + 2) == (2, parts.tokenize_prompt(2, TASK))
    assert processor(max_history=2).fit(60, TASK)[0] == 2
    with pytest.raises(ValueError, match="The prompt without purchases has"):
        parts.fit(3, TASK, max_length=n_prompt - 1)
