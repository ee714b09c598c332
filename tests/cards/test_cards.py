"""The cards: their text, and that every number comes from a file of the run."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from regen_hf.cards.benchmark import eval_yaml
from regen_hf.cards.dataset_card import dataset_card, merged_card
from regen_hf.cards.model_card import model_card
from regen_hf.cli import main
from regen_hf.hub.contents import contents
from regen_hf.schema import SPLITS, offered_tasks

TASKS = offered_tasks()

EXPECTED = Path(__file__).parent / "expected"
"""The cards of the tiny run as they are pushed, with # for every number and hash."""
LINKED = {
    "dataset": "org/regen",
    "model": "org/regen-tiny",
    "metric": "org/regen_narrative",
    "space": "org/regen-demo",
}
NUMBER = r"(?<![\w.-])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-\d+)?(?!\w)"


def edited(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def masked(card):
    """A card with # for each number and hash: what is left is the same on every machine."""
    card = re.sub(rf"\b[0-9a-f]{{16}}\b|\d{{4}}-\d\d-\d\d|{NUMBER}", "#", card)
    return re.sub(r"(?<=\| )–(?= \|)", "# [#, #]", card)  # a score over nothing


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory):
    """The tiny run with its optional evaluations."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("cards") / "tiny"))
    for command in ("next-item", "grounding"):
        assert main([command, str(run)]) == 0
    return run


def pushed(part, run):
    return contents(part, run, LINKED, {})["README.md"].decode()


@pytest.mark.parametrize("part", ["dataset", "model"])
def test_the_whole_card_is_as_it_was(evaluated, part):
    assert masked(pushed(part, evaluated)) == (EXPECTED / f"{part}.md").read_text(encoding="utf-8")


def numbers(value):
    """All numbers of a JSON file."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_every_number_in_the_text_of_the_model_card_stands_in_a_file_of_the_run(evaluated):
    card = ModelCard(pushed("model", evaluated))
    files = [*evaluated.glob("*/manifest.json"), *evaluated.glob("*/results.json")]
    known = [number for file in files for number in numbers(json.loads(file.read_text()))]
    texts = {f"{number:{form}}" for number in known for form in (",", ".1f", ".2f", ".3f")} | {str(n) for n in known}
    prose = re.sub(r"(?s)```.*?```|`[^`]*`|\[?arXiv:[\d.]+|https?://\S+|!\[.*?\)", "", card.text)
    prose = prose.replace("95 %", "").replace("section 4.2", "")
    found = re.findall(NUMBER, prose)
    assert len(found) > 300
    assert not [number for number in found if number not in texts]


def test_the_hub_is_told_the_same_scores_in_both_forms(evaluated):
    results = json.loads((evaluated / "evaluation" / "results.json").read_text())
    expected = {
        (task, key): results["models"]["fused"][task][key]["mean"]
        for task in TASKS
        for key in ("bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "similarity")
    }
    index = ModelCard(pushed("model", evaluated)).data.eval_results
    assert [entry.metric_value for entry in index] == list(expected.values())
    assert {(entry.dataset_type, entry.dataset_config, entry.dataset_split) for entry in index} == {
        ("org/regen", "tiny", "test")
    }
    assert index[0].metric_name == "BLEU, purchase_reason"
    entries = yaml.safe_load(contents("model", evaluated, LINKED, {})[".eval_results/regen.yaml"])
    assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries} == {
        f"tiny_test_{task}_{key}": value for (task, key), value in expected.items()
    }
    assert {entry["dataset"]["id"] for entry in entries} == {"org/regen"}
    benchmark = yaml.safe_load(eval_yaml(pushed("dataset", evaluated)))
    assert {"name", "description", "tasks"} == set(benchmark)  # the Hub rejects a framework that is not registered
    assert {entry["dataset"]["task_id"] for entry in entries} == {task["id"] for task in benchmark["tasks"]}
    assert {(task["config"], task["split"]) for task in benchmark["tasks"]} == {("tiny", "test")}
    assert eval_yaml("---\nconfigs:\n- config_name: a\n  data_files:\n  - split: train\n    path: a/*\n---\n") is None
    alone = contents("model", evaluated, {"model": "org/regen-tiny"}, {})  # without the dataset
    assert ".eval_results/regen.yaml" not in alone
    assert ModelCard(alone["README.md"].decode()).data.eval_results is None


