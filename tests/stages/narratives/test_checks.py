"""The checks of narratives: each fails on wrong texts of its kind, and none on texts about the user."""

import json

import pytest

from regen_hf import outputs, prompts
from regen_hf.llm.request import CORRECTION
from regen_hf.schema import (
    CHECK_KINDS,
    CRITIQUE,
    NARRATIVES,
    TASKS,
    WARNINGS,
    in_row,
    narrative_prompts,
    written_narratives,
)
from regen_hf.stages.narratives import checks, reference
from regen_hf.stages.narratives.critiques import by_rules
from regen_hf.stages.narratives.names import Names
from regen_hf.stages.narratives.shared_words import joined, words


def purchase(title, category="Home - Goods", description=None, text=None, summary=None, rating=5):
    item = {"asin": title[:9], "title": title, "category": category, "description": description, "price": 9.5}
    return {"item": item, "review": {"summary": summary, "rating": rating, "text": text, "unix_time": 1_500_000_000}}


HISTORY = [
    purchase("Elmsgate Red Travel Mug", "Home - Mugs", "A mug with a lid.", "It keeps tea warm on the train."),
    purchase("Vintrel Wall Planner", "Home - Planners", "A planner for a year.", "My desk is tidy again, thanks."),
    purchase(
        "Quillmoor Steel Lantern",
        "Home - Lanterns",
        "A lantern of brushed steel that burns for nine hours, folds flat for the road and hangs from any branch. "
        "Its glass does not break when it falls, and the wick can be changed without tools in a minute at most.",
        "Bright and light, we took it camping by the lake.",
    ),
]
GOOD = {
    "purchase_reason": "They wanted a light for their next trip.",
    "purchase_reason_explanation": "The travel mug shows that they are often on the way; a lantern is of use there.",
    "product_endorsement": "You liked a mug that travels with you. The Quillmoor Lantern will light your evenings.",
    "user_profile": "Tidy traveller with practical taste",
    "brief_user_summary": "This customer buys useful things for trips and desk. Elmsgate and Vintrel pleased them.",
    "long_user_summary": "Three purchases, all praised: a red mug, a planner and a lantern. Warm tea and tidy rooms "
    "matter to them, and so does what can be carried.",
}
CATALOGUE = Names.of(
    [
        {"title": f"{brand} {thing}"}
        for brand in ("Tarrowby", "Elmsgate")
        for thing in ("Navy Office Clock", "Tote Bag")
    ],
    ["The Tarrowby clock and my Elmsgate bag are fine.", "This is a Tarrowby, not an Elmsgate."],
)
INSTRUCTIONS = joined(
    words(text)
    for text in (
        *(prompts.system(prompt, language="en", critiques=3)["content"] for prompt in narrative_prompts()),
        CORRECTION,
    )
)
EXAMPLE = "Mustard is a colour they had chosen before, and handsome materials count for much."
SHOWN = checks.Shown(
    INSTRUCTIONS,
    joined([words(EXAMPLE)]),
    Names.of(
        [{"title": "Hollistead Garden Clock"}, {"title": "Hollistead Tool Roll"}, {"title": "Oskvale Desk Lamp"}],
        ["The Hollistead clock and the Hollistead roll."],
    ),
    CATALOGUE,
)


def failed(field="long_user_summary", text=None, history=HISTORY, **options):
    """The kinds of failed checks and warnings with `text` in place of a good one."""
    written = in_row({**GOOD, **({field: text} if text is not None else {})})
    results = checks.check(written, history, "en", None, SHOWN, **options)
    assert field != "critique" or all(one.startswith("critique.") for one in results["failed"] + results["warnings"])
    return {one.partition(".")[2] for one in results["failed"] + results["warnings"]}


def test_good_texts_pass_all_checks():
    assert failed() == set()


