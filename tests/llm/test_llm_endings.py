"""How `regen narratives` ends: requests without an answer, without a usable answer, and those sent again."""

import json
import shutil

import pytest

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.run import STAGES, Run
from tests.llm_server import HANG, RESET, Server, completion, error

REQUESTS = 85
FILTERED = error(400, "The prompt was filtered", code="content_filter")
PROSE = (200, {}, completion("I would rather not."))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    run = tmp_path_factory.mktemp("endings") / "run"
    size = ["--set", "sample.shoppers=40", "--set", "sample.items=48"]
    assert main(["sequences", str(run), "--sample", *size]) == 0
    return run


@pytest.fixture
def run(sequences, tmp_path):
    return shutil.copytree(sequences, tmp_path / "run")


def narratives(run, url, *options):
    """The exit code of the command."""
    return main(["narratives", str(run), "--backend", "openai", "--model", "m", "--base-url", url, *options])


def counts(run):
    return json.loads((run / "narratives" / "manifest.json").read_text())["counts"]


def failed_lines(run):
    path = run / "narratives" / "failed.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def question(body):
    """The question about a user, also where it is repeated."""
    asked = [message["content"] for message in body["messages"] if message["role"] == "user"]
    return asked[-1].partition("\n\nAn earlier answer to this cannot be used")[0]


class Failing:
    """A fault of every `step`-th question, in all of its posts with the model `m` and a first seed."""

    def __init__(self, fault, step):
        self.fault, self.step, self.questions = fault, step, {}

    def __call__(self, number, body):
        index = self.questions.setdefault(question(body), len(self.questions))
        first = body["model"] == "m" and body["seed"] < 1_000_000
        return self.fault if first and index % self.step == self.step - 1 else None


def test_a_server_that_is_dead_never_ends_as_success(run, capsys):
    for _ in range(2):
        assert narratives(run, "http://127.0.0.1:9/v1", "--retries", "0") == 1
        assert "without an answer: the connection is refused" in capsys.readouterr().err
        assert not (run / "narratives").exists()
    with Server() as server:
        assert narratives(run, server.url) == 0
    assert len(server.bodies) == REQUESTS
    assert counts(run)["failed"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        RESET,
        HANG,
        error(429),
        error(500),
        error(404, "no route"),
        error(403, "quota exceeded"),
        error(400, "queue full"),
    ],
    ids=["reset", "no answer", "429", "500", "404", "403 quota", "400 queue"],
)
def test_one_request_without_an_answer_fails_the_stage_and_the_same_command_resumes(run, capsys, fault):
    options = ["--retries", "1", "--timeout", "0.5", "--max-failed", "1"]
    with Server(Failing(fault, REQUESTS)) as server:
        assert narratives(run, server.url, *options) == 1
    assert "left 1 requests without an answer" in capsys.readouterr().err
    assert not (run / "narratives").exists()
    with Server() as mended:
        assert narratives(run, mended.url, *options) == 0
    assert len(mended.bodies) == 1
    assert counts(run)["failed"] == 0
    assert failed_lines(run) == []


@pytest.mark.parametrize("fault", [FILTERED, PROSE], ids=["rejected", "unusable"])
def test_few_requests_without_a_usable_answer_are_listed_and_many_fail_the_stage(run, capsys, fault):
    with Server(Failing(fault, 10)) as server:
        assert narratives(run, server.url) == 1
        message = capsys.readouterr().err
        assert f"8 of {REQUESTS} requests have no usable answer" in message
        assert "--retry-failed 1" in message
        assert not (run / "narratives").exists()
        sent = len(server.bodies)
        assert narratives(run, server.url, "--max-failed", "0.1") == 0
        assert len(server.bodies) == sent
    assert counts(run)["failed"] == len(failed_lines(run)) == 8


def test_a_share_of_exactly_max_failed_is_accepted(run):
    with Server(Failing(FILTERED, 20)) as server:
        assert narratives(run, server.url) == 0
    assert counts(run)["failed"] == 4


@pytest.mark.parametrize("fault", [FILTERED, PROSE], ids=["rejected", "unusable"])
def test_failed_requests_are_sent_again_with_another_seed_and_later_stages_become_stale(run, fault):
    failing = Failing(fault, 30)
    with Server(failing) as server:
        assert narratives(run, server.url) == 0
        assert counts(run)["failed"] == 2
        before = Run(run).fingerprint(STAGES["ratings"])
        sent = len(server.bodies)
        assert narratives(run, server.url, "--retry-failed", "1") == 0
        again = server.bodies[sent:]
        assert narratives(run, server.url) == 0  # the setting is kept
        assert len(server.bodies) == sent + 2
    assert {question(body) for body in again} == {text for text, index in failing.questions.items() if index % 30 == 29}
    assert {body["seed"] for body in again} == {1_000_000}
    assert counts(run)["failed"] == 0
    assert failed_lines(run) == []
    assert Run(run).fingerprint(STAGES["ratings"]) != before


@pytest.mark.parametrize("fault", [FILTERED, error(413, "too long"), PROSE], ids=["content", "length", "unusable"])
def test_failed_requests_go_to_another_model_which_is_named_in_the_row(run, fault):
    with Server(Failing(fault, 40)) as server:
        assert narratives(run, server.url, "--retry-failed", "1", "--retry-model", "other") == 0
        models = [body["model"] for body in server.bodies]
    assert models.count("other") == counts(run)["failed"] + 2 == 2
    rows = outputs.rows([run / "narratives" / "narratives.parquet"], ["narrator"])
    changed = {row["narrator"] for row in rows} - {"m"}
    assert changed
    assert changed <= {"m, other", "other, m", "other"}


def test_a_retry_model_without_retries_is_refused(run, capsys):
    assert narratives(run, "http://127.0.0.1:9/v1", "--retry-model", "other") == 1
    assert "retry_failed is 0" in capsys.readouterr().err
