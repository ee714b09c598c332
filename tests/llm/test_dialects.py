"""How a server wants its requests: found out from its refusals and first answers, and remembered."""

import json
import re

import pytest

from regen_hf import llm
from regen_hf.errors import ConfigError
from regen_hf.llm.request import FORMS
from tests.llm.test_llm import Colour, answers, ask, request, requests
from tests.llm_server import Server, answer_to, completion, error, schema_in

GOOD = Colour(colour="Some words.")


def form(body):
    stated = body.get("response_format", {"type": "instructions"})
    return stated["type"] + ("_schema" if "schema" in stated else "")


def good(body):
    return 200, {}, completion(json.dumps(answer_to(schema_in(body))))


BARE = (500, {"content-type": "text/plain"}, "Internal Server Error")
REFUSALS = {
    "400": error(400, "response_format json_schema is not supported with this model"),
    "400 without a reason": error(400, "Bad request"),
    "404 of a router": error(404, "No endpoints found that can handle the requested parameters."),
    "422": error(422, "Input should be 'text' or 'json_object'"),
    "500 with a reason": error(500, "[{'loc': ('body', 'response_format', 'type'), 'msg': 'Input should be …'}]"),
    "500 of a grammar": error(500, "Failed to parse grammar"),
    "501": error(501, "Not implemented"),
}


@pytest.mark.parametrize("taken", FORMS[1:])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_form_is_replaced_at_once_and_remembered(store, refusal, taken):
    def fault(number, body):
        return refusal if form(body) != taken else None

    asked = requests(12)
    calls = FORMS.index(taken)
    with Server(fault) as fake:
        ask(asked[:6], fake, store, retries=0)
        assert len(fake.bodies) == 6 + calls
        ask(asked, fake, store, retries=0)
        assert len(fake.bodies) == 12 + calls
    assert answers(asked, store) == [GOOD] * 12
    assert {store.get(one.key).form for one in asked} == {taken}


@pytest.mark.parametrize("taken", FORMS[1:])
def test_a_bare_error_500_is_a_refusal_if_it_comes_for_every_request_in_that_form(store, taken):
    def fault(number, body):
        return BARE if form(body) != taken else None

    asked = requests(12)
    with Server(fault) as fake:
        ask(asked[:6], fake, store, concurrency=1, retries=3)
        first = len(fake.bodies)
        ask(asked, fake, store)
    calls = FORMS.index(taken)
    assert first == 6 + 2 * calls  # two requests find it out
    assert len(fake.bodies) == first + 6
    assert answers(asked, store) == [GOOD] * 12
    assert {store.get(one.key).form for one in asked} == {taken}


def test_a_bare_error_500_that_passes_changes_no_form(store):
    asked = requests(6)
    with Server(lambda number, body: BARE if number == 0 else None) as fake:
        ask(asked, fake, store, concurrency=1)
    assert answers(asked, store) == [GOOD] * 6
    assert [form(body) for body in fake.bodies[2:]] == ["json_schema"] * 5


def test_other_errors_change_no_form(store):
    for number, fault in enumerate((error(429, "slow down, schema queue"), error(503, "loading"), error(502))):
        asked = [request(f"{number} {index}") for index in range(3)]
        with Server(lambda count, body, fault=fault: fault if count < 2 else None) as fake:
            ask(asked, fake, store)
        assert {form(body) for body in fake.bodies} == {"json_schema"}
    with Server(lambda number, body: error(401, "json_schema? Incorrect key")) as fake, pytest.raises(ConfigError):
        ask(requests(2), fake, store)
    assert len(fake.bodies) == 1


@pytest.mark.parametrize("heeded", [*FORMS[1:], "never"])
def test_a_form_that_is_accepted_and_ignored_is_replaced_after_the_first_answer(store, heeded):
    """As `transformers serve` does: the model answers in prose unless the request shows the form in words."""

    def fault(number, body):
        return good(body) if form(body) == heeded else (200, {}, completion("It is red."))

    asked = requests(20)
    with Server(fault) as fake:
        ask(asked[:10], fake, store, concurrency=8)
        if heeded == "never":
            assert all(isinstance(one, llm.Failure) for one in answers(asked[:10], store))
            assert len(fake.bodies) == 20
            return
        unusable = FORMS.index(heeded)
        # A question is lost where its answer and the repetition are in ignored forms.
        assert sum(isinstance(one, llm.Failure) for one in answers(asked[:10], store)) == unusable // 2
        assert [form(body) for body in fake.bodies].count(heeded) == len(fake.bodies) - unusable
        ask(asked, fake, store, concurrency=8)
    assert answers(asked[10:], store) == [GOOD] * 10
    assert {store.get(one.key).form for one in asked[10:]} == {heeded}
    assert store.dialects(fake.url)["m"].form == heeded


