"""Narratives and ratings of complete runs by a language model (a scripted server) and by the rules."""

import json
import re
from pathlib import Path

import pytest
from datasets import load_dataset

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.run import Run
from regen_hf.schema import METADATA, RATED, SPLITS, offered_tasks
from regen_hf.stages.ratings.prompted import answer_of
from tests.llm_server import Server, answer_to, completion
from tests.paths import SHARED_DATA

TASKS = offered_tasks()

GIFT_CARDS = SHARED_DATA / "gift_cards_2018"
WORLDS = {
    "sample": ["--sample", "--set", "sample.shoppers=60", "--set", "sample.items=64"],
    "gift_cards": [
        *("--reviews", str(GIFT_CARDS / "Gift_Cards_5.json.gz")),
        *("--items", str(GIFT_CARDS / "meta_Gift_Cards.json.gz")),
        *("--set", "sequences.min_history=7"),  # 136 of the 458 users
    ],
}


WORDING = {
    "purchase_reason": "Shoppers like them pick {} for the next occasion",
    "purchase_reason_explanation": "Earlier choices point to {} as well, and nothing speaks against it",
    "brief_user_summary": "This customer shops for {} and the like",
    "long_user_summary": "Whoever reads the whole history sees one taste in it, which ends with {} so far",
    "product_endorsement": "You will enjoy {} as much as what you praised before",
    **{f"critique_{number}": f"I would rather see the one on page {word}" for number, word in enumerate("xyz", 1)},
}


def text_about(title, field):
    """A text about a product for a field of the answer, which passes all checks."""
    return WORDING[field].format(" ".join(title.split()[:25])) + "."


def fault(number, body):
    """Texts with the title at the end of the history, and scores that differ between votes."""
    schema = body["response_format"]["json_schema"]["schema"]
    answer = answer_to(schema)
    data = body["messages"][-1]["content"]
    final = data[data.rindex("Final item: yes") :]
    title = re.search(r"^Title: (.*)$", final, re.MULTILINE)[1]
    if "reasoning" in answer:
        answer = {
            k: v if k == "reasoning" else schema["properties"][k]["enum"][2 + body["seed"] % 4]
            for k, v in answer.items()
        }
    else:
        answer = {
            field: "Keen buyer of good things" if field == "user_profile" else text_about(title, field)
            for field in answer
        }
    return 200, {}, completion(json.dumps(answer))


@pytest.fixture(scope="module", params=["sample", pytest.param("gift_cards", marks=pytest.mark.real_data)])
def world(request, tmp_path_factory):
    """(rows by the scripted model, rows by the rules, dataset card of the model's run, agreement of its votes)"""
    if request.param == "gift_cards":
        request.getfixturevalue("shared_data")  # skips where they do not exist
    runs = tmp_path_factory.mktemp(request.param)
    until = [*WORLDS[request.param], "--until", "dataset"]
    assert main(["run", str(runs / "rules"), *until]) == 0
    with Server(fault) as server:
        settings = {
            "narratives": {"backend": "openai", "model": "writer", "base_url": server.url, "fix": 1},
            "ratings": {
                **{"backend": "openai", "model": "judge-a", "more_models": "[judge-b]", "base_url": server.url},
                **{"votes": 2, "concurrency": 32},
            },
        }
        given = [f"{name}.{key}={value}" for name, keys in settings.items() for key, value in keys.items()]
        assert main(["run", str(runs / "model"), *until, *(word for one in given for word in ("--set", one))]) == 0
        sent = len(server.bodies)
        assert main(["run", str(runs / "model"), "--until", "dataset"]) == 0
        assert len(server.bodies) == sent
    rows = {
        name: [row for split in load_dataset(str(runs / name / "dataset")).values() for row in split]
        for name in ("model", "rules")
    }
    card = (runs / "model" / "dataset" / "README.md").read_text()
    agreement = json.loads((runs / "model" / "ratings" / "agreement.json").read_text())
    return rows["model"], rows["rules"], card, agreement, sent


def test_every_user_has_all_narratives_about_their_own_history(world):
    rows, *_ = world
    assert rows
    for row in rows:
        title = row["purchase_history"][-1]["item"]["title"]
        for name, task in TASKS.items():
            assert task.text(row) == (
                "Keen buyer of good things" if name == "user_profile" else text_about(title, name)
            )


