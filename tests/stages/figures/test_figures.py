import json
import shutil
from collections import Counter

import pytest

from regen_hf.metrics.counts import Purchases
from regen_hf.outputs import rows, split_files
from regen_hf.schema import RATED, SPLITS, offered_tasks
from regen_hf.stages.evaluation.controls import CONTROLS
from regen_hf.stages.figures import data, ratings, results

TASKS = offered_tasks()


@pytest.fixture(scope="module")
def scored(finished_run):
    return json.loads((finished_run / "evaluation" / "results.json").read_text())


def test_scores_show_every_metric_model_and_task(scored, finished_run):
    figure = results.scores(scored)
    assert [panel.get_xlabel() for panel in figure.axes] == list(results.METRICS.values())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        task.replace("_", " ") for task in TASKS
    ]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [model.replace("_", " ") for model in CONTROLS]
    dots = [line.get_xdata()[0] for line in figure.axes[0].containers[0].get_children()[:1]]
    assert dots == [scored["models"]["fused"]["purchase_reason"]["bleu"]["mean"]]
    for name in ("scores", "loss"):
        assert (finished_run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_every_figure_names_its_run_and_its_counts(finished_run):
    captions = {name: figure.get_supxlabel() for name, figure in results.draw(finished_run)}
    assert captions["scores"].startswith("tiny: narratives of 6 test users")
    counts = json.loads((finished_run / "model" / "manifest.json").read_text())["counts"]
    assert captions["loss"].startswith(f"tiny: {counts['examples']} examples")


def made_up_agreement(votes):
    """As the autorater leaves it: seven users, the score of the attribute's place for all."""
    stages = {}
    for stage, attributes in RATED.items():
        stages[stage] = {}
        for place, attribute in enumerate(attributes):
            scores = [7 * (point == place) for point in range(7)]
            own = {"users": 7, "alpha": 0.5, "majority": 0.75, "flip_rate": 0.25, "settling": []}
            if votes > 1:
                own["settling"] = [{"votes": n, "same": n / votes, "difference": 0.1} for n in range(1, votes + 1)]
            stages[stage][attribute] = {"scores": scores} | ({} if attribute == "confidence" else own)
    joint = [[0] * 7 for _ in range(7)]
    joint[1][4], joint[5][5] = 3, 4
    return {"raters": ["judge"], "votes": votes, "users": 7, "stages": stages, "richness_by_confidence": joint}


def test_the_scale_of_the_richness_is_not_rounded_off():
    table = [[0] * 7 for _ in range(7)]
    for place, count in enumerate((22, 20, 20, 20, 18)):
        table[place][place] = count
    figure = ratings.richness(table)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert "2.5%" in labels
    assert [float(label.rstrip("%")) / 100 for label in labels] == pytest.approx(figure.axes[1].get_yticks().tolist())


def drawn_ratings(tmp_path, told):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "agreement.json").write_text(json.dumps(told))
    return dict(ratings.draw(tmp_path))


def test_the_ratings_are_drawn_as_in_the_paper_with_votes_and_raters(tmp_path):
    figures = drawn_ratings(tmp_path, made_up_agreement(3))
    assert list(figures) == [
        *("rated_purchase_reason", "rated_user_summaries", "rated_endorsement", "rated_critique"),
        *("richness", "agreement", "votes_needed"),
    ]
    panels = figures["rated_user_summaries"].axes
    assert [panel.get_title() for panel in panels] == list(RATED["user"])
    assert [bar.get_height() for bar in panels[2].patches] == [0, 0, 1, 0, 0, 0, 0]
    notes = {panel.get_title(): panel.texts[0].get_text() for panel in figures["rated_endorsement"].axes}
    assert notes["foresight"] == "mean 3.0 (high: hindsight)"
    assert [panel.get_title() for panel in figures["rated_critique"].axes] == list(RATED["critique"])
    assert figures["richness"].axes[0].get_title().startswith("43% below the middle")
    rows = [label.get_text() for label in figures["agreement"].axes[0].get_yticklabels()]
    assert len(rows) == sum(len(attributes) - 1 for attributes in RATED.values())
    assert rows[:2] == ["history: richness", "reason: veracity"]
    (curve, _) = figures["votes_needed"].axes[0].lines
    assert curve.get_ydata().tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert {figure.get_supxlabel().partition(": ")[2] for figure in figures.values()} == {
        "3 votes on each of 7 users by judge"
    }


