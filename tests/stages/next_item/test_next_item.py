import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix

from regen_hf.cli import main
from regen_hf.model import RegenProcessor
from regen_hf.outputs import item_files, rows, split_files
from regen_hf.stages.next_item import endorsements
from regen_hf.stages.next_item import recommender as next_item
from regen_hf.stages.next_item.build import differences, metrics_of
from regen_hf.stages.next_item.recommender import MODELS, PARTS, Cases, Recommender
from regen_hf.stages.next_item.settings import NextItemConfig
from tests.paths import ROOT

BENCHMARK = ROOT / "benchmarks" / "next_item.py"
ASINS = ["A", "B", "C", "D", "E", "F", "COLD"]
# Six train users, seven items: two circles (A, B, C) and (D, E, F) that share no buyer; nobody bought COLD.
TRAIN = csr_matrix(
    np.array(
        [
            [1, 1, 1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0, 0],
            [0, 0, 0, 1, 1, 1, 0],
            [0, 0, 0, 1, 0, 1, 0],
        ],
        dtype=np.float32,
    )
)
FACTORS = np.array([[2, 0], [1, 0], [1, 0.1], [0, 1], [0, 1], [0, 2], [0, 0]], dtype=np.float32)
CONTENT = np.array([[1, 0], [0, 1], [0.9, 0.1], [0, 1], [0, 1], [0, 1], [1, 0.05]], dtype=np.float16)


def recommender(seed=0):
    return Recommender(ASINS, TRAIN, FACTORS, CONTENT, 1.0, 0.05, NextItemConfig(seed=seed))


def cases(*histories, targets):
    histories = [np.array(items) for items in histories]
    return Cases(
        [f"u{number}" for number in range(len(histories))],
        list(range(len(histories))),
        histories,
        [np.full(len(items), 4.0) for items in histories],
        np.array(targets),
        np.zeros(len(targets), dtype=bool),
        {},
    )


def ranking(model, history, weights=None):
    ranked = recommender()
    one = cases(history, targets=[0])
    scores = next_item.model_scores(ranked, model, one, slice(0, 1), weights)
    return [ASINS[item] for item in ranked.ranking(scores, one.histories)[0]]


def test_popularity_ranks_what_most_train_users_bought_but_not_the_history():
    assert ranking("popularity", [1])[:2] == ["A", "C"]
    assert "B" not in ranking("popularity", [1])


@pytest.mark.parametrize("model", ["item_knn", "als"])
def test_co_purchases_keep_to_the_circle_of_the_history(model):
    assert set(ranking(model, [3])[:2]) == {"E", "F"}
    assert set(ranking(model, [0])[:2]) == {"B", "C"}


def test_an_item_without_buyers_is_last_for_models_of_purchases_and_ranked_by_its_content():
    for model in ("popularity", "item_knn", "als"):
        assert ranking(model, [0])[-1] == "COLD"
    assert ranking("content", [0])[0] == "COLD"
    assert ranking("blend", [0], (0.0, 0.0, 0.0, 1.0))[0] == "COLD"


def test_a_blend_ranks_an_item_with_content_only_neither_first_nor_last():
    ranked = ranking("blend", [0], (0.4, 0.0, 0.4, 0.2))
    assert 0 < ranked.index("COLD") < len(ranked) - 1


def test_ranks_are_positions_in_the_ranking_also_for_ties():
    ranked = recommender()
    users = cases([0], [3, 4], [5], targets=[4, 0, 6])
    for scores in (np.zeros((3, 7)), np.random.default_rng(1).integers(0, 3, (3, 7)).astype(float)):
        found = ranked.target_ranks(scores, users.histories, users.targets)
        orders = ranked.ranking(scores, users.histories)
        assert ranked.first_choices(scores, users.histories).tolist() == [order[0] for order in orders]
        assert [1 + order.tolist().index(t) for order, t in zip(orders, users.targets, strict=True)] == found.tolist()


def test_the_order_among_equals_follows_the_seed_not_the_catalogue():
    firsts = {int(recommender(seed).ranking(np.zeros((1, 7)), [np.array([], dtype=int)])[0][0]) for seed in range(20)}
    assert len(firsts) > 3


