"""The store of interaction vectors."""

import numpy as np
import pytest

from regen_hf.vectors.store import VectorStore, VectorWriter


def test_a_store_refuses_more_or_fewer_purchases_than_announced(tmp_path):
    vectors, items = np.zeros((3, 4)), np.zeros(3, dtype=int)
    more = pytest.raises(ValueError, match=r"3 purchases were written, expected 2")
    with more, VectorWriter(tmp_path / "a", [2], 4) as writer:
        writer.append(vectors, items)
    fewer = pytest.raises(ValueError, match=r"3 purchases were written, expected 5")
    with fewer, VectorWriter(tmp_path / "b", [2, 3], 4) as writer:
        writer.append(vectors, items)


def test_two_processes_fill_one_store(tmp_path):
    lengths, random = [3, 0, 4], np.random.default_rng(0)
    vectors, items = random.random((7, 4)).astype(np.float16), np.arange(7)
    first = VectorWriter(tmp_path, lengths, 4)
    with first, VectorWriter(tmp_path, lengths, 4, create=False) as second:
        for writer, skips in ((first, False), (second, True)):
            for start, stop in ((0, 2), (2, 5), (5, 7)):
                if skips:
                    writer.skip(stop - start)
                else:
                    writer.append(vectors[start:stop], items[start:stop])
                skips = not skips
    store = VectorStore(tmp_path)
    np.testing.assert_array_equal(store.vectors, vectors)
    assert store.items.tolist() == items.tolist()


def test_a_user_without_purchases_and_an_empty_split_have_no_vectors(tmp_path):
    with VectorWriter(tmp_path / "a", [0, 2], 4) as writer:
        writer.append(np.ones((2, 4)), np.array([5, 6]))
    store = VectorStore(tmp_path / "a")
    assert store.user(0)[0].shape == (0, 4)
    assert store.user(1)[1].tolist() == [5, 6]
    with VectorWriter(tmp_path / "b", [], 4):
        pass
    assert len(VectorStore(tmp_path / "b")) == 0
    with pytest.raises(IndexError, match="row is 2, expected a user from 0 to 1"):
        store.user(2)