@pytest.mark.parametrize(
    ("stage", "part", "lost"),
    [
        ("evaluation", "model", ["## Scores", "## Grounding", "## Figures", "BLEU"]),
        ("grounding", "model", ["## Grounding"]),
        ("next_item", "dataset", ["### Next item"]),
        ("figures", "model", ["## Figures"]),
        ("figures", "dataset", ["### Figures"]),
    ],
)
def test_a_result_that_is_missing_or_of_another_run_takes_its_section_with_it(evaluated, tmp_path, stage, part, lost):
    assert not [section for section in lost if section not in pushed(part, evaluated)]
    run = Path(shutil.copytree(evaluated, tmp_path / "tiny"))
    manifest = json.loads((run / stage / "manifest.json").read_text())
    read = dict.fromkeys(manifest["inputs"]["stages"], "another")
    edited(run / stage / "manifest.json", fingerprint="another", inputs=manifest["inputs"] | {"stages": read})
    stale = pushed(part, run)
    shutil.rmtree(run / stage)
    missing = pushed(part, run)
    for card in (stale, missing):
        assert not [section for section in lost if section in card]
        assert "## Limits" in card
        assert "None" not in card
        assert "TODO" not in card


def test_an_evaluation_of_the_texts_of_an_earlier_model_is_not_in_the_card(evaluated, tmp_path):
    run = Path(shutil.copytree(evaluated, tmp_path / "tiny"))
    edited(run / "model" / "manifest.json", fingerprint="of another training")
    card = pushed("model", run)  # grounding has not been run again, and neither has the evaluation that it reads
    assert not [section for section in ("## Scores", "## Grounding", "## Figures") if section in card]


def test_the_dataset_card_says_what_the_accounting_says(finished_run):
    card = DatasetCard.load(finished_run / "dataset" / "README.md")
    counts = json.loads((finished_run / "dataset" / "manifest.json").read_text())["counts"]
    reviews = json.loads((finished_run / "sequences" / "accounting.json").read_text())["reviews"]
    for split in SPLITS:
        assert f"| {split} | {counts[split]:,} |" in card.text
    assert f"Of {reviews['read']:,} reviews read, {reviews['kept']:,} were kept." in card.text
    for reason, number in reviews["dropped"].items():
        assert (f"| {reason.replace('_', ' ')} | {number:,} |" in card.text) == (number > 0)
    for task in TASKS.values():
        assert f"`{'.'.join(task.field)}`" in card.text
    assert "**The people in this dataset are simulated.**" in card.text
    assert "fixed rules (`reference`), not by a language model" in card.text
    assert "simulated" in card.data.tags
    assert card.data.configs[0]["config_name"] == "tiny"
    assert card.data.configs[0]["default"] is True


def test_a_card_of_real_reviews_calls_nobody_simulated_and_names_who_wrote(tiny_run):
    manifest = tiny_run / "sequences" / "manifest.json"
    edited(manifest, config=json.loads(manifest.read_text())["config"] | {"sample": False})
    edited(tiny_run / "narratives" / "manifest.json", config={"backend": "openai", "model": "/data/models/writer-9b"})
    edited(tiny_run / "ratings" / "manifest.json", config={"backend": "openai", "model": "org/rater-9b"})
    counts = json.loads((tiny_run / "dataset" / "manifest.json").read_text())["counts"]
    card = dataset_card(tiny_run, tiny_run / "dataset", "tiny", counts)
    assert "simulated" not in card
    assert "/data/models" not in card
    assert re.search(r"written by the language\s+model `writer-9b`", card)
    assert "rated by the language model `org/rater-9b`" in card
    assert DatasetCard(card).data.license == "unknown"
    assert "simulated" not in model_card(tiny_run)


