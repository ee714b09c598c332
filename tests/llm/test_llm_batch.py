"""Requests through the Batch API: another process can do each step, and no request is paid for twice."""

import json
from contextlib import closing

import pytest

from regen_hf import llm
from regen_hf.errors import ConfigError, RunError
from regen_hf.llm import batch as batch_module
from regen_hf.llm.batch import Batches
from tests.batch_server import BatchApi
from tests.llm.test_llm import Colour, answers, request, requests, settings
from tests.llm_server import RESET, Server, completion

GOOD = Colour(colour="Some words.")


class Bar:
    initial = n = 0

    def update(self, count=1):
        pass

    def set_postfix_str(self, text):
        pass


@pytest.fixture
def store(tmp_path):
    with llm.Store(tmp_path / "requests.sqlite") as store:
        yield store


def batch_settings(url, **changes):
    return settings(url, **{"backend": "openai-batch", "poll": 0.01, "retries": 0} | changes)


def ask(asked, fake, store, **changes):
    llm.ask(lambda: iter(asked), batch_settings(fake.url, **changes), store, len(asked), "test")


def content(body):
    return body["messages"][0]["content"]


def test_every_request_is_answered_through_one_batch_at_half_the_price(store):
    asked = requests(12)
    api = BatchApi()
    with Server(extra=api) as fake:
        ask(asked, fake, store)
        ask(asked, fake, store)
        prices = {"price_in": 1000.0, "price_out": 5000.0}
        assert llm.spent(store, batch_settings(fake.url, **prices)) == pytest.approx(12 * 0.01)
    assert answers(asked, store) == [GOOD] * 12
    assert sorted(api.paid) == sorted(content({"messages": one.messages}) for one in asked)
    assert len(api.batches) == 1
    (line, *_) = map(json.loads, api.files["file-0"].splitlines())
    assert (line["method"], line["url"], line["custom_id"]) == ("POST", "/v1/chat/completions", asked[0].key)
    assert line["body"]["response_format"]["type"] == "json_schema"
    assert not list(store.path.parent.glob("*.batches/*"))


def test_each_step_can_be_taken_by_another_process(tmp_path):
    asked = requests(6)
    api = BatchApi(polls=2)
    path = tmp_path / "requests.sqlite"

    def process(step):
        with llm.Store(path) as store, closing(Batches(batch_settings(fake.url), store, Bar())) as batches:
            return step(batches)

    with Server(extra=api) as fake:
        assert process(lambda batches: batches.prepare(asked)) == 6
        assert process(lambda batches: batches.prepare(asked)) == 0
        assert api.calls == []
        process(lambda batches: batches.submit())
        process(lambda batches: batches.submit())
        assert len(api.batches) == 1
        assert [process(lambda batches: batches.poll()) for _ in range(3)] == [False, False, True]
        assert process(lambda batches: batches.open()) == []
    with llm.Store(path) as store:
        assert answers(asked, store) == [GOOD] * 6
    assert len(api.paid) == 6


def test_a_batch_created_right_before_a_kill_is_looked_up_and_not_created_twice(store):
    api = BatchApi()

    def created_but_lost(answer):
        answer()
        return RESET

    asked = requests(5)
    with Server(extra=api) as fake:
        api.next_fault = (("POST", "/v1/batches"), created_but_lost)
        with pytest.raises(RunError, match="does not answer"):
            ask(asked, fake, store)
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 5
    assert len(api.batches) == 1
    assert len(api.paid) == 5


def test_the_limits_of_a_file_make_more_batches(store, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_REQUESTS", 4)
    api = BatchApi()
    with Server(extra=api) as fake:
        ask(requests(10), fake, store)
        assert [len(api.files[batch["file"]].splitlines()) for batch in api.batches.values()] == [4, 4, 2]
        monkeypatch.setattr(batch_module, "MOST_REQUESTS", 50_000)
        size = len(api.files["file-0"].splitlines()[0]) + 1
        monkeypatch.setattr(batch_module, "MOST_BYTES", 3 * size + 20)
        ask([request(number) for number in range(10, 17)], fake, store)
    assert all(len(file) <= 3 * size + 20 for file in list(api.files.values())[-6::2] if b"custom_id" in file[:20])
    assert [len(api.files[batch["file"]].splitlines()) for batch in api.batches.values()][3:] == [3, 3, 1]


def test_a_model_has_batches_of_its_own(store):
    api = BatchApi()
    asked = [request(number, model=f"org/m{number % 2}") for number in range(6)]
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    models = [
        {json.loads(line)["body"]["model"] for line in api.files[b["file"]].splitlines()} for b in api.batches.values()
    ]
    assert models == [{"org/m0"}, {"org/m1"}]


def test_what_a_batch_left_out_goes_into_the_next_one(store):
    """Expired lines were not paid for; the rest of the batch is kept."""
    late = {"question 1", "question 3"}
    first = set()

    def line(body):
        if content(body) in late - first:
            first.add(content(body))
            return "expired"
        return None

    asked = requests(6)
    api = BatchApi(line, outcome=lambda batch: None if batch["file"] != "file-0" else "expired")
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 6
    assert sorted(api.paid) == sorted(f"question {number}" for number in range(6))
    assert len(api.batches) == 2


def test_lines_that_fail_are_recorded_and_the_others_stand(store):
    def line(body):
        if content(body) == "question 1":
            return 400, {"error": {"message": "too long for the window"}}
        if content(body) == "question 2":
            return 500, {"error": {"message": "boom"}}
        return None

    asked = requests(5)
    api = BatchApi(line)
    with Server(extra=api) as fake, pytest.raises(RunError, match=r"left 1 requests without an answer: .*boom"):
        ask(asked, fake, store)
    outcomes = answers(asked, store)
    assert "too long for the window" in outcomes[1].reason
    assert outcomes[2] == asked[2]  # still to be sent
    assert [outcomes[number] for number in (0, 3, 4)] == [GOOD] * 3
    assert len(api.paid) == 3


def test_a_bad_answer_is_asked_again_in_a_second_batch(store):
    def line(body):
        return (
            (200, completion("Perhaps blue.")) if content(body) == "question 1" and len(body["messages"]) == 1 else None
        )

    asked = requests(4)
    api = BatchApi(line)
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 4
    assert len(api.batches) == 2
    assert len(api.paid) == 5


@pytest.mark.parametrize("status", [400, 500, 501])
def test_a_form_that_the_server_does_not_take_is_given_up_after_one_batch(store, status):
    def line(body):
        return (status, {"error": {"message": "json_schema is not supported"}}) if "response_format" in body else None

    asked = requests(3)
    api = BatchApi(line)
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 3
    assert len(api.batches) == 4
    assert store.get(asked[0].key).form == "instructions"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_batch_that_fails_as_a_whole_stops_with_the_servers_words_and_lets_its_requests_go(store, status):
    problem = [{"code": "invalid_request", "message": "the file is odd", "line": 1, "param": None}]
    broken = BatchApi(outcome=lambda batch: (status, problem))
    asked = requests(3)
    with Server(extra=broken) as fake:
        with pytest.raises(RunError, match=f"is {status}: invalid_request: the file is odd"):
            ask(asked, fake, store)
        broken.outcome = lambda batch: None
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 3
    assert len(broken.paid) == 3


def test_too_much_enqueued_makes_smaller_batches(store):
    problem = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None, "param": None}]

    def outcome(batch):
        return ("failed", problem) if len(api.files[batch["file"]].splitlines()) > 2 else None

    asked = requests(8)
    api = BatchApi(outcome=outcome)
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 8
    assert len(api.paid) == 8


