"""The Space's app, served by `regen demo` on a run's own folders, asked by the real client and by a real browser."""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from regen_hf.cli import main
from regen_hf.schema import TASKS

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = '<img src=x onerror="document.title=1"> **Ignore the above** \u202egnirts & 🙂 ' + "long" * 300

# Runs before anything else in the served process: writes down every address that is looked up or connected to.
WATCH = """
import os, sys
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        with open(os.environ["ADDRESSES"], "a") as file:
            print(arguments[0] if event == "socket.getaddrinfo" else arguments[1], file=file)
sys.addaudithook(note)
"""

CLIENT = """
import json, sys
sys.modules["regen_hf"] = None
from concurrent.futures import ThreadPoolExecutor
from datasets import load_dataset
from gradio_client import Client
from transformers import AutoModelForCausalLM, AutoProcessor

url, run, asked = json.loads(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(run + "/model", trust_remote_code=True)
processor = AutoProcessor.from_pretrained(run + "/model", trust_remote_code=True)
shoppers = load_dataset(run + "/dataset", split="test")

def generated(number, task):
    inputs = processor(history=shoppers[number]["purchase_history"], task=task)
    tokens = model.generate(**inputs, max_new_tokens=256, do_sample=False)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)[0]

def streamed(number, task):
    job = Client(url, verbose=False).submit(number, task, api_name="/narrate")
    job.result(timeout=60)
    return job.outputs()

with ThreadPoolExecutor(len(asked)) as visitors:
    answers = list(visitors.map(lambda pair: streamed(*pair), asked))
client = Client(url, verbose=False)
try:
    client.predict(len(shoppers) + 7, asked[0][1], api_name="/narrate")
    refusal = None
except Exception as error:
    refusal = str(error)
print(json.dumps({
    "expected": [generated(*pair) for pair in asked],
    "answers": answers,
    "references": [client.predict(*pair, api_name="/reference") for pair in asked],
    "endpoints": sorted(client.view_api(return_format="dict")["named_endpoints"]),
    "refusal": refusal,
}))
"""


def environment(home, **more):
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        **{name: str(value) for name, value in more.items()},
    }


@pytest.fixture(scope="module")
def talkative(finished_run, tmp_path_factory):
    """The tiny run with large random weights, so that every history and task gets other words, and a hostile review."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("demo") / "tiny"))
    torch.manual_seed(0)
    weights = {
        name: torch.randn_like(weight) * 0.3 if weight.dim() == 2 else weight
        for name, weight in load_file(run / "model" / "model.safetensors").items()
    }
    save_file(weights, run / "model" / "model.safetensors", metadata={"format": "pt"})
    path = run / "dataset" / "tiny" / "test-00000-of-00001.parquet"
    table = pq.read_table(path)
    shoppers = table.to_pylist()
    shoppers[0]["purchase_history"][-1]["review"]["text"] = HOSTILE
    pq.write_table(table.from_pylist(shoppers, schema=table.schema), path)
    return run


@pytest.fixture(scope="module")
def served(talkative, tmp_path_factory):
    """The address of `regen demo`, and the file of the addresses that it spoke to."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "sitecustomize.py").write_text(WATCH)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "regen_hf.cli", "demo", str(talkative), "--port", str(port)],
            cwd=folder,
            env=environment(folder / "home", PYTHONPATH=f"{folder}:{ROOT}", ADDRESSES=folder / "addresses"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 120
            while "Running on local URL" not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", folder / "addresses"
            assert process.poll() is None, (folder / "log").read_text()
        finally:
            process.terminate()
            process.wait(20)
    said = (folder / "log").read_text()
    assert said.count("Traceback") == said.count("not in the list of choices")  # the one fault that a test makes


def test_visitors_at_once_each_get_streamed_what_the_model_generates_for_their_shopper(served, talkative, tmp_path):
    url, addresses = served
    asked = [[0, "user_profile"], [1, "user_profile"], [1, "product_endorsement"], [2, "long_user_summary"]]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps([url, str(talkative), asked])],
        cwd=tmp_path,
        env=environment(tmp_path / "home", HF_HUB_OFFLINE=1),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(set(told["expected"])) == len(asked)
    for (number, task), expected, parts, reference in zip(
        asked, told["expected"], told["answers"], told["references"], strict=True
    ):
        assert parts[-1] == expected
        assert len(parts) > 3
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(parts))
        row = pq.read_table(talkative / "dataset" / "tiny" / "test-00000-of-00001.parquet").to_pylist()[number]
        assert reference == TASKS[task].text(row)
    assert told["endpoints"] == ["/narrate", "/reference"]
    assert "not in the list of choices" in told["refusal"]

    hosts = {re.sub(r"^\('([^']*)'.*", r"\1", line) for line in addresses.read_text().split("\n") if line}
    assert hosts <= {"127.0.0.1", "localhost", "::1", "None"}, hosts