def test_a_form_that_is_often_ignored_is_replaced(store):
    def fault(number, body):
        lucky = number in (0, 3) or form(body) != "json_schema"
        return good(body) if lucky else (200, {}, completion("It is red."))

    asked = requests(20)
    with Server(fault) as fake:
        ask(asked, fake, store, concurrency=1)
    assert store.dialects(fake.url)["m"].form == "json_object_schema"
    assert [form(body) for body in fake.bodies].count("json_schema") < 8


@pytest.mark.parametrize(
    "reply",
    [
        completion('{"colour": "re', finish_reason="length"),
        completion(None, refusal="No."),
        completion("", finish_reason="content_filter"),
        completion('{"colour": 3}'),
    ],
    ids=["cut off", "refused", "filtered", "the right field"],
)
def test_an_answer_that_is_unusable_for_another_reason_changes_no_form(store, reply):
    with Server(lambda number, body: (200, {}, reply) if number < 3 else None) as fake:
        ask(requests(8), fake, store)
    assert {form(body) for body in fake.bodies} == {"json_schema"}


def test_the_dialect_of_each_model_is_its_own(store):
    def fault(number, body):
        return error(501, "no") if body["model"] == "old" and form(body) != "json_object" else None

    asked = [request(number, model=model) for number in range(4) for model in ("new", "old")]
    with Server(fault) as fake:
        ask(asked, fake, store, concurrency=1)
    assert {(body["model"], form(body)) for body in fake.bodies[5:]} == {("new", "json_schema"), ("old", "json_object")}
    assert len(fake.bodies) == 10


def test_in_words_the_form_is_shown_as_a_filled_example_and_not_as_a_schema(store):
    with Server(lambda number, body: error(501, "no") if "response_format" in body else None) as fake:
        ask([request(0)], fake, store)
    (message,) = fake.bodies[-1]["messages"]
    assert message["content"].endswith('{"colour": "..."}')
    assert not re.search('properties|"type"|schema', message["content"])


def test_asking_again_changes_the_seed_and_shows_the_form(store):
    with Server(lambda number, body: (200, {}, completion('{"colour": 3}')) if number == 0 else None) as fake:
        ask([request(0)], fake, store)
    first, again = fake.bodies
    assert first["seed"] != again["seed"]
    assert form(again) == "json_schema"
    assert again["messages"][-1]["content"].endswith('{"colour": "..."}')


TEMPLATES = {
    "Gemma": error(400, "System role not supported"),
    "Gemma on llama.cpp": error(500, 'Value is not callable: ... raise_exception("System role not supported")'),
    "Mistral": error(400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    "Gemma at Google": error(400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    "a validator": error(422, "messages.0.role: Input should be 'user' or 'assistant', unsupported role: system"),
    "another": error(400, "Only user and assistant roles are supported!"),
}


@pytest.mark.parametrize("refusal", TEMPLATES.values(), ids=TEMPLATES)
def test_without_a_system_role_its_text_begins_the_users_message(store, refusal):
    def fault(number, body):
        return refusal if any(message["role"] == "system" for message in body["messages"]) else None

    turns = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "an example"})
    example = {"role": "assistant", "content": "{}"}
    asked = [
        request(0, messages=(*turns, example, {"role": "user", "content": f"question {number}"})) for number in range(6)
    ]
    with Server(fault) as fake:
        ask(asked[:3], fake, store, retries=0)
        ask(asked, fake, store, retries=0)
    assert answers(asked, store) == [GOOD] * 6
    assert len(fake.bodies) == 7  # found out once, and remembered
    messages = fake.bodies[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == "be brief\n\nan example"
    assert form(fake.bodies[-1]) == "json_schema"
