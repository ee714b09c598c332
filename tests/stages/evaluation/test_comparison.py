"""The comparison of runs, and the scores of predictions of any model."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regen_hf.cli import main
from regen_hf.errors import InputError
from regen_hf.metrics.scoring import PREDICTION_SCHEMA, score
from regen_hf.metrics.text_metrics import statistics
from regen_hf.outputs import rows, split_files
from regen_hf.schema import offered_tasks
from regen_hf.stages.evaluation import comparison
from regen_hf.stages.evaluation.controls import CONTROLS
from regen_hf.stages.evaluation.score_file import read_predictions, score_file

TASKS = offered_tasks()


def regen(*words):
    return main([str(word) for word in words])


def worse(text, seed, keep):
    """The text with a random share `keep` of its words."""
    generator = np.random.default_rng(seed)
    return " ".join(word for word in text.split() if generator.random() < keep) or "nothing"


def evaluated_run(finished_run, folder, seed=0, keep=0.9, users=40, text_users=None, **training):
    """An evaluated run, whose narratives have a share of the words of the reference."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "dataset").symlink_to(finished_run / "dataset")
    trained = json.loads((finished_run / "model" / "manifest.json").read_text())
    trained["config"] |= {"seed": seed, **training}
    (folder / "model" / "manifest.json").write_text(json.dumps(trained))
    tasks = ["purchase_reason", "user_profile"]
    kept = []
    for name in CONTROLS:
        share = {"fused": keep, "content": 0.5, "cf": 0.4}.get(name, 0.1)
        for number, user in enumerate(rows(split_files(finished_run / "dataset", "train"), limit=users)):
            if name == "text_history" and number >= (users // 2 if text_users is None else text_users):
                continue
            for task in tasks:
                reference = TASKS[task].text(user)
                place = list(CONTROLS).index(name) * 1000 + number + 100_000 * seed
                kept.append((user["reviewer_id"], task, name, worse(reference, place, share), reference))
    predictions = pa.table(list(zip(*kept, strict=True)), schema=PREDICTION_SCHEMA)
    found, table = score(predictions, list(CONTROLS), tasks, None, 0)
    results = json.loads((finished_run / "evaluation" / "results.json").read_text())
    results |= {**found, "n_users": users}
    pq.write_table(predictions, folder / "evaluation" / "predictions.parquet")
    pq.write_table(table, folder / "evaluation" / "scores.parquet")
    (folder / "evaluation" / "results.json").write_text(json.dumps(results))
    shutil.copy(finished_run / "evaluation" / "manifest.json", folder / "evaluation")
    return folder


@pytest.fixture(scope="module")
def runs(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    shares = {"both": 0.9, "content": 0.89, "cf": 0.5}
    return [
        evaluated_run(finished_run, folder / f"{mode}-{seed}", seed, keep, embedding_mode=mode)
        for mode, keep in shares.items()
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "tables"
    return comparison.compare(runs, out), out


def test_runs_trained_on_a_half_take_the_place_of_that_control(compared, runs):
    result, _ = compared
    assert list(result["columns"]) == list(CONTROLS)
    for model, mode in (("fused", "both"), ("content", "content"), ("cf", "cf")):
        assert [name.split("/")[-1] for name in result["columns"][model]["runs"]] == [f"{mode}-0", f"{mode}-1"]
        assert result["columns"][model]["seeds"] == [0, 1]
        for task, metrics in result["tasks"].items():
            own = [json.loads((run / "evaluation" / "results.json").read_text()) for run in runs if mode in run.name]
            means = [one["models"]["fused"][task]["rougeLsum"]["mean"] for one in own]
            found = metrics["rougeLsum"]["models"][model]
            assert found["values"] == pytest.approx(means)
            assert found["mean"] == pytest.approx(np.mean(means))
            assert found["low"] < found["mean"] < found["high"]
    assert result["columns"]["empty_history"]["about"] == CONTROLS["empty_history"]


def test_a_large_difference_has_a_small_p_value_and_a_small_one_has_not(compared):
    result, _ = compared
    for metrics in result["tasks"].values():
        found = metrics["rougeLsum"]["versus"]
        assert found["cf"]["p"] < 0.01
        assert found["cf"]["percent"] > 20
        assert found["cf"]["difference"]["low"] > 0
        assert found["content"]["p"] > 0.05
        assert found["content"]["difference"]["low"] < 0 < found["content"]["difference"]["high"]
        assert found["text_history"]["n"] == 20  # of the users that both were written for
        assert metrics["similarity"]["versus"]["cf"] == {
            "percent": None,
            "difference": {"mean": None, "low": None, "high": None},
            "p": None,
            "n": 40,
        }


def test_p_values_are_uniform_without_a_difference(finished_run):
    texts = [row["user"]["brief_summary"] for row in rows(split_files(finished_run / "dataset", "train"), limit=30)]
    values = []
    for seed in range(40):
        sides = []
        for side in (0, 1):
            written = [worse(text, 1000 * seed + 500 * side + n, 0.5) for n, text in enumerate(texts)]
            sides.append(comparison.Cells([], [statistics(written, texts)], side))
        one, other = sides
        difference = one.values()["rouge1"].mean() - other.values()["rouge1"].mean()
        values.append(comparison.p_value(difference, one.drawn(0)["rouge1"] - other.drawn(0)["rouge1"]))
    assert np.mean(np.array(values) < 0.05) < 0.2
    assert 0.3 < np.median(values) < 0.7


def test_the_tables_are_laid_out_as_the_papers(compared):
    result, out = compared
    text = (out / "comparison.md").read_text()
    assert (
        "| Output Feature | Metrics | CF | Content | CF + Content | (%) vs CF | (%) vs Content | p vs CF "
        "| p vs Content | Paper: CF / Content / CF + Content |"
    ) in text
    (row,) = re.findall(r"\| Purchase reason \| BLEU \|.*17\.71 / 21\.07 / 21\.92 \|", text)
    found = result["tasks"]["purchase_reason"]["bleu"]
    assert f"{found['models']['cf']['mean']:.1f} [" in row
    assert f"{found['versus']['cf']['percent']:+.1f}%" in row
    assert "| User profile | BLEU |" in text
    assert "from other data and models" in text
    assert "seeds 0, 1" in text
    assert text.count("## ") == 2
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(result))
    latex = (out / "comparison.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"(\%) vs CF" in latex
    assert "$<$0.001" in latex
    assert "17.71 / 21.07 / 21.92" in latex
    assert not list(out.parent.glob(".*"))


def test_without_runs_of_one_half_the_column_shows_the_control(runs, tmp_path):
    result = comparison.compare(runs[:2], tmp_path / "out")
    assert result["columns"]["cf"]["about"] == CONTROLS["cf"]
    assert result["columns"]["cf"]["seeds"] == [0, 1]
    alone = comparison.compare(runs[2:3] + runs[4:5], tmp_path / "out")
    assert set(alone["columns"]) == {"content", "cf", "most_frequent", "nearest"}
    assert "One seed each" in (tmp_path / "out" / "comparison.md").read_text()


def edited(run, **changes):
    path = run / "evaluation" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("split", "their splits differ, test and validation"),
        ("users", "their numbers of users differ, 40 and 30"),
        ("references", "their users or reference narratives differ"),
        ("decoding", "their decoding settings differ"),
        ("encoder", "measured by different encoders. Evaluate all runs with one --encoder"),
        ("seed", "are both CF + Content of seed 0"),
        ("setting", "differ in training.max_steps: 12 and 13"),
        ("text", "narratives of text_history for purchase_reason are of 20 and 5 users. Evaluate both with equal"),
    ],
)
def test_runs_that_cannot_be_compared_raise_an_error_with_the_difference(finished_run, runs, tmp_path, case, message):
    users = 30 if case == "users" else 40
    settings = {"seed": 0 if case == "seed" else 1} | ({"max_steps": 13} if case == "setting" else {})
    other = evaluated_run(
        finished_run, tmp_path / "other", users=users, text_users=5 if case == "text" else None, **settings
    )
    if case == "split":
        edited(other, split="validation")
    elif case == "decoding":
        edited(other, decoding={"method": "beams"})
    elif case == "encoder":
        edited(other, encoder="another")
    elif case == "references":
        path = other / "evaluation" / "predictions.parquet"
        table = pq.read_table(path)
        table = table.set_column(4, "reference", pa.array(["another text"] * len(table)))
        pq.write_table(table, path)
    with pytest.raises(InputError, match=re.escape(message)):
        comparison.compare([runs[0], other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_user_has_no_p_value_and_a_control_without_users_no_score(finished_run, tmp_path):
    runs = [evaluated_run(finished_run, tmp_path / f"run-{seed}", seed, users=1) for seed in (0, 1)]
    comparison.compare(runs, tmp_path / "out")

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "out" / "comparison.json").read_text()
    for task in json.loads(text, parse_constant=refuse)["tasks"].values():
        for metric in ("bleu", "rougeLsum"):
            assert task[metric]["versus"]["cf"]["p"] is None
            assert task[metric]["versus"]["cf"]["difference"]["mean"] is not None
            nobody = task[metric]["models"]["text_history"]
            assert (nobody["mean"], nobody["low"], nobody["high"], nobody["n"]) == (None, None, None, 0)
            assert nobody["values"] == [None, None]


def test_shares_of_distinct_words_are_not_compared_between_few_and_many_users(compared):
    for metrics in compared[0]["tasks"].values():
        assert metrics["distinct1"]["versus"]["text_history"]["difference"]["mean"] is None
        assert metrics["distinct1"]["versus"]["cf"]["p"] is not None
        assert metrics["length_ratio"]["versus"]["text_history"]["p"] is not None


def test_several_runs_on_the_command_line_are_compared(tiny_run, capsys):
    other = shutil.copytree(tiny_run, tiny_run.with_name("other"))
    path = other / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["seed"] = 1
    path.write_text(json.dumps(manifest))
    assert regen("compare", tiny_run, other) == 0
    assert "| Output Feature | Metrics | CF |" in capsys.readouterr().out
    result = json.loads((tiny_run / "comparison" / "comparison.json").read_text())
    assert result["columns"]["fused"]["seeds"] == [0, 1]
    assert regen("compare", tiny_run, tiny_run) == 1
    assert "given twice" in capsys.readouterr().err
    assert regen("compare", tiny_run) == 1
    assert "1 run was given, expected two or more" in capsys.readouterr().err
    shutil.rmtree(other / "evaluation")
    assert regen("compare", tiny_run, other) == 1
    assert f"The evaluation of {other} is missing. Run `regen evaluate {other}` first." in capsys.readouterr().err
    shutil.rmtree(other / "embeddings")
    predictions = tiny_run / "evaluation" / "predictions.parquet"
    assert regen("score", predictions, "--references", other) == 1
    assert "`score` reads the output of `embeddings`, which is missing" in capsys.readouterr().err


def written(folder, drop=(), **columns):
    table = {
        "reviewer_id": ["a", "b", "a"],
        "task": ["user_profile", "user_profile", "purchase_reason"],
        "model": ["mine"] * 3,
        "prediction": ["A writer.", "A cook.", ""],
        "reference": ["A writer.", "A baker.", "It was cheap."],
    } | columns
    path = folder / "mine.parquet"
    pq.write_table(pa.table({name: values for name, values in table.items() if name not in drop}), path)
    return path


def test_predictions_of_any_model_are_scored(tmp_path, capsys):
    path = written(tmp_path, drop=["model"], prediction=["A writer.", "A cook.", None], extra=[1, 2, 3])
    assert regen("score", path) == 0
    assert "| task | metric | mine |" in capsys.readouterr().out
    results = json.loads((tmp_path / "mine_scores" / "results.json").read_text())
    assert results["models"]["mine"]["user_profile"]["n"] == 2
    assert results["models"]["mine"]["purchase_reason"]["bleu"]["mean"] == 0  # it was written, and is empty
    assert results["models"]["mine"]["user_profile"]["similarity"]["mean"] is None
    assert results["empty_predictions"] == 1
    assert results["n_users"] == 2
    assert (tmp_path / "mine_scores" / "table.tex").exists()


def test_missing_references_are_counted_and_not_scored_as_zero(tmp_path):
    path = written(tmp_path, reference=["A writer.", None, ""])
    results = score_file(path, tmp_path / "out")
    assert results["missing_references"] == {"purchase_reason": 1, "user_profile": 1}
    assert results["models"]["mine"]["purchase_reason"]["n"] == 0
    assert results["models"]["mine"]["purchase_reason"]["bleu"] == {"mean": None, "low": None, "high": None}
    assert results["models"]["mine"]["user_profile"]["rouge1"]["mean"] == pytest.approx(100)


def test_a_run_gives_the_references_and_its_own_predictions_get_its_own_scores(finished_run, tmp_path, capsys):
    table = pq.read_table(finished_run / "evaluation" / "predictions.parquet").drop_columns(["reference"])
    pq.write_table(table, tmp_path / "theirs.parquet")
    assert regen("score", tmp_path / "theirs.parquet", "--references", finished_run, "--out", tmp_path / "out") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own = json.loads((finished_run / "evaluation" / "results.json").read_text())
    assert results["models"] == own["models"]
    users = sum(1 for _ in rows(split_files(finished_run / "dataset", "test")))
    assert results["missing_predictions"]["fused"] == dict.fromkeys(TASKS, users - 6)
    assert (
        f"- `fused` lacks predictions for {6 * (users - 6)} narratives" in (tmp_path / "out" / "table.md").read_text()
    )
    assert "its scores cover only the others" in capsys.readouterr().out
    pq.write_table(table.slice(0, 1).set_column(0, "reviewer_id", [["nobody"]]), tmp_path / "theirs.parquet")
    assert regen("score", tmp_path / "theirs.parquet", "--references", finished_run) == 1
    assert "1 users who are not in the test split" in capsys.readouterr().err


def test_a_model_may_be_called_anything(tmp_path):
    score_file(written(tmp_path, model=["a|b\n$x_\\^{~}"] * 3), tmp_path / "out")
    head, rule, *_ = (line for line in (tmp_path / "out" / "table.md").read_text().splitlines() if line[:1] == "|")
    assert head == "| task | metric | a\\|b $x_\\^{~} |"
    assert rule == "|---|---|---|"
    told = r"task & metric & a|b \$x\_\textbackslash{}\textasciicircum{}\{\textasciitilde{}\} \\"
    assert told in (tmp_path / "out" / "table.tex").read_text().splitlines()


def test_predictions_for_users_without_a_reference_make_up_for_no_others(tiny_run, tmp_path):
    (path,) = split_files(tiny_run / "dataset", "test")
    table = pq.read_table(path)
    users = table.to_pylist()
    users[0]["user"]["profile"] = None
    pq.write_table(table.from_pylist(users, schema=table.schema), path)
    written = [{"reviewer_id": user["reviewer_id"], "task": "user_profile", "prediction": "A cook."} for user in users]
    pq.write_table(pa.Table.from_pylist(written[:-1]), tmp_path / "theirs.parquet")
    results = score_file(tmp_path / "theirs.parquet", tmp_path / "out", tiny_run)
    assert results["missing_predictions"] == {"theirs": {"user_profile": 1}}
    assert results["missing_references"] == {"user_profile": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"drop": ["prediction", "reference"]},
            "lacks the columns prediction, reference; it has reviewer_id, task, model",
        ),
        ({"task": ["user_profile", "poem", "poem"]}, "contains the tasks poem, expected some of purchase_reason"),
        ({"reviewer_id": ["a", "a", "a"]}, "2 predictions of 'mine' for user 'a' and user_profile, and 0 more"),
        ({"reviewer_id": ["a", None, "a"]}, "contains 1 rows without a reviewer_id"),
        ({"prediction": [1, 2, 3]}, "The column prediction of"),
        ({"reference": [None, None, ""]}, "so there is nothing to score"),
    ],
)
def test_an_invalid_file_of_predictions_raises_an_error(tmp_path, change, message):
    path = written(tmp_path, **change)
    with pytest.raises(InputError, match=re.escape(message)):
        score_file(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_unreadable_or_empty_file_raises_an_error(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_predictions(tmp_path / "none.parquet", references=True)
    (tmp_path / "text.parquet").write_text("reviewer_id,task")
    with pytest.raises(InputError, match="not readable as parquet"):
        read_predictions(tmp_path / "text.parquet", references=True)
    damaged = bytearray(written(tmp_path).read_bytes())
    damaged[4:200] = bytes(196)  # the pages, while the footer is whole
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match="not readable as parquet"):
        read_predictions(tmp_path / "damaged.parquet", references=True)
    pq.write_table(PREDICTION_SCHEMA.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="contains no predictions"):
        read_predictions(tmp_path / "empty.parquet", references=True)


def test_score_rejects_options_of_decoding(tmp_path, capsys):
    with pytest.raises(SystemExit):
        regen("score", written(tmp_path), "--temperature", 1)
    assert "unrecognized arguments: --temperature" in capsys.readouterr().err
    assert regen("score", written(tmp_path), "--split", "train") == 1
    assert "expected test or validation" in capsys.readouterr().err
