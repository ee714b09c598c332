import itertools

import pytest

from regen_hf.stages.training.examples import Examples


@pytest.fixture
def load(finished_run, tmp_path):
    """Examples of the train users of the tiny run, in a folder of the test."""
    folders = (tmp_path / f"examples-{number}" for number in itertools.count())

    def do(processor, settings, limit=None, critiques=True, **changes):
        examples = Examples.of(finished_run, "train", processor, next(folders), settings, limit, critiques)
        for name, value in changes.items():
            setattr(examples, name, value)
        return examples

    return do


@pytest.fixture
def tokenize(load):
    """The tokenized examples of the train users of the tiny run, without those that show a critique."""

    def do(processor, settings, **changes):
        examples = load(processor, settings, critiques=False, **changes)
        return examples.tokenized(list(examples.rows))

    return do
