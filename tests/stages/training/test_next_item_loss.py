"""Training of the item head: its loss beside that of the words, alone, and what it ranks afterwards."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import regen_hf
from regen_hf.cli import main
from regen_hf.hub.contents import _evaluations
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.outputs import item_vectors
from regen_hf.run import STAGES, Run
from regen_hf.stages.evaluation.summary import summary
from regen_hf.stages.figures import attribution, results
from regen_hf.stages.training.build import make_processor
from regen_hf.stages.training.settings import TrainingConfig
from regen_hf.stages.training.trainer import make_trainer
from regen_hf.vectors.histories import item_rows
from tests.conftest import TINY

HEAD = {"next_item_weight": 2.0, "item_dim": 7, "recency": 2}


def config(**changes):
    return TrainingConfig(**{**TINY["training"], **HEAD, **changes})


def model_of(folder, processor):
    values = RegenForCausalLM.from_pretrained(folder).config
    values.item_dim, values.recency = HEAD["item_dim"], HEAD["recency"]
    language_model = RegenForCausalLM.from_pretrained(folder).to_backbone()
    torch.manual_seed(0)
    model = RegenForCausalLM.from_backbone(language_model, values)
    model.set_catalogue(**processor.catalogue())
    return model


def test_a_purchase_is_labelled_with_its_row_of_the_catalogue(finished_run, histories):
    batch = histories.batch([0, None, 3], [False] * 3, [50, 50, 2])
    labels = item_rows(histories, [0, None, 3], batch["history_mask"])
    asins = item_vectors(finished_run).asins
    table = pq.read_table(next((finished_run / "dataset").glob("**/train-*.parquet"))).to_pylist()
    for number, (row, kept) in enumerate([(0, 50), (3, 2)]):
        bought = [purchase["item"]["asin"] for purchase in table[row]["purchase_history"]][-kept:]
        learnt = labels[[0, 2][number]]
        assert [asins[item] for item in learnt[learnt >= 0]] == bought
    assert (labels[1] == -100).all()


@pytest.mark.parametrize("tasks", [("user_profile",), ()])
def test_the_trainers_loss_is_the_models_own(finished_run, processor, load, tmp_path, tasks):
    settings = config(tasks=tasks)
    processor = make_processor(finished_run, processor.tokenizer, item_vectors(finished_run), settings)
    examples = load(processor, settings)
    model = model_of(finished_run / "model", processor).eval()
    trainer = make_trainer(model, processor, examples, None, tmp_path, tmp_path / "board", settings)
    batch = trainer.data_collator(examples.spread(6))
    assert (batch["item_labels"] >= 0).any()
    with torch.no_grad():
        expected = model(**batch).loss
        loss = trainer.compute_loss(model, dict(batch))
        predicted = trainer._get_num_items_in_batch([batch, batch], torch.device("cpu"))
        halved = trainer.compute_loss(model, dict(batch), num_items_in_batch=predicted)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(halved * 2, expected)


def test_the_item_head_learns_at_the_rate_of_the_adapter(finished_run, processor, load, tmp_path):
    settings = config(adapter_learning_rate=0.5, optimizer="adamw", learning_rate=1e-3)
    processor = make_processor(finished_run, processor.tokenizer, item_vectors(finished_run), settings)
    model = model_of(finished_run / "model", processor)
    trainer = make_trainer(model, processor, load(processor, settings), None, tmp_path, tmp_path / "board", settings)
    rates = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    new = {name for name, parameter in model.named_parameters() if rates[id(parameter)] == 0.5}
    assert new == {name for name, _ in model.named_parameters() if ".adapter." in name or ".item_head." in name}


@pytest.mark.parametrize("tasks", [["user_profile", "product_endorsement"], []])
def test_a_trained_item_head_ranks_and_its_results_stand_beside_the_others(tiny_run, capsys, tasks):
    path = tiny_run / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["training"] |= HEAD | {"tasks": tasks, "max_steps": 4, "interaction_features": ["rating"]}
    path.write_text(yaml.safe_dump(settings))
    assert main(["train", str(tiny_run)]) == 0
    assert main(["next-item", str(tiny_run), "--neighbours", "20", "--critiques"]) == 0
    shown = capsys.readouterr().out
    assert "| fused | all |" in shown
    assert "| own minus none |" in shown
    results = json.loads((tiny_run / "next_item" / "results.json").read_text())
    ranks = pq.read_table(tiny_run / "next_item" / "ranks.parquet").to_pydict()
    gain = np.mean(1 / np.array(ranks["fused"])) - np.mean(1 / np.array(ranks["popularity"]))
    assert results["differences"]["popularity"]["all"]["mrr"]["mean"] == pytest.approx(gain)
    for part in (results["models"]["fused"], results["differences"]["als"]):
        assert part["warm"]["mrr"]["low"] <= part["warm"]["mrr"]["mean"] <= part["warm"]["mrr"]["high"]
    assert results["differences"]["als"]["warm"]["mrr"]["p"] > 0
    # `recommend` reads the raw histories of the same users.
    regen = regen_hf.load(str(tiny_run / "model"))
    users = {
        row["reviewer_id"]: row
        for row in pq.read_table(next((tiny_run / "dataset").glob("**/test-*.parquet"))).to_pylist()
    }
    histories = [users[user]["purchase_history"][:-1] for user in ranks["reviewer_id"]]
    found = regen.recommend(histories, n=64)
    for entries, target, rank in zip(found, ranks["target"], ranks["fused"], strict=True):
        assert abs([entry["asin"] for entry in entries].index(target) + 1 - rank) <= 1  # float16 vectors
    assert found[0][0]["title"]
    check_the_ranking_with_critiques(results["critiques"], regen, users, ranks)
    if tasks:
        check_the_joint_pass(tiny_run, regen, dict(zip(ranks["reviewer_id"], histories, strict=True)))
    else:
        assert "endorsements" not in results
        check_that_it_only_ranks(tiny_run, regen, histories[0], capsys)


def check_the_ranking_with_critiques(results, regen, users, ranks):
    """The ranks with critiques are those of `recommend` with the same texts."""
    said = {user: users[user]["last_purchase"]["critique"] for user in ranks["reviewer_id"]}
    chosen = [number for number, user in enumerate(ranks["reviewer_id"]) if said[user]]
    names, targets = ([ranks[column][number] for number in chosen] for column in ("reviewer_id", "target"))
    assert results["n_users"] == len(chosen) > 1
    for name, texts in {"own": list(map(said.get, names)), "none": None}.items():
        histories = [users[user]["purchase_history"][:-1] for user in names]
        found = regen.recommend(histories, n=64, critique=texts)
        places = [
            [one["asin"] for one in entries].index(target) for entries, target in zip(found, targets, strict=True)
        ]
        gain = np.mean([1 / (1 + place) for place in places])
        assert results["by"][name]["mrr"]["mean"] == pytest.approx(gain, rel=0.05)  # float16 vectors
    assert results["by"]["own"]["mrr"]["mean"] != results["by"]["none"]["mrr"]["mean"]
    minus = results["by"]["another"]["mrr"]["mean"] - results["by"]["none"]["mrr"]["mean"]
    assert results["minus_none"]["another"]["mrr"]["mean"] == pytest.approx(minus)


def check_the_joint_pass(run, regen, histories):
    """The endorsements of the first choices are those of `recommend`, and their scores are shown."""
    path = run / "next_item" / "endorsements.parquet"
    rows = pq.read_table(path).to_pylist()
    assert [row["reviewer_id"] for row in rows] == list(histories)
    explained = regen.recommend(list(histories.values()), n=1, explain=True, max_new_tokens=8)
    pairs = [(row, entry) for row, (entry,) in zip(rows, explained, strict=True) if row["chosen"] == entry["asin"]]
    assert len(pairs) > 0.8 * len(rows)  # the store's vectors are in float16
    assert np.mean([row["prediction"].startswith(entry["endorsement"][:12]) for row, entry in pairs]) > 0.8
    ranks = pq.read_table(run / "next_item" / "ranks.parquet").to_pydict()
    first = {user: rank == 1 for user, rank in zip(ranks["reviewer_id"], ranks["fused"], strict=True)}
    target = dict(zip(ranks["reviewer_id"], ranks["target"], strict=True))
    assert all((target[row["reviewer_id"]] == row["chosen"]) == first[row["reviewer_id"]] for row in rows)
    results = json.loads((run / "next_item" / "results.json").read_text())
    assert results["endorsements"]["users"] == {"all": len(rows), "hits": sum(first.values())}
    interval = results["endorsements"]["scores"]["all"]["product_endorsement"]["rougeLsum"]
    assert main(["report", str(run)]) == 0
    shown = f"{interval['mean']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]"
    assert shown in (run / "report.html").read_text()
    (card,) = [text for heading, text in _evaluations(run, "model") if heading == "Next item"]
    assert shown in card
    assert dict(_evaluations(run, "dataset")) == {}


def check_that_it_only_ranks(run, regen, history, capsys):
    """A model without tasks offers no texts, and no text of it is shown."""
    assert regen.processor.task_prompts == {}
    for call in (
        lambda: regen.recommend(history, explain=True),
        lambda: regen.stream_recommendation(history),
        lambda: regen.endorse(history, {"title": "pen"}),
        lambda: regen.narrate(history, "user_profile"),
        lambda: regen.stream(history, "user_profile"),
    ):
        with pytest.raises(ValueError, match="this model has no tasks: it was trained to rank items only"):
            call()
    capsys.readouterr()
    for command in ("evaluate", "grounding"):
        assert main([command, str(run)]) == 1
        assert f"Evaluate its ranking with `regen next-item {run}`" in capsys.readouterr().err
    assert main(["run", str(run), "--until", "attribution"]) == 0
    assert capsys.readouterr().err.count("skipped, because the model writes no texts (training.tasks is empty)") == 2
    Run(run).need(STAGES["figures"])  # does not read the old evaluation
    assert [name for topic in (results, attribution) for name, _ in topic.draw(run)] == ["loss"]
    assert summary(run).startswith("Next purchase of ")
    card = (run / "model" / "README.md").read_text()
    assert "text that it generates means nothing" in card
    assert "model.pipeline(processor).recommend(history, n=5)" in card
    assert "task=" not in card
    assert "narratives" not in card
    assert main(["report", str(run)]) == 0
    html = (run / "report.html").read_text()  # the evaluation in this folder is of an earlier model
    assert "It was trained to rank items only" in html
    assert 'id="shoppers"' not in html
    assert 'id="scores"' not in html


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="tasks contains nothing"):
        TrainingConfig(tasks=())
    for changes in ({"history": "text"}, {"adapter": "transformer"}, {"interaction_features": ("age",)}):
        with pytest.raises(ValueError, match="next_item_weight"):
            TrainingConfig(next_item_weight=1.0, **changes)
