"""How the content vectors are whitened before a training, and stretched to where users differ."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from regen_hf.errors import InputError
from regen_hf.stages.training import whitening as module
from regen_hf.stages.training.build import build
from regen_hf.stages.training.settings import TrainingConfig
from regen_hf.stages.training.whitening import whitening
from regen_hf.vectors.store import VectorStore, VectorWriter
from tests.conftest import TINY


def config(**changes):
    return TrainingConfig(**{**TINY["training"], **changes})


def stored(folder, histories):
    with VectorWriter(folder, [len(history) for history in histories], histories[0].shape[1]) as writer:
        for history in histories:
            writer.append(history, np.zeros(len(history), np.int32))
    return VectorStore(folder)


def planted(rng, users=400):
    """Directions 0 and 1 differ from user to user, 1 by a half; the others by purchase. Then all of them are mixed."""
    mixing = np.eye(6) + 0.8 * np.random.default_rng(7).standard_normal((6, 6))
    histories = []
    for length in rng.integers(0, 9, users):
        vectors, own = rng.standard_normal((length, 6)), rng.standard_normal(2)
        vectors[:, 0] = own[0]
        vectors[:, 1] = (own[1] + vectors[:, 1]) / 2**0.5
        histories.append(((vectors + 1.5) @ mixing / 8).astype(np.float16))
    return histories


def worked_out(histories, power, between_users):
    """The mean and the matrix, user by user and pair by pair."""
    kept = [history[history.any(1)].astype(np.float64) for history in histories]
    vectors = np.concatenate(kept)
    mean, covariance = vectors.mean(0), np.cov(vectors.T, bias=True)
    variances, directions = np.linalg.eigh(covariance)
    variances = variances + module.FLOOR * variances.mean()
    white, part = (directions * variances ** (-p / 2) @ directions.T for p in (1.0, power))
    between, purchases = np.zeros_like(covariance), 0
    for history in kept:
        centred = history - mean
        for one in range(len(history) if len(history) > 1 else 0):
            others = np.delete(centred, one, axis=0).mean(0)
            between += (np.outer(centred[one], others) + np.outer(others, centred[one])) / 2
            purchases += 1
    shares, axes = np.linalg.eigh(white @ between / purchases @ white)
    return mean, part @ axes @ np.diag(1 + between_users * np.sqrt(np.clip(shares, 0, 1))) @ axes.T, shares


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


def stretch(store, power, between_users):
    """By how much each row of the partly whitened space is longer after the stretch."""
    return np.linalg.solve(whitening(store, power)[1], whitening(store, power, between_users)[1])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_stretch_is_what_users_and_their_pairs_of_purchases_work_out_to(tmp_path, power):
    histories = planted(np.random.default_rng(0))
    histories[3][:2] = 0  # no text
    histories[5][:] = 0
    mean, matrix, shares = worked_out(histories, power, 3.0)
    assert shares[0] < -0.001  # by chance, as between users is nothing there
    found = whitening(stored(tmp_path, histories), power, 3.0)
    np.testing.assert_allclose(found[0], mean, atol=1e-5)
    np.testing.assert_allclose(found[1], matrix, atol=2e-3 * np.abs(matrix).max())


def test_a_direction_is_stretched_by_how_much_of_it_lies_between_users(tmp_path):
    histories = planted(np.random.default_rng(0))
    lengths = np.linalg.svd(stretch(stored(tmp_path, histories), 1.0, 3.0), compute_uv=False)
    np.testing.assert_allclose(lengths[:2], [1 + 3, 1 + 3 * 0.5**0.5], rtol=0.1)
    assert lengths[2:].max() < 2  # what two purchases of one user share by chance


def test_one_user_who_repeats_a_text_decides_nothing(tmp_path):
    rng = np.random.default_rng(0)
    histories = [rng.standard_normal((5, 6)).astype(np.float16) for _ in range(2000)]
    histories.append(np.repeat(rng.standard_normal((1, 6)), 50, axis=0).astype(np.float16))
    lengths = np.linalg.svd(stretch(stored(tmp_path, histories), 1.0, 2.0), compute_uv=False)
    assert lengths.max() < 1.5


def test_texts_that_are_all_the_same_for_a_user_count_three_times_at_most(tmp_path):
    rng = np.random.default_rng(0)
    copies = [np.repeat(rng.standard_normal((1, 6)), count, axis=0) for count in rng.integers(2, 40, 300)]
    singles = [rng.standard_normal((1, 6)) / 4 for _ in range(3000)]
    store = stored(tmp_path, [history.astype(np.float16) for history in copies + singles])
    assert np.linalg.svd(stretch(store, 1.0, 2.0), compute_uv=False).max() < 3.001


def test_the_stretch_does_not_depend_on_how_many_rows_are_read_at_a_time(tmp_path, monkeypatch):
    store = stored(tmp_path, planted(np.random.default_rng(1)))
    whole = whitening(store, 0.5, 2.0)
    monkeypatch.setattr(module, "ROWS", 5)  # histories hold up to 8
    for one, other in zip(whole, whitening(store, 0.5, 2.0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_users_of_one_purchase_each_tell_nothing_of_what_lies_between_them(tmp_path):
    store = stored(tmp_path, [history[:1] for history in planted(np.random.default_rng(2))])
    np.testing.assert_array_equal(whitening(store, 0.5)[1], whitening(store, 0.5, 2.0)[1])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_an_error(tmp_path, value):
    histories = planted(np.random.default_rng(3))
    histories[-1] = np.full((2, 6), value, np.float16)
    with pytest.raises(InputError, match="is not finite"):
        whitening(stored(tmp_path, histories), 0.5, 2.0)


def test_a_store_without_purchases_whitens_nothing_and_stays_finite(tmp_path):
    mean, matrix = whitening(stored(tmp_path, [np.zeros((0, 6), np.float16)] * 3), 0.5, 2.0)
    np.testing.assert_array_equal(mean, 0)
    assert np.isfinite(matrix).all()


def test_the_model_whitens_content_as_it_is_told_or_not_at_all(finished_run, tmp_path):
    names = [f"model.adapter.content_{name}" for name in ("mean", "matrix")]
    weights = load_file(finished_run / "model" / "model.safetensors")
    defaults = TrainingConfig()
    arrays = whitening(VectorStore(finished_run / "embeddings" / "train"), defaults.whitening, defaults.between_users)
    for name, values in zip(names, arrays, strict=True):
        np.testing.assert_array_equal(weights[name], values)
    for number, changes in enumerate([{"whitening": 0}, {"between_users": 0}]):
        out = tmp_path / f"out-{number}"
        out.mkdir()
        build(finished_run, out, tmp_path / f"work-{number}", config(**changes, max_steps=1))
    weights = load_file(tmp_path / "out-0" / "model.safetensors")
    np.testing.assert_array_equal(weights[names[0]], 0)
    np.testing.assert_array_equal(weights[names[1]], np.eye(len(weights[names[1]])))
    plain = whitening(VectorStore(finished_run / "embeddings" / "train"), defaults.whitening)
    np.testing.assert_array_equal(load_file(tmp_path / "out-1" / "model.safetensors")[names[1]], plain[1])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("whitening", 2, "a number from 0 to 1"), ("between_users", -1, "a number from 0 to 100")],
)
def test_a_share_or_a_stretch_out_of_range_is_refused(name, value, expected):
    with pytest.raises(ValueError, match=f"{name} was given {value}, expected {expected}"):
        config(**{name: value})
