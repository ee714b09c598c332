import importlib.util
import shutil
import sys

import pytest

from regen_hf.outputs import dataset_files, rows
from tests.paths import ROOT

PATH = ROOT / "benchmarks" / "critiques.py"


@pytest.fixture(scope="module")
def critiques():
    sys.path.insert(0, str(PATH.parent))
    spec = importlib.util.spec_from_file_location("critiques", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(PATH.parent))


def test_the_last_purchase_obeys_each_critique_of_the_sample_world(critiques, finished_run):
    world = critiques.World(finished_run)
    lasts = {
        row["last_purchase"]["critique"]: row["purchase_history"][-1]["item"]["asin"]
        for row in rows(dataset_files(finished_run, "test"))
        if row["last_purchase"]["critique"]
    }
    assert world.users
    for user in world.users:
        before = user["history"][-1]["item"]["asin"]
        assert world.obeys(lasts[user["text"]], user["attribute"], user["value"], before)
        assert not world.obeys(before, user["attribute"], user["value"], before)
        assert 0 < world.share(list(world.items), user["attribute"], user["value"], before) < 1


def test_held_out_words_are_in_no_critique_of_the_training(critiques, finished_run, tmp_path):
    shutil.copytree(finished_run / "dataset", tmp_path / "dataset")

    def said():
        return [row["last_purchase"]["critique"] for row in rows(dataset_files(tmp_path, "train"))]

    before = said()
    critiques.without_held_out(tmp_path / "dataset")
    words = [value for values in critiques.HELD_OUT.values() for value in values]
    kept = [text if text and not any(word in text.lower() for word in words) else None for text in before]
    assert said() == kept
    assert 0 < sum(map(bool, kept)) < sum(map(bool, before))


def test_phrases_ask_for_the_value_and_need_no_other(critiques):
    for attribute in critiques.WORDED:
        for number in range(8):
            for templates in (critiques.PHRASES, critiques.PARAPHRASES):
                text = critiques.phrase(templates[attribute], attribute, "olive", number)
                assert "olive" in text
                assert "{" not in text