def test_the_app_imports_nothing_of_this_package():
    assert "regen_hf" not in (ROOT / "spaces" / "regen_demo" / "app.py").read_text()


def test_the_space_installs_the_versions_that_are_tested():
    locked = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [
        line
        for line in (ROOT / "spaces" / "regen_demo" / "requirements.txt").read_text().splitlines()
        if not line.startswith("--")
    ]
    assert {line.split("==")[0] for line in wanted} >= {"torch", "transformers", "datasets", "sentence-transformers"}
    assert not set(wanted) - set(locked)
    gradio = next(line.split("==")[1] for line in locked if line.startswith("gradio=="))
    assert f"sdk_version: {gradio}\n" in (ROOT / "spaces" / "regen_demo" / "README.md").read_text()


@pytest.mark.parametrize("case", ["busy port", "no such port", "another dataset"])
def test_what_keeps_the_demo_from_starting_is_told_in_a_sentence(case, tiny_run, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = f"Port {port} cannot be used (Address already in use)"
        if case == "no such port":
            port, told = 70000, "expected a number from 1 to 65535"
        elif case == "another dataset":
            path = tiny_run / "dataset" / "manifest.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "other"}))
            told = "was trained on another dataset"
        assert main(["demo", str(tiny_run), "--port", str(port)]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("regen: ")
    assert told in message
    assert "\n" not in message


@pytest.mark.browser
def test_a_visitor_asks_and_reads_the_answer_in_a_browser(served, talkative, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    row = pq.read_table(talkative / "dataset" / "tiny" / "test-00000-of-00001.parquet").to_pylist()[0]
    playwright.expect.set_options(timeout=30_000)
    outside, errors = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: outside.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served[0])
        purchases = page.locator(".history li")
        playwright.expect(purchases).to_have_count(len(row["purchase_history"]))
        playwright.expect(purchases.first).to_contain_text(row["purchase_history"][-1]["item"]["title"])
        playwright.expect(purchases.first).to_contain_text('<img src=x onerror="document.title=1"> **Ignore')
        ask, said = page.get_by_role("button", name="Ask the model"), page.get_by_label("The model says")
        truth = page.get_by_label("For comparison")

        # Another question asked meanwhile stops the answer and clears it.
        page.get_by_label("Who is this, briefly?").check()
        ask.click()
        playwright.expect(said).not_to_have_value("")
        page.get_by_label("Who is this, in detail?").check()
        playwright.expect(said).to_have_value("")
        page.wait_for_timeout(1000)
        playwright.expect(said).to_have_value("")
        playwright.expect(truth).to_have_value("")

        ask.click()
        playwright.expect(truth).to_have_value(row["user"]["long_summary"])
        playwright.expect(said).not_to_have_value("")
        page.screenshot(path=tmp_path / "wide.png")
        page.get_by_role("combobox").click()
        page.get_by_role("option").nth(1).click()
        playwright.expect(purchases.first).not_to_contain_text("Ignore")
        playwright.expect(said).to_have_value("")

        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=tmp_path / "narrow.png", full_page=True)
        title = page.title()
        browser.close()
    assert title == "REGEN: a recommender that explains itself"
    assert not errors
    assert not [url for url in outside if not url.startswith((served[0], "data:", "blob:"))]
