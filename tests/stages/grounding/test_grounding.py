import importlib.util
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.cli import main
from regen_hf.errors import InputError
from regen_hf.outputs import rows, split_files
from regen_hf.stages.grounding.build import build, claims_of, covered
from regen_hf.stages.grounding.facts import Record, claims
from regen_hf.stages.grounding.record_check import record_check
from regen_hf.stages.grounding.settings import GroundingConfig
from regen_hf.stages.grounding.vocabulary import Vocabulary
from tests.llm_server import Server, answer_to, completion, schema_in
from tests.paths import ROOT

BENCHMARK = ROOT / "benchmarks" / "grounding.py"
CATALOGUE = [
    ("Elmsgate Navy Travel Mug", "Home - Mugs", "Comes in navy.", 12.99),
    ("Elmsgate Red Stool", "Home - Stools", None, 40.0),
    ("Corraday Olive Lunch Box, With Clips", "Food & Drink - Lunch Boxes", "An olive box.", 21.5),
    ("Corraday Navy Kettle", "Food & Drink - Kettles", None, None),
    ("Vintrel Black Lamp", "Home - Lamps", None, 30.0),
    ("Vintrel Black Clock", "Home - Clocks", None, 25.0),
    ("Lined Notebook by Quillmoor", "Paper - Notebooks", None, 5.0),
    ("Dotted Notebook by Quillmoor", "Paper - Notebooks", None, 5.5),
]
ITEMS = [
    {"asin": f"A{number}", "title": title, "category": category, "description": description, "price": price}
    for number, (title, category, description, price) in enumerate(CATALOGUE)
]
VOCABULARY = Vocabulary.of(ITEMS, ["A lined and dotted page, in travel and at home.", "I like the navy one."])


def purchase(place, rating):
    text = "My son likes it." if rating == 4 else ""
    return {"item": ITEMS[place], "review": {"summary": "", "rating": rating, "text": text, "unix_time": 0}}


HISTORY = [Record.read(purchase(*each)) for each in ((0, 5), (2, 2), (1, 4), (6, 4))]


def verdicts(text):
    return [claim.supported for claim in claims_of(text, HISTORY, VOCABULARY)]


def test_brands_are_read_from_titles_and_ordinary_words_are_none():
    assert VOCABULARY.brands == {("elmsgate",), ("corraday",), ("vintrel",), ("quillmoor",)}


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("They bought a navy Elmsgate mug.", "They bought a navy Corraday mug."),  # each word is of some purchase
        ("The Corraday Olive Lunch Box is on the list.", "The Corraday Navy Kettle is on the list."),
        ("There are stools in the history.", "There are lamps in the history."),
        ("Something by Quillmoor was ordered.", "Something by Vintrel was ordered."),
        ("They own something olive.", "They own something black."),
        ("The navy mug cost $12.99.", "The navy mug cost $21.50."),
        ("Prices run from $5.00 to $40.00.", "Prices run from $5.00 to $90.00."),
        ("They never paid more than $45.", "They never paid more than $30."),
        ("The lunch box was rated 2 of 5.", "The lunch box was rated 5 of 5."),
        ("Their average rating is 3.8.", "Their average rating is 4.6."),
        ("The history has four purchases.", "The history has five purchases."),
        ("They have 4 purchases.", f"They have {'9' * 5000} purchases."),
        ("Two of four purchases are from Elmsgate.", "Three of four purchases are from Elmsgate."),
        ("They loved the red stool.", "They loved the lunch box."),
        ("The lunch box disappointed them.", "The stool disappointed them."),
        ("They hate the lunch box.", "They hate the navy mug."),
        ("They did not like the lunch box.", "They did not like the navy mug."),
        ("They have never bought a lamp.", "They have never bought a stool."),
        ("Elmsgate is the brand bought most often.", "Corraday is the brand bought most often."),
        ("It all began with an Elmsgate mug.", "It all began with a stool."),
        ("The latest purchase is a notebook.", "The latest purchase is a mug."),
        ("A gift for their son.", "A gift for their daughter."),
    ],
)
def test_a_claim_is_checked_against_the_users_own_record(true, false):
    assert verdicts(true) == [True]
    assert verdicts(false) == [False]


