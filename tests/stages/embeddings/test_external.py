"""CF vectors of another recommender, from files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from regen_hf.cli import main
from regen_hf.errors import ConfigError, InputError
from regen_hf.model import RegenProcessor
from regen_hf.outputs import item_vectors, manifest, rows, split_files
from regen_hf.run import STAGES, Run
from regen_hf.stages.embeddings.external import check_fit, read
from regen_hf.stages.embeddings.settings import EmbeddingsConfig

CATALOGUE = ["7", "B", "C", "D"]
NAMES = ["D", "7", "other"]
VECTORS = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 2.0], [9.0, 9.0, 9.0]], dtype=np.float32)
FACTORS = np.array([[1, 0, 2], [0, 0, 0], [0, 0, 0], [3, 4, 0]], dtype=np.float32)


def parquet(path, asins=NAMES, vectors=None, kind=None):
    column = pa.array(VECTORS.tolist() if vectors is None else vectors, type=kind)
    pq.write_table(pa.table({"asin": asins, "vector": column, "more": asins}), path)


def config(folder, vectors="vectors.npy", asins="asins.txt"):
    return EmbeddingsConfig(cf_vectors=str(folder / vectors), cf_asins=str(folder / asins) if asins else None)


@pytest.fixture
def folder(tmp_path):
    """The same vectors in every format."""
    parquet(tmp_path / "lists.parquet")
    parquet(tmp_path / "fixed.parquet", kind=pa.list_(pa.float16(), 3))
    parquet(tmp_path / "large.parquet", kind=pa.large_list(pa.float64()))
    parquet(tmp_path / "part-1.parquet", NAMES[:1], VECTORS[:1].tolist())
    parquet(tmp_path / "part-2.parquet", [7, 8], VECTORS[1:].astype(int).tolist())
    np.save(tmp_path / "vectors.npy", VECTORS.astype(np.float64))
    np.save(tmp_path / "integers.npy", VECTORS.astype(int))
    save_file({"anything": torch.tensor(VECTORS)}, tmp_path / "one.safetensors")
    save_file({"vectors": torch.tensor(VECTORS).bfloat16(), "b": torch.ones(2)}, tmp_path / "two.safetensors")
    (tmp_path / "asins.txt").write_text("\n".join(NAMES) + "\n")
    (tmp_path / "asins.json").write_text(json.dumps(["D", 7, "other"]))
    np.save(tmp_path / "asins.npy", np.array(NAMES))
    pq.write_table(pa.table({"asin": NAMES}), tmp_path / "asins.parquet")
    (tmp_path / "marked.txt").write_text("\n".join(NAMES), encoding="utf-8-sig")
    for name in ("vectors.npy", "asins.npy", "lists.parquet", "one.safetensors"):
        (tmp_path / Path(name).stem.upper()).with_suffix(Path(name).suffix.upper()).write_bytes(
            (tmp_path / name).read_bytes()
        )
    return tmp_path


@pytest.mark.parametrize(
    "files",
    [
        *[(f"{name}.parquet", None) for name in ("lists", "fixed", "large", "part-*")],
        *[("vectors.npy", f"asins.{kind}") for kind in ("txt", "json", "npy", "parquet")],
        *[(name, "asins.txt") for name in ("integers.npy", "one.safetensors", "two.safetensors")],
        *[("VECTORS.NPY", "ASINS.NPY"), ("LISTS.PARQUET", None), ("ONE.SAFETENSORS", "marked.txt")],
    ],
)
def test_every_format_gives_the_same_vectors_in_the_order_of_the_catalogue(folder, files, capsys):
    factors, counts = read(config(folder, *files), CATALOGUE)
    np.testing.assert_array_equal(factors, FACTORS)
    assert factors.dtype == np.float32
    assert counts == {"vectors": 3, "vectors_left_out": 1}
    assert "1 of 3 vectors are of no item of the catalogue" in capsys.readouterr().err


def with_value(value):
    vectors = VECTORS.copy()
    vectors[1, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.npy", with_value(np.nan), "1 vectors of v.npy, such as that of '7', contain NaN"),
        ("v.npy", with_value(-np.inf), "such as that of '7', contain NaN or infinity"),
        ("v.npy", with_value(1e30), r"norm out of range, expected norms from 1e-18 to 1e"),
        ("v.npy", with_value(0).astype(np.float64) * 1e-30, "norm out of range"),
        ("v.npy", VECTORS * 0, "All vectors of v.npy are zero"),
        ("v.npy", VECTORS[:2, :2], r"asins.txt has 3 asins, but v.npy has the shape \(2, 2\), expected one .* asin.$"),
        ("v.npy", np.ones((5, 3)), r"\(5, 3\), expected one row per asin. It seems to be transposed"),
        ("v.npy", VECTORS[0], r"array of float32 and the shape \(3,\), expected numbers of the shape \(items, width\)"),
        ("v.npy", VECTORS.astype(str), "array of <U.*, expected numbers"),
        ("v.npy", VECTORS[:, :0], "have no numbers"),
        ("v.npy", np.array([{}, {}, {}]), "v.npy cannot be read: .*Write the file again"),
        (
            "v.safetensors",
            {"a": torch.ones(3, 2), "b": torch.ones(3, 2)},
            "tensors a, b, expected one, or one called vec",
        ),
        ("v.safetensors", b"no such file", "v.safetensors cannot be read"),
        ("v.parquet", b"no such file", "v.parquet cannot be read"),
        ("v.parquet", {"vector": [[1.0, None], [1.0, 2.0], [1.0, 2.0]]}, "such as that of 'D', contain NaN"),
        ("v.parquet", {"vector": [[1.0, 1.0], [1.0], [1.0, 2.0]]}, "'D' has 2 numbers and that of '7' 1, expected one"),
        ("v.parquet", {"vector": [[1.0], None, [1.0]]}, "1 vectors are null, such as that of '7'"),
        ("v.parquet", {"vector": [1.0, 2.0, 3.0]}, "vector has the type double, expected lists of numbers"),
        ("v.parquet", {"vector": [["a"], ["b"], ["c"]]}, r"the type list<.*string>, expected lists of numbers"),
        ("v.parquet", {"asin": ["D", None, "7"]}, r"asin\[1\] is None, expected text or an integer"),
        ("v.parquet", {"asin": ["D", "7", "D"]}, "1 asins more than once, such as 'D', expected one vector per item"),
        (
            "v.parquet",
            {"asin": [0, 1, 2]},
            "None of the 3 asins of v.parquet, such as '0', .*such as '7'. .*row numbers",
        ),
        ("v.parquet", {"embedding": NAMES, "vector": None}, "columns asin, embedding, but not vector"),
        ("v.csv", b"asin,vector", "was given v.csv, expected parquet files"),
        ("v.npy", None, "There is no file .*v.npy', given as --cf-vectors"),
    ],
)
def test_vectors_that_cannot_be_used_give_a_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    (tmp_path / "asins.txt").write_text("\n".join(NAMES))
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif name.endswith(".safetensors"):
        save_file(content, path)
    elif content:
        columns = {"asin": NAMES, "vector": VECTORS.tolist()} | content
        pq.write_table(pa.table({key: values for key, values in columns.items() if values}), path)
    needs_asins = not name.endswith((".parquet", ".csv"))
    with pytest.raises(InputError, match=message) as error:
        read(config(tmp_path, name, "asins.txt" if needs_asins else None), CATALOGUE)
    assert str(error.value).count(". ") <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cf_asins": "a.txt"}, "without cf_vectors, expected both or none"),
        ({"cf_vectors": "v.npy"}, "expected cf_asins too"),
        ({"cf_vectors": "v.parquet", "cf_asins": "a.txt"}, "expected no cf_asins"),
        ({"cf_fitted_on": "a\nb"}, "expected words in one line"),
    ],
)
def test_settings_that_do_not_fit_are_errors(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        Run(tmp_path / "run", {"embeddings": settings})


def test_words_about_vectors_go_with_these_vectors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, words = tmp_path / "run", "the train users"
    run.mkdir()
    saved = {"cf_vectors": str(tmp_path / "v.parquet"), "cf_fitted_on": words}
    (run / "config.yaml").write_text(json.dumps({"embeddings": saved}))
    for given, expected in [
        ({"cf_dim": 8}, words),
        ({"cf_vectors": "v.parquet"}, words),
        ({"cf_vectors": "w.parquet"}, "not stated"),
        ({"cf_vectors": None}, "not stated"),
        ({"cf_vectors": "w.parquet", "cf_fitted_on": "all users"}, "all users"),
    ]:
        assert Run(run, {"embeddings": given}).config["embeddings"].cf_fitted_on == expected


def test_a_run_on_vectors_of_another_recommender(finished_run, tiny_run, tmp_path, capsys):
    """Everything but ALS works with them, and an edited file makes the vectors stale."""
    stage = STAGES["embeddings"]
    before = item_vectors(tiny_run)
    train = split_files(tiny_run / "dataset", "train")
    bought = {one["item"]["asin"] for row in rows(train, ["purchase_history"]) for one in row["purchase_history"]}
    known = [asin for asin in before.asins if asin in bought][:40]
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    parquet(tmp_path / "vectors.parquet", known, vectors.tolist())
    given = ["--cf-vectors", str(tmp_path / "vectors.parquet")]
    encoder = ["--content-encoder", str(finished_run / "embeddings" / "content_encoder")]
    assert Run(tiny_run).is_fresh(stage)  # the new settings leave existing runs fresh
    assert main(["embeddings", str(tiny_run), *given, *encoder]) == 0
    items = item_vectors(tiny_run)
    assert items.user_gram is None
    assert items.mean_norm == pytest.approx(np.linalg.norm(vectors, axis=1).mean())
    np.testing.assert_array_equal(items.item_factors[[items.asins.index(asin) for asin in known]], vectors)
    counts = manifest(tiny_run, "embeddings")["counts"]
    assert counts["cold_items"] == len(items.asins) - 40
    assert 0 < counts["covered_interactions"] < counts["train_interactions"]
    assert counts["vectors_without_buyers"] == 0
    assert "purchases of the train users are of items with a vector" in capsys.readouterr().err

    assert main(["train", str(tiny_run), "--max-steps", "1", "--next-item-weight", "1", "--tasks", "user_profile"]) == 0
    processor = RegenProcessor.from_pretrained(tiny_run / "model")
    assert processor.cf_factors.shape[1] == 5
    history = [{"item": {"asin": known[0]}}]
    for call in (processor.fold_in, processor.recommend):
        with pytest.raises(ValueError, match=r"a step of ALS, but the CF vectors .* of another recommender"):
            call(history)
    card = (tiny_run / "model" / "README.md").read_text()
    assert f"which was fitted on: not stated. 40 of {len(items.asins)} items have one." in card
    assert main(["next-item", str(tiny_run), "--endorsed-users", "0"]) == 0
    results = json.loads((tiny_run / "next_item" / "results.json").read_text())
    assert set(results["models"]) == {"popularity", "item_knn", "content", "blend", "fused"}
    assert set(results["blend"]["weights"]) == {"popularity", "item_knn", "content"}
    assert "`als` is left out: the CF vectors are those of another recommender" in capsys.readouterr().out

    stated = Run(tiny_run, {"embeddings": {"cf_fitted_on": "all users"}})
    assert stated.is_fresh(stage)  # words for the card only
    parquet(tmp_path / "vectors.parquet", known, (2 * vectors).tolist())
    assert not Run(tiny_run).is_fresh(stage)


def test_vectors_of_items_that_no_train_user_bought_are_counted_with_a_warning(capsys):
    buyers = np.array([3, 2, 0, 0])  # of 7, which has a vector, of B, which is cold, and of nobody
    assert check_fit(FACTORS, buyers) == {"covered_interactions": 3, "vectors_without_buyers": 1}
    told = capsys.readouterr().err
    assert "warning: 1 items that no train user bought have a vector" in told
    assert "3 of 5 purchases of the train users are of items with a vector" in told
