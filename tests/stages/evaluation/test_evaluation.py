import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from regen_hf.cli import main
from regen_hf.errors import ConfigError, InputError, RegenError
from regen_hf.intervals import format_interval
from regen_hf.metrics import bootstrap, tables
from regen_hf.metrics import text_metrics as metrics
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.outputs import rows, split_files
from regen_hf.schema import offered_tasks
from regen_hf.stages.evaluation.build import build, describe_models
from regen_hf.stages.evaluation.controls import CONTROLS, nearest, train_narratives
from regen_hf.stages.evaluation.settings import EvaluationConfig
from regen_hf.stages.evaluation.summary import summary
from regen_hf.vectors.histories import derangement
from regen_hf.vectors.store import VectorStore
from tests.paths import ROOT

TASKS = offered_tasks()

NOT_AVAILABLE = "not available: the model does not read this input"


@pytest.fixture(scope="module")
def results(finished_run):
    return json.loads((finished_run / "evaluation" / "results.json").read_text())


def test_every_model_and_task_is_scored_within_its_interval(results):
    assert list(results["models"]) == list(CONTROLS)
    for scores in results["models"].values():
        assert list(scores) == list(TASKS)
        for task in scores.values():
            assert task["n"] == 6
            for metric in metrics.METRICS:
                interval = task[metric]
                if interval["mean"] is None:  # this model writes no word to be distinct
                    assert metric.startswith(("distinct", "unique"))
                    continue
                assert interval["low"] <= interval["mean"] + 1e-9, metric
                assert interval["mean"] <= interval["high"] + 1e-9, metric
                assert -1 <= interval["mean"] <= 100


def test_results_record_settings_and_versions(results):
    assert results["split"] == "test"
    assert results["n_users"] == 6
    assert results["decoding"] == {"method": "greedy", "max_new_tokens": 24}
    assert "version:" in results["bleu_signature"]
    assert "rouge-score:" in results["rouge_signature"]
    assert results["encoder"].startswith("content_encoder of this run")
    assert results["missing_references"] == dict.fromkeys(TASKS, 0)
    assert results["bootstrap"] == {"over": "users", "resamples": bootstrap.RESAMPLES}
    assert results["narrators"] == ["reference"]
    assert results["seeds"] == {"training": 0, "evaluation": 0}
    assert {"regen-hf", "python", "torch", "transformers", "sacrebleu", "rouge-score"} <= results["versions"].keys()


def test_an_unknown_encoder_raises_an_error(finished_run, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work, out):
        folder.mkdir()
    config = EvaluationConfig(users=1, max_new_tokens=2, tasks=("user_profile",), encoder="nobody/no-such-encoder")
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
    settings = EvaluationConfig(users=1, max_new_tokens=4, tasks=("user_profile",))
    build(tiny_run, tmp_path / "out", tmp_path / "work", settings)
    user = next(rows(split_files(tiny_run / "dataset", "test")))
    tokenizer = RegenProcessor.from_pretrained(tiny_run / "model").tokenizer
    assert user["purchase_history"][-1]["review"]["text"] in tokenizer.decode(asked[0][0][0])
    assert not any(mask.any() for _, mask in asked)


def test_a_model_trained_on_no_history_is_shown_none(tiny_run, folders):
    path = tiny_run / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["history"] = "empty"
    path.write_text(json.dumps(manifest))
    (tiny_run / "evaluation").rename(tiny_run / "before")  # it was shown histories
    build(tiny_run, *folders, EvaluationConfig(users=3, max_new_tokens=4, tasks=("user_profile",)))
    texts = {}
    for row in pq.read_table(folders[0] / "predictions.parquet").to_pylist():
        texts.setdefault(row["model"], []).append(row["prediction"])
    assert texts["fused"] == texts["empty_history"]
    assert len(texts["fused"]) == 3
    assert len(set(texts["fused"])) == 1
    assert not {"content", "cf", "shuffled_history"} & set(texts)