def test_a_claim_that_no_rule_covers_is_unchecked_unless_a_part_is_false():
    assert verdicts("A thoughtful person with an eye for detail.") == [None]
    assert verdicts("Elmsgate is usually bought.") == [None]
    assert verdicts("Vintrel is usually bought.") == [False]
    assert verdicts("The red stool turned out another way than they had thought.") == [None]


@pytest.mark.parametrize(
    "text",
    [
        "The red stool was bought after the navy mug.",
        "Before the lunch box they bought the red stool.",
        "The lunch box followed the red stool.",
        "Every purchase is navy.",
        "Everything they own is navy.",
        "They always buy a navy mug.",
        "All purchases are by Corraday.",
        "None of the purchases is a mug.",
        "They bought a navy mug three times.",
        "They bought a navy mug twice.",
        "Every mug got 5 stars, and each stool.",
        "They loved every stool.",
        "They loved the red stool, and all purchases are by Corraday.",
    ],
)
def test_a_quantifier_a_frequency_or_an_order_that_no_rule_reads_leaves_a_sentence_unchecked(text):
    history = [purchase(*each) for each in ((0, 5), (2, 2), (1, 4), (6, 4))]
    assert record_check(ITEMS, ["I like the navy one."])(history, [text])[0]["verdict"] is None


def test_a_rating_of_everything_is_compared_with_all_ratings():
    assert verdicts("They rated everything 5 stars.") == [False]
    assert verdicts("Every purchase got 4 stars.") == [False]
    assert verdicts("No purchase cost more than $45, and they never had a lamp from Vintrel.") == [True, True]


def test_a_number_inside_a_title_is_no_count_and_no_rating():
    item = {**ITEMS[0], "title": "Five Star Binder, 12 Pockets of Clear Film", "category": None}
    own = Vocabulary.of([item], [])
    history = [Record.read({"item": item, "review": {"rating": 3}})]
    (claim,) = claims_of("The latest is the Five Star Binder, 12 Pockets of Clear Film.", history, own)
    assert [(fact.kind, fact.supported) for fact in claim.facts] == [("item", True), ("order", True)]


def test_the_brand_refers_to_the_brand_of_the_sentence_before():
    assert verdicts("An Elmsgate mug is no surprise: the brand is on two of four purchases.") == [True, True]
    assert verdicts("An Elmsgate mug is no surprise: the brand is on three of four purchases.") == [True, False]


def test_sentences_are_compared_with_the_record_of_any_history():
    check = record_check(ITEMS, ["A lined and dotted page, in travel and at home.", "I like the navy one."])
    sentences = {
        "They own a navy Elmsgate mug.": ("supported", []),
        "Three of four purchases are from the brand.": ("contradicted", ["Three of four"]),
        "They bought a Vintrel lamp.": ("not in the record", ["Vintrel lamp"]),
        "They never bought a mug.": ("contradicted", ["mug"]),
        "A pleasant person.": (None, []),
    }
    history = [purchase(*each) for each in ((0, 5), (2, 2), (1, 4), (6, 4))]
    found = check(history, list(sentences))
    assert [(verdict["verdict"], verdict["unsupported"]) for verdict in found] == list(sentences.values())
    assert check([], []) == []
    assert check([{"item": ITEMS[0]}], ["They own a navy Elmsgate mug."])[0]["verdict"] == "supported"
    with pytest.raises(InputError, match="is not a run folder"):
        record_check("nowhere")


def test_claims_are_clauses_and_prices_stay_whole():
    assert claims("It cost $4.50, and they liked the red pen. Good!") == [
        "It cost $4.50",
        "they liked the red pen.",
        "Good!",
    ]
    assert claims("  ") == []


def test_a_narrative_covers_a_claim_when_it_says_all_of_its_facts():
    def count(told, reference):
        return covered(*(claims_of(text, HISTORY, VOCABULARY) for text in (told, reference)))

    reference = "They bought an Elmsgate mug. The lunch box was rated 2 of 5."
    assert count(reference, reference) == (2, 2)
    assert count("A navy Elmsgate mug is theirs.", reference) == (1, 2)  # a fuller name says the shorter
    assert count("They own a mug.", reference) == (0, 2)
    assert count("", reference) == (0, 2)
    assert count("They own a mug.", "A kind person.") == (0, 0)