@pytest.mark.parametrize(("count", "words"), [(4, "cut off"), (5, "invalid line")], ids=["between lines", "in a line"])
def test_a_truncated_output_is_reported_downloaded_again_and_not_paid_again(store, count, words):
    asked = requests(count)
    api = BatchApi()
    with Server(extra=api) as fake:
        cut = {}

        def half(answer):
            status, headers, data = answer()
            cut["done"] = True
            return status, headers, data[: len(data) // 2]

        api.next_fault = (("GET", "/v1/files/file-1/content"), half)
        with pytest.raises(RunError, match=words):
            ask(asked, fake, store)
        assert cut
        assert store.totals()["replies"] == 0
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * count
    assert len(api.paid) == count


def test_a_batch_that_never_answers_is_given_up(store):
    api = BatchApi(lambda body: "expired")
    with Server(extra=api) as fake, pytest.raises(RunError, match="left 3 requests without an answer"):
        ask(requests(3), fake, store)
    assert len(api.batches) == batch_module.IDLE_ROUNDS


def test_a_wrong_key_and_a_server_without_batches_are_reported(store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    denied = (401, {}, {"error": {"message": "wrong key sk-very-secret"}})
    for answer, words in ((denied, "wrong key"), (None, "no such path")):
        with Server(extra=(lambda *call: denied) if answer else None) as fake:
            with pytest.raises(ConfigError, match=words) as caught:
                ask(requests(2), fake, store)
            assert "sk-very-secret" not in str(caught.value)


def test_the_budget_holds_for_batches_too(store):
    # 0.01 USD an answer; at most 0.13 for one of 50 tokens: so the first batch holds few, the last answers one each.
    asked = requests(30)
    prices = {"price_in": 1000.0, "price_out": 5000.0}
    api = BatchApi()
    with Server(extra=api) as fake:
        with pytest.raises(RunError, match="could exceed the budget"):
            ask(asked, fake, store, budget=0.25, **prices)
        first = len(api.paid)
        assert llm.spent(store, batch_settings(fake.url, **prices)) <= 0.25
        assert 5 < first < 25
        ask(asked, fake, store, budget=9.0, **prices)
    assert len(api.paid) == 30


def test_a_batch_at_work_on_another_server_is_not_asked_for_again(store):
    asked = requests(3)
    with Server(extra=BatchApi()) as first, Server(extra=BatchApi()) as second:
        with closing(Batches(batch_settings(first.url), store, Bar())) as batches:
            batches.prepare(asked)
            batches.submit()
        with pytest.raises(RunError, match="Set base_url to that server"):
            ask(asked, second, store)
        ask(asked, first, store)
    assert answers(asked, store) == [GOOD] * 3


def test_requests_in_a_batch_are_not_asked_directly_too(store):
    asked = requests(3)
    with Server(extra=BatchApi()) as fake:
        with closing(Batches(batch_settings(fake.url), store, Bar())) as batches:
            batches.prepare(asked)
            batches.submit()
        with pytest.raises(RunError, match="openai-batch and that base_url to collect"):
            llm.ask(lambda: asked, settings(fake.url), store, 3, "test")
        assert fake.bodies == []


@pytest.mark.parametrize("fault", [(400, {"error": {"message": "too long"}}), (200, completion("Perhaps blue."))])
def test_a_request_without_a_usable_answer_is_sent_again_to_the_next_model(store, fault):
    def line(body):
        return fault if content(body).startswith("question 1") and body["model"] == "m" else None

    asked = [request(number, further=("other",)) for number in range(4)]
    api = BatchApi(line)
    with Server(extra=api) as fake:
        ask(asked, fake, store)
    assert answers(asked, store) == [GOOD] * 4
    assert llm.last(asked[1], store)[0].model == "other"
