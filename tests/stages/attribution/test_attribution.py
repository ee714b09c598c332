"""The measurements of the attribution stage, and the figures drawn from them."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BatchFeature

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.errors import InputError
from regen_hf.metrics.citation_tables import tables_of_tests
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.outputs import rows, split_files
from regen_hf.stages.attribution import deletion, left_out, robustness, soft_tokens
from regen_hf.stages.attribution.build import build, summary
from regen_hf.stages.attribution.settings import AttributionConfig
from regen_hf.stages.figures import attribution as figures
from tests.tiny_model import CF_DIM, CONTENT_DIM, fused, processor


@pytest.fixture(scope="module")
def told(finished_run):
    return json.loads((finished_run / "attribution" / "results.json").read_text())


def test_the_parts_of_a_linear_adapter_are_its_two_products_and_add_up(finished_run, told):
    weights = load_file(finished_run / "model" / "model.safetensors")
    factors = load_file(finished_run / "embeddings" / "cf.safetensors")
    v = factors["item_factors"] / factors["mean_norm"] * 12**0.5
    flags = (v != 0).any(1, keepdims=True)
    matrix = weights["model.adapter.projection.weight"]
    items = pq.read_table(finished_run / "attribution" / "items.parquet")
    norms = items["norms"].combine_chunks()
    expected = np.linalg.norm(np.hstack([v, flags]) @ matrix[:, :13].T, axis=1)
    assert norms.field("cf").to_numpy() == pytest.approx(expected, rel=1e-4)
    assert told["parts"].startswith("exact")
    assert told["largest_error_of_the_sum"] < 1e-5
    shares = norms.field("cf").to_numpy() / norms.field("soft").to_numpy()
    assert told["shares"]["cf"]["median"] == pytest.approx(np.median(shares), abs=1e-4)


def test_every_item_is_read_with_its_purchases_in_train(finished_run, told):
    items = pq.read_table(finished_run / "attribution" / "items.parquet").to_pylist()
    bought = [
        purchase["item"]["asin"]
        for row in rows(split_files(finished_run / "dataset", "train"))
        for purchase in row["purchase_history"]
    ]
    assert len(items) == told["items"] == 64
    assert {item["asin"]: item["purchases"] for item in items} == {
        item["asin"]: bought.count(item["asin"]) for item in items
    }
    assert sum(layer["items"] for layer in told["shares_by_popularity"]) == 64
    most = max(items, key=lambda item: item["purchases"])
    assert told["nearest_words"][0]["asin"] == most["asin"]
    assert [len(item["words"]) for item in told["nearest_words"]] == [soft_tokens.WORDS] * soft_tokens.NAMED


@pytest.fixture
def embeddings(tmp_path):
    """Vectors of seven items, the last of them cold."""
    random = np.random.default_rng(2)
    factors = random.normal(size=(7, CF_DIM)).astype(np.float32)
    factors[-1] = 0
    (tmp_path / "embeddings").mkdir()
    tensors = {"item_factors": factors, "mean_norm": np.ones(1, np.float32), "user_gram": np.eye(CF_DIM)}
    save_file(tensors, outputs.path(tmp_path, "embeddings", outputs.CF))
    pq.write_table(pa.table({"asin": list("ABCDEFG")}), outputs.path(tmp_path, "embeddings", outputs.EMBEDDED_ITEMS))
    content = random.normal(size=(7, CONTENT_DIM)).astype(np.float16)
    np.save(outputs.path(tmp_path, "embeddings", outputs.CONTENT_ITEMS), content)
    return tmp_path


@pytest.mark.parametrize("adapter", ["mlp", "transformer"])
def test_the_parts_of_other_adapters_are_what_is_lost_without_them(embeddings, adapter):
    model = fused(adapter=adapter, interaction_features=["rating"])
    parts = soft_tokens.soft_tokens(embeddings, model)
    assert [len(vectors) for vectors in parts.values()] == [7] * 4
    assert not parts["cf"][-1].any()
    assert parts["cf"][0].any()
    content = torch.from_numpy(np.load(embeddings / "embeddings" / "content_items.npy")[:1, None].astype(np.float32))
    without, *_ = model.soft_tokens(
        torch.zeros(1, 1, CF_DIM), content, torch.ones(1, 1, dtype=torch.bool), torch.full((1, 1, 1), torch.nan)
    )
    assert parts["soft"][0] - parts["cf"][0] == pytest.approx(without[0, 0].detach().numpy(), abs=1e-5)


def test_a_model_of_one_half_has_the_parts_of_that_half(embeddings):
    assert list(soft_tokens.soft_tokens(embeddings, fused(embedding_mode="cf"))) == ["soft", "cf", "rest"]


def test_vectors_that_are_not_finite_raise(embeddings):
    path = outputs.path(embeddings, "embeddings", outputs.CONTENT_ITEMS)
    vectors = np.load(path)
    vectors[2, 1] = np.nan
    np.save(path, vectors)
    with pytest.raises(InputError, match=r"The content vectors of the items of .* not finite.*regen embeddings"):
        soft_tokens.soft_tokens(embeddings, fused())


def test_a_soft_token_that_lies_on_a_word_is_found_there():
    words, names = soft_tokens.word_tokens(fused("gemma3"), processor())
    assert not {"<pad>", "<|item|>"} & set(names)
    place = names.index("pens")
    found, cosines = soft_tokens.nearest(3 * words[[place]], words, 2)
    assert found[0, 0] == place
    assert cosines[0, 0] == pytest.approx(1, abs=1e-5)
    near = soft_tokens.separation(2 * words[:5], words)
    assert near["cosine_to_the_nearest_word"] == pytest.approx(1, abs=1e-3)
    assert near["nearer_to_a_word_than_to_any_item"] == 1


def test_the_map_keeps_groups_apart_and_is_the_same_every_time():
    random = np.random.default_rng(0)
    centres = 40 * random.normal(size=(3, 20))
    vectors = (centres[np.arange(90) % 3] + random.normal(size=(90, 20))).astype(np.float32)
    places = soft_tokens.tsne(vectors, seed=3)
    assert np.array_equal(places, soft_tokens.tsne(vectors, seed=3))
    middles = np.stack([places[group::3].mean(0) for group in range(3)])
    own = np.linalg.norm(places - middles[np.arange(90) % 3], axis=1).max()
    assert min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 2 * own


def test_an_effect_is_the_likelihood_that_the_narrative_loses(finished_run):
    model = RegenForCausalLM.from_pretrained(finished_run / "model").eval()
    parts = RegenProcessor.from_pretrained(finished_run / "model")
    table = pq.read_table(finished_run / "attribution" / "left_out.parquet").to_pylist()
    written = {
        (row["reviewer_id"], row["task"]): row["prediction"]
        for row in pq.read_table(finished_run / "evaluation" / "predictions.parquet").to_pylist()
        if row["model"] == "fused"
    }
    assert len({row["reviewer_id"] for row in table}) == 2
    assert all(row["prediction"] == written[row["reviewer_id"], row["task"]] for row in table)
    effect = next(row for row in table if row["task"] == "user_profile" and row["place"] == 2)
    user = next(
        row
        for row in rows(split_files(finished_run / "dataset", "test"))
        if row["reviewer_id"] == effect["reviewer_id"]
    )
    history = user["purchase_history"]
    assert (effect["asin"], effect["title"]) == (history[1]["item"]["asin"], history[1]["item"]["title"])
    tokens = [
        *parts.tokenizer(effect["prediction"], add_special_tokens=False)["input_ids"],
        parts.tokenizer.eos_token_id,
    ]
    assert effect["tokens"] == len(tokens)

    def log_likelihood(purchases):
        inputs = parts(history=purchases, task="user_profile")
        start = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = model(**inputs).logits[0, start - 1 : -1].log_softmax(-1)
        return logits[torch.arange(len(tokens)), tokens].sum().item()

    lost = log_likelihood(history) - log_likelihood(history[:1] + history[2:])
    assert effect["effect"] == pytest.approx(lost, abs=1e-3)


def test_citations_are_tested_by_deletion_and_the_profile_by_small_changes(finished_run, told):
    tested, changes = told["citations"], told["robustness"]
    assert tested["users"] == 4
    assert tested["threshold"] == json.loads((finished_run / "model" / "config.json").read_text())["citation_threshold"]
    table = pq.read_table(finished_run / "attribution" / "cited.parquet").to_pylist()
    assert len(table) == tested["sentences"]
    assert sum(bool(row["citations"]) for row in table) == tested["cited"] >= tested["tested"]
    for test in deletion.TESTS:
        for arm in deletion.ARMS:
            assert tested[test][arm].keys() == {"stays", "overlap"}
    assert all(0 < change["users"] <= 4 and 0 <= change["changed"]["mean"] <= 1 for change in changes.values())
    assert [len(cells) for _, _, cells in tables_of_tests(told)] == [4, 3]
    assert all(len(row) == len(head) for _, head, cells in tables_of_tests(told) for row in cells)
    assert "without the cited purchases" in summary(finished_run / "attribution")


class Storyteller:
    """Writes a sentence about the first purchase, which it cites, and one that rests on nothing."""

    def narrate(self, histories, tasks, cite=False, **_):
        texts = [[f"It began with {history[0]['item']['asin']}. ", "A person."] for history in histories]
        if not cite:
            return ["".join(text) for text in texts]
        cited = [{"purchase": 0, "strength": 9.0}]
        return [
            [{"text": one, "citations": cited, "strength": 9.0}, {"text": two, "citations": [], "strength": 0.0}]
            for one, two in texts
        ]


def test_a_sentence_goes_without_what_it_rests_on_and_stays_with_it():
    histories = [[{"item": {"asin": asin}} for asin in letters] for letters in ("ABCDE", "FGHIJK", "L")]
    stories = [(history, "user_profile") for history in histories]
    results, sentences = deletion.deletion(Storyteller(), stories, [0, 0, 0], 9, 0)
    assert (results["sentences"], results["cited"], results["tested"]) == (6, 3, 2)  # one purchase leaves no history
    assert results["without"]["cited"]["stays"]["mean"] == 0
    assert results["only"]["cited"]["stays"]["mean"] == 1
    assert results["without"]["random"]["stays"]["mean"] == 1
    assert results["only"]["random"]["stays"]["mean"] == 0
    assert [sentence["user"] for sentence in sentences] == [0, 0, 1, 1, 2, 2]


class Listener:
    """Writes nothing, cites the fourth purchase, and keeps the histories of its texts."""

    def narrate(self, histories, tasks=None, cite=False, task=None, **_):
        self.read = ["".join(purchase["item"]["asin"] for purchase in history) for history in histories]
        sentence = {"text": "A pen.", "citations": [{"purchase": 3, "strength": 9.0}], "strength": 9.0}
        return [[sentence] if cite else "" for _ in histories]


def test_the_random_purchases_are_those_that_the_model_reads():
    history, listener = [{"item": {"asin": asin}} for asin in "ABCDE"], Listener()
    drawn = set()
    for seed in range(20):
        deletion.deletion(listener, [(history, "user_profile")], [2], 9, seed)
        without, only, random_without, random_only = listener.read
        assert (without, only) == ("CE", "D")
        assert sorted(random_without + random_only) == list("CDE")
        drawn.add(random_only)
    assert drawn == set("CDE")
    assert deletion.deletion(listener, [(history, "user_profile")], [4], 9, 0)[0]["tested"] == 0


def test_a_profile_without_words_is_the_same_as_before():
    review = {"summary": None, "rating": 4, "text": "A great pen. I bought two.", "unix_time": 5}
    history = [{"item": {"asin": asin}, "review": review} for asin in "ABC"]
    results = robustness.robustness(Listener(), [history], [{"asin": "E"}], 9, 0)
    assert [(each["changed"]["mean"], each["overlap"]["mean"]) for each in results.values()] == [(0, 1)] * 3


def test_changes_of_a_history_add_nothing_about_the_user():
    review = {"summary": None, "rating": 4, "text": "A great pen. I bought two.", "unix_time": 5}
    times = {"A": 1, "B": 5, "C": 5, "D": 9}
    history = [{"item": {"asin": asin}, "review": {**review, "unix_time": time}} for asin, time in times.items()]
    random = np.random.default_rng(0)
    added = robustness.with_a_neutral_purchase([{"asin": "E"}])(history, random)
    assert sorted(purchase["item"]["asin"] for purchase in added) == list("ABCDE")
    assert [added[0], added[-1]] == [history[0], history[-1]]
    assert robustness.with_a_neutral_purchase([{"asin": "A"}])(history, random) is None
    swapped = robustness.with_two_swapped(history, random)
    assert [purchase["item"]["asin"] for purchase in swapped] == list("ACBD")
    assert [purchase["review"]["unix_time"] for purchase in swapped] == [1, 5, 5, 9]
    other = robustness.with_a_paraphrase(history, random)
    changed = [new["review"]["text"] for old, new in zip(history, other, strict=True) if new != old]
    assert changed == ["I purchased two. A excellent pen."]
    assert robustness.with_two_swapped(history[:2], random) is None


def test_a_history_that_the_window_cuts_keeps_the_places_of_its_purchases():
    read = []

    class Cut:
        tokenize_completion = staticmethod(processor().tokenize_completion)

        def __call__(self, history, task, max_length):
            read.append(max_length)
            return BatchFeature({"history_mask": torch.tensor([[True, True]])})

    model = SimpleNamespace(
        config=SimpleNamespace(window=20), device="cpu", leave_one_out=lambda tokens, **_: torch.tensor([[0.5, -1.0]])
    )
    history = [{"item": {"asin": asin, "title": None}} for asin in "ABCD"]
    found = left_out.effects(
        model, Cut(), {"reviewer_id": "U", "purchase_history": history}, "user_profile", "pens glue"
    )
    assert read == [17]
    assert [(row["place"], row["asin"], row["effect"]) for row in found] == [(3, "C", 0.5), (4, "D", -1.0)]


def test_the_figures_are_those_of_the_paper_and_tell_how_the_parts_were_found(finished_run, told):
    drawn = dict(figures.draw(finished_run))
    assert list(drawn) == ["soft_tokens", "soft_token_parts", "norm_shares", "left_out_1", "left_out_2"]
    points = {spot.get_label(): len(spot.get_offsets()) for spot in drawn["soft_tokens"].axes[0].collections}
    assert points == {name: 40 for name, _ in figures.KINDS.values()}
    assert len(drawn["soft_token_parts"].axes) == 3
    for name in ("soft_tokens", "soft_token_parts"):
        said = drawn[name].get_supxlabel()
        assert "parts: exact" in said
        assert "kissing number" in said
        assert "597 word tokens" in said
    left, _right = drawn["norm_shares"].axes
    assert sum(bar.get_height() for bar in left.patches) == 2 * told["items"]
    for name in drawn:
        assert (finished_run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_titles_of_strangers_are_drawn_as_they_are(tmp_path):
    effect = {"task": "user_profile", "asin": "A", "effect": -0.04}
    titles = [r"$\frac{1}$ off_$", "纸\nand 🙂\x1b[31m", None]
    figure = figures.left_out([{**effect, "place": place, "title": title} for place, title in enumerate(titles, 1)])
    figure.savefig(tmp_path / "drawn.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        r"1  $\frac{1}$ off_$",
        "2  □ and □□[31m",
        "3  A",
    ]
    assert figure.axes[0].texts[0].get_text() == "+0.0"


def test_nobody_left_out_and_all_points_are_fine(tiny_run):
    assert main(["attribution", str(tiny_run), "--users", "0", "--tested-users", "0", "--points", "0"]) == 0
    told = json.loads((tiny_run / "attribution" / "results.json").read_text())
    assert told["map"]["kinds"] == {"soft": 64, "cf": 64, "content": 64, "word": 597}
    assert list(dict(figures.draw(tiny_run))) == ["soft_tokens", "soft_token_parts", "norm_shares"]


def test_a_control_that_reads_text_has_no_purchases_to_leave_out(tiny_run, tmp_path):
    path = tiny_run / "model" / "manifest.json"
    trained = json.loads(path.read_text())
    trained["config"]["history"] = "text"
    path.write_text(json.dumps(trained))
    counts = build(tiny_run, tiny_run / "attribution", tmp_path, AttributionConfig(points=40))
    assert counts["left_out"] == 0
    drawn = dict(figures.draw(tiny_run))
    assert list(drawn) == ["soft_tokens", "soft_token_parts", "norm_shares"]
    assert all("trained with text histories" in figure.get_supxlabel() for figure in drawn.values())
