"""Texts of models and the answers in them: on the parsing function, and through a scripted server."""

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from regen_hf import llm
from regen_hf.llm import answers as reading
from regen_hf.llm.answers import example_of, read_answer, schema_of
from regen_hf.llm.completions import parse_reply
from tests.llm.test_llm import Colour, answers, ask, request, requests
from tests.llm_server import Server, completion

RED = Colour(colour="red")
TEXT = '{"colour": "red"}'


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reasoning: str
    note: str | None
    better: Literal["first", "second"]


REPAIRED = {
    "text before it": f"Sure, here it is: {TEXT}",
    "text after it": f"{TEXT}\n\nI hope this helps {{smile}}.",
    "a code fence": f"```json\n{TEXT}\n```",
    "a cut-off text after it": f'{TEXT}\nNote: {{"a": "b',
    "an end of thought without a start": f'Maybe {{"colour": "blue"}}?\n</think>\n{TEXT}',
    "a thought with a draft": f'<think>Not {{"colour": "blue"}}.</think>{TEXT}',
    "another mark of thoughts": f'[THINK]Not {{"colour": "blue"}}.[/THINK]{TEXT}',
    "only a thought, without an end": f'<think>First {{"colour": "blue"}}, no: {TEXT}',
    "an end of thought after the answer": f"{TEXT}</think>",
    "harmony channels": '<|channel|>analysis<|message|>{"colour": "blue"}?<|end|><|start|>assistant<|channel|>final'
    f" <|constrain|>json<|message|>{TEXT}<|return|>",
    "harmony channels without their marks": f'analysisNot {{"colour": "blue"}}.assistantfinal{TEXT}',
    "a trailing comma": '{"colour": "red",\n}',
    "a raw line break": '{"colour": "red\nand blue"}',
    "a raw tab": '{"colour": "red\tand blue"}',
    "an escaped apostrophe": r'{"colour": "the dog\'s red"}',
    "an extra field": '{"colour": "red", "confidence": 0.9}',
    "several extra fields": '{"note": "", "colour": "red", "tags": ["a", "b",], "more": {"a": 1}}',
    "one level of nesting": '{"answer": {"colour": "red"}}',
    "nesting in the schema's words": '{"type": "object", "properties": {"colour": "red"}}',
    "nesting as text": json.dumps({"name": "Colour", "arguments": TEXT}),
    "nesting in a list": f'{{"answers": [{TEXT}]}}',
    "a list": f"[{TEXT}]",
    "a tool call in words": f'<tool_call>{{"name": "Colour", "arguments": {TEXT}}}</tool_call>',
    "an invalid object before it": f'{{"color": "blue"}} {TEXT}',
    "the example before it": f'{{"colour": "..."}} {TEXT}',
    "a lone surrogate": r'{"colour": "red \ud83d pen"}',
    "a byte order mark": f"\ufeff{TEXT}",
    "a null byte after it": f"{TEXT}\0",
}
VALUES = {
    "a raw line break": "red\nand blue",
    "a raw tab": "red\tand blue",
    "an escaped apostrophe": "the dog's red",
    "a lone surrogate": "red ? pen",
}


@pytest.mark.parametrize(("kind", "text"), REPAIRED.items(), ids=REPAIRED)
def test_an_answer_with_noise_around_or_in_it_is_read_and_counts_as_repaired(kind, text):
    reading = read_answer(text, Colour)
    assert reading.answer == Colour(colour=VALUES.get(kind, "red"))
    assert reading.repaired


@pytest.mark.parametrize("text", [TEXT, f"\n {TEXT} \n", r'{"colour": "😀 \ud83d\ude00 </think> {,}"}'])
def test_a_clean_answer_is_parsed_once_and_not_repaired(text, monkeypatch):
    monkeypatch.setattr("regen_hf.llm.answers.answer_part", None)
    reading = read_answer(text, Colour)
    assert reading.answer == Colour(**json.loads(text))
    assert not reading.repaired