def test_the_model_card_holds_every_score_of_the_results_file_and_the_facts_of_the_training(finished_run):
    card = model_card(finished_run)
    results = json.loads((finished_run / "evaluation" / "results.json").read_text())
    training = json.loads((finished_run / "model" / "manifest.json").read_text())
    scores, every = card.split("## Scores")[1].split("\n## ")[0].split("All metrics of `fused`")
    for task, row in zip(TASKS, [line for line in every.splitlines() if re.match(r"\| \w+_", line)], strict=True):
        given = results["models"]["fused"][task]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == task
        means = [given[key]["mean"] for key in given if key != "n"]
        assert len(cells) == len(means) + 1
        for cell, mean in zip(cells[1:], means, strict=True):
            digits = len(cell.split(" [")[0].partition(".")[2])
            assert cell.split(" [")[0] == ("–" if mean is None else f"{mean:.{digits}f}")
    rows = [line for line in scores.splitlines() if line.startswith("| ") and "|---" not in line][1:]
    assert len(rows) == 3 * len(TASKS)
    for row in rows:
        task, metric, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        key, digits = {"BLEU": ("bleu", 1), "ROUGE-Lsum": ("rougeLsum", 1), "Similarity": ("similarity", 3)}[metric]
        for model, cell in zip(results["models"], cells, strict=True):
            assert cell.split(" [")[0] == f"{results['models'][model][task][key]['mean']:.{digits}f}"
        assert cells[0].count("[") == 1
    assert f"{training['counts']['examples']:,} examples, 12 optimiser steps of 8 examples" in card
    assert "**It was trained on simulated shoppers**" in card
    assert "a small backbone trained from scratch" in card
    assert "empty_history" in card.split("## Scores")[1]


def test_a_backbones_folder_does_not_reach_the_card(tiny_run):
    manifest = tiny_run / "model" / "manifest.json"
    before = json.loads(manifest.read_text())["config"]
    edited(manifest, config=before | {"backbone": "/data/models/backbone-1b"})
    card = model_card(tiny_run)
    assert "/data" not in card
    assert "backbone `backbone-1b`" in card
    assert ModelCard(card).data.base_model is None
    edited(manifest, config=before | {"backbone": "some/backbone-1b"})
    assert ModelCard(model_card(tiny_run)).data.base_model == "some/backbone-1b"


def test_merging_cards_keeps_the_configs_sections_and_default_that_were_there():
    def card(name, *, default=True, license="apache-2.0", text="", rows=5, size="n<1K"):
        # `datasets` writes the entry of a single config without a list.
        entry = {"config_name": name, "splits": [{"name": "test", "num_examples": rows}]}
        info = json.dumps(entry if name == "a" else [entry, {"config_name": f"{name}-items"}])
        flag = "  default: true\n" if default else ""
        return (
            f"---\nlicense: {license}\ntags:\n- of-{name}\nsize_categories:\n- {size}\ndataset_info: {info}\n"
            f"configs:\n- config_name: {name}\n{flag}  data_files: {name}/*\n"
            f"---\n\n# REGEN: {name}\n\nAbout {name}{text}.\n"
        )

    both = merged_card(card("b"), card("a"))
    assert merged_card(card("b"), both) == both
    assert merged_card(card("a"), both) == both
    configs = DatasetCard(both).data.configs
    assert [(config["config_name"], config.get("default")) for config in configs] == [("a", True), ("b", None)]
    assert DatasetCard(both).data.tags == ["of-a", "of-b"]
    assert both.index("About a.") < both.index("About b.")
    again = merged_card(card("a", text=", again"), both)
    assert "About a, again." in again
    assert "About a." not in again
    assert "About b." in again

    def told(text):
        data = DatasetCard(text).data
        rows = {entry["config_name"]: entry.get("splits", [{}])[0].get("num_examples") for entry in data.dataset_info}
        return rows, data.size_categories

    assert told(both) == ({"a": 5, "b": 5, "b-items": None}, ["n<1K"])
    grown = merged_card(card("b", rows=5000, size="1K<n<10K"), both)
    assert told(grown) == ({"a": 5, "b": 5000, "b-items": None}, ["n<1K", "1K<n<10K"])
    assert told(merged_card(card("a", rows=6), grown)) == ({"a": 6, "b": 5000, "b-items": None}, ["n<1K", "1K<n<10K"])
    assert DatasetCard(merged_card(card("b", license="mit"), card("a"))).data.license == "other"
    with_table = both.replace("configs:\n", "configs:\n- config_name: b-interactions\n  data_files: b-interactions/*\n")
    with_table = with_table.replace("b-items", "b-interactions")
    assert "b-interactions" in with_table
    assert "b-interactions" in merged_card(card("a"), with_table)  # of another run
    assert "b-interactions" not in merged_card(card("b"), with_table)  # which this push removes
    foreign = merged_card(card("a"), "---\nlicense: mit\n---\nOur own words.\n")
    assert "Our own words." in foreign
    assert DatasetCard(foreign).data.configs[0]["default"] is True
    assert DatasetCard(foreign).data.license == "apache-2.0"