def test_a_finished_part_is_not_written_again(finished_run, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    for folder in (work, out):
        folder.mkdir()
    config = EvaluationConfig(users=3, max_new_tokens=4, tasks=("user_profile",))
    build(finished_run, out, work, config)
    pq.write_table(pa.table({"prediction": ["kept"] * 3}), work / "fused-user_profile-0.parquet")
    build(finished_run, out, work, config)
    kept = [row for row in pq.read_table(out / "predictions.parquet").to_pylist() if row["model"] == "fused"]
    assert {row["prediction"] for row in kept} == {"kept"}


def test_a_model_loads_in_a_new_process_without_a_question_whether_to_trust_its_code(finished_run):
    code = (
        "import pathlib, sys; from regen_hf.stages.evaluation import generation, settings; "
        "writer = generation.Writer(pathlib.Path(sys.argv[1]), settings.EvaluationConfig(), {}); "
        "writer.processor; writer.model"
    )
    call = [sys.executable, "-c", code, str(finished_run)]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "trust_remote_code" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "extra"),
    [("sacrebleu", "eval"), ("rouge_score.rouge_scorer", "eval"), ("sentence_transformers", "train")],
)
def test_a_missing_library_raises_an_error_before_anything_is_written(
    finished_run, tmp_path, monkeypatch, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    metrics._rouge_scorer.cache_clear()
    with pytest.raises(RegenError, match=rf'pip install "regen-hf\[{extra}\]"'):
        build(finished_run, tmp_path, tmp_path, EvaluationConfig(users=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [2, 3, 17])
def test_shuffled_histories_are_always_anothers(number):
    others = derangement(number, seed=3)
    assert sorted(others) == list(range(number))
    assert all(other != own for own, other in enumerate(others))


def test_the_most_frequent_narrative_is_of_the_train_users(finished_run):
    texts = [row["user"]["profile"] for row in rows(split_files(finished_run / "dataset", "train"))]
    frequent, longest = train_narratives(finished_run, ("user_profile",))
    assert texts.count(frequent["user_profile"]) == max(texts.count(text) for text in texts)
    assert len(longest["user_profile"][0]) == max(map(len, texts))


def test_the_nearest_narrative_is_that_of_the_train_user_with_the_most_similar_history(finished_run):
    tasks = ("user_profile", "product_endorsement")
    found = nearest(finished_run, "test", 4, tasks, ["product_endorsement"])
    factors = load_file(finished_run / "embeddings" / "cf.safetensors")["item_factors"]
    of_items = np.load(finished_run / "embeddings" / "content_items.npy")

    def halves(split, user, withheld):
        content, items = VectorStore(finished_run / "embeddings" / split).user(user)
        content = content.astype(np.float32)
        if withheld:
            content[-1] = of_items[items[-1]]
        means = factors[items].mean(axis=0), content.mean(axis=0)
        return [mean / np.linalg.norm(mean) for mean in means]

    train = list(rows(split_files(finished_run / "dataset", "train")))
    for task in tasks:
        withheld = task == "product_endorsement"
        others = [halves("train", user, withheld) for user in range(len(train))]
        for user in range(4):
            own = halves("test", user, withheld)
            alike = [sum(a @ b for a, b in zip(own, other, strict=True)) for other in others]
            assert found[task][user] == TASKS[task].text(train[int(np.argmax(alike))])


@pytest.fixture
def folders(tmp_path):
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return tmp_path / "out", tmp_path / "work"


def test_each_control_gets_the_input_of_its_name(finished_run, folders, monkeypatch):
    asked, generate = [], RegenForCausalLM.generate

    def recorded(self, **inputs):
        asked.append(inputs)
        return generate(self, **inputs)

    monkeypatch.setattr(RegenForCausalLM, "generate", recorded)
    settings = EvaluationConfig(users=2, max_new_tokens=3, batch_size=1, tasks=("product_endorsement",), text_users=0)
    build(finished_run, *folders, settings)
    names = ["fused", "content", "cf", "empty_history", "shuffled_history", "text_history"]
    # An empty history is one prompt, whoever it is written for.
    order = [name for name in names for _ in range(1 if name == "empty_history" else 2)]
    shown = {name: [one for by, one in zip(order, asked, strict=True) if by == name] for name in names}
    for fused, content, cf in zip(shown["fused"], shown["content"], shown["cf"], strict=True):
        assert (content["history_content"] == fused["history_content"]).all()
        assert (cf["history_cf"] == fused["history_cf"]).all()
        assert not content["history_cf"].any()
        assert not cf["history_content"].any()
    assert not shown["empty_history"][0]["history_mask"].any()
    swapped = {tuple(one["history_content"].shape): one["history_content"] for one in shown["shuffled_history"]}
    for fused in shown["fused"]:
        assert (swapped[tuple(fused["history_content"].shape)] == fused["history_content"]).all()
    tokenizer = RegenProcessor.from_pretrained(finished_run / "model").tokenizer
    prompts = [tokenizer.decode(one["input_ids"][0]) for one in shown["text_history"]]
    for user in rows(split_files(finished_run / "dataset", "test"), limit=2):
        (prompt,) = [prompt for prompt in prompts if user["purchase_history"][-2]["review"]["text"] in prompt]
        assert user["purchase_history"][-1]["item"]["title"] in prompt
        assert user["purchase_history"][-1]["review"]["text"] not in prompt  # withheld from an endorsement


def test_a_model_of_one_half_is_its_own_control():
    told = describe_models({"embedding_mode": "cf", "history": "own"})
    assert told["cf"] == "the model itself, which was trained on this input"
    assert told["content"] == NOT_AVAILABLE
    told = describe_models({"embedding_mode": "both", "history": "text"})
    assert told["text_history"] == "the model itself, which was trained on this input"
    assert told["content"] == told["cf"] == NOT_AVAILABLE
    told = describe_models({"embedding_mode": "both", "history": "empty"})
    assert told["empty_history"] == "the model itself, which was trained on this input"
    assert told["content"] == told["cf"] == told["shuffled_history"] == NOT_AVAILABLE


def test_the_text_control_may_cover_only_the_first_users(finished_run, folders):
    settings = EvaluationConfig(users=3, text_users=1, max_new_tokens=2, tasks=("user_profile",))
    build(finished_run, *folders, settings)
    results = json.loads((folders[0] / "results.json").read_text())
    assert results["models"]["text_history"]["user_profile"]["n"] == 1
    assert results["models"]["nearest"]["user_profile"]["n"] == 3
    assert results["about"]["text_history"].endswith("; only the first 1 users")


def test_a_single_user_is_scored_without_a_shuffled_control(finished_run, folders):
    settings = EvaluationConfig(users=1, max_new_tokens=8, tasks=("user_profile",))
    build(finished_run, *folders, settings)
    models = json.loads((folders[0] / "results.json").read_text())["models"]
    assert list(models) == list(CONTROLS)
    for name, tasks in models.items():
        found = tasks["user_profile"]
        assert found["n"] == (0 if name == "shuffled_history" else 1)
        for metric in ("bleu", "rougeLsum", "similarity"):
            if name == "shuffled_history":
                assert found[metric] == {"mean": None, "low": None, "high": None}
            else:
                assert found[metric]["low"] == pytest.approx(found[metric]["mean"]) == found[metric]["high"]
    assert "| – |" in (folders[0] / "table.md").read_text()


def test_a_model_with_logits_that_are_not_finite_stops_the_evaluation(tiny_run, capsys):
    file = tiny_run / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.language_model.norm.weight"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    shutil.rmtree(tiny_run / "evaluation")
    assert main(["evaluate", str(tiny_run)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "regen: evaluate stopped: The model's logits contain NaN or infinity, expected finite numbers."
    )
    assert not (tiny_run / "evaluation").exists()


def test_scoring_again_loads_no_model(tiny_run, tmp_path, capsys):
    before = pq.read_table(tiny_run / "evaluation" / "predictions.parquet")
    (tiny_run / "model" / "model.safetensors").unlink()
    shutil.copytree(tiny_run / "embeddings" / "content_encoder", tmp_path / "other")
    assert main(["evaluate", str(tiny_run), "--encoder", str(tmp_path / "other")]) == 0
    assert json.loads((tiny_run / "evaluation" / "results.json").read_text())["encoder"] == "other"
    assert pq.read_table(tiny_run / "evaluation" / "predictions.parquet").equals(before)


def test_decoding_is_applied_and_recorded(finished_run, tmp_path, monkeypatch):
    told, calls, generate = {}, [], RegenForCausalLM.generate

    def recorded(self, **inputs):
        calls.append(inputs)
        return generate(self, **inputs)

    monkeypatch.setattr(RegenForCausalLM, "generate", recorded)
    sampling = {"temperature": 2.0, "top_p": 0.9}
    for number, decoding in enumerate([{}, sampling, sampling, {**sampling, "seed": 1}, {"num_beams": 2}]):
        out, work = tmp_path / f"out{number}", tmp_path / f"work{number}"
        out.mkdir()
        work.mkdir()
        settings = EvaluationConfig(users=3, max_new_tokens=6, tasks=("user_profile",), **decoding)
        build(finished_run, out, work, settings)
        kept = pq.read_table(out / "predictions.parquet").to_pylist()
        texts = [row["prediction"] for row in kept if row["model"] == "fused"]
        told[number] = json.loads((out / "results.json").read_text())["decoding"], texts
    assert told[0][0] == {"method": "greedy", "max_new_tokens": 6}
    assert told[1][0] == {"method": "sampling", "temperature": 2.0, "top_p": 0.9, "max_new_tokens": 6}
    assert told[4][0] == {"method": "beams", "num_beams": 2, "max_new_tokens": 6}
    assert told[1] == told[2]  # the same seed
    assert told[1][1] != told[3][1]
    assert told[1][1] != told[0][1]
    assert {(call["do_sample"], call.get("temperature"), call.get("num_beams")) for call in calls} == {
        (False, None, 1),
        (True, 2.0, None),
        (False, None, 2),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.0}, "top_p was given 0.0, expected a probability"),
        ({"top_p": 0.9}, "without a temperature"),
        ({"temperature": 1.0, "num_beams": 4}, "set only one of the two"),
        ({"temperature": -1.0}, "temperature was given -1.0, expected at least 0"),
        ({"num_beams": 0}, "num_beams was given 0, expected at least 1"),
    ],
)
def test_invalid_decoding_settings_raise_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**settings)