def test_a_new_users_vector_is_implicits_own():
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    generator = np.random.default_rng(0)
    train = csr_matrix((generator.random((30, 11)) < 0.3).astype(np.float32) * 4)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=5, regularization=0.05, iterations=3, random_state=0, use_gpu=False)
        model.fit(train, show_progress=False)
    users = cases([0, 4], [7], [1, 2, 9], targets=[1, 1, 1])
    new = csr_matrix((3, 11), dtype=np.float32).tolil()
    for user, items in enumerate(users.histories):
        new[user, items] = 4.0
    factors = model.recalculate_user(np.arange(3), new.tocsr())
    asins = [str(number) for number in range(11)]
    ours = Recommender(asins, train, model.item_factors, np.ones((11, 2)), 1.0, 0.05, NextItemConfig())
    warm = ours.popularity > 0
    np.testing.assert_allclose(
        ours.scores("als", users, slice(0, 3))[:, warm], (factors @ model.item_factors.T)[:, warm], atol=2e-3
    )


def test_the_weights_are_those_that_find_most_validation_targets():
    ranked = recommender()
    by_content = cases([0], [0], targets=[6, 6])
    assert next_item.choose_weights(ranked, by_content)[PARTS.index("content")] >= 0.4
    by_purchases = cases([3], [5], [0], targets=[4, 3, 1])
    weights = next_item.choose_weights(ranked, by_purchases)
    assert weights[PARTS.index("content")] < 1
    assert math.isclose(sum(weights), 1)
    assert next_item.choose_weights(ranked, cases(targets=[])) is None


def test_metrics_of_known_ranks():
    found = metrics_of(np.array([1, 6, 11, 51]))
    assert [found[f"recall@{k}"]["mean"] for k in (1, 5, 10, 50)] == [0.25, 0.25, 0.5, 0.75]
    assert found["ndcg@5"]["mean"] == 0.25
    assert found["ndcg@10"]["mean"] == pytest.approx((1 + 1 / math.log2(7)) / 4)
    assert found["mrr"]["mean"] == pytest.approx((1 + 1 / 6 + 1 / 11 + 1 / 51) / 4)
    assert found["mrr"]["low"] <= found["mrr"]["mean"] <= found["mrr"]["high"]


def test_the_last_purchase_is_the_target_and_no_part_of_the_history(finished_run):
    asins = pq.read_table(finished_run / "embeddings" / "items.parquet").column("asin").to_pylist()
    found = next_item.read_cases(finished_run, "test", {asin: n for n, asin in enumerate(asins)}, 1.0)
    histories = {
        row["reviewer_id"]: row["purchase_history"] for row in rows(split_files(finished_run / "dataset", "test"))
    }
    assert len(found) + sum(found.left_out.values()) == len(histories)
    for reviewer_id, items, confidence, target in zip(
        found.reviewer_ids, found.histories, found.confidences, found.targets, strict=True
    ):
        bought = [purchase["item"]["asin"] for purchase in histories[reviewer_id]]
        assert asins[target] == bought[-1]
        assert [asins[item] for item in items] == bought[:-1]
        assert confidence.tolist() == [1.0 + purchase["review"]["rating"] for purchase in histories[reviewer_id][:-1]]


def test_the_command_writes_and_prints_results_of_every_model_and_group(tiny_run, capsys):
    assert main(["next-item", str(tiny_run), "--neighbours", "20"]) == 0
    results = json.loads((tiny_run / "next_item" / "results.json").read_text())
    table = pq.read_table(tiny_run / "next_item" / "ranks.parquet").to_pydict()
    assert list(results["models"]) == [model for model in MODELS if model != "fused"]  # the model has no item head
    assert results["differences"] == {}
    assert results["n_users"] == len(table["reviewer_id"]) == sum(results["targets"].values())
    assert results["n_users"] == sum(results["times"].values())
    for model, groups in results["models"].items():
        assert groups["all"]["n"] == results["n_users"]
        assert groups["all"]["recall@5"]["mean"] == pytest.approx(np.mean(np.array(table[model]) <= 5))
        assert groups["cold"]["n"] == sum(table["cold"])
    assert sum(results["blend"]["weights"].values()) == pytest.approx(1)
    assert results["blend"]["validation_users"] > 0
    assert (tiny_run / "next_item" / "manifest.json").exists()
    told = capsys.readouterr().out
    assert "| blend | all |" in told
    assert main(["status", str(tiny_run)]) == 0
    assert "next-item fresh" in " ".join(capsys.readouterr().out.split())


