"""Fixtures of the tests of language models."""

import pytest

from regen_hf import llm
from regen_hf.llm import pace


@pytest.fixture
def store(tmp_path):
    with llm.Store(tmp_path / "requests.sqlite") as store:
        yield store


@pytest.fixture(autouse=True)
def _quick_tries(monkeypatch):
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)