def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_grounding", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_planted_true_and_false_claims_are_distinguished():
    module = benchmark()
    world = module.World(300, seed=1)
    found = [(planted, module.verdict(world, planted, None)) for planted in module.plant(world, 500, seed=1)]
    assert sum(planted.true for planted, _ in found) == 500
    assert len(found) == 1000
    for kind in ("item", "brand", "category", "colour", "price", "rating", "count", "absence"):
        figures = module.figures([pair for pair in found if pair[0].kind == kind])
        assert min(figures["precision"], figures["recall"], figures["caught"]) > 0.9, (kind, figures)
    for kind in ("sentiment", "favourite", "order", "recipient"):
        figures = module.figures([p for p in found if p[0].kind == kind and p[0].wording == "known"])
        assert min(figures["precision"], figures["recall"], figures["caught"]) > 0.8, (kind, figures)
    every = module.figures(found)
    assert min(every["caught"], every["precision"]) > 0.85


def replace_predictions(run, text):
    """One model that says `text` of every user as a brief summary."""
    path = run / "evaluation" / "predictions.parquet"
    table = [
        row for row in pq.read_table(path).to_pylist() if (row["model"], row["task"]) == ("fused", "brief_user_summary")
    ]
    pq.write_table(pa.Table.from_pylist([{**row, "prediction": text} for row in table]), path)
    return [row["reviewer_id"] for row in table]


def test_the_command_reports_precision_recall_and_hallucinated_items(tiny_run, capsys):
    user = next(rows(split_files(tiny_run / "dataset", "test")))
    bought = {purchase["item"]["title"] for purchase in user["purchase_history"]}
    items = list(rows(sorted((tiny_run / "dataset").glob("**/items*.parquet"))))
    stranger = next(item["title"] for item in items if item["title"] not in bought)
    users = replace_predictions(tiny_run, f"They own the {stranger}.")
    assert main(["grounding", str(tiny_run)]) == 0
    results = json.loads((tiny_run / "grounding" / "results.json").read_text())
    table = pq.read_table(tiny_run / "grounding" / "claims.parquet").to_pylist()
    assert results["n_users"] == len(users)
    reference = results["models"]["reference"]["brief_user_summary"]
    assert reference["recall"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert reference["precision"]["mean"] > 0.9  # the truth of the sample world
    made_up = [row for row in table if row["model"] == "fused" and row["reviewer_id"] == user["reviewer_id"]]
    assert [row["verdict"] for row in made_up] == ["unsupported"]
    assert made_up[0]["hallucinated"] == [stranger]
    assert results["models"]["fused"]["brief_user_summary"]["hallucinated_entities"] >= 1
    assert results["models"]["fused"]["brief_user_summary"]["kinds"]["price"]["precision"]["mean"] is None
    assert "| brief_user_summary | fused |" in capsys.readouterr().out


def test_the_endorsement_of_the_models_own_choice_is_checked_with_that_item_in_the_record(tiny_run, tmp_path):
    (path,) = split_files(tiny_run / "dataset", "test")
    user = next(rows([path]))
    *earlier, last = (purchase["item"] for purchase in user["purchase_history"])
    items = rows(sorted((tiny_run / "dataset").glob("**/items*.parquet")))
    chosen = next(item for item in items if item["asin"] not in {one["asin"] for one in (*earlier, last)})
    text = f"Try the {chosen['title']}. It is like the {last['title']}."
    row = {"reviewer_id": user["reviewer_id"], "task": "product_endorsement", "model": "own_choice"}
    row |= {"prediction": text, "reference": f"Try the {last['title']}.", "chosen": chosen["asin"]}
    (tiny_run / "next_item").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tiny_run / "next_item" / "endorsements.parquet")
    (tiny_run / "next_item" / "results.json").write_text(json.dumps({"split": "test"}))
    build(tiny_run, tmp_path, tmp_path, GroundingConfig(), optional=["next-item"])
    table = pq.read_table(tmp_path / "claims.parquet").to_pylist()
    own = [row for row in table if row["model"] == "own_choice"]
    assert [row["verdict"] for row in own] == ["supported", "unsupported"]
    scores = json.loads((tmp_path / "results.json").read_text())["models"]["own_choice"]["product_endorsement"]
    assert scores["precision"]["mean"] == 0.5
    assert scores["recall"]["mean"] is None
    build(tiny_run, tmp_path, tmp_path, GroundingConfig())  # where the next item stage is stale
    assert "own_choice" not in json.loads((tmp_path / "results.json").read_text())["models"]