def test_targets_with_the_time_of_the_purchase_before_are_reported_separately(tiny_run, capsys):
    path = next((tiny_run / "dataset").glob("**/test-*.parquet"))
    table = pq.read_table(path)
    users, histories = table.to_pylist(), table.column("purchase_history").to_pylist()
    for history in histories[::2]:
        history[-1]["review"]["unix_time"] = history[-2]["review"]["unix_time"]
    position = table.schema.get_field_index("purchase_history")
    column = pa.array(histories, table.schema.field(position).type)
    pq.write_table(table.set_column(position, "purchase_history", column), path)
    index = {item["asin"]: number for number, item in enumerate(rows(item_files(tiny_run / "dataset")))}
    found = next_item.read_cases(tiny_run, "test", index, 1.0)
    tied = {user["reviewer_id"] for user in users[::2]}
    assert found.same_time.tolist() == [user in tied for user in found.reviewer_ids]
    assert main(["next-item", str(tiny_run)]) == 0
    results = json.loads((tiny_run / "next_item" / "results.json").read_text())
    assert results["times"]["same_time"] == found.same_time.sum() > 0
    for groups in results["models"].values():
        assert groups["same_time"]["n"] + groups["other_time"]["n"] == groups["all"]["n"]
    assert "| blend | same_time |" in capsys.readouterr().out


def test_a_stale_or_missing_model_is_left_out_with_a_line(tiny_run, capsys):
    def inputs():
        return json.loads((tiny_run / "next_item" / "manifest.json").read_text())["inputs"]["stages"]

    assert main(["next-item", str(tiny_run), "--users", "3"]) == 0
    assert "without the optional output" not in capsys.readouterr().err
    assert "train" in inputs()
    assert main(["next-item", str(tiny_run), "--set", "training.seed=7"]) == 0
    assert "without the optional output of `train`, which is stale\n" in capsys.readouterr().err
    assert "train" not in inputs()
    shutil.rmtree(tiny_run / "model")
    assert main(["next-item", str(tiny_run)]) == 0
    told = capsys.readouterr().err
    assert "without the optional output of `train`, which is missing\n" in told
    assert "fresh, users 3" in told
    assert main(["next-item", str(tiny_run), "--critiques"]) == 1
    assert "has no model with an item head that was trained with critiques" in capsys.readouterr().err


def test_differences_are_paired_by_user_and_have_a_p_value():
    found = differences(
        {"fused": np.array([1, 2, 1, 4]), "als": np.array([2, 2, 4, 8])},
        {"all": np.ones(4, bool), "cold": np.zeros(4, bool)},
        seed=0,
    )
    assert found["als"]["all"]["mrr"]["mean"] == pytest.approx((0.5 + 0 + 0.75 + 0.125) / 4)
    assert found["als"]["all"]["mrr"]["low"] >= 0
    assert 0 < found["als"]["all"]["mrr"]["p"] < 0.5
    assert found["als"]["cold"]["mrr"] == {"mean": None, "low": None, "high": None, "p": None}


