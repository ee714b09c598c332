import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from regen_hf.evaluation import CONTROLS, EvaluationConfig, metrics, report
from regen_hf.evaluation.benchmark import build, derangement, most_frequent
from regen_hf.model import RegenForCausalLM, RegenProcessor
from regen_hf.schema import TASKS, rows, split_files

TEXTS = ["a red pen writes well", "the blue notebook lies flat on every desk", "cheap glue. It holds."]


@pytest.fixture(scope="module")
def results(finished_run):
    return json.loads((finished_run / "evaluation" / "results.json").read_text())


def test_every_model_and_task_is_scored_within_its_interval(results):
    assert list(results["models"]) == list(CONTROLS)
    for scores in results["models"].values():
        assert list(scores) == list(TASKS)
        for task in scores.values():
            for metric in ("bleu", "rougeLsum", "similarity"):
                interval = task[metric]
                assert interval["low"] <= interval["mean"] + 1e-9
                assert interval["mean"] <= interval["high"] + 1e-9
                assert -1 <= interval["mean"] <= 100


def test_results_tell_how_they_were_made(results):
    assert results["split"] == "test"
    assert results["n_users"] == 6
    assert results["decoding"] == {"method": "greedy", "max_new_tokens": 24}
    assert "version:" in results["bleu_signature"]
    assert results["narrators"] == ["reference"]
    assert results["seeds"] == {"training": 0, "evaluation": 0}
    assert {"regen-hf", "python", "torch", "transformers", "sacrebleu", "rouge-score"} <= results["versions"].keys()


def test_an_encoder_that_does_not_exist_is_told(finished_run, tmp_path):
    from regen_hf.errors import ConfigError

    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work, out):
        folder.mkdir()
    config = EvaluationConfig(max_users=1, max_new_tokens=2, tasks=("user_profile",), encoder="nobody/no-such-encoder")
    with pytest.raises(ConfigError, match="nobody/no-such-encoder"):
        build(finished_run, out, work, config)


def test_predictions_are_one_per_user_task_and_model_beside_their_references(finished_run):
    predictions = pq.read_table(finished_run / "evaluation" / "predictions.parquet").to_pylist()
    users = list(rows(split_files(finished_run / "dataset", "test"), limit=6))
    assert len(predictions) == len(users) * len(TASKS) * len(CONTROLS)
    references = {(user["reviewer_id"], task.name): task.text(user) for user in users for task in TASKS.values()}
    assert all(row["reference"] == references[row["reviewer_id"], row["task"]] for row in predictions)


def test_only_the_model_and_the_shuffled_control_depend_on_the_history(finished_run):
    predictions = pq.read_table(finished_run / "evaluation" / "predictions.parquet").to_pylist()
    for control in ("empty_history", "most_frequent"):
        for task in TASKS:
            assert (
                len({row["prediction"] for row in predictions if (row["model"], row["task"]) == (control, task)}) == 1
            )


def test_a_model_trained_on_text_reads_the_history_as_text(tiny_run, tmp_path, monkeypatch):
    path = tiny_run / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["history"] = "text"
    path.write_text(json.dumps(manifest))
    asked, generate = [], RegenForCausalLM.generate

    def recorded(self, input_ids, history_mask, **inputs):
        asked.append((input_ids, history_mask))
        return generate(self, input_ids=input_ids, history_mask=history_mask, **inputs)

    monkeypatch.setattr(RegenForCausalLM, "generate", recorded)
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    settings = EvaluationConfig(max_users=1, max_new_tokens=4, tasks=("user_profile",))
    build(tiny_run, tmp_path / "out", tmp_path / "work", settings)
    user = next(rows(split_files(tiny_run / "dataset", "test")))
    tokenizer = RegenProcessor.from_pretrained(tiny_run / "model").tokenizer
    assert user["purchase_history"][-1]["review"]["text"] in tokenizer.decode(asked[0][0][0])
    assert not any(mask.any() for _, mask in asked)