def test_one_vote_has_no_agreement_to_draw_and_rules_are_never_called_a_model(tmp_path):
    figures = drawn_ratings(tmp_path, {**made_up_agreement(1), "raters": ["reference"]})
    assert not {"agreement", "votes_needed"} & set(figures)
    assert "fixed rules (reference), no language model" in figures["richness"].get_supxlabel()


@pytest.fixture(scope="module")
def purchases(finished_run):
    """All purchases of the tiny run, counted here row by row."""
    files = [path for split in SPLITS for path in split_files(finished_run / "dataset", split)]
    return [(row["reviewer_id"], purchase) for row in rows(files) for purchase in row["purchase_history"]]


@pytest.fixture(scope="module")
def drawn(finished_run):
    return dict(data.draw(finished_run))


def heights(panel):
    return sum(bar.get_height() for bar in panel.patches)


def test_item_counts_show_every_item_and_the_median(drawn, purchases):
    bought = sorted(Counter(purchase["item"]["asin"] for _, purchase in purchases).values())
    (panel,) = drawn["item_counts"].axes
    assert heights(panel) == len(bought)
    assert panel.patches[0].get_x() <= bought[0]
    last = panel.patches[-1]
    assert last.get_x() + last.get_width() > bought[-1]
    assert f"median: {bought[(len(bought) - 1) // 2]} purchases" in panel.texts[0].get_text()


def test_no_step_of_the_item_counts_is_wider_than_the_next_and_no_bar_is_behind_the_median():
    numbers = [count for count in range(4, 95) for _ in range(3)]
    figure = data.item_counts(Purchases(items=Counter({f"B{n}": count for n, count in enumerate(numbers)})))
    (panel,) = figure.axes
    widths = [round(bar.get_width()) for bar in panel.patches]
    assert widths == sorted(widths)
    assert [bar.get_height() for bar in panel.patches[:-1]] == [3 * width for width in widths[:-1]]
    figure.canvas.draw()
    assert panel.texts[0].get_window_extent().y0 >= panel.get_window_extent().y1


def test_history_lengths_hold_every_user(drawn, purchases):
    lengths = Counter(Counter(user for user, _ in purchases).values())
    (panel,) = drawn["history_lengths"].axes
    found = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in panel.patches}
    assert found == lengths


def test_ratings_over_time_hold_every_purchase_by_its_stars(drawn, purchases):
    panel, below = drawn["ratings_over_time"].axes
    found = {bars.get_label(): sum(bar.get_height() for bar in bars) for bars in panel.containers}
    stars = Counter(purchase["review"]["rating"] for _, purchase in purchases)
    assert found == {f"{n} star{'s' if n > 1 else ''}": number for n, number in stars.items()}
    assert all(1 <= mean <= 5 for mean in below.lines[0].get_ydata())


def test_split_sizes_are_those_of_the_accounting(drawn, finished_run):
    sizes = json.loads((finished_run / "sequences" / "accounting.json").read_text())["splits"]
    users, _ = drawn["split_sizes"].axes
    assert [label.get_text() for label in users.get_yticklabels()] == list(sizes)
    assert [bar.get_width() for bar in users.patches] == list(sizes.values())


def test_data_figures_name_the_run_and_its_counts_and_need_only_the_sequences(finished_run, tmp_path, drawn, purchases):
    assert {figure.get_supxlabel() for figure in drawn.values()} == {
        text.format(total=f"{len(purchases):,}")
        for text in (
            "tiny: {total} purchases of 64 items",
            "tiny: {total} purchases of 160 users",
            "tiny: {total} dated purchases",
            "tiny: 160 users with {total} purchases",
        )
    }
    shutil.copytree(finished_run / "sequences", tmp_path / "tiny" / "sequences")
    early = dict(data.draw(tmp_path / "tiny"))
    assert [figure.get_supxlabel() for figure in early.values()] == [f.get_supxlabel() for f in drawn.values()]
    assert dict(data.draw(tmp_path)) == {}