def test_a_prediction_without_words_has_no_precision_and_no_recall_of_its_reference(tiny_run):
    replace_predictions(tiny_run, "")
    assert main(["grounding", str(tiny_run)]) == 0
    found = json.loads((tiny_run / "grounding" / "results.json").read_text())["models"]["fused"]["brief_user_summary"]
    assert found["precision"] == {"mean": None, "low": None, "high": None}
    assert found["recall"]["mean"] == 0


def test_a_language_model_judges_unchecked_claims_and_is_called_once(tiny_run, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    replace_predictions(tiny_run, "A person of good taste.")

    def say(number, body):
        answer = dict.fromkeys(answer_to(schema_in(body)), "supported")
        return 200, {}, completion(json.dumps(answer))

    with Server(say) as server:
        options = ["--backend", "openai", "--base-url", server.url, "--model", "checker", "--retries", "0"]
        assert main(["grounding", str(tiny_run), *options, "--dry-run"]) == 0
        assert "requests to send, 0 answered before" in capsys.readouterr().out
        assert server.bodies == []
        assert main(["grounding", str(tiny_run), *options]) == 0
        asked = len(server.bodies)
        assert asked > 6
        words = json.dumps(server.bodies[0])
        assert "BEGIN DATA" in words
        assert "Title:" in words
        # With another threshold the stage runs again without a request.
        assert main(["grounding", str(tiny_run), *options, "--nli-threshold", "0.6"]) == 0
        assert len(server.bodies) == asked
    table = pq.read_table(tiny_run / "grounding" / "claims.parquet").to_pylist()
    assert {(row["verdict"], row["checked_by"]) for row in table if row["model"] == "fused"} == {("supported", "llm")}
    results = json.loads((tiny_run / "grounding" / "results.json").read_text())
    assert results["checker"]["llm"] == "checker"
    assert results["models"]["fused"]["brief_user_summary"]["checked_share"]["mean"] == 1
    # "A beekeeper who …" has no facts for the rules; the model says that "A person of good taste." covers it.
    assert results["models"]["fused"]["brief_user_summary"]["recall"]["mean"] > 0
    assert "secret-key" not in (tiny_run / "grounding" / "results.json").read_text()


def nli_model(folder, labels, bias):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.tiny_model import tokenizer

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=256, num_labels=3, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    tokenizer(model_max_length=256).save_pretrained(folder)
    return str(folder)


def test_a_cross_encoder_judges_unchecked_claims(tiny_run, tmp_path, capsys):
    replace_predictions(tiny_run, "A person of good taste.")
    sure = nli_model(tmp_path / "sure", ["contradiction", "entailment", "neutral"], [0.0, 20.0, 0.0])
    assert main(["grounding", str(tiny_run), "--nli", sure]) == 0
    table = pq.read_table(tiny_run / "grounding" / "claims.parquet").to_pylist()
    assert {(row["verdict"], row["checked_by"]) for row in table if row["model"] == "fused"} == {("supported", "nli")}
    assert json.loads((tiny_run / "grounding" / "results.json").read_text())["checker"]["nli"] == "sure"
    unlike = nli_model(tmp_path / "unlike", ["bad", "fair", "good"], [0.0, 0.0, 0.0])
    assert main(["grounding", str(tiny_run), "--nli", unlike]) == 1
    assert "expected one of them to be 'entailment'" in capsys.readouterr().err
    assert main(["grounding", str(tiny_run), "--nli", sure, "--nli-threshold", "50"]) == 1
    assert "expected a probability, at most 1" in capsys.readouterr().err
    assert main(["grounding", str(tiny_run), "--nli", sure, "--backend", "openai", "--model", "m"]) == 1
    assert "expected only one of them" in capsys.readouterr().err