UNUSABLE = {
    "nothing": ("", "Invalid JSON"),
    "prose": ("It is red.", "Invalid JSON"),
    "another name": ('{"color": "red"}', "colour: Field required"),
    "another name in prose": ('Sure: {"color": "red"}', "colour: Field required"),
    "another type": ('{"colour": 3}', "colour: Input should be a valid string"),
    "the schema": (json.dumps(schema_of(Colour)), "colour: Field required"),
    "the example": (json.dumps(example_of(Colour)), "colour: this field holds the placeholder of the example"),
    "the example in one character": ('{"colour": "…"}', "colour: this field holds the placeholder of the example"),
    "two levels of nesting": (f'{{"a": {{"b": {TEXT}}}}}', "colour: Field required"),
    "cut off in a string": ('{"colour": "re', "Invalid JSON"),
    "cut off after a string": ('{"colour": "red"', "Invalid JSON"),
    "cut off after a comma": ('{"colour": "red", ', "Invalid JSON"),
    "an enclosing object that is cut off": (f'{{"answer": {TEXT}, "note": "no', "Invalid JSON"),
    "an extra field that is cut off": ('{"colour": "red", "note": "I th', "Invalid JSON"),
    "only the thought": ("<think>It could be red.", "Invalid JSON"),
    "many braces": ("{" * 5000, "Invalid JSON"),
    "deep nesting": ('{"a":' * 5000, "Invalid JSON"),
    "deep lists": ('{"a":' + "[" * 200_000, "Invalid JSON"),
}


