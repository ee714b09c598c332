"""A preview of the users: nested, paid once, and estimated as such."""

import hashlib

import pyarrow.parquet as pq
import pytest

from regen_hf.config import section
from regen_hf.errors import ConfigError
from regen_hf.schema import SPLITS
from regen_hf.stages.narratives.build import build, estimate
from regen_hf.stages.narratives.settings import NarrativesConfig
from tests.llm_server import Server
from tests.stages.narratives.test_narratives import purchase, write_sequences


@pytest.fixture
def run(tmp_path):
    """40 users in the order of the splits' hash, as the sequences are written."""
    users = sorted((f"u{number}" for number in range(40)), key=lambda user: hashlib.md5(user.encode()).hexdigest())
    rows = [(user, [purchase(user, f"Pen of {user}")] * 2) for user in users]
    write_sequences(tmp_path, **dict(zip(SPLITS, (rows[8:], rows[4:8], rows[:4]), strict=True)))
    return tmp_path


def narrate(run, **settings):
    """The users with narratives, and the number of requests that were sent."""
    out = run / f"out-{len(list(run.iterdir()))}"
    out.mkdir()
    with Server() as server:
        config = NarrativesConfig(backend="openai", model="m", base_url=server.url, max_failed=1, **settings)
        counts = build(run, out, out, config)
    written = pq.read_table(out / "narratives.parquet")["reviewer_id"].to_pylist()
    assert counts["users"] == len(written)
    return written, len(server.bodies)


def test_more_users_include_those_before_and_only_the_others_are_paid_for(run):
    few, sent = narrate(run, users=5)
    assert (len(few), sent) == (5, 10)
    config = NarrativesConfig(backend="openai", model="m", users=12)
    assert (estimate(run, config).requests, estimate(run, config).stored) == (14, 10)
    more, sent = narrate(run, users=12)
    assert set(few) < set(more)
    assert (len(more), sent) == (12, 14)
    everyone, sent = narrate(run)
    assert (len(everyone), sent) == (40, 56)
    assert [user for user in everyone if user in more] == more  # in the order of the sequences
    rules = run / "rules"
    rules.mkdir()
    build(run, rules, rules, NarrativesConfig(users=12))
    assert pq.read_table(rules / "narratives.parquet")["reviewer_id"].to_pylist() == more


def test_few_shot_examples_of_the_run_are_users_of_the_preview(run, monkeypatch):
    from regen_hf.stages.narratives import prompted

    monkeypatch.setattr(prompted.checks, "check", lambda *_: {"failed": [], "warnings": []})
    monkeypatch.setattr(prompted, "CHOSEN", 2)
    few, sent = narrate(run, users=4, examples=("run",))
    assert sent == 2 * 4 + 2  # the two users who are no examples are asked again, with the examples
    more, sent = narrate(run, users=6, examples=("run",))
    assert set(few) < set(more)
    assert sent == 2 * 2


def test_fewer_than_no_users_are_refused():
    with pytest.raises(ConfigError, match="users was given -1, expected at least 0"):
        section(NarrativesConfig, {"users": -1}, "narratives")
