"""How the content vectors are whitened before a training, and stretched to where users differ."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from regen_hf.embeddings import VectorStore
from regen_hf.embeddings.store import VectorWriter
from regen_hf.training import TrainingConfig, build
from regen_hf.training import whitening as module
from regen_hf.training.whitening import whitening

from .conftest import TINY


def config(**changes):
    return TrainingConfig(**{**TINY["training"], **changes})


def stored(folder, histories):
    with VectorWriter(folder, [len(history) for history in histories], histories[0].shape[1]) as writer:
        for history in histories:
            writer.append(history, np.zeros(len(history), np.int32))
    return VectorStore(folder)


def planted(rng, users=400):
    """Directions of about the same variance: 0 and 1 differ from user to user, 1 by a half; the others by purchase."""
    histories = []
    for length in rng.integers(0, 9, users):
        vectors = rng.standard_normal((length, 6)) + 0.3
        own = rng.standard_normal(2)
        vectors[:, 0] = 0.3 + own[0]
        vectors[:, 1] = 0.3 + (own[1] + vectors[:, 1] - 0.3) / 2**0.5
        histories.append((vectors / 4).astype(np.float16))
    return histories


def test_whitening_is_measured_on_the_train_users_and_brings_directions_to_one_variance(finished_run):
    embeddings = finished_run / "embeddings"
    vectors = VectorStore(embeddings / "train").vectors.astype(np.float64)
    spread = []
    for power in (0.0, 0.5, 1.0):
        mean, matrix = whitening(VectorStore(embeddings / "train"), power)
        np.testing.assert_allclose(mean, vectors.mean(0), atol=1e-6)
        moved = (vectors - mean) @ matrix
        np.testing.assert_allclose(moved.mean(0), 0, atol=1e-2)
        variances = np.linalg.eigvalsh(np.cov(moved.T))
        spread.append(variances[-1] / variances[len(variances) // 2])
    assert spread[0] > 1.3 * spread[1] > 1.69 * spread[2]
    assert spread[2] < 1.2


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_direction_is_stretched_by_how_much_of_it_lies_between_users(tmp_path, power):
    store = stored(tmp_path, planted(np.random.default_rng(0)))
    mean, plain = whitening(store, power)
    again, stretched = whitening(store, power, 3.0)
    np.testing.assert_array_equal(mean, again)
    by = np.linalg.norm(np.linalg.solve(plain, stretched), axis=1)
    np.testing.assert_allclose(by[:2], [1 + 3, 1 + 3 * 0.5**0.5], rtol=0.1)
    assert by[2:].max() < 2  # what two purchases of one user share by chance


def test_the_stretch_does_not_depend_on_how_many_rows_are_read_at_a_time(tmp_path, monkeypatch):
    store = stored(tmp_path, planted(np.random.default_rng(1)))
    whole = whitening(store, 0.5, 2.0)
    monkeypatch.setattr(module, "ROWS", 5)  # histories hold up to 8
    for one, other in zip(whole, whitening(store, 0.5, 2.0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_users_of_one_purchase_each_tell_nothing_of_what_lies_between_them(tmp_path):
    store = stored(tmp_path, [history[:1] for history in planted(np.random.default_rng(2))])
    np.testing.assert_array_equal(whitening(store, 0.5)[1], whitening(store, 0.5, 2.0)[1])


def test_a_store_without_purchases_whitens_nothing_and_stays_finite(tmp_path):
    mean, matrix = whitening(stored(tmp_path, [np.zeros((0, 6), np.float16)] * 3), 0.5, 2.0)
    np.testing.assert_array_equal(mean, 0)
    assert np.isfinite(matrix).all()


def test_the_model_whitens_content_as_it_is_told_or_not_at_all(finished_run, tmp_path):
    names = [f"model.adapter.content_{name}" for name in ("mean", "matrix")]
    weights = load_file(finished_run / "model" / "model.safetensors")
    told = TrainingConfig()
    arrays = whitening(VectorStore(finished_run / "embeddings" / "train"), told.whitening, told.between_users)
    for name, values in zip(names, arrays, strict=True):
        np.testing.assert_array_equal(weights[name], values)
    for number, changes in enumerate([{"whitening": 0}, {"between_users": 0}]):
        out = tmp_path / f"out-{number}"
        out.mkdir()
        build(finished_run, out, tmp_path / f"work-{number}", config(**changes, max_steps=1))
    weights = load_file(tmp_path / "out-0" / "model.safetensors")
    np.testing.assert_array_equal(weights[names[0]], 0)
    np.testing.assert_array_equal(weights[names[1]], np.eye(len(weights[names[1]])))
    plain = whitening(VectorStore(finished_run / "embeddings" / "train"), told.whitening)
    np.testing.assert_array_equal(load_file(tmp_path / "out-1" / "model.safetensors")[names[1]], plain[1])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("whitening", 2, "a number from 0 to 1"), ("between_users", -1, "a number from 0 to 100")],
)
def test_a_share_or_a_stretch_out_of_range_is_refused(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} was given {value}, expected {expected}"):
        config(**{name: value})
