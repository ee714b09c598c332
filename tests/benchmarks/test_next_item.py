import sys

import numpy as np
import pytest

from regen_hf import outputs
from regen_hf.run import Run
from regen_hf.vectors.store import VectorStore
from tests.paths import ROOT


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import next_item
        import next_item_worlds
    finally:
        sys.path.pop(0)
    return next_item, next_item_worlds


def test_figures_are_means_over_seeds_with_paired_differences(benchmark):
    by_model = {"fused": [np.array([1, 2, 60]), np.array([1, 4, 60])], "content": [np.array([2, 2, 2])]}
    found = benchmark[0].compared(by_model, {"all": np.ones(3, bool), "last": np.array([False, False, True])})
    fused = found["models"]["fused"]
    assert fused["all"]["mrr"]["mean"] == pytest.approx((1 + (1 / 2 + 1 / 4) / 2 + 1 / 60) / 3)
    assert fused["last"]["n"] == 1
    assert fused["last"]["recall@50"]["mean"] == 0
    assert found["differences"]["content"]["recall@10"]["mean"] == pytest.approx(-1 / 3)
    assert [seed["mrr"] for seed in found["by_seed"]["fused"]] == [0.5056, 0.4222]


def test_new_items_are_hidden_from_als_and_from_training_but_not_from_test_users(benchmark, finished_run, tmp_path):
    items = outputs.item_vectors(finished_run)
    vectors, hidden = tmp_path / "items.npy", np.arange(0, len(items.asins), 5)
    np.save(vectors, items.content)
    world = benchmark[1].embed(Run(finished_run), tmp_path / "world", "", vectors, hidden)
    found = outputs.item_vectors(world)
    assert found.asins == items.asins
    assert not found.item_factors[hidden].any()
    assert found.item_factors[np.setdiff1d(np.arange(len(items.asins)), hidden)].any(axis=1).mean() > 0.9
    bought = {split: VectorStore(world / "embeddings" / split) for split in ("train", "test")}
    assert not np.isin(bought["train"].items, hidden).any()
    assert np.isin(bought["test"].items, hidden).any()
    complete = VectorStore(finished_run / "embeddings" / "train")
    assert len(bought["train"]) == len(complete)
    assert len(bought["train"].items) < len(complete.items)
    assert outputs.manifest(world, "embeddings")["config"]["cf_dim"]