def test_a_killed_joint_pass_writes_no_finished_text_again(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(endorsements, "BATCH", 2)
    asins = pq.read_table(finished_run / "embeddings" / "items.parquet").column("asin").to_pylist()
    ranked = Recommender.of(finished_run, NextItemConfig())
    users = next_item.read_cases(finished_run, "test", ranked.index, 1.0)
    calls = []

    class Model:
        split = "test"
        processor = RegenProcessor.from_pretrained(finished_run / "model")
        model = SimpleNamespace(config=SimpleNamespace(window=64))

        def endorse(self, rows, task, new_tokens, choose):
            calls.append(rows)
            assert new_tokens <= 32
            if len(calls) == 2:
                raise KeyboardInterrupt
            chosen = choose(np.random.default_rng(rows[0]).random((len(rows), len(asins))))
            return chosen, [f"text of {row}" for row in rows]

    with pytest.raises(KeyboardInterrupt):
        endorsements.write(finished_run, Model(), ranked, users, 5, tmp_path)
    table = endorsements.write(finished_run, Model(), ranked, users, 5, tmp_path).to_pylist()
    assert len(calls) == 4  # 3 batches, of which the second was begun twice
    assert [row["reviewer_id"] for row in table] == users.reviewer_ids[:5]
    assert [row["prediction"] for row in table] == [f"text of {row}" for row in users.rows[:5]]
    for row, items in zip(table, users.histories, strict=False):
        assert row["chosen"] not in {asins[item] for item in items}


def test_a_run_without_vectors_raises_an_error_with_the_command(tiny_run, capsys):
    shutil.rmtree(tiny_run / "embeddings")
    assert main(["next-item", str(tiny_run)]) == 1
    assert f"Run `regen embeddings {tiny_run}` first" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["CF", "content"])
def test_vectors_that_are_not_finite_raise_an_error(tiny_run, capsys, which):
    from safetensors.numpy import load_file, save_file

    path = tiny_run / "embeddings" / ("cf.safetensors" if which == "CF" else "content_items.npy")
    if which == "CF":
        arrays = load_file(path)
        arrays["item_factors"][3, 0] = np.nan
        save_file(arrays, path)
    else:
        vectors = np.load(path)
        vectors[3, 0] = np.inf
        np.save(path, vectors)
    assert main(["next-item", str(tiny_run)]) == 1
    assert f"The {which} vectors of 1 items, such as" in capsys.readouterr().err
    assert not (tiny_run / "next_item").exists()


def test_the_metrics_are_those_of_implicits_evaluation_on_the_same_rankings():
    from implicit.evaluation import ranking_metrics_at_k

    ranked = recommender()
    users = cases([0], [3, 4], [5, 1], [2], targets=[1, 0, 6, 4])
    scores = np.random.default_rng(4).integers(0, 4, (4, 7)).astype(float)
    orders = ranked.ranking(scores, users.histories)

    class FixedRankings:
        def recommend(self, userids, user_items, N=10, **options):
            return np.stack([orders[user][:N] for user in userids]).astype(np.int32), None

    matrices = []
    for items in (users.histories, [[target] for target in users.targets]):
        table = np.zeros((4, 7))
        for user, bought in enumerate(items):
            table[user, bought] = 1
        matrices.append(csr_matrix(table))
    ours = metrics_of(ranked.target_ranks(scores, users.histories, users.targets))
    for k in (1, 5):
        theirs = ranking_metrics_at_k(FixedRankings(), *matrices, K=k, show_progress=False)
        assert ours[f"recall@{k}"]["mean"] == pytest.approx(theirs["precision"], abs=1e-9)
    assert ours["ndcg@5"]["mean"] == pytest.approx(theirs["ndcg"], abs=1e-9)


@pytest.mark.real_data
def test_on_real_purchases_the_protocol_is_that_of_a_public_library(shared_data, tmp_path):
    from tests.tiny_model import encoder

    encoder().save_pretrained(str(tmp_path / "encoder"), create_model_card=False)
    call = [sys.executable, str(BENCHMARK), "--data", str(shared_data), "--users", "500"]
    call += ["--encoder", str(tmp_path / "encoder"), "--only", "office_2014", "--seeds", "0"]
    call += ["--set", "max_steps=2", "--set", "batch_size=8", str(tmp_path / "office")]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])["office_2014"]
    assert line["largest_difference"] < 1e-6
    assert line["models"]["fused"]["all"]["mrr"]["mean"] > 0
    for model, alone in line["implicit_alone"].items():
        ours = line["models"][model]["all"]
        # The same but for the order among equal scores, of which item kNN on few users has many.
        assert all(abs(ours[name]["mean"] - value) < 0.03 for name, value in alone.items())
