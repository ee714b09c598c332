"""The recipes of docs/any_recommender.md, on the sample world."""

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from regen_hf.stages.embeddings.external import read
from regen_hf.stages.embeddings.settings import EmbeddingsConfig
from tests.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    import any_recommender
finally:
    sys.path.pop(0)

NO_CO_PURCHASES = ("Surprise, SVD",)
"""Recipes that fit ratings only."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(any_recommender.recipes()))
def test_a_recipe_gives_vectors_of_the_items_bought_together(finished_run, tmp_path, name):
    python = any_recommender.python_of(name)
    if python is None:
        pytest.skip(f"the library of {name} is not installed: make recommenders")
    any_recommender.write_purchases(finished_run, tmp_path / "purchases.csv")
    any_recommender.run_recipe(name, python, tmp_path)
    circles = {
        row["asin"]: row["circle"] for row in pq.read_table(finished_run / "sample/item_truth.parquet").to_pylist()
    }
    asins = sorted(circles)
    settings = EmbeddingsConfig(cf_vectors=str(tmp_path / "vectors.npy"), cf_asins=str(tmp_path / "asins.txt"))
    factors, counts = read(settings, asins)
    assert counts["vectors_left_out"] == 0
    assert factors.shape[1] == 64
    warm = factors.any(axis=1)
    bought = {line.split(",")[1] for line in (tmp_path / "purchases.csv").read_text().splitlines()[1:]}
    assert {asin for asin, has_vector in zip(asins, warm, strict=True) if has_vector} == bought
    if name in NO_CO_PURCHASES:
        return
    unit = factors[warm] / np.linalg.norm(factors[warm], axis=1, keepdims=True)
    circle = np.array([circles[asin] for asin in asins])[warm]
    same, cosines = circle[:, None] == circle, unit @ unit.T
    np.fill_diagonal(same, False)
    other = circle[:, None] != circle
    assert cosines[same].mean() > cosines[other].mean() + 0.02  # 0.04 to 0.3 for these


def test_differences_are_means_over_the_seeds_that_both_have():
    def shares(facts, circle):
        return {"all facts": facts, "circle": circle}

    cells = {
        any_recommender.OURS: {"0": shares(0.5, 0.4), "1": shares(0.6, 0.4)},
        "near": {"0": shares(0.52, 0.4), "1": shares(0.6, 0.6)},
        "far": {"0": shares(0.4, 0.4)},
        "not yet": {},
    }
    found = any_recommender.differences(cells)
    assert found["near"] == {"all facts": 0.01, "circle": 0.1, "seeds": 2, "within margin": True}
    assert found["far"] == {"all facts": -0.1, "circle": 0.0, "seeds": 1, "within margin": False}
    assert found.keys() == {"near", "far"}