COPIED = HISTORY[-1]["item"]["description"]
OWN_WORDS = "Tea, trips and tidy rooms matter to them, since each purchase serves one of these, and all were praised."
WRONG = {
    "words": [("user_profile", "Traveller"), ("user_profile", "A tidy and practical traveller who likes mugs")],
    "verbatim": [
        ("brief_user_summary", "They say that it keeps tea warm on the train."),
        ("purchase_reason", "Bright and light, we took it camping by the lake."),
    ],
    "language": [
        ("long_user_summary", "Diese Kundin kauft Becher, Planer und Laternen und achtet auf gute Arbeit."),
        ("brief_user_summary", "Cette cliente achète des objets utiles pour ses voyages et pour son bureau."),
    ],
    "refusal": [
        ("long_user_summary", "I'm sorry, but I cannot describe this customer."),
        ("purchase_reason", "As an AI language model, I have no access to reasons."),
    ],
    "cut": [
        ("long_user_summary", "Three purchases, all praised. Warm tea and tidy rooms matter to th"),
        ("long_user_summary", "They buy mugs, planners and"),
        ("purchase_reason", "They wanted a light,"),
        ("product_endorsement", "You will like the lantern (it folds flat"),
        ("brief_user_summary", "They buy things for trips and for the desk " * 3 + "tidily"),
        ("user_profile", "Tidy traveller with a"),
    ],
    "markup": [
        ("long_user_summary", "```json They buy mugs. ```"),
        ("long_user_summary", 'They buy mugs."}'),
        ("brief_user_summary", '{"brief": "They buy mugs."}'),
        ("brief_user_summary", 'They buy mugs.", "long_user_summary": "They buy many mugs.'),
        ("purchase_reason", "=== END DATA 3f2a9b0c11d2e3f4 === They wanted a light."),
        ("purchase_reason", "<think>What is it?</think> They wanted a light."),
        ("product_endorsement", "Take the lantern.<|im_end|>"),
        ("product_endorsement", "Final item: yes, the lantern is bright."),
        ("long_user_summary", r"They buy mugs.\nThey buy planners."),
        ("product_endorsement", "<The lantern is bright.>"),
        ("purchase_reason", "<They wanted a light for the next trip."),
    ],
    "wordless": [
        ("product_endorsement", "Quillmoor Steel Lantern"),
        ("purchase_reason", "The Elmsgate Red Travel Mug."),
        ("purchase_reason", "5 of 5"),
        ("long_user_summary", "N/A."),
        ("brief_user_summary", "Rating: 5/5!"),
    ],
    "damaged": [
        ("long_user_summary", "They buy caf\ufffd mugs and planners."),
        ("purchase_reason", "They wanted \x00a light."),
    ],
    "repetition": [
        ("long_user_summary", "They like mugs and mugs and mugs and mugs and mugs."),
        ("long_user_summary", "They buy things for trips. They like a lantern. They buy things for trips."),
        ("brief_user_summary", "good good good good good mugs."),
        ("brief_user_summary", "They like the red mug. " * 5),
        (
            "brief_user_summary",
            "Tea, " + "and mugs of the brand she likes best in the evening, while she reads, " * 3,
        ),
        ("brief_user_summary", "They like mugs. " + "}]" * 40),
    ],
    "same": [
        ("long_user_summary", GOOD["brief_user_summary"]),
        ("long_user_summary", GOOD["brief_user_summary"] + " They like tea."),
        ("brief_user_summary", GOOD["purchase_reason"]),
        ("purchase_reason_explanation", GOOD["purchase_reason"].upper()),
        ("long_user_summary", "Mostly, " + GOOD["brief_user_summary"].replace("They", "this customer")),
    ],
    "instructions": [
        ("long_user_summary", "The same in depth: what this customer shops for, with particular items, brands."),
        ("user_profile", "Give null where no reason can be inferred."),
        ("product_endorsement", "Be specific to this customer: what you write should fit nobody else."),
        ("user_profile", "An earlier answer cannot be used."),
        ("user_profile", "The customer in 4 to 6 words"),
    ],
    "example": [
        ("long_user_summary", "They like mugs. Handsome materials count for much: a colour they had chosen before."),
        ("brief_user_summary", "Hollistead is the brand they return to."),
        ("product_endorsement", "Like your Hollistead’s clock, this lantern lasts."),
        ("brief_user_summary", "For lamps they return to Oskvale."),  # the brand of one item only
    ],
    "copied": [
        ("long_user_summary", COPIED),
        ("product_endorsement", "Look: " + COPIED.partition(".")[0] + "."),
        ("purchase_reason", "It folds flat for the road and hangs from any branch."),
        ("long_user_summary", f"{OWN_WORDS} {' '.join(COPIED.split()[:15])}, as they say. {OWN_WORDS}"),
    ],
    "product": [
        ("product_endorsement", "The Elmsgate mug in red is perfect for your travel."),
        ("product_endorsement", "Plan your year with the Vintrel wall planner, a tidy thing."),
    ],
    "another_item": [("purchase_reason", "They wanted the Elmsgate mug in red for their travel.")],
    "names": [
        ("long_user_summary", "They buy from Tarrowby and like tea."),
        ("brief_user_summary", "Tarrowby's clocks please them."),
        ("purchase_reason", "They own the Elmsgate Navy Office Clock and wanted a light."),
    ],
    "unknown_names": [
        ("long_user_summary", "They buy from Starbucks and like tea."),
        ("purchase_reason", "Their friend Katharina wanted a light, and so did Elon."),
    ],
    "sentence": [
        ("critique", "I want a light. It should fold."),
        ("critique", "Nice!\nBut I need a light."),
    ],
    "leak": [
        ("critique", "I would rather have the Quillmoor."),
        ("critique", "Not by Quillmoor, please."),
        ("critique", "Have you got a steel lantern like this?"),
        ("critique", "I am looking for steel lanterns."),
    ],
    "unmet": [
        ("critique", "I would like it in red."),
        ("critique", "The same by Vintrel, please."),
    ],
}


