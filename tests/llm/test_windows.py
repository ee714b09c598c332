"""The context window: what servers and their errors state, what is remembered, and what the repetitions may take."""

import pytest

from regen_hf import llm
from regen_hf.errors import ConfigError, RunError
from regen_hf.llm import window_lookup
from regen_hf.llm.chat_template import ChatTemplate
from regen_hf.llm.connection import is_rejection, stated_window
from regen_hf.llm.windows import DEFAULT
from regen_hf.stages.narratives.settings import NarrativesConfig
from tests.batch_server import BatchApi
from tests.llm.test_llm import Colour, settings
from tests.llm.test_llm_local import TURNS, save_tiny_llama
from tests.llm_server import DRIP, RESET, Server, error, prompt_tokens, window

ERRORS = {
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (2952 in messages)": 4096,
    "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens (5000 > 4096 - 20)": 4096,
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.": 4096,
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).": 4096,
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 9 `max_new_tokens`": 4096,
    "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it": 4096,
    "the request exceeds the available context size. try increasing it (n_ctx 4096)": 4096,
    "Requested tokens (5000) exceed context window of 4096": 4096,
    "prompt is too long: 210000 tokens > 200000 maximum": 200_000,
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000": 200_000,
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length": 32_768,
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).": 1_048_576,
    "This endpoint's maximum context length is 8,192 tokens. However, you requested about 40000 tokens": 8192,
    "This model's maximum prompt length is 131072 but the request contains 200000 tokens.": 131_072,
    "The model is loaded with context length of only 4096 tokens": 4096,
    "context length exceeded (5000 tokens)": None,
    "max_tokens is too large: 20000. This model supports at most 16384 completion tokens": None,
    "Rate limit reached: 30000 tokens per minute, requested 50000": None,
    "Please reduce the length of the messages or completion.": None,
    "context size has been exceeded": None,
    "the request exceeds the available context size (0 tokens)": None,
}


@pytest.mark.parametrize(("message", "tokens"), ERRORS.items())
def test_the_window_is_read_from_the_words_of_an_error(message, tokens):
    assert stated_window(message) == tokens
    assert is_rejection(500, message) is (tokens is not None)  # llama-cpp-python's status
    assert not is_rejection(429, message)


def answering(**paths):
    """A script for GET requests: the payload of each path, as "models" and "props"."""

    def extra(method, path, headers, data):
        name = path.rpartition("/")[2]
        return (200, {}, paths[name]) if name in paths else (404, {}, {"error": "no such path"})

    return extra


def listed(*entries):
    return {"object": "list", "data": [{"id": f"other-{number}", **entry} for number, entry in enumerate(entries)]}


LLAMA = listed({"id": "model.gguf", "meta": {"n_ctx_train": 131_072}})
ANSWERS = {
    "vLLM": ({"models": listed({"max_model_len": 9}, {"id": "m", "max_model_len": 4096})}, 4096),
    "a provider": ({"models": listed({"id": "m", "context_length": 4096}, {"context_length": 9})}, 4096),
    "a router": (
        {"models": listed({"id": "m", "providers": [{"context_length": 8192}, {"context_length": 4096}]})},
        4096,
    ),
    "an adapter": ({"models": listed({"id": "m", "parent": "base"}, {"id": "base", "max_model_len": 4096})}, 4096),
    "llama.cpp": ({"models": LLAMA, "props": {"default_generation_settings": {"n_ctx": 4096}}}, 4096),
    "an older llama.cpp": ({"models": LLAMA, "props": {"n_ctx": 4096}}, 4096),
    "a training context": ({"models": LLAMA}, DEFAULT),
    "another model": ({"models": listed({"max_model_len": 9}, {"max_model_len": 9})}, DEFAULT),
    "no number": ({"models": listed({"id": "m", "max_model_len": "4096", "context_length": True})}, DEFAULT),
    "no limit": ({"models": listed({"id": "m", "max_model_len": int(1e30), "context_length": 2**63})}, DEFAULT),
    "odd answers": ({"models": [1], "props": {"default_generation_settings": None}}, DEFAULT),
    "odd entries": ({"models": {"data": [None, {"id": "m", "max_model_len": -1, "providers": [None, 5]}]}}, DEFAULT),
    "no JSON": ({"models": "<html>", "props": b"\xff"}, DEFAULT),
    "nothing": ({}, DEFAULT),
}


@pytest.mark.parametrize(("answers", "tokens"), ANSWERS.values(), ids=ANSWERS)
def test_the_window_that_a_server_states_is_remembered_without_it(store, answers, tokens):
    with Server(extra=answering(**answers)) as fake:
        (found,) = llm.passes(settings(fake.url), store)
        assert (found.tokens, found.settled) == (tokens, False)
    assert not fake.bodies
    (without,) = llm.passes(settings(fake.url), store)  # nothing listens there any more
    assert without.tokens == llm.stored_window(settings(fake.url), store.path).tokens == tokens


