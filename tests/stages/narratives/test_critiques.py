"""Critiques: for whom they are written, what the model is shown, and which of its texts is taken."""

import copy
import json

import pyarrow.parquet as pq
import pytest

from regen_hf import outputs, prompts
from regen_hf.stages.narratives import critiques
from regen_hf.stages.narratives.build import estimate
from regen_hf.stages.narratives.settings import NarrativesConfig
from tests.llm_server import Server, answer_to, completion
from tests.stages.narratives.test_narratives import PENS, openai, purchase, run_build, write_sequences

SIMILAR = [
    purchase("M1", "Elmsgate Black Mug", "Home - Kitchen - Mugs", "It is black.", 9.0, 2, "secretword", 1_500_000_000),
    purchase("M2", "Vintrel Teal Mug", "Home - Kitchen - Mugs", "It is teal.", 12.0, 5, "othersecret", 1_510_000_000),
]
USERS = [("similar", SIMILAR), ("other", PENS), ("single", PENS[:1]), ("again", [PENS[0], PENS[0]]), ("empty", [])]


def is_critique(body):
    return "critique_1" in json.dumps(body)


def answering(*answers):
    """A fault that gives these critiques in turn; other requests get the same words."""
    given = iter(answers)

    def fault(number, body):
        answer = answer_to(body["response_format"]["json_schema"]["schema"])
        texts = next(given) if is_critique(body) else answer.values()
        return 200, {}, completion(json.dumps(dict(zip(answer, texts, strict=True))))

    return fault


def item(category=None, title="Pen", asin=None):
    return {"asin": asin or f"{category}{title}", "title": title, "category": category}


@pytest.mark.parametrize(
    ("first", "last", "levels", "expected"),
    [
        (item("A - B - C"), item("A - B - D"), 2, True),
        (item("A - B - C"), item("A - B - D"), 3, False),
        (item("A - B"), item("A - C"), 2, False),
        (item("A - B"), item("A - C"), 1, True),
        (item("A > B > C"), item("A > B > D"), 2, True),
        (item("A - B", asin="x"), item("A - B", asin="x"), 2, False),  # the same item again
        (item("A", "Red Gel Pen"), item("A", "Blue Gel Pen"), 2, True),  # too few levels: the titles decide
        (item("A", "Red Gel Pen"), item("A", "Blue Ink"), 2, False),
        (item(None, "Red Gel Pen"), item("A - B", "Blue Gel Pen"), 2, True),
        (item(None, "Pen"), item(None, "Pen", asin="y"), 2, False),  # one word is too little
        (item(None, None), item(None, None, asin="y"), 2, False),
    ],
)
def test_items_are_similar_by_their_categories_or_else_by_their_titles(first, last, levels, expected):
    assert critiques.similar(first, last, levels) is expected
    assert critiques.similar(last, first, levels) is expected


def test_a_model_is_asked_last_about_similar_items_without_reviews_and_one_text_is_taken(tmp_path):
    write_sequences(tmp_path, train=USERS)
    texts = ("I would like it in teal.", "Not by Elmsgate, please.", "It may cost more.")
    with Server(answering(texts)) as server:
        config = openai(server, concurrency=1)
        before = estimate(tmp_path, config)
        counts, table = run_build(tmp_path, config)
        assert (before.requests, estimate(tmp_path, config).stored) == (len(server.bodies), len(server.bodies))
    assert str(before).startswith("9 requests to send (4 Narratives, 4 Endorsement, 1 Critique), 0 answered before")
    assert [is_critique(body) for body in server.bodies] == [False] * 8 + [True]
    shown = server.bodies[-1]["messages"][-1]["content"]
    assert [text in shown for text in ("Elmsgate Black Mug", "It is teal.", "secret", "Rating", "2017")] == [
        *(True, True, False, False, False)
    ]
    assert shown.count("Position: ") == 2
    rows = {row["reviewer_id"]: row for row in table.to_pylist()}
    assert rows["similar"]["critiques"] == list(texts)
    assert rows["similar"]["last_purchase"]["critique"] == critiques.choose(texts, "similar")
    assert [row["critiques"] for name, row in rows.items() if name != "similar"] == [None] * 4
    assert (counts["similar_pairs"], counts["critiques"]) == (1, 1)
    assert "critique" in counts["prompts"]
    assert rows["similar"]["narrator_prompt"].endswith(prompts.identity("critique"))


