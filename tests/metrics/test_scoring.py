"""Metrics of a group of users and their bootstrap intervals."""

import numpy as np
import pytest

from regen_hf.metrics import scoring
from regen_hf.metrics import text_metrics as metrics


def test_a_score_over_nothing_is_null_and_lists_of_different_lengths_raise_an_error():
    nothing = {"mean": None, "low": None, "high": None}
    assert scoring.intervals(metrics.statistics([], [])) == dict.fromkeys(metrics.METRICS, nothing)
    assert np.isnan([*metrics.scores(np.zeros(len(metrics.STATISTICS)), 0).values()]).all()
    silent = scoring.intervals(metrics.statistics(["", ""], ["a red pen", "glue"]))
    assert silent["bleu"]["mean"] == silent["rougeLsum"]["mean"] == silent["length_ratio"]["mean"] == 0
    # No encoder was given, and there is no word to be distinct.
    assert silent["similarity"] == silent["distinct1"] == silent["unique_share"] == nothing
    with pytest.raises(ValueError, match="1 predictions have 2 references"):
        metrics.statistics(["a"], ["a", "b"])


def random_statistics(spread, number, generator):
    """Statistics of users whose ROUGE-1 is spread around 50; the rest is 1."""
    table = np.ones((number, len(metrics.STATISTICS)))
    table[:, metrics.STATISTICS.index("rouge1")] = generator.normal(50, spread, number)
    return table


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        found = scoring.intervals(random_statistics(10, 50, generator), seed)["rouge1"]
        held += found["low"] <= 50 <= found["high"]
    assert 87 <= held <= 99


def test_intervals_narrow_with_more_users_and_stay_the_same_for_a_seed():
    few, many = (
        scoring.intervals(random_statistics(10, number, np.random.default_rng(0)))["rouge1"] for number in (20, 5000)
    )
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 8
    again = scoring.intervals(random_statistics(10, 5000, np.random.default_rng(0)))["rouge1"]
    assert again == many  # drawn in parts, as 5,000 users times 1,000 resamples are
