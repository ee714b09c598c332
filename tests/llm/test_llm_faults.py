"""Requests to a server with faults: each answer is stored once, or its failure is recorded."""

import asyncio
import email.utils
import gzip
import json
import re
import socket
import threading
import time
import tracemalloc
import weakref

import pytest

from regen_hf import llm
from regen_hf.errors import ConfigError, InputError, RunError
from tests.llm.test_llm import Colour, answers, ask, request, requests, settings
from tests.llm_server import DRIP, HANG, RESET, Server, answer_to, completion, error, schema_in

COUNT = 8
GOOD = Colour(colour="Some words.")


def good(body):
    return completion(json.dumps(answer_to(schema_in(body))))


def in_a_second():
    return email.utils.formatdate(time.time() + 1, usegmt=True)


def half(text):
    data = json.dumps(completion(text)).encode()
    return 200, {"content-length": str(len(data))}, data[: len(data) // 2]


TEMPORARY = {
    "429, retry-after in milliseconds": lambda: error(429, **{"retry-after-ms": "20"}),
    "429, retry-after in seconds": lambda: (429, {"retry-after": "0.05"}, {"error": {"message": "slower"}}),
    "429, retry-after as a date": lambda: (429, {"retry-after": in_a_second()}, {"error": {"message": "slower"}}),
    "429, retry-after makes no sense": lambda: (429, {"retry-after": "soon"}, {"error": {"message": "slower"}}),
    "429 without retry-after": lambda: (429, {}, {"error": {"message": "slower"}}),
    "408": lambda: error(408),
    "409": lambda: error(409),
    "500": lambda: error(500),
    "502 with a page": lambda: (502, {"content-type": "text/html"}, "<html>Bad gateway</html>"),
    "503 with retry-after": lambda: error(503, **{"retry-after-ms": "20"}),
    "503 without": lambda: (503, {}, {"error": {"message": "loading"}}),
    "529": lambda: error(529),
    "timeout": lambda: HANG,
    "slow drip": lambda: DRIP,
    "connection reset": lambda: RESET,
    "half a body": lambda: half('{"colour": "red"}'),
    "half a JSON": lambda: (200, {}, '{"id": "c", "choices": [{"ind'),
    "an empty body": lambda: (200, {}, ""),
    "wrong content type": lambda: (200, {"content-type": "text/html"}, "<html>hello</html>"),
    "an error with status 200": lambda: (200, {}, {"error": {"message": "upstream failed", "code": 502}}),
    "another JSON": lambda: (200, {}, [1, 2]),
    "choices of another type": lambda: (200, {}, {"choices": "none"}),
    "a message of another type": lambda: (200, {}, {"choices": [{"message": "text"}]}),
    "a JSON too deep": lambda: (200, {}, "[" * 200_000),
    "bytes of another encoding": lambda: (200, {"content-type": "application/json; charset=utf-16"}, "{}"),
    "bytes that do not unpack": lambda: (200, {"content-encoding": "gzip"}, "{}"),
    "an encoding that was not requested": lambda: (200, {"content-encoding": "br"}, "{}"),
    "a header over 8 KB": lambda: (200, {"x-long": "x" * 10_000}, completion('{"colour": "red"}')),
    "a bad status line": lambda: b"HTP/1 wat\r\n\r\n",
    "a bad status": lambda: b"HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\n{}",
    "a bad length": lambda: b"HTTP/1.1 200 OK\r\ncontent-length: wat\r\n\r\n{}",
    "a bad chunk": lambda: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwat\r\n{}\r\n",
    "a header without a colon": lambda: b"HTTP/1.1 200 OK\r\nwat\r\n\r\n{}",
    "no HTTP": lambda: b"\x00\xff" * 100,
    "2 MB of text": lambda: (200, {}, completion("red " * 500_000)),
    "2 MB of an error": lambda: (500, {}, {"error": {"message": "x" * 2_000_000}}),
    "40 MB in a gzip file": lambda: (200, {"content-encoding": "gzip"}, gzip.compress(bytes(40_000_000))),
    "an error beside the choices": lambda: (200, {}, completion('{"colour": "red"}') | {"error": {"code": 502}}),
    "an error in a choice": lambda: (200, {}, {"choices": [{"error": {"message": "overloaded", "code": 529}}]}),
    "an answer that ended with an error": lambda: (200, {}, completion('{"colour": "red"}', "error")),
    "a bad request with status 200": lambda: (200, {}, {"error": {"message": "upstream failed", "code": 400}}),
}
BAD_ANSWERS = {
    "schema-breaking": '{"color": "red"}',
    "wrong type": '{"colour": 3}',
    "prose": "I would rather not.",
    "cut off": '{"colour": "re',
    "empty": "",
    "null": None,
}


@pytest.mark.parametrize("fault", TEMPORARY.values(), ids=TEMPORARY)
def test_a_fault_that_passes_is_tried_again_and_every_answer_is_stored_once(store, fault):
    broken = fault()
    asked = requests(COUNT)
    with Server(lambda number, body: broken if number in (1, 3) else None) as fake:
        ask(asked, fake, store, concurrency=2, timeout=0.5 if broken in (HANG, DRIP) else 20)
    assert answers(asked, store) == [GOOD] * COUNT
    assert store.totals()["replies"] == COUNT
    assert len(fake.bodies) == COUNT + 2
    assert len({body["messages"][0]["content"] for body in fake.bodies}) == COUNT


@pytest.mark.parametrize("fault", TEMPORARY.values(), ids=TEMPORARY)
def test_a_fault_of_only_one_request_stops_no_other_one_and_ends_as_an_error(store, fault):
    broken = fault() if fault is not TEMPORARY["429, retry-after as a date"] else error(429)
    asked = requests(COUNT)

    def poisoned(number, body):
        return broken if body["messages"][0]["content"] == "question 3" else None

    with Server(poisoned) as fake, pytest.raises(RunError, match=r"left 1 requests without an answer: .{8}"):
        ask(asked, fake, store, concurrency=1, retries=1, timeout=0.3 if broken in (HANG, DRIP) else 20)
    outcomes = answers(asked, store)
    assert outcomes.pop(3) == asked[3]  # still to be sent
    assert outcomes == [GOOD] * (COUNT - 1)
    assert store.totals()["replies"] == COUNT - 1
    assert len(fake.bodies) == COUNT + 1  # the poisoned one twice
    with Server() as mended:
        ask(asked, mended, store)
    assert answers(asked, store) == [GOOD] * COUNT
    assert len(mended.bodies) == 1


@pytest.mark.parametrize("text", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_mended_once_or_recorded_with_its_text(store, text):
    asked = requests(COUNT)

    def fault(number, body):
        never = body["messages"][0]["content"].startswith("question 5")
        once = body["messages"][0]["content"] == "question 2"
        return (200, {}, completion(text)) if never or once else None

    with Server(fault) as fake:
        ask(asked, fake, store)
        ask(asked, fake, store)
    outcomes = answers(asked, store)
    failed = outcomes.pop(5)
    assert outcomes == [GOOD] * (COUNT - 1)
    assert failed.raw == (text or "")
    assert len(fake.bodies) == COUNT + 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_the_server_rejects_is_recorded_with_its_words_and_never_sent_again(store, status):
    asked = requests(COUNT)

    def fault(number, body):
        return error(status, "too long for the window") if body["messages"][0]["content"] == "question 3" else None

    with Server(fault) as fake:
        ask(asked, fake, store)
        ask(asked, fake, store)
    outcomes = answers(asked, store)
    assert "too long for the window" in outcomes.pop(3).reason
    assert outcomes == [GOOD] * (COUNT - 1)
    # Sent in every form where it came before the server had shown which one it takes.
    assert len(fake.bodies) in (COUNT, COUNT + 2)


@pytest.mark.parametrize(
    "fault",
    [
        error(401, "Incorrect API key provided"),
        error(402, "Payment required"),
        error(403, "No access to this model"),
        error(404, "The model `m` does not exist"),
        error(400, "model m is not a valid model ID"),
        error(429, "You exceeded your current quota", code="insufficient_quota"),
    ],
    ids=["401", "402", "403", "404", "unknown model as 400", "no credit"],
)
def test_a_fault_of_every_request_stops_at_once_with_the_servers_message(store, fault):
    words = fault[2]["error"]["message"]
    with Server(lambda number, body: fault) as fake, pytest.raises(ConfigError, match=words):
        ask(requests(50), fake, store, concurrency=16)
    # One worker probes the server; a bad request about an unknown model is sent in all four forms.
    assert len(fake.bodies) == (4 if fault[0] == 400 else 1)
    assert store.totals()["replies"] == 0


def test_a_key_revoked_in_the_middle_stops_the_run_and_keeps_what_came(store):
    asked = requests(60)
    with (
        Server(lambda number, body: error(401, "revoked") if number >= 20 else None) as fake,
        pytest.raises(ConfigError, match="revoked"),
    ):
        ask(asked, fake, store, concurrency=4)
    assert store.totals()["replies"] == 20
    assert len(fake.bodies) <= 24
    with Server() as mended:
        ask(asked, mended, store)
    assert len(mended.bodies) == 40
    assert answers(asked, store) == [GOOD] * 60


@pytest.mark.parametrize(
    ("taken", "calls"),
    [("json_schema", 0), ("json_object_schema", 1), ("json_object", 2), (None, 3)],
    ids=["schema", "JSON mode with it", "JSON mode", "words"],
)
def test_the_form_that_a_server_takes_is_found_out_once_and_remembered(tmp_path, taken, calls):
    def fault(number, body):
        stated = body.get("response_format", {})
        form = stated.get("type", "") + ("_schema" if "schema" in stated else "")
        if form and form != taken:
            return error(400, f"response_format {form} is not supported with this model")
        text = json.dumps(answer_to(schema_in(body)))
        return 200, {}, completion(text if taken else f"<think>Hm.</think> Sure:\n```json\n{text}\n```")

    asked = requests(20)
    with llm.Store(tmp_path / "a.sqlite") as store, Server(fault) as fake:
        ask(asked[:10], fake, store)
        assert len(fake.bodies) == 10 + calls
        ask(asked, fake, store)
        assert len(fake.bodies) == 20 + calls
        assert answers(asked, store) == [GOOD] * 20
        form = store.get(asked[0].key).form
    assert form == (taken or "instructions")
    last = fake.bodies[-1]
    assert ("JSON object of this form" in last["messages"][-1]["content"]) == (taken != "json_schema")
    assert [message["role"] for message in last["messages"]] == ["user"]


def test_a_server_that_wants_max_completion_tokens_gets_it(store):
    def fault(number, body):
        return (
            error(400, "Use 'max_completion_tokens' instead.", code="unsupported_parameter")
            if "max_tokens" in body
            else None
        )

    with Server(fault) as fake:
        ask(requests(5), fake, store)
    assert len(fake.bodies) == 6
    assert fake.bodies[-1]["max_completion_tokens"] == 50
    assert fake.bodies[-1]["response_format"]["type"] == "json_schema"


def test_an_error_beside_the_name_of_max_tokens_is_reported(store):
    """As newer models of OpenAI do that take one temperature only."""

    def fault(number, body):
        return error(400, "Use 'max_completion_tokens' instead." if "max_tokens" in body else "Only temperature 1.")

    with Server(fault) as fake, pytest.raises(RunError, match=r"Only temperature 1\."):
        ask(requests(3), fake, store)


@pytest.mark.parametrize(
    "body",
    ["No such user", {"error": "No such user"}, {"detail": "No such user"}, [{"error": {"message": "No such user"}}]],
    ids=["plain text", "string", "detail", "list"],
)
def test_the_message_of_a_server_is_reported_in_any_form(store, body):
    with Server(lambda number, _: (401, {}, body)) as fake, pytest.raises(ConfigError, match="No such user"):
        ask(requests(3), fake, store)


def test_a_first_request_past_the_window_is_not_taken_for_an_unknown_model(store):
    words = "This model's window is 8 tokens ('type': 'invalid_request_error')"
    asked = requests(4)
    with Server(lambda _, body: error(400, words) if "question 0" in str(body) else None) as fake:
        ask(asked, fake, store)
    assert "window is 8" in answers(asked, store)[0].reason
    assert answers(asked, store)[1:] == [GOOD] * 3


def test_odd_but_usable_replies_are_used(store):
    said = '{"colour": "red"}'
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": said}]
    odd = [
        completion(parts),
        completion(said, finish_reason={"why": "done"}),
        completion(said) | {"usage": {"prompt_tokens": 10**30, "completion_tokens": -5}},
        completion(said) | {"usage": {"prompt_tokens": float("inf")}},
    ]
    asked = requests(4)
    with Server(lambda number, body: (200, {}, odd[number])) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [Colour(colour="red")] * 4
    assert len(fake.bodies) == 4
    assert store.totals()["prompt_tokens"] < 200


def forbidden(name):
    return error(422, json.dumps([{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"}]))


@pytest.mark.parametrize(
    ("taken", "calls", "refusal"),
    [
        ("random_seed", 1, forbidden),
        (None, 2, forbidden),
        (None, 2, lambda name: error(400, f"Unrecognized request argument supplied: {name}")),
        (None, 2, lambda name: error(400, f"Unsupported parameter: '{name}' is not supported with this model.")),
    ],
)
def test_a_server_that_takes_no_seed_is_asked_by_its_own_name_for_it_or_without(store, taken, calls, refusal):
    def fault(number, body):
        for name in ("seed", "random_seed"):
            if name in body and name != taken:
                return refusal(name)
        return None

    with Server(fault) as fake:
        ask(requests(5), fake, store)
        ask(requests(8), fake, store)
    assert len(fake.bodies) == 8 + calls  # remembered for the second run
    assert "seed" not in fake.bodies[-1]
    assert fake.bodies[-1].get("random_seed") == (1 if taken else None)
    assert fake.bodies[-1]["response_format"]["type"] == "json_schema"


def test_a_model_that_accepts_only_its_default_temperature_is_asked_without_one_and_reported(store, capsys):
    def fault(number, body):
        told = (
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported."
        )
        return error(400, told) if "temperature" in body else None

    with Server(fault) as fake:
        ask(requests(5), fake, store)
        ask(requests(8), fake, store)
    assert len(fake.bodies) == 8 + 1  # remembered for the second run
    assert fake.bodies[-1]["response_format"]["type"] == "json_schema"
    assert fake.bodies[-1]["seed"] == 1
    assert "accepts no temperature: its default is used instead of 0.5" in capsys.readouterr().err


def test_an_answer_cut_off_at_max_tokens_is_repeated_with_that_reason(store):
    cut = completion('{"colour": "re', finish_reason="length")
    with Server(lambda number, body: (200, {}, cut) if number == 0 else None) as fake:
        ask(requests(1), fake, store)
    assert "cut off by the server at 2 tokens" in fake.bodies[1]["messages"][-1]["content"]


def test_a_stage_that_fails_in_the_middle_keeps_what_is_in_flight(store):
    def failing():
        yield from requests(12)
        raise InputError("the histories end here")

    with Server(delay=0.05) as fake, pytest.raises(InputError, match="end here"):
        llm.ask(failing, settings(fake.url, concurrency=4), store, 20, "test")
    assert store.totals()["replies"] == len(fake.bodies) == 12


def test_a_lone_surrogate_in_a_question_or_an_answer_stops_nothing(store):
    asked = [
        llm.Request.of(settings("http://x/v1"), ({"role": "user", "content": f"{n} \ud83d"},), Colour) for n in range(3)
    ]
    half_emoji = completion(json.dumps({"colour": "red"}) + " \ud83d")
    with Server(lambda number, body: (200, {}, half_emoji)) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [Colour(colour="red")] * 3
    assert fake.bodies[0]["messages"][0]["content"] == "0 ?"


def test_a_request_that_is_never_answered_is_an_error_in_every_run(store):
    asked = requests(3)
    with Server() as fake:
        ask(asked[:2], fake, store)
    with Server(lambda number, body: error(500, "boom")) as fake:
        for _ in range(3):
            with pytest.raises(RunError, match=r"left 1 requests without an answer: .*boom"):
                ask(asked, fake, store, concurrency=1, retries=0)
    assert len(fake.bodies) == 3
    assert answers(asked, store) == [GOOD, GOOD, asked[2]]


def test_a_second_process_on_one_store_says_so_and_sends_nothing(store):
    with llm.Store(store.path) as other, other.locked(), Server() as fake:
        with pytest.raises(RunError, match="Another process is asking"):
            ask(requests(3), fake, store)
        assert fake.bodies == []


def test_answers_in_flight_are_kept_when_the_disk_is_full_and_nothing_is_corrupt(tmp_path):
    asked = requests(40)
    long = completion(json.dumps({"colour": "red " * 2000}))
    with llm.Store(tmp_path / "requests.sqlite") as store, Server(lambda number, body: (200, {}, long)) as fake:
        pages = store.execute("PRAGMA page_count")[0][0]
        store.execute(f"PRAGMA max_page_count={pages + 20}")
        with pytest.raises(RunError, match="disk is full"):
            ask(asked, fake, store, concurrency=4)
        kept = store.totals()["replies"]
        assert 1 <= kept < 20
        assert len(fake.bodies) <= kept + 4
        assert store.execute("PRAGMA integrity_check") == [("ok",)]
        store.execute("PRAGMA max_page_count=1000000")
        ask(asked, fake, store)
        assert len(fake.bodies) <= 40 + 4
        assert all(isinstance(answer, Colour) for answer in answers(asked, store))


def test_in_a_notebook_where_a_loop_runs_already_it_asks_too(store):
    async def cell():
        ask(requests(4), fake, store)

    with Server() as fake:
        asyncio.run(cell())
    assert len(fake.bodies) == 4


def test_sampling_seed_and_form_are_recorded_with_the_reply(store):
    with Server() as fake:
        ask([request(0, seed=7, vote=2, temperature=0.25)], fake, store)
    ((sampling, form, model),) = store.execute("SELECT sampling, form, model FROM replies")
    assert json.loads(sampling) == {"temperature": 0.25, "seed": 7, "max_tokens": 50, "vote": 2}
    assert (form, model) == ("json_schema", "m")


@pytest.mark.parametrize("address", ["http://user:sk-hidden@127.0.0.1/v1", "http://127.0.0.1/v1?api-key=sk-hidden"])
def test_a_key_inside_the_address_is_refused_and_not_told(address):
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as caught:
        settings(address)
    assert "sk-hidden" not in str(caught.value)
    from regen_hf.config import section

    with pytest.raises(ConfigError) as caught:
        section(llm.LLMConfig, {"backend": "openai", "model": "m", "base_url": address}, "narratives")
    assert "sk-hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-hid\nden", "sk-hiddén"], ids=["line break", "not ASCII"])
def test_a_key_that_no_request_can_carry_is_told_without_it(store, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Server() as fake, pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        ask(requests(1), fake, store)
    assert "sk-hid" not in str(caught.value)
    assert fake.bodies == []


@pytest.mark.parametrize("status", [401, 200], ids=["refusal", "reply"])
def test_a_key_with_the_line_break_of_its_file_works_and_an_echo_of_it_is_blotted_out(store, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden-key\n")
    page = "x" * (490 if status == 401 else 192) + "sk-hidden-key"  # where the words are cut
    with Server(lambda number, body: (status, {}, page)) as fake, pytest.raises((ConfigError, RunError)) as caught:
        ask(requests(1), fake, store, retries=0)
    assert fake.authorizations == ["Bearer sk-hidden-key"]
    assert "xxx" in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_no_more_requests_are_alive_than_in_flight(store):
    alive, most = [], []

    def lazily():
        for number in range(200):
            one = request(number)
            alive.append(weakref.ref(one))
            most.append(sum(reference() is not None for reference in alive))
            yield one

    with Server() as fake:
        llm.ask(lazily, settings(fake.url, concurrency=4), store, 200, "test")
    assert len(most) == 200
    assert max(most) <= 4 + 3


def test_the_servers_thread_is_gone_after_a_test():
    before = threading.active_count()
    with Server():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_large_answer_is_not_read_into_memory(store):
    bomb = (200, {"content-encoding": "gzip"}, gzip.compress(bytes(60_000_000)))
    tracemalloc.start()
    try:
        with Server(lambda number, body: bomb) as fake, pytest.raises(RunError, match=r"more than 1,\d{3},\d{3} bytes"):
            ask(requests(1), fake, store, retries=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:9/v1", "connection is refused"),
        ("http://models.example/v1", r"cannot be resolved \(DNS\)"),
        ("https://127.0.0.1:PORT/v1", "TLS connection failed"),
    ],
)
def test_the_message_names_why_a_server_is_not_reached(store, monkeypatch, url, cause):
    def unresolved(host, *more, **options):
        if host == "models.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *more, **options)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    with Server() as fake:
        config = settings(url.replace("PORT", str(fake.port)), retries=0)
        with pytest.raises(RunError, match=cause):
            llm.ask(lambda: requests(2), config, store, 2, "test")


@pytest.mark.parametrize(
    ("fault", "reason", "posts"),
    [
        (error(400, "The response was filtered", code="content_filter"), "rejected the request: .*content filter", 1),
        (error(403, "Input was flagged by moderation"), "rejected the request: .*flagged", 1),
        ((200, {}, completion("", "content_filter")), "content filter stopped the answer", 1),
        ((200, {}, completion(None, refusal="I cannot.")), "the model refused to answer", 2),
        ((200, {}, completion('{"colour": "re', "length")), "cut off by the server at 2 tokens", 2),
    ],
    ids=["input filter", "moderation", "output filter", "refusal", "cut"],
)
def test_the_reason_of_a_request_without_a_usable_answer_is_listed(store, fault, reason, posts):
    asked = requests(3)
    with Server(lambda number, body: fault if "question 1" in str(body) else None) as fake:
        ask(asked, fake, store, concurrency=1)
        ask(asked, fake, store, concurrency=1)
    good, failed, other = answers(asked, store)
    assert good == other == GOOD
    assert re.search(reason, failed.reason)
    assert len(fake.bodies) == 2 + posts


@pytest.mark.parametrize(
    "fault",
    [
        error(404, "no route"),
        error(403, "monthly quota exceeded"),
        error(400, "API key expired"),
        error(400, "the queue is full"),
        (400, {"content-type": "text/html"}, "<html>Bad request</html>"),
        (403, {"content-type": "text/html"}, "<!DOCTYPE html>Blocked"),
    ],
    ids=["404 of a gateway", "403 quota", "400 key", "400 queue", "400 page", "403 page"],
)
def test_an_error_of_the_account_or_a_gateway_is_never_stored(store, fault):
    asked = requests(12)
    with (
        Server(lambda number, body: fault if "question 7" in str(body) else None) as fake,
        pytest.raises(RunError, match="left 1 requests without an answer"),
    ):
        ask(asked, fake, store, concurrency=2)
    assert store.totals()["replies"] == 11
    assert answers(asked, store)[7] == asked[7]
    with Server() as mended:
        ask(asked, mended, store)
    assert len(mended.bodies) == 1
