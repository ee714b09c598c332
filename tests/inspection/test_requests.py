"""`regen inspect RUN --request USER`: the requests about a user, and the answers to them."""

import re
import shutil

import pytest

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.inspection import clean
from regen_hf.llm import Store
from regen_hf.user_rows import UserRows
from tests.llm_server import Server, completion

WRONG = '{"user_profile": "\x1b[2Jred\u202e"'


def inspected(run, user, capsys):
    capsys.readouterr()
    assert main(["inspect", str(run), "--request", user]) == 0
    return capsys.readouterr().out


def words(text):
    return " ".join(text.split())


def holds(told, body):
    """Whether all messages of a request are in a text; lines are broken at spaces and hyphens."""
    return all("".join(clean(message["content"]).split()) in "".join(told.split()) for message in body["messages"])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A run with a preview of two users, whose first answer is unusable; with its users, and the bodies of requests."""
    run = tmp_path_factory.mktemp("inspected") / "run"
    sizes = ["sample.shoppers=12", "sample.items=40"]
    assert main(["sequences", str(run), "--sample", *(word for size in sizes for word in ("--set", size))]) == 0
    users = list(UserRows.first(outputs.sequence_files(run), 2).ids())
    others = [user for user in UserRows(outputs.sequence_files(run)).ids() if user not in users]
    with Server(lambda number, body: (200, {}, completion(WRONG)) if number == 0 else None) as server:
        model = ["--backend", "openai", "--base-url", server.url]
        given = [*model, "--model", "writer", "--users", "2", "--fix", "1", "--concurrency", "1", "--max-failed", "1"]
        assert main(["narratives", str(run), *given, "--examples", "none"]) == 0
        narrated = list(server.bodies)
        given = [*model, "--model", "rater", "--users", "1", "--votes", "2"]
        assert main(["ratings", str(run), *given]) == 0
    return run, users, others, narrated, server.bodies[len(narrated) :]


def test_every_message_is_shown_as_it_was_sent_and_every_answer_with_its_faults(asked, capsys):
    run, users, _, narrated, _ = asked
    told = {user: inspected(run, user, capsys) for user in users}
    for body in narrated:
        assert any(holds(text, body) for text in told.values())
    (first,) = (text for text in told.values() if "unusable" in text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", first)
    story = [
        "Request to writer · temperature 0.7 · seed 0",
        "Form of the answer: a JSON schema; fields purchase_reason",
        "unusable: Invalid JSON: ",
        r'{"user_profile": "\x1b[2Jred\u202e"',
        "The request is sent again after the unusable answer.",
        "seed 10000",
        "an example at the end of the messages",
        "messages as above]",
        "usable",
        "! failed checks: explanation.same",
        "repetition 1 of 1 for failed checks",
        "An earlier answer to this cannot be used: ",
    ]
    position = 0
    for part in story:
        assert part in words(first)[position:]
        position = words(first).index(part, position)


def test_votes_are_shown_with_their_answers_and_the_same_messages_once(asked, capsys):
    run, users, _, _, votes = asked
    told = [inspected(run, user, capsys) for user in users]
    (rated,) = (text for text in told if "of the preview (ratings.users)" not in text)
    assert all(holds(rated, body) for body in votes)
    stages = "example|last_purchase|user|endorsement|critique"
    assert len(re.findall(rf"^({stages}), vote [01]$", rated, re.MULTILINE)) == len(votes)
    assert rated.count("[2 of 2 messages as above]") == len(votes) // 2
    assert "No answer is stored" not in rated


def test_a_request_that_was_not_sent_is_shown_as_such(asked, capsys):
    run, _, others, narrated, _ = asked
    told = inspected(run, others[0], capsys)
    assert "Not one of the 2 users of the preview (narratives.users): nothing is sent." in told
    requests = 3 if "\ncritique\n" in told else 2  # the last two purchases may be similar
    assert told.count("No answer is stored: this is the request that would be sent.") == requests
    assert "There are no narratives of this user to rate." in told
    assert holds(told, {"messages": narrated[0]["messages"][:1]})  # the instructions


def test_it_only_reads_also_while_another_process_writes(asked, tmp_path, capsys):
    run, users, *_ = asked
    run = shutil.copytree(run, tmp_path / "run")
    before = inspected(run, users[0], capsys)
    path = outputs.requests_path(run, "narratives")
    with Store(path) as store, store.locked(), store.transaction():
        store.execute("UPDATE replies SET text = 'half written'")
        assert inspected(run, users[0], capsys) == before
    path.unlink()
    outputs.requests_path(run, "ratings").unlink()
    assert "No answer is stored" in inspected(run, users[0], capsys)
    assert not path.exists()


def test_a_layout_of_an_older_version_is_read_and_left_as_it_is(asked, tmp_path, capsys):
    run, users, *_ = asked
    run = shutil.copytree(run, tmp_path / "run")
    before = inspected(run, users[0], capsys)
    path = outputs.requests_path(run, "narratives")
    with Store(path) as store:
        store.execute("DROP TABLE windows")
        store.execute("PRAGMA user_version = 5")
    assert inspected(run, users[0], capsys) == before
    with Store(path, read_only=True) as store:
        assert store.execute("PRAGMA user_version") == [(6,)]  # of the copy in memory
    content = path.read_bytes()
    assert inspected(run, users[0], capsys) == before
    assert path.read_bytes() == content


def test_without_a_model_or_with_an_unknown_user_the_error_says_so(asked, finished_run, capsys):
    run, users, *_ = asked
    assert main(["inspect", str(finished_run), "--request", users[0]]) == 1
    assert "has the backend reference for narratives and ratings" in capsys.readouterr().err
    assert main(["inspect", str(run), "--request", f"{users[0]}x"]) == 1
    told = capsys.readouterr().err
    assert f"no user '{users[0]}x' among the 12" in told
    assert users[0] in told