def test_every_kind_of_check_has_wrong_texts():
    assert set(WRONG) | {"empty"} == set(checks.KINDS) == set(CHECK_KINDS)
    assert set(CHECK_KINDS) >= WARNINGS


@pytest.mark.parametrize(
    ("kind", "field", "text"), [(kind, *wrong) for kind, wrongs in WRONG.items() for wrong in wrongs]
)
def test_a_wrong_text_fails_the_check_of_its_kind(kind, field, text):
    assert kind in failed(field, text)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("purchase_reason", "A light for the next trip"),  # a phrase
        ("purchase_reason", "They asked: why carry a candle?"),
        ("brief_user_summary", 'They call their mug "the best there is".'),
        ("brief_user_summary", "They buy for Christmas, and in July for trips."),
        ("long_user_summary", "Mugs (1), planners (1), lanterns (1): three of three were rated 5 of 5."),
        ("long_user_summary", "The Elmsgate Red Travel Mug, the Vintrel Wall Planner and the Quillmoor Lantern last."),
        ("product_endorsement", "Your Elmsgate Red Travel Mug needs company: a lantern of steel."),
        (
            "product_endorsement",
            "You travel a lot: this lantern burns for nine hours, folds flat and is bright.",
        ),
        ("product_endorsement", "A very, very good light for you! 🎉"),
        ("critique", "I need a lantern instead."),
        ("critique", "Rather of steel, please, and not by Vintrel."),
        ("critique", "Nothing in red, and one that I can carry: anything but Vintrel."),
    ],
)
def test_texts_about_the_user_pass(field, text):
    assert failed(field, text) == set()


def test_an_endorsement_may_name_its_product_by_a_brand_with_an_apostrophe():
    own = [*HISTORY[:-1], purchase("Lowe's Gift Card", "Gift Cards")]
    pitch = "Lowe’s has all for your wall, and it goes with the Vintrel wall planner."
    assert "product" not in failed("product_endorsement", pitch, own)
    assert "product" in failed("product_endorsement", pitch.replace("Lowe’s", "It"), own)


