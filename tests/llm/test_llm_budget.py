"""The cost of requests: an estimate before, and a budget while they are sent."""

import pytest

from regen_hf import llm
from regen_hf.cli import main
from regen_hf.errors import ConfigError, RunError
from tests.llm.test_llm import ask, requests, settings
from tests.llm_server import Server, completion


def test_the_budget_is_never_exceeded_and_a_higher_one_resumes(store):
    # 10 tokens in and 2 out, at 1000 and 5000 USD a million: 0.02 USD an answer, 0.26 reserved for 50 tokens out.
    asked = requests(30)
    prices = {"price_in": 1000.0, "price_out": 5000.0}
    with Server(delay=0.01) as fake:
        with pytest.raises(RunError, match=r"could exceed the budget of 0\.6 USD"):
            ask(asked, fake, store, concurrency=8, budget=0.6, **prices)
        first = len(fake.bodies)
        spent = llm.spent(store, settings(fake.url, **prices))
        assert 0.3 < spent <= 0.6
        assert spent == pytest.approx(0.02 * first)
        with pytest.raises(RunError, match=r"0\.6 USD"):
            ask(asked, fake, store, budget=0.6, **prices)
        assert len(fake.bodies) == first
        ask(asked, fake, store, budget=5.0, **prices)
    assert len(fake.bodies) == 30


def test_the_budget_holds_where_the_server_tells_no_tokens(store):
    silent = {name: value for name, value in completion('{"colour": "red"}').items() if name != "usage"}
    prices = {"price_in": 1000.0, "price_out": 5000.0}
    with Server(lambda number, body: (200, {}, silent)) as fake:
        with pytest.raises(RunError, match=r"could exceed the budget of 0\.6 USD"):
            ask(requests(30), fake, store, budget=0.6, **prices)
        assert 0 < len(fake.bodies) < 30
        assert 0.2 < llm.spent(store, settings(fake.url, **prices)) <= 0.6


def test_a_budget_without_a_price_is_refused_before_anything_is_sent(store):
    with Server() as fake, pytest.raises(ConfigError, match="price_in"):
        ask(requests(3), fake, store, budget=1.0)
    assert fake.bodies == []


def test_the_estimate_counts_what_is_missing_and_learns_from_the_store(store):
    asked = requests(10)
    with Server() as fake:
        config = settings(fake.url, price_in=1000.0, price_out=5000.0)
        before = llm.estimate(lambda: asked, config, store.path)
        ask(asked[:4], fake, store)
        after = llm.estimate(lambda: asked, config, store.path)
        assert len(fake.bodies) == 4
    assert (before.requests, before.stored, before.completion_tokens) == (10, 0, 500)
    assert before.usd == before.most_usd == pytest.approx((before.prompt_tokens * 1000 + 500 * 5000) / 1e6, rel=0.01)
    assert (after.requests, after.stored, after.completion_tokens) == (6, 4, 12)
    assert after.most_usd > 5 * after.usd
    assert "6 requests to send, 4 answered before" in str(after)
    assert llm.estimate(lambda: asked, settings(fake.url), store.path).usd is None


def test_the_command_line_tells_the_cost_and_keeps_the_budget(tmp_path, capsys):
    run = str(tmp_path / "run")
    size = ["--set", "sample.shoppers=40", "--set", "sample.items=48"]
    assert main(["sequences", run, "--sample", *size]) == 0
    with Server() as fake:
        command = ["narratives", run, "--backend", "openai", "--model", "m", "--base-url", fake.url]
        assert main([*command, "--dry-run"]) == 0
        # 5 of the 40 shoppers have a critique: their last two purchases are similar.
        each = "40 Narratives, 40 Endorsement, 5 Critique"
        assert f"85 requests to send ({each}), 0 answered before" in (told := capsys.readouterr().out)
        assert "price is not known" in told
        assert fake.bodies == []
        assert not (tmp_path / "run" / "requests").exists()
        command += ["--price-in", "1", "--price-out", "5000", "--max-tokens", "50"]
        assert main([*command, "--budget", "0.5"]) == 1
        assert "could exceed the budget of 0.5 USD" in capsys.readouterr().err
        first = len(fake.bodies)
        assert 0 < first < 40
        assert main([*command, "--budget", "50", "--dry-run"]) == 0
        each = f"{40 - first} Narratives, 40 Endorsement, 5 Critique"
        assert f"{85 - first} requests to send ({each}), {first} answered before" in capsys.readouterr().out
        assert main([*command, "--budget", "50"]) == 0
        assert len(fake.bodies) == 85
        assert main(["ratings", run, *command[2:], "--votes", "3", "--dry-run"]) == 0
        assert "495 requests to send" in capsys.readouterr().out
