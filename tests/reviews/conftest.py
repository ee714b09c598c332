"""Fixtures of the readers."""

import pytest


@pytest.fixture
def put(tmp_path):
    """A function that writes bytes to a file and returns its path."""

    def run(data):
        (tmp_path / "r.csv").write_bytes(data)
        return tmp_path / "r.csv"

    return run