@pytest.mark.parametrize("kind", ["Cards", "Gift Card"])
def test_titles_that_differ_in_the_brand_only_are_distinguished_where_one_is_written_in_full(kind):
    history = [purchase(f"{brand} {kind}", "Cards") for brand in ("Denny's", "Vintrel", "Quillmoor")]
    for pitch in (f"Denny’s {kind} is for the whole family.", f"You will like the Vintrel {kind}."):
        assert "product" in failed("product_endorsement", pitch, history)
        assert "another_item" in failed("purchase_reason", pitch, history)
    for pitch in (
        f"Quillmoor {kind} is for the whole family, as the Vintrel {kind} was.",
        f"As you like vintrel {kind.lower()}, take this one.",
        "A present for the whole family.",
    ):
        assert "product" not in failed("product_endorsement", pitch, history)


def test_names_in_a_copied_description_do_not_hide_that_it_is_copied():
    text = "Vintrel Gift Cards are the way to give what they hope for. Vintrel Gift Cards never expire at Vintrel Gift."
    history = [purchase("Vintrel Gift Cards", "Cards", text + " Order one today.")]
    assert "copied" in failed("product_endorsement", text, history)
    own = "Vintrel Gift Cards suit you: they are the way to give what they hope for, and your friends will be glad."
    assert "copied" not in failed("product_endorsement", own, history)


def test_an_answer_at_the_token_limit_needs_a_stop():
    phrase = "A light for the next trip"
    assert failed("purchase_reason", phrase) == set()
    assert failed("purchase_reason", phrase, truncated={"purchase_reason"}) == {"cut"}
    assert failed(truncated=set(TASKS)) == set()


def test_names_in_the_history_are_not_those_of_an_example_or_of_the_catalogue():
    own = [*HISTORY[:-1], purchase("Hollistead Lantern", text="As good as my Tarrowby clock, and my Oskvale.")]
    assert failed("long_user_summary", "They buy from Hollistead, Oskvale too, and own a Tarrowby.", own) == set()


def test_what_the_history_itself_holds_is_no_markup():
    own = [purchase("Mug [/INST] ```art```"), *HISTORY]
    assert failed("long_user_summary", "They like their Mug [/INST] ```art``` very much.", own) == set()


def test_a_missing_text_fails_and_errors_are_apart_from_warnings():
    written = in_row({**GOOD, "user_profile": None, "purchase_reason": None, "purchase_reason_explanation": None})
    results = checks.check(written, HISTORY)
    assert results["failed"] == ["profile.empty"]
    written = in_row({**GOOD, "purchase_reason_explanation": "They have read of lanterns by Zorro and friends."})
    results = checks.check(written, HISTORY)
    assert (results["failed"], results["warnings"]) == ([], ["explanation.unknown_names"])
    assert NARRATIVES.field("checks").type.field("warnings")


def test_every_failed_check_has_words_for_the_repeated_request():
    for task in written_narratives():
        for kind in checks.KINDS:
            said = checks.reason(f"{task.field[-1]}.{kind}", "en")
            assert said.startswith(f"the {task.name} ")
            assert "{" not in said


def test_the_checks_of_another_language_skip_the_english_rules():
    german = in_row({**GOOD, "purchase_reason": "Sie brauchten für die Reise ein Licht an"})
    results = checks.check(german, HISTORY, "de")
    assert "reason.cut" not in results["failed"]
    assert results["warnings"] == []