def test_a_set_window_is_not_looked_up_and_of_several_servers_and_models_the_smallest_counts(store):
    big = answering(models=listed({"id": "m", "max_model_len": 8192}, {"id": "n", "max_model_len": 6000}))
    small = answering(models=listed({"id": "m", "max_model_len": 4096}))
    with Server(extra=big) as one, Server(extra=small) as two:
        config = settings((one.url, two.url), window=5000)
        assert [found.tokens for found in llm.passes(config, store)] == [5000]
        assert not store.execute("SELECT * FROM windows")
        assert [found.tokens for found in llm.passes(settings((one.url, two.url)), store)] == [4096]
        votes = llm.VotesConfig(backend="openai", model="m", more_models=("n",), votes=2, base_url=(one.url,))
        assert [found.tokens for found in llm.passes(votes, store)] == [6000]


def test_a_broken_lookup_is_no_error(store):
    with Server(extra=lambda *_: RESET) as fake:
        assert [found.tokens for found in llm.passes(settings(fake.url), store)] == [DEFAULT]


def test_a_server_that_goes_on_sending_is_not_awaited(store, monkeypatch):
    monkeypatch.setattr(window_lookup, "TIMEOUT", 0.2)
    with Server(extra=lambda method, path, headers, data: DRIP) as fake:
        assert [found.tokens for found in llm.passes(settings(fake.url), store)] == [DEFAULT]


def test_a_window_without_room_for_an_answer_is_an_error_with_both_numbers(store):
    with (
        Server(extra=answering(models=listed({"id": "m", "max_model_len": 2048}))) as fake,
        pytest.raises(ConfigError, match=r"window of 2048 tokens .* answer takes up to 2048\. Lower max_tokens"),
    ):
        list(llm.passes(settings(fake.url), store))


