"""The report: one file with all outputs of a run, safe with hostile text in the data, and enough to run it again."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from regen_hf.cli import main
from regen_hf.llm.request import Reply, Sent
from regen_hf.llm.store import Store
from regen_hf.metrics.tables import markdown
from regen_hf.outputs import split_files
from regen_hf.report import reproduction
from regen_hf.run import Run
from regen_hf.run.stages import STAGES
from regen_hf.schema import offered_tasks
from tests.spaces.test_demo import CHROMIUM, HOSTILE

TASKS = offered_tasks()

SCRIPT = "</pre><script>document.title=2</script>{{ 7*7 }}<a href='javascript:1'>a</a>"


class Page(HTMLParser):
    """Tags with their attributes, and the text by the id that it stands under."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.section, self.under = [], {}, None, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.section = given.get("id", self.section)

    def handle_endtag(self, tag):
        if tag == "pre":
            self.section = None

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, "") + data


@pytest.fixture(scope="module")
def reported(finished_run, tmp_path_factory):
    """The tiny run with hostile reviews and narratives, and its report."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("reported") / "tiny"))
    (path,) = split_files(run / "dataset", "test")
    table = pq.read_table(path)
    shoppers = table.to_pylist()
    last = shoppers[0]["purchase_history"][-1]
    last["review"]["text"], last["item"]["title"] = HOSTILE, SCRIPT
    pq.write_table(table.from_pylist(shoppers, schema=table.schema), path)
    path = run / "evaluation" / "predictions.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["prediction"] = SCRIPT
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    assert main(["report", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def page(reported):
    return Page((reported / "report.html").read_text())


def test_every_part_of_the_run_is_in_the_one_file(reported, page):
    results = json.loads((reported / "evaluation" / "results.json").read_text())
    assert list(page.text)[1:] == [
        *(
            "data",
            "narratives",
            "ratings",
            "training",
            "scores",
            "attribution",
            "shoppers",
            "stages",
            "reproduction",
            "config",
        ),
    ]
    interval = results["models"]["fused"]["user_profile"]["similarity"]
    assert f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" in page.text["scores"]
    assert all(model.replace("_", " ") in page.text["scores"] for model in results["models"])
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(list((reported / "figures").glob("*.png")))
    assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in pictures)
    for stage in Run(reported).stages:
        assert stage.command in page.text["stages"]
    assert "none: fixed rules" in page.text["stages"]
    assert "torch" in page.text["stages"]
    assert "give only similar" in page.text["reproduction"]
    (head,) = (text for section, text in page.text.items() if section is None)
    assert "Simulated data" in head


def test_shoppers_stand_with_reference_and_narratives_side_by_side(reported, page):
    rows = pq.read_table(reported / "evaluation" / "predictions.parquet").to_pylist()
    shown = page.text["shoppers"]
    for row in rows:
        assert row["reviewer_id"] in shown
        assert row["reference"] in shown
    assert all(task.replace("_", " ") in shown for task in TASKS)


def test_text_of_the_data_is_escaped(page):
    assert SCRIPT in page.text["shoppers"]
    assert HOSTILE[:200].replace("\u202e", r"\u202e") in page.text["shoppers"]
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


@pytest.mark.browser
def test_it_works_in_a_browser_without_any_network_request(reported, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    playwright.expect.set_options(timeout=60_000)
    said, asked = [], []
    address = (reported / "report.html").as_uri()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
        page.set_default_timeout(120_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("link", name="Attribution").click()
        playwright.expect(page.get_by_role("heading", name="Attribution")).to_be_in_viewport()
        for _ in range(2):  # what lies folded within what was folded
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        playwright.expect(page.get_by_text("document.title=1").first).to_be_visible()
        broken = "[...document.images].filter(image => !image.naturalWidth).length"
        assert page.evaluate(broken) == 0
        page.screenshot(path=tmp_path / "wide.png", full_page=True)
        page.emulate_media(color_scheme="light")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        table = page.locator("#scores .scroll").first
        assert table.evaluate("each => each.scrollWidth > each.clientWidth")
        page.screenshot(path=tmp_path / "narrow.png", full_page=True)
        title = page.title()
        browser.close()
    assert title == "tiny: report of a run"
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {address, f"{address}#attribution"} & set(asked)


def test_the_settings_of_the_report_give_the_same_numbers(reported, page, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(page.text["config"])
    assert main(["run", "again", "--config", "config.yaml"]) == 0
    for name in (
        "evaluation/results.json",
        "model/training_log.json",
        "ratings/agreement.json",
        "attribution/results.json",
    ):
        again, before = (json.loads((folder / name).read_text()) for folder in (Path("again"), finished_run))
        if isinstance(again, list):  # the log tells seconds too
            again, before = ([entry.get("loss") for entry in log] for log in (again, before))
        assert again == before
    for name in ("evaluation/predictions.parquet", "attribution/map.parquet", "attribution/items.parquet"):
        assert pq.read_table(Path("again") / name).equals(pq.read_table(finished_run / name))


def test_a_missing_part_is_left_out(finished_run, tmp_path, capsys):
    for name in ("sample", "sequences"):
        shutil.copytree(finished_run / name, tmp_path / "some" / name)
    for name in ("run.json", "config.yaml"):
        shutil.copy(finished_run / name, tmp_path / "some" / name)
    assert main(["report", str(tmp_path / "some")]) == 0
    page = Page((tmp_path / "some" / "report.html").read_text())
    assert list(page.text)[1:] == ["data", "stages", "reproduction", "config"]
    assert "img" not in {tag for tag, _ in page.tags}
    shutil.rmtree(tmp_path / "some" / "sequences")
    capsys.readouterr()
    assert main(["report", str(tmp_path / "some")]) == 1
    assert "has no outputs to report yet" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_available_results_of_optional_stages_are_shown(tiny_run):
    interval = {"mean": 0.25, "low": 0.125, "high": None}
    models = {"popularity": {"warm": {"n": 5, "mrr": {**interval, "high": 0.5}, "kinds": {"price": {"facts": 1}}}}}
    (tiny_run / "next_item").mkdir()
    told = {"split": "test", "n_users": 5, "models": models, "about": {"popularity": "most bought first"}}
    (tiny_run / "next_item" / "results.json").write_text(json.dumps(told))
    judged = {
        "n": 6,
        "win_rate": {**interval, "high": 0.75},
        "position_bias": {"turned": 0.125},
        "judges": {"a": {"b": {}}},
    }
    sides = {"run": {"name": "tiny", "model": "fused"}, "other": {"name": "big", "model": "cf"}, "judges": ["J"]}
    (tiny_run / "judge").mkdir()
    (tiny_run / "judge" / "results.json").write_text(json.dumps({**sides, "tasks": {"user_profile": judged}}))
    (tiny_run / "comparison").mkdir()
    grid = [
        ["Output Feature", "Metrics", "CF"],
        ["User Profile", "BLEU", "17.5"],
        ["User Profile", "Similarity", "0.625"],
    ]
    compared = f"4 users.\n\n{markdown(grid)}\n\n- CF: run a & b\n\n## Controls\n\n{markdown(grid[:2])}\n"
    (tiny_run / "comparison" / "comparison.md").write_text(compared)
    assert main(["report", str(tiny_run)]) == 0
    text = Page((tiny_run / "report.html").read_text()).text
    assert "tiny (fused) against big (cf), judged by J." in text["judge"]
    assert re.search(r"position bias: turned\s*user profile\s*6\s*0\.250 \[0\.125, 0\.750\]\s*0\.125", text["judge"])
    assert re.search(
        r"4 users.*BLEU\s*17\.5\s*Similarity\s*0\.625\s*CF: run a & b\s*Controls", text["comparison"], re.S
    )
    shown = text["next-item"]
    assert re.search(r"popularity\s*warm\s*5\s*0\.250 \[0\.125, 0\.500\]", shown)
    assert "most bought first" in shown


def test_settings_show_file_names_and_no_folder_of_this_machine(tmp_path):
    files = {"reviews": [str(tmp_path / "raw" / "*.csv.gz")], "items": [str(tmp_path / "items.csv")]}
    (tmp_path / "encoder").mkdir()
    run = Run(tmp_path / "run", {"sequences": files, "embeddings": {"content_encoder": str(tmp_path / "encoder")}})
    told = reproduction.settings(run)
    assert str(tmp_path) not in told
    assert all(name in told for name in ("'*.csv.gz'", "items.csv", "content_encoder: encoder"))


def test_the_settings_are_those_that_each_stage_ran_with(tiny_run):
    config = tiny_run / "config.yaml"
    before = reproduction.settings(Run(tiny_run))
    edited = config.read_text().replace("max_steps: 12", "max_steps: 77").replace("cf_dim: 12", "cf_dim: 34")
    config.write_text(edited)
    assert main(["report", str(tiny_run)]) == 0
    text = Page((tiny_run / "report.html").read_text()).text
    assert text["config"].strip() == before.strip()
    assert "Stale: embeddings, train, evaluate, attribution, figures." in text["reproduction"]
    assert "replaced" not in text["reproduction"]
    assert main(["embeddings", str(tiny_run)]) == 0
    assert main(["report", str(tiny_run)]) == 0
    text = Page((tiny_run / "report.html").read_text()).text
    assert "cf_dim: 34" in text["config"]
    assert "max_steps: 12" in text["config"]
    assert "The inputs of train, evaluate, attribution have been replaced" in text["reproduction"]


def test_the_cost_is_that_of_the_stored_answers(finished_run, tmp_path):
    run = Path(shutil.copytree(finished_run, tmp_path / "paid"))
    model = {"backend": "openai", "model": "judge", "base_url": "http://localhost:1/v1"}
    prices = {"narratives": {**model, "price_in": 1.0, "price_out": 2.0}, "ratings": model}
    for name in prices:
        with Store(run / "requests" / f"{name}.sqlite") as store:
            store.put(Sent("key", "judge", {}), Reply("", prompt_tokens=1_500_000, completion_tokens=500_000))
    paid = Run(run, prices)
    (stages, _versions) = reproduction.sections(paid)[0].blocks
    costs = {row[0]: row[3] for row in stages.rows}
    assert costs["narratives"] == "1,500,000 tokens in, 500,000 out, 2.50 USD"
    assert costs["ratings"] == "1,500,000 tokens in, 500,000 out, unknown price"
    states = {row[0]: row[1] for row in stages.rows}
    assert (states["sequences"], states["narratives"]) == ("fresh", "stale")
    assert STAGES["sample"].command in states