@pytest.mark.parametrize("split", ["test", "train"])
def test_histories_with_vectors_that_are_not_finite_raise_an_error(tiny_run, folders, split):
    path = tiny_run / "embeddings" / split / "vectors.npy"
    vectors = np.load(path)
    vectors[0, 0] = np.nan
    np.save(path, vectors)
    with pytest.raises(
        InputError, match=f"history of {split} user 0 contain values that are not finite.*regen embeddings"
    ):
        build(tiny_run, *folders, EvaluationConfig(users=2, tasks=("user_profile",)))


def test_the_tables_of_the_run_contain_all_scores(finished_run, results):
    written = (finished_run / "evaluation" / "table.md").read_text()
    latex = (finished_run / "evaluation" / "table.tex").read_text()
    for model, tasks in results["models"].items():
        assert f"- `{model}`: " in written
        for found in tasks.values():
            for metric, (label, digits) in tables.LABELS.items():
                assert label in written
                cell = format_interval(found[metric], digits)
                assert f"| {cell} |" in written
                assert f"& {cell.replace('–', '--')} " in latex


def test_the_summary_shows_scores_and_a_narrative_in_a_few_lines(finished_run, results):
    told = summary(finished_run)
    for model in ("fused", "empty_history", "nearest"):
        assert format_interval(results["models"][model]["purchase_reason"]["rougeLsum"], 1) in told
    user = next(rows(split_files(finished_run / "dataset", "test")))
    assert user["reviewer_id"] in told
    assert user["purchase_history"][-1]["item"]["title"] in told
    assert told.count("generated: ") <= 1
    assert len(told.splitlines()) <= 4
    assert "Recall@10" not in told


def test_the_summary_has_the_recall_of_the_model_and_of_als(tiny_run):
    (tiny_run / "next_item").mkdir()
    recall = {"als": 0.25, "fused": 0.5, "content": 0.1}
    models = {
        model: {"all": {"recall@10": {"mean": value, "low": 0.0, "high": 1.0}}} for model, value in recall.items()
    }
    results = {"n_users": 9, "catalogue": {"items": 64}, "models": models}
    (tiny_run / "next_item" / "results.json").write_text(json.dumps(results))
    assert summary(tiny_run).splitlines()[-2] == (
        "Next purchase of 9 test users among 64 items, Recall@10: model 0.500 [0.000, 1.000], ALS 0.250 [0.000, 1.000]"
    )