@pytest.mark.parametrize(("text", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_text_without_a_complete_answer_is_unusable_with_a_reason(text, reason):
    reading = read_answer(text, Colour)
    assert reading.answer is None
    assert reason in reading.reason


def test_at_the_maximum_length_a_draft_in_a_thought_is_no_answer():
    assert read_answer(f"<think>Perhaps {TEXT}, or", Colour, cut_off=True).answer is None
    assert read_answer(f"<think>Perhaps.</think>{TEXT} and", Colour, cut_off=True).answer == RED


VERDICTS = st.builds(
    Verdict,
    reasoning=st.text(st.characters(codec="utf-8"), max_size=40),
    note=st.none() | st.text(st.characters(codec="utf-8"), max_size=10),
    better=st.sampled_from(["first", "second"]),
)
PROSE = st.text(st.characters(codec="utf-8", exclude_characters='{}<|"['), max_size=40).filter(
    lambda text: "assistantfinal" not in text
)


def trailing_comma(text, before, after):
    return text[:-1] + ",\n}"


NOISE = {
    "prose": lambda text, before, after: before + text + after,
    "fence": lambda text, before, after: f"{before}\n```json\n{text}\n```\n{after}",
    "thought": lambda text, before, after: f"{before} {text.replace('first', 'second')}{after}</think>{text}",
    "harmony": lambda text, before, after: (
        f"<|channel|>analysis<|message|>{before}<|end|><|start|>assistant<|channel|>final<|message|>{text}<|return|>"
    ),
    "comma": trailing_comma,
    "extra field": lambda text, before, after: json.dumps(json.loads(text) | {"extra": before, "more": [after]}),
    "nested": lambda text, before, after: json.dumps({before or "a": json.loads(text)}),
    "nested as text": lambda text, before, after: json.dumps({before or "a": text}),
    "list": lambda text, before, after: f"[{text}]",
    "mark": lambda text, before, after: "\ufeff" + text,
}


@given(VERDICTS, st.sampled_from(list(NOISE)), PROSE, PROSE, st.booleans())
def test_noise_does_not_change_an_answer(verdict, noise, before, after, ascii_only):
    text = json.dumps(verdict.model_dump(), ensure_ascii=ascii_only)
    assert read_answer(NOISE[noise](text, before, after), Verdict).answer == verdict


@given(VERDICTS, st.text("ab \n\t", max_size=20), PROSE, PROSE)
def test_raw_line_breaks_do_not_change_an_answer(verdict, reasoning, before, after):
    verdict = verdict.model_copy(update={"reasoning": reasoning})
    text = json.dumps(verdict.model_dump(), ensure_ascii=False)
    raw = text.replace(json.dumps(reasoning), f'"{reasoning}"')
    assert read_answer(before + raw + after, Verdict).answer == verdict


@given(VERDICTS, st.sampled_from(["prose", "fence", "comma", "extra field", "nested", "mark"]), PROSE, st.data())
def test_a_part_of_an_answer_is_no_answer(verdict, noise, before, data):
    text = NOISE[noise](json.dumps(verdict.model_dump()), before, "")
    length = data.draw(st.integers(0, text.rindex("}")))
    assert read_answer(text[:length], Verdict).answer is None


@given(st.text('{}[]":, \\\nab<>|/think', max_size=60))
def test_no_text_of_a_model_is_an_exception(text):
    read_answer(text, Verdict)


def test_a_long_text_without_an_answer_is_repaired_in_part(monkeypatch):
    repaired = 0

    def counted(match):
        nonlocal repaired
        repaired += len(match[0])
        return corrected(match)

    corrected = reading._corrected
    monkeypatch.setattr(reading, "_corrected", counted)
    assert read_answer('{"' * 300_000, Verdict).answer is None
    assert 0 < repaired <= reading.MOST_BRACES * reading.MOST_REPAIRED


def test_an_answer_with_thousands_of_other_fields_has_a_short_reason():
    reason = read_answer(json.dumps({f"field {number}": {"note": "n"} for number in range(5000)}), Verdict).reason
    assert reason.startswith("reasoning: Field required; ")
    assert len(reason) < 1000


# Chat completions

PAYLOADS = {
    "a tool call": completion(None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": TEXT}}]),
    "a tool call with an object": completion("", tool_calls=[{"function": {"arguments": {"colour": "red"}}}]),
    "a function call": completion(None, function_call={"name": "f", "arguments": TEXT}),
    "reasoning beside it": completion(TEXT, reasoning_content='Not {"colour": "blue"}.'),
    "only reasoning": completion(None, reasoning_content=f'Not {{"colour": "blue"}}, but {TEXT}'),
    "only reasoning, by another name": completion("", reasoning=TEXT),
    "a list of strings": completion(['{"colour":', ' "red"}']),
    "parts": completion([{"type": "reasoning", "text": "{}"}, {"type": "text", "text": TEXT}]),
    "an object": completion({"colour": "red"}),
    "usage as text": completion(TEXT) | {"usage": "12 tokens"},
    "usage as a list": completion(TEXT) | {"usage": [12, 3]},
    "tokens as text": completion(TEXT) | {"usage": {"prompt_tokens": "many", "completion_tokens": None}},
    "no usage": completion(TEXT) | {"usage": None},
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_every_form_of_a_completion_is_read(store, payload):
    with Server(lambda number, body: (200, {}, payload)) as fake:
        ask([request(0)], fake, store)
    assert answers([request(0)], store) == [RED]
    assert len(fake.bodies) == 1


@pytest.mark.parametrize(
    "payload",
    [None, 3, [], {}, {"choices": {}}, {"choices": ["text"]}, {"choices": [None]}, {"choices": [{"message": "text"}]}],
)
def test_another_payload_is_no_completion(payload):
    assert parse_reply(payload, "json_schema") is None


def test_reasoning_that_is_cut_off_is_no_answer_and_is_not_sent_back(store):
    cut = completion(None, "length", reasoning_content=f"Perhaps {TEXT}, or")
    with Server(lambda number, body: (200, {}, cut) if number == 0 else None) as fake:
        ask([request(0)], fake, store)
    (message,) = fake.bodies[1]["messages"]
    assert "cut off" in message["content"]
    assert "Perhaps" not in message["content"]


def test_a_repaired_answer_is_stored_raw_marked_and_counted(store):
    said = {0: f"Sure! {TEXT}", 1: TEXT, 2: '{"colour": "red",}'}
    asked = requests(3)
    with Server(lambda number, body: (200, {}, completion(said[int(body["messages"][0]["content"][-1])]))) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [RED] * 3
    assert [store.get(one.key).text for one in asked] == list(said.values())
    assert [store.get(one.key).repaired for one in asked] == [True, False, True]
    assert store.totals()["repaired"] == 2
    assert len(fake.bodies) == 3


def test_a_store_of_the_layout_before_is_extended(tmp_path):
    path = tmp_path / "requests.sqlite"
    with llm.Store(path) as store:
        store.put(request(0), llm.Reply(f"Sure! {TEXT}"))
        for table, column in (("replies", "repaired"), ("dialects", "system"), ("batches", "system")):
            store.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        store.execute("DROP TABLE windows")
        store.execute("PRAGMA user_version=4")
    for _ in range(2):
        with llm.Store(path) as store:
            assert llm.read(request(0), store) == RED
            assert store.totals()["repaired"] == 1