def test_a_finished_part_is_not_written_again(finished_run, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work, out):
        folder.mkdir()
    config = EvaluationConfig(max_users=3, max_new_tokens=4, tasks=("user_profile",))
    build(finished_run, out, work, config)
    part = work / "fused-user_profile.parquet"
    table = pq.read_table(part)
    marked = table.set_column(table.schema.get_field_index("prediction"), "prediction", [["kept"] * len(table)])
    pq.write_table(marked, part)
    build(finished_run, out, work, config)
    kept = [row for row in pq.read_table(out / "predictions.parquet").to_pylist() if row["model"] == "fused"]
    assert {row["prediction"] for row in kept} == {"kept"}


def test_bleu_is_sacrebleus_own():
    import sacrebleu

    predictions = ["a red pen writes", "blue notebook lies on the desk", "glue. It holds."]
    ours = metrics.bleu(predictions, TEXTS)
    assert ours == pytest.approx(sacrebleu.corpus_bleu(predictions, [TEXTS]).score, abs=1e-6)
    assert metrics.bleu_interval(predictions, TEXTS)["mean"] == pytest.approx(ours)


def test_a_worse_text_scores_lower_on_every_metric(finished_run):
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(finished_run / "embeddings" / "content_encoder"))
    wrong = TEXTS[1:] + TEXTS[:1]
    assert metrics.bleu(TEXTS, TEXTS) == pytest.approx(100)
    assert metrics.bleu(wrong, TEXTS) < 50
    assert metrics.rouge_lsum(TEXTS, TEXTS).mean() == pytest.approx(100)
    assert metrics.rouge_lsum(wrong, TEXTS).mean() < 50
    same, other = (metrics.similarity(texts, TEXTS, encoder).mean() for texts in (TEXTS, wrong))
    assert same == pytest.approx(1, abs=1e-5)
    assert same > other


def test_a_score_over_nothing_is_null_and_lists_of_two_lengths_are_refused(finished_run):
    nothing = {"mean": None, "low": None, "high": None}
    assert metrics.bleu_interval([], []) == nothing
    assert metrics.mean_interval(metrics.rouge_lsum([], [])) == nothing
    assert metrics.mean_interval(metrics.similarity([], [], None)) == nothing
    with pytest.raises(ValueError, match="1 predictions were given for 2 references"):
        metrics.bleu(["a"], ["a", "b"])


def test_intervals_narrow_with_more_users():
    generator = np.random.default_rng(0)
    few, many = (metrics.mean_interval(generator.normal(50, 10, number)) for number in (20, 2000))
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 4


@pytest.mark.parametrize("number", [2, 3, 17])
def test_shuffled_histories_are_always_anothers(number):
    others = derangement(number, seed=3)
    assert sorted(others) == list(range(number))
    assert all(other != own for own, other in enumerate(others))


def test_the_most_frequent_narrative_is_of_the_train_users(finished_run):
    texts = [row["user"]["profile"] for row in rows(split_files(finished_run / "dataset", "train"))]
    found = most_frequent(finished_run, ("user_profile",))["user_profile"]
    assert texts.count(found) == max(texts.count(text) for text in texts)


def test_the_metric_loads_from_its_path(tmp_path):
    import evaluate

    from regen_hf.evaluation import regen_narrative

    metric = evaluate.load(regen_narrative.__file__, cache_dir=str(tmp_path))
    found = metric.compute(predictions=TEXTS, references=TEXTS)
    assert found["bleu"] == pytest.approx(100)
    assert found["rougeLsum"] == pytest.approx(100)


def test_the_report_shows_scores_and_both_narratives(finished_run, results):
    told = report.summary(finished_run, shoppers=2)
    cell = results["models"]["fused"]["user_profile"]["bleu"]
    assert f"{cell['mean']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in told
    user = next(rows(split_files(finished_run / "dataset", "test")))
    assert user["reviewer_id"] in told
    assert user["user"]["profile"] in told
    assert told.count("generated") == 2 * len(TASKS)