def fit_and_ask(count, config, store, seen):
    """Send `count` requests as a stage does; returns those of the last pass, and `seen` gets the window of each."""
    for found in llm.passes(config, store):
        seen.append(found.tokens)
        words = "word " * (found.room * 4 // 5)

        def requests(found=found, words=words):
            for number in range(count):
                message = {"role": "user", "content": f"{number} {words}"[: 3 * (found.room - 100)]}
                yield llm.Request.of(config, (message,), Colour, window=found)

        llm.ask(requests, config, store, count, "test")
    return list(requests())


@pytest.mark.parametrize(
    "text",
    ["This model's maximum context length is {} tokens. However, you requested {} tokens", None],
    ids=["in words", "in a field of llama.cpp"],
)
def test_a_window_that_only_errors_state_is_fitted_to_at_once_and_remembered(store, text):
    def fault(number, body):
        if prompt_tokens(body) + body["max_tokens"] <= 3000:
            return None
        exceeded = {"code": 400, "type": "exceed_context_size_error", "n_ctx": 3000, "message": "too many tokens"}
        return window(3000, text)(number, body) if text else (400, {}, {"error": exceeded})

    seen = []
    with Server(fault) as fake:
        config = settings(fake.url, concurrency=4, max_tokens=500)
        asked = fit_and_ask(20, config, store, seen)
        assert seen == [DEFAULT, 3000]
        assert all(not isinstance(llm.read(one, store), llm.Failure | llm.Request) for one in asked)
        # The first request finds it out, in one form only; the others are not sent before they are shortened.
        assert len(fake.bodies) == 20 + 1
        fit_and_ask(20, config, store, seen)
        assert len(fake.bodies) == 20 + 1
    assert seen == [DEFAULT, 3000, 3000]
    assert llm.stored_window(config, store.path).tokens == 3000


def test_an_error_corrects_what_the_server_states_until_it_states_another_window(store):
    stated = {"tokens": 8000}

    def extra(*_):
        return 200, {}, listed({"id": "m", "max_model_len": stated["tokens"]})

    seen = []
    with Server(window(3000), extra=extra) as fake:
        config = settings(fake.url, max_tokens=500)
        fit_and_ask(3, config, store, seen)
        assert seen == [8000, 3000]
        assert [found.tokens for found in llm.passes(config, store)] == [3000]
        stated["tokens"] = 16_000
        assert next(llm.passes(config, store)).tokens == 16_000


def test_errors_that_state_ever_smaller_windows_come_to_an_end(store):
    seen = []

    def fault(number, body):
        return error(400, f"maximum context length is {20_000 - number} tokens")

    with Server(fault) as fake, pytest.raises(RunError, match="each smaller than the one before"):
        fit_and_ask(3, settings(fake.url, max_tokens=500, concurrency=1), store, seen)
    assert len(seen) == len(set(seen)) < 10


def test_a_set_window_stays_although_errors_state_a_smaller_one(store):
    seen = []
    with Server(lambda number, body: window(3000)(number, body) if number % 2 else None) as fake:
        config = settings(fake.url, max_tokens=500, window=8000, concurrency=1)
        asked = fit_and_ask(4, config, store, seen)
    assert seen == [8000]
    assert [type(llm.read(one, store)) is llm.Failure for one in asked] == [False, True, False, True]


def test_a_request_that_does_not_fit_is_a_failure_and_never_sent(store):
    found = llm.Window(settings("http://localhost", max_tokens=500), 3000)
    message = {"role": "user", "content": "word " * 6000}
    asked = llm.Request.of(settings("http://localhost"), (message,), Colour, window=found)
    with Server() as fake:
        llm.ask(lambda: [asked], settings(fake.url), store, 1, "test")
    assert not fake.bodies
    tokens = found.count((message,), Colour)
    assert f"has about {tokens} tokens with the shortest history, expected at most" in llm.read(asked, store).reason


@pytest.mark.parametrize("size", [1200, 4000, 128_000])
@pytest.mark.parametrize("fix", [0, 2])
def test_a_prompt_as_large_as_its_room_can_be_repeated_with_any_reason(size, fix):
    config = NarrativesConfig(backend="openai", model="m", max_tokens=size // 4, fix=fix)
    found = llm.Window(config, size)
    message = {"role": "user", "content": "x" * (3 * (found.room - found.count((), Colour)) - 24)}
    asked = llm.Request.of(config, (message,), Colour, window=found)
    assert 0 <= found.room - found.count(asked.messages, asked.answer) <= 1
    for _ in range(fix + 1):
        asked = asked.again("the text is wrong " * 400)
    assert found.count(asked.messages, asked.answer) <= size - size // 4


def test_a_window_in_the_output_of_a_batch_leads_to_shorter_requests(store):
    def line(body):
        if prompt_tokens(body) + body["max_tokens"] > 3000:
            return 400, {"error": {"message": "This model's maximum context length is 3000 tokens."}}
        return None

    seen = []
    with Server(extra=BatchApi(line)) as fake:
        config = settings(fake.url, backend="openai-batch", poll=0.01, max_tokens=500)
        asked = fit_and_ask(5, config, store, seen)
    assert seen == [DEFAULT, 3000]
    assert all(isinstance(llm.read(one, store), Colour) for one in asked)


def test_the_tokenizer_and_the_configuration_of_a_local_model_count(tmp_path, store, monkeypatch):
    folder = save_tiny_llama(tmp_path / "a" / "m", chat_template=TURNS)
    config = llm.LLMConfig(backend="transformers", model=folder, max_tokens=100)
    (found,) = llm.passes(config, store)
    assert (found.tokens, llm.stored_window(config, store.path).tokens) == (16_384, 16_384)
    tokenizer = ChatTemplate.of(folder).tokenizer
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who likes soft blue pens?"}]
    text = "<system>Be brief.<user>Who likes soft blue pens?<assistant>"
    assert found.count(messages, Colour) == len(tokenizer(text).input_ids)
    longest = ({"role": "user", "content": "é" * 9000},)
    assert llm.Request.of(config, longest, Colour, window=found).too_long
    # Another model in a folder of the same name has its own tokenizer.
    save_tiny_llama(tmp_path / "b" / "m")
    for place, template in (("a", TURNS), ("b", None)):
        monkeypatch.chdir(tmp_path / place)
        assert ChatTemplate.of("m").tokenizer.chat_template == template
    missing = llm.LLMConfig(backend="transformers", model="nothing")
    assert llm.stored_window(missing, store.path).tokens == DEFAULT
    with pytest.raises(ConfigError, match="'nothing' cannot be loaded"):
        next(llm.passes(missing, store))


@pytest.mark.parametrize("status", [400, 500])
def test_a_server_that_refuses_the_schema_first_is_found_out_too(store, status):
    """As llama-cpp-python does, with a status 500."""

    def fault(number, body):
        if body.get("response_format", {}).get("type") == "json_schema":
            return error(status, "response_format: Input should be 'text' or 'json_object'")
        return window(3000)(number, body)

    seen = []
    with Server(fault) as fake:
        asked = fit_and_ask(3, settings(fake.url, max_tokens=500, concurrency=1), store, seen)
    assert seen == [DEFAULT, 3000]
    assert all(isinstance(llm.read(one, store), Colour) for one in asked)
