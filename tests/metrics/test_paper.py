"""The figures of the paper."""

import pytest

from regen_hf.metrics import paper
from regen_hf.schema import TASKS
from tests.paths import ROOT

PAPER = ROOT.parent / "shared" / "paper" / "regen_paper.md"


@pytest.mark.real_data
def test_the_papers_figures_are_those_of_the_paper():
    if not PAPER.exists():
        pytest.skip("the paper is not beside this checkout (../shared/paper)")
    names = {task.title: name for name, task in TASKS.items()}
    metrics = {"BLEU": "bleu", "ROUGE-LSum": "rougeLsum", "ROUGE": "rougeLsum", "Similarity": "similarity"}
    tables, task = [], None
    for line in PAPER.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        if cells[:2] == ["Output Feature", "Metrics"] and "CF + Content" in cells:
            tables.append({})
        elif tables and len(cells) >= 5 and cells[1] in metrics:
            task = names.get(cells[0], task)
            tables[-1].setdefault(task, {})[metrics[cells[1]]] = tuple(map(float, cells[2:5]))
    assert tables == [paper.OFFICE.scores, paper.CLOTHING.scores]


def test_the_official_release_is_named_as_the_same_data():
    assert paper.reference("office", released=True)[1].count("of the same dataset") == 1
    assert paper.reference("clothing", released=False)[0] is paper.CLOTHING
    assert "from other data and models" in paper.reference("clothing", released=False)[1]
    assert paper.reference("sample", released=True)[0] is paper.OFFICE