def test_every_row_names_its_narrator_rater_prompts_and_results_of_the_checks(world):
    rows, by_rules, card, *_ = world
    assert {(row["narrator"], row["rater"]) for row in rows} == {("writer", "judge-a, judge-b")}
    (prompts,) = {(row["narrator_prompt"], row["rater_prompt"]) for row in rows}
    assert re.fullmatch(r"narratives 2 \(\w{8}\), endorsement 2 \(\w{8}\), critique 1 \(\w{8}\)", prompts[0])
    assert re.fullmatch(r"ratings 3 \(\w{8}\)", prompts[1])
    assert {(row["narrator_left_out"], row["rater_left_out"]) for row in rows} == {(0, 0)}
    assert "`writer`" in card
    assert "rated by the language models `judge-a`, `judge-b`" in card
    assert "Failed checks: none." in card
    assert {(row["narrator"], row["rater"]) for row in by_rules} == {("reference", "reference")}
    assert {(row["narrator_prompt"], row["rater_prompt"]) for row in by_rules} == {(None, None)}
    for row in [*rows, *by_rules]:
        assert row["checks"]["profile"]["words"] in (4, 5, 6)
        assert row["checks"]["long_summary"]["words"] == len(row["user"]["long_summary"].split())
        assert row["checks"]["reason"]["refusal"] is False
    assert not [row["checks"]["failed"] for row in by_rules if row["checks"]["failed"]]


def test_every_user_is_scored_in_all_stages_with_every_vote_counted(world):
    rows, _, _, agreement, sent = world
    assert 0 < agreement["stages"]["critique"]["leak"]["users"] < len(rows)
    for row in rows:
        assert set(row["metadata"]) == set(RATED)
        for stage, scores in row["metadata"].items():
            assert list(scores) == [field.name for field in METADATA.field(stage).type]
            rated = stage != "critique" or row["last_purchase"]["critique"]
            # The votes are 3 and 4: no majority, the mean rounded down.
            assert set(scores.values()) == {3 if rated else None}
    assert agreement["users"] == len(rows)
    assert agreement["stages"]["user"]["veracity"]["flip_rate"] == 1
    assert agreement["stages"]["user"]["veracity"]["settling"][0] == {"votes": 1, "same": 1.0, "difference": 0.0}
    assert sent >= len(rows) * (2 + 4 * 2)
    assert len({answer_of(stage).__name__ for stage in RATED}) == 5


# Importing the guide's kernels imports torch.compile, whose own modules use what torch has deprecated.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_local_model_of_random_weights_gives_valid_rows_from_history_to_dataset(tmp_path, monkeypatch):
    from tests.llm.test_llm_local import save_tiny_llama

    # The name of the model seeds the sampling: the same in every folder, as not every sample is a usable answer.
    monkeypatch.chdir(tmp_path)
    model = Path("models/llama")
    save_tiny_llama(model)
    config = json.loads((model / "config.json").read_text())
    # A token of this tokenizer is little more than a byte.
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16_000}))
    local = {"backend": "transformers", "model": str(model)}
    settings = {
        "sequences": {"sample": True},
        "sample": {"shoppers": 1, "items": 48},
        "narratives": {**local, "examples": "none", "max_tokens": 200, "window": 15_000},
        "ratings": {**local, "max_tokens": 700, "window": 15_000},
        "dataset": {"name": "tiny"},
    }
    run = Run(tmp_path / "run", settings)
    with run.locked():
        run.save()
        run.build_all(until="dataset")
    rows = [row for split in SPLITS for row in outputs.rows(outputs.split_files(run.folder / "dataset", split))]
    assert len(rows) == 1
    for row in rows:
        assert (row["narrator"], row["rater"]) == ("llama", "llama")  # without the folders of this machine
        assert all(task.text(row) for name, task in TASKS.items() if not name.startswith("purchase_reason"))
        assert all(1 <= score <= 7 for part in row["metadata"].values() for score in part.values() if score is not None)
        assert set(row["metadata"]["user"].values()) != {None}
        # The checks reject random letters.
        assert {"long_summary.language", "profile.words"} & set(row["checks"]["failed"])
    manifest = json.loads((run.folder / "narratives" / "manifest.json").read_text())
    assert manifest["counts"]["failed"] == 0
    assert sum(manifest["counts"]["failed_checks"].values()) > 0
