"""Requests for narratives: their order, and how they fit into the window of the model."""

import itertools

import pytest

from regen_hf import llm, outputs, prompts
from regen_hf.errors import ConfigError
from regen_hf.stages.narratives.build import estimate
from regen_hf.stages.narratives.settings import NarrativesConfig
from tests.llm_server import Server, prompt_tokens, window
from tests.stages.narratives.test_narratives import PENS, purchase, run_build, write_sequences


def openai(server, **settings):
    return NarrativesConfig(backend="openai", model="some-model", base_url=(server.url,), **settings)


def shopper(number, purchases=12, words=60):
    """A user with a history of `purchases`, whose texts are longer than a small window."""
    return f"u{number}", [
        purchase(f"P{i}", f"Pen {number} {i}", None, f"item{i} " * words, text=f"review{i} " * words, rating=4)
        for i in range(purchases)
    ]


def kinds(bodies):
    return [body["response_format"]["json_schema"]["name"] for body in bodies]


def test_all_requests_of_one_prompt_come_before_those_of_the_next_one(tmp_path):
    users = [(f"u{i}", [purchase("P", f"Pen {i}"), *PENS]) for i in range(6)]
    write_sequences(tmp_path, train=[*users, ("empty", [])])
    with Server() as server:
        run_build(tmp_path, openai(server, concurrency=1))
    assert kinds(server.bodies) == ["Narratives"] * 6 + ["Endorsement"] * 6
    shown = [body["messages"][-1]["content"] for body in server.bodies]
    assert all(f"Title: Pen {i % 6}\n" in text for i, text in enumerate(shown))
    instructions = [body["messages"][0]["content"] for body in server.bodies]
    assert sum(one != other for one, other in itertools.pairwise(instructions)) == 1


def test_a_server_that_only_errors_about_its_window_gets_shorter_prompts_at_once(tmp_path):
    """Every prompt is too long at first, and a streak of rejections does not stop the run."""
    users = [shopper(number) for number in range(12)]
    write_sequences(tmp_path, train=[*users, ("short", PENS)])
    config = {"max_tokens": 500, "concurrency": 3}
    with Server(window(3500)) as server:
        counts, table = run_build(tmp_path, openai(server, **config))
        rejected = [body for body in server.bodies if prompt_tokens(body) + 500 > 3500]
        assert len(rejected) <= 3
        assert len(server.bodies) == 26 + len(rejected)
    assert (counts["window"], counts["failed"], counts["users_cut"]) == (3500, 0, 12)
    assert len(list(outputs.folder(tmp_path, "narratives").glob("failed*"))) == 0
    # Without texts and descriptions it is still too long: all purchases but the last can be dropped, and are counted.
    for body in server.bodies:
        text = body["messages"][-1]["content"]
        if body in rejected or "Title: Pen 1 " not in text:
            continue
        last = text.rindex("Position: ")
        assert "Title: Pen 1 11\n" in text[last:]
        assert f"item11 {'item11 ' * 9}" in text[last:]
        dropped = 12 - text.count("Position: ")
        assert (f"Earlier purchases: {dropped} (not shown)" in text) is bool(dropped)
    sent = len(server.bodies)
    assert estimate(tmp_path, openai(server, **config)).requests == 0  # with the window that is remembered
    (tmp_path / "out").rename(tmp_path / "first")
    counts, again = run_build(tmp_path, openai(server, **config))  # nothing listens there any more
    assert again.equals(table)
    assert (counts["window"], len(server.bodies)) == (3500, sent)


def test_a_window_from_the_server_shapes_the_first_request(tmp_path):
    def extra(method, path, headers, data):
        return 200, {}, {"data": [{"id": "some-model", "max_model_len": 3500}]} if path == "/v1/models" else {}

    write_sequences(tmp_path, train=[shopper(number) for number in range(3)])
    with Server(window(3500), extra=extra) as server:
        counts, table = run_build(tmp_path, openai(server, max_tokens=500))
    assert (counts["window"], counts["failed"], len(server.bodies)) == (3500, 0, 6)
    assert all(left_out > 0 for left_out in table["narrator_left_out"].to_pylist())


def test_the_reviews_of_purchases_that_are_dropped_count_as_left_out(tmp_path):
    write_sequences(tmp_path, train=[shopper(0, purchases=30, words=300)])
    with Server() as server:
        counts, table = run_build(tmp_path, openai(server, window=2400, max_tokens=500))
    (text,) = [body["messages"][-1]["content"] for body in server.bodies if "review29" in str(body["messages"])]
    assert text.count("Position: ") < 30
    # The last review is cut, since it is longer than half of the room.
    assert counts["reviews_left_out"] == table["narrator_left_out"].to_pylist()[0] == 30
    assert "review29 review29" in text
    assert "…" in text


def test_the_window_is_no_part_of_the_fingerprint_unless_it_is_set():
    assert NarrativesConfig(backend="openai", model="m").window is None
    assert llm.Window(NarrativesConfig(backend="openai", model="m")).tokens == 128_000


@pytest.mark.parametrize(("tokens", "given"), [(100_000, 5), (14_000, 2), (3000, 0)])
def test_examples_are_added_as_far_as_they_leave_most_of_the_window_to_the_history(tmp_path, tokens, given):
    write_sequences(tmp_path, train=[("u", PENS)])
    files = tuple(map(str, prompts.example_files()))
    with Server() as server:
        counts, _ = run_build(tmp_path, openai(server, window=tokens, max_tokens=500, examples=files))
    assert (counts["examples"], counts["examples_left_out"]) == (given, 5 - given)
    assert sorted(len(body["messages"]) for body in server.bodies) == [2, 2 + 2 * given]


def test_a_window_that_is_too_small_for_the_instructions_is_an_error_before_any_request(tmp_path):
    write_sequences(tmp_path, train=[("u", PENS)])
    with Server() as server, pytest.raises(ConfigError, match=r"window of 1200 tokens is too small.* take about \d+"):
        run_build(tmp_path, openai(server, window=1200, max_tokens=500))
    assert not server.bodies