def test_texts_that_fail_checks_are_not_taken_where_others_pass_and_all_failing_are_requested_again(tmp_path):
    write_sequences(tmp_path, train=[("u", SIMILAR)])
    leaking = ("I want the Vintrel.", "A teal mug, please.", "I like it in red.")
    mixed = ("The Vintrel, please.", "Rather in teal.", "Have you got the teal mug?")
    with Server(answering(leaking, mixed)) as server:
        counts, table = run_build(tmp_path, openai(server, concurrency=1, fix=1))
    (row,) = table.to_pylist()
    assert (row["last_purchase"]["critique"], row["critiques"]) == ("Rather in teal.", list(mixed))
    assert not [check for check in row["checks"]["failed"] if check.startswith("critique")]
    (_, again) = filter(is_critique, server.bodies)
    assert "the critique gives the final item away" in again["messages"][-1]["content"] or "asks for" in str(again)
    assert counts["asked_again"] >= 1


def test_without_critiques_nothing_more_is_asked_and_a_part_of_an_answer_is_kept(tmp_path):
    write_sequences(tmp_path, train=[("u", SIMILAR)])
    with Server() as server:
        _, table = run_build(tmp_path, openai(server, critiques=0))
    assert len(server.bodies) == 2
    assert "critique" not in table["narrator_prompt"].to_pylist()[0]
    (tmp_path / "out").rename(tmp_path / "first")

    def cut(number, body):
        return (
            (200, {}, completion('{"critique_1": "Rather in teal.", "critique_2": "I wo'))
            if is_critique(body)
            else None
        )

    with Server(cut) as server:
        counts, table = run_build(tmp_path, openai(server))
    assert (counts["partial"], counts["failed"]) == (1, 0)
    assert table["critiques"].to_pylist() == [["Rather in teal."]]


def test_both_items_stay_in_a_prompt_that_is_too_long(tmp_path):
    history = copy.deepcopy(SIMILAR)
    for entry in history:
        entry["item"]["description"] = "long " * 9000
    write_sequences(tmp_path, train=[("u", history)])
    with Server() as server:
        run_build(tmp_path, openai(server, window=4000, max_tokens=500))
    (body,) = filter(is_critique, server.bodies)
    shown = body["messages"][-1]["content"]
    assert "Title: Elmsgate Black Mug" in shown
    assert "Title: Vintrel Teal Mug" in shown
    assert len(shown) < 3 * 4000


def test_the_rules_state_differences_in_category_and_price_and_give_no_title_away():
    first = purchase("A", "Plain Blue Pen", "Office - Pens - Ballpoint", price=2.0)
    last = purchase("B", "Swift Notes Red", "Office - Pens - Felt Tips", price=8.0)
    given = critiques.by_rules("u", [first, last], most=3)
    assert len(given) == 3
    assert "felt tips" in given[0]
    assert "more" in given[1]
    assert critiques.by_rules("u", [first, last], most=1) == given[:1]
    assert len({critiques.by_rules(f"u{number}", [first, last], most=1)[0] for number in range(20)}) == 3
    last["item"]["title"] = "Swift Felt Tip, Red"
    assert all("felt" not in text for text in critiques.by_rules("u", [first, last], most=3))
    assert critiques.by_rules("u", [first, {**first}], most=3) == []
    last["item"]["title"] = "Swift Notes Red"
    first["item"]["category"] = None  # then it is unknown whether the category differs
    assert not [text for text in critiques.by_rules("u", [first, last], most=3) if "tips" in text]


def test_simulated_shoppers_have_a_critique_of_the_truth_and_others_that_of_the_rules(finished_run):
    narratives = pq.read_table(outputs.path(finished_run, "narratives", outputs.NARRATIVES)).to_pylist()
    truth = pq.read_table(outputs.path(finished_run, "sample", outputs.TRUTH), columns=["reviewer_id", "critiques"])
    of = {row["reviewer_id"]: [one["text"] for one in row["critiques"]] for row in truth.to_pylist()}
    written = [row for row in narratives if row["last_purchase"]["critique"]]
    assert 0.1 < len(written) / len(narratives) < 0.35
    for row in written:
        assert row["last_purchase"]["critique"] in row["critiques"]
        assert row["critiques"] == of[row["reviewer_id"]][:3]
    counts = outputs.manifest(finished_run, "narratives")["counts"]
    assert counts["critiques"] == counts["similar_pairs"] == len(written)


@pytest.mark.parametrize(
    ("settings", "message"), [({"critiques": -1}, "at least 0"), ({"critique_levels": 0}, "at least 1")]
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NarrativesConfig(**settings)