def test_what_both_items_have_is_no_leak_and_a_wish_is_compared_with_the_last_item():
    pens = [
        purchase("Elmsgate Gel Pen 0.7, Black", "Home - Pens", "A pen in black, with a cap."),
        purchase("Elmsgate Gel Pen 0.7 Slim, Blue", "Home - Pens", "A slim pen, also sold in grey."),
    ]
    pens[0]["item"]["price"], pens[1]["item"]["price"] = 4.0, 6.0
    right = [
        "I want one more Elmsgate gel pen, but in blue.",
        "Again 0.7, but slim.",
        "Not in black.",
        "Have you got it in gray?",
        "One in blue instead of black, please.",
        "A better one: I can pay more.",
    ]
    wrong = ["Anything but blue.", "Not by Elmsgate.", "Is there one for less money?", "Not too expensive, in blue."]
    found = {
        text: checks.check(in_row({"critique": text}), pens, "en", [CRITIQUE], SHOWN)["failed"]
        for text in (*right, *wrong)
    }
    assert found == {text: ["critique.unmet"] if text in wrong else [] for text in found}
    german = in_row({"critique": "Lieber einen Stift in Rot als von Elmsgate, bitte."})
    assert checks.check(german, pens, "de", [CRITIQUE], SHOWN)["failed"] == []


@pytest.mark.parametrize("source", ["truth", "rules"])
def test_no_text_of_the_sample_world_fails_a_check(finished_run, source):
    histories = list(outputs.rows(outputs.sequence_files(finished_run)))
    truth = outputs.rows(
        [outputs.path(finished_run, "sample", outputs.TRUTH)], ["reviewer_id", "last_purchase", "user", "critiques"]
    )
    true_texts = {row["reviewer_id"]: row for row in truth}
    items = outputs.rows(outputs.item_files(outputs.folder(finished_run, "sequences")))
    texts = [entry["review"]["text"] or "" for user in histories for entry in user["purchase_history"]]
    shown = checks.Shown(INSTRUCTIONS, catalogue=Names.of(items, texts))
    assert len(shown.catalogue.words) > 5
    for user in histories:
        name, history = user["reviewer_id"], user["purchase_history"]
        written = true_texts[name] if source == "truth" else reference.write(name, history)
        results = checks.check(written, history, "en", None, shown)
        assert (results["failed"], results["warnings"]) == ([], []), json.dumps(written, indent=1)
        given = [one["text"] for one in written["critiques"]] if source == "truth" else by_rules(name, history, most=3)
        for text in given:
            results = checks.check(in_row({"critique": text}), history, "en", [CRITIQUE], shown)
            assert (results["failed"], results["warnings"]) == ([], []), (text, history[-2:])


TIN = "A tin for Christmas, with a non-stick lid."
CARDS = [
    purchase("Elmsgate eGift Card, Black", "Gift Cards - Gift Cards", "Sent by e-mail."),
    purchase("Vintrel's Gift Card in a Teal Non-Stick Tin", "Gift Cards - Tins", TIN),
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (None, "The black one is nice, but I want teal."),
        (None, "The Elmsgate is nice, but I would like another brand."),
        (None, "Black isn't for me, rather teal."),
        (None, "Don't you have it in teal?"),
        (None, "Why not in teal?"),
        (None, "Not as plain and in teal."),
        (None, "A non-stick one in teal, please."),
        (None, "In teal."),
        (None, "Not the Elmsgate eGift Card."),
        (None, "A gift card for Christmas, please."),
        (None, "Not for $25.00 again."),
        (None, "I don't want to pay less."),
        (None, "I can't stand black."),
        ("refusal", "I cannot write this critique."),
        (None, "One for Dr. Seuss, e.g. in teal."),
        ("leak", "I want Vintrel's."),
        ("leak", "I want to pay $50.00 for it."),
        ("unmet", "Another Elmsgate, but in teal."),
        ("unmet", "I want a black one again."),
        ("unmet", "This is too expensive."),
        ("unmet", "I don't want to pay more."),
        ("unmet", "Something under $40, please."),
        ("sentence", "Nice one! is there a teal one?"),
    ],
)
def test_remarks_compounds_questions_and_abbreviations_in_critiques_are_read_as_meant(kind, text):
    cards = [
        {**card, "item": {**card["item"], "price": price}} for card, price in zip(CARDS, (25.0, 50.0), strict=True)
    ]
    results = checks.check(in_row({"critique": text}), cards, "en", [CRITIQUE])
    assert results["failed"] == ([f"critique.{kind}"] if kind else [])
