"""The code blocks of docs/ run unchanged on a run called runs/office."""

import ast
import base64
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from regen_hf.cli import main
from regen_hf.cli.commands import _overrides
from regen_hf.cli.parser import make_parser
from regen_hf.model.export import export_vllm
from regen_hf.model.modeling_regen import RegenForCausalLM
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.run.stages import make_config
from regen_hf.schema import TASKS
from tests.llm_server import Server as LLMServer
from tests.paths import ROOT

PAGES = ROOT / "docs"


def code(page):
    return re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)


def commands(page):
    blocks = re.findall(r"```bash\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("regen ", 1)[1] for line in lines if line.startswith("regen ")]


def messages():
    """The texts of the package, with … for the values in them."""

    def text(node):
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else "…"
        return "".join("…" if isinstance(part, ast.FormattedValue) else text(part) for part in node.values)

    for path in (PAGES.parent / "regen_hf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                yield text(node)


@pytest.fixture
def office(finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished_run / "model", tmp_path / "runs" / "office" / "model"))


def test_the_page_on_using_a_model(office, capsys):
    blocks = code("use_a_model.md")
    names = {}
    processor = RegenProcessor.from_pretrained(office)
    known = processor.cf_asins[int(processor.cf_factors.any(1).argmax())]
    for block in blocks:
        exec(block.replace("B01", known), names)
    assert "['NEW']\n['NEW']\n" in capsys.readouterr().out
    assert RegenProcessor.from_pretrained(office).unknown_items(names["histories"]) == []
    soft, cf_part, content_part = names["soft"], names["cf_part"], names["content_part"]
    assert soft.shape == cf_part.shape == content_part.shape == (1, 1, 32)


def test_the_page_on_recommending(whole_run, capsys):
    settings = ["--next-item-weight", "1", "--max-steps", "1", "--tasks", "product_endorsement"]
    assert main(["train", "runs/office", *settings]) == 0
    office, names = whole_run / "model", {}
    processor = RegenProcessor.from_pretrained(office)
    known = processor.cf_asins[int(processor.cf_factors.any(1).argmax())]
    for block in code("recommend.md"):
        exec(block.replace("B01", known), names)
    assert "\nTrue\n" in capsys.readouterr().out  # the added item is ranked
    ranked = [entry["asin"] for entry in names["regen"].recommend(names["history"], n=10)]
    found = [asin for asin in names["nearest"] if asin not in names["bought"]]
    assert found[:10] == ranked
    assert "NEW" not in RegenProcessor.from_pretrained(office).cf_asins


def test_the_page_on_another_recommender(whole_run, finished_run, capsys):
    export, explain, *recipes = code("any_recommender.md")
    exec(export, {})
    exec(recipes[0], {})
    embed, train, inspect = commands("any_recommender.md")
    assert main([*shlex.split(embed), "--content-encoder", str(finished_run / "embeddings" / "content_encoder")]) == 0
    assert main([*shlex.split(train), "--max-steps", "1"]) == 0
    assert "which was fitted on: the train users." in (whole_run / "model" / "README.md").read_text()
    exec(explain, {})
    users = pq.read_table(next(whole_run.glob("dataset/*/test*.parquet"))).slice(0, 1).to_pylist()
    asin = users[0]["purchase_history"][0]["item"]["asin"]
    Path("recommendations.csv").write_text(f"reviewer_id,asin,rank\n{users[0]['reviewer_id']},{asin},1\n")
    assert main(shlex.split(inspect)) == 0
    told = capsys.readouterr().out
    assert "B07 Fountain pen, fine nib " in told
    assert users[0]["purchase_history"][0]["item"]["title"][:30] in told


def forget_modules(package, monkeypatch):
    """Forget the remote code of `package` that other tests have loaded from other caches."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / package).is_dir()])
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)


def test_the_page_on_serving_sends_the_prompt_embeddings(office, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    forget_modules("transformers_modules", monkeypatch)
    export_vllm(office, "runs/office/export/vllm")
    requests = []

    class Server:
        def __init__(self, **_):
            self.completions = self

        def create(self, **request):
            requests.append(request)
            choice = type("Choice", (), {"text": "A writer."})
            return type("Answer", (), {"choices": [choice]})

    monkeypatch.setattr("openai.OpenAI", Server)
    names = {}
    (block,) = code("serve_on_vllm.md")
    exec(block, names)
    assert capsys.readouterr().out.splitlines()[-1] == "A writer."
    (request,) = requests
    model = RegenForCausalLM.from_pretrained(office)
    sent = torch.load(io.BytesIO(base64.b64decode(request["extra_body"]["prompt_embeds"])), weights_only=True)
    expected = model.model.fused_embeddings(**names["inputs"])[0]
    torch.testing.assert_close(sent, expected.to(torch.bfloat16))
    assert request["logit_bias"] == {str(model.config.item_token_id): -100}


@pytest.fixture
def whole_run(tiny_run, tmp_path, monkeypatch):
    """A run with every stage done, called runs/office."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tiny_run.rename(tmp_path / "runs" / "office")


def test_the_page_on_rows_vectors_and_soft_tokens(whole_run, capsys):
    names = {}
    for block in code("rows_vectors_soft_tokens.md"):
        exec(block, names)
    assert "['product_endorsement']" in capsys.readouterr().out
    np.testing.assert_allclose(  # the vectors of the store are those that the processor makes
        names["inputs"]["history_content"][0, :-1].numpy(), names["content"][:-1].astype(np.float32), atol=2e-3
    )
    np.testing.assert_allclose(names["inputs"]["history_cf"][0].numpy(), names["cf"][names["items"]], atol=1e-6)
    assert not np.allclose(names["withheld"], names["content"][-1], atol=1e-2)


def test_the_page_on_adding_a_task_and_a_backbone(whole_run, capsys):
    before = dict(TASKS)
    names = {}
    try:
        for block in code("extend.md"):
            exec(block, names)
    finally:
        TASKS.clear()
        TASKS.update(before)
    processor = RegenProcessor.from_pretrained(whole_run / "model")
    assert processor.task_prompts["last_headline"].startswith("Write the headline of this customer's review")
    assert processor.metadata_only_tasks == ["product_endorsement", "last_headline"]
    assert "parameters in the adapter" in capsys.readouterr().out
    for path in re.findall(r"`((?:regen_hf|tests|spaces)/[\w/.]+)`", (PAGES / "extend.md").read_text()):
        assert (PAGES.parent / path.replace("NAME", "endorsement")).exists(), path  # NAME: a prompt of your own
    for command in commands("extend.md"):
        words = shlex.split(command)
        make_config(_overrides(make_parser(words).parse_args(words)))


def test_the_page_on_rating_asks_the_server_and_tells_the_cost_before(whole_run, capsys):
    dry, asked, parsed = [], [], []
    for command in commands("rate_with_your_llm.md"):
        # These make the ratings stale, or need servers of their own.
        only_parsed = re.search("--retry|--extra|--api-version|--requests-per", command)
        kind = parsed if only_parsed else dry if "--dry-run" in command else asked
        kind.append(command.replace("runs/batch", "runs/office").replace("A101G2KLTWSA51", "simulated-000011"))
    for command in parsed:
        words = shlex.split(command, comments=True)
        make_config(_overrides(make_parser(words).parse_args(words)))
    for command in dry:
        assert main(shlex.split(command)) == 0
        assert "USD" in capsys.readouterr().out
    with LLMServer() as server:
        for command in asked:
            assert main(shlex.split(command.replace("http://localhost:8000/v1", server.url))) == 0
    assert {body["model"] for body in server.bodies} == {"my-model"}
    assert len(dry) == 3
    assert len(asked) == 10
    assert "Request to my-model" in capsys.readouterr().out


def test_the_page_on_the_tables(whole_run, capsys, monkeypatch):
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", "metrics")
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", "modules")
    forget_modules("evaluate_modules", monkeypatch)
    # Two of the nine runs, with fewer users.
    compare, score = commands("reproduce_the_tables.md")
    text = (PAGES / "reproduce_the_tables.md").read_text()
    (train,) = re.findall(r"^    regen (run .*)$", text, flags=re.MULTILINE)
    (evaluate_run,) = re.findall(r"^  regen (evaluate .*)$", text, flags=re.MULTILINE)
    for mode in ("both", "cf"):
        shutil.copytree(whole_run, f"runs/{mode}-0")
        command = train.replace("$mode", mode).replace("$seed", "0")
        assert main([*shlex.split(command), "--set", "training.max_steps=2"]) == 0
    runs = [path for pattern in re.findall(r"runs/\S+", compare) for path in sorted(map(str, Path().glob(pattern)))]
    assert runs == ["runs/both-0", "runs/cf-0"]
    for run in runs:
        assert main(shlex.split(evaluate_run.replace("$run", run).replace("--users 0", "--users 2"))) == 0
    options = shlex.split(re.sub(r"runs/\S+ ", "", compare).removeprefix("compare"))
    assert main(["compare", *runs, *options]) == 0
    assert "| Purchase reason | BLEU |" in Path("tables/office/comparison.md").read_text()
    for block in code("reproduce_the_tables.md")[:1]:
        exec(block, {})
    assert main(shlex.split(score)) == 0
    assert "| user_profile | BLEU |" in capsys.readouterr().out
    assert Path("predictions_scores/results.json").exists()
    (block,) = code("benchmark.md")
    exec(block, {})
    entries = yaml.safe_load(Path(".eval_results/regen.yaml").read_text())
    assert entries[0]["dataset"] == {"id": "org/regen", "task_id": "office_test_purchase_reason_bleu"}
    assert len(entries) == 2 * 6
    exec(code("reproduce_the_tables.md")[1], {})
    assert capsys.readouterr().out.endswith("ROUGE-1 80\n")


def test_the_page_on_evaluation(whole_run):
    with LLMServer() as server:
        for command in commands("evaluate.md"):
            assert main(shlex.split(command.replace("http://localhost:8000/v1", server.url))) == 0
    assert server.bodies
    names = {}
    for block in code("evaluate.md"):
        exec(block, names)
    assert {claim["verdict"] for claim in names["claims"]} > {"unsupported"}
    assert names["wrong"]
    for folder in ("next_item", "grounding", "judge"):
        assert (whole_run / folder / "results.json").exists()
    assert (whole_run / "report.html").exists()


def test_the_page_on_recommender_libraries(whole_run):
    blocks = code("recommender_libraries.md")
    rectools, recbole = (block.replace("office-interactions", "tiny-interactions") for block in blocks)
    exec(recbole, {})
    lines = Path("recbole/office/office.inter").read_text().splitlines()
    assert lines[0].split("\t") == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    counts = yaml.safe_load((whole_run / "dataset" / "manifest.json").read_text())["counts"]
    assert len(lines) == 1 + counts["interactions"]
    python = PAGES.parent / ".recommenders" / "rectools" / "bin" / "python"  # of `make recommenders`
    if python.exists():
        script = rectools.replace("epochs=50", "epochs=1")
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
        assert 0 <= float(done.stdout.split("Recall@10 ")[1]) <= 1


def test_every_message_of_the_page_on_troubleshooting_is_one_of_the_package():
    told = re.findall(r"^> (.*)$", (PAGES / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    known = list(messages())
    assert len(told) > 20
    assert [message for message in told if not any(message in text for text in known)] == []


def test_the_pages_link_to_pages_that_exist():
    for page in [*PAGES.glob("*.md"), PAGES.parent / "README.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


@pytest.fixture
def qwen(whole_run):
    """A small random model in the folder that the pages' name of a backbone is, seen from where the run lies."""
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=700,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained("Qwen/Qwen3-0.6B")
    RegenProcessor.from_pretrained(whole_run / "model").tokenizer.save_pretrained("Qwen/Qwen3-0.6B")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it by its old name
@pytest.mark.parametrize("number", range(4))
def test_the_settings_of_the_page_on_training_train(whole_run, qwen, number):
    block = re.findall(r"```yaml\n(.*?)```", (PAGES / "train.md").read_text(), flags=re.DOTALL)[number]
    shorter = re.sub(r"(max_steps|save_steps): \d+", r"\1: 2", block)
    assert shorter != block or number == 1
    Path("train.yaml").write_text(shorter)
    steps = ["--max-steps", "2"] if number == 1 else []
    assert main(["train", "runs/office", "--config", "train.yaml", *steps]) == 0
    model = RegenForCausalLM.from_pretrained(whole_run / "model")
    assert model.config.text_config.model_type == ("llama" if number == 3 else "qwen3")
    manifest = yaml.safe_load((whole_run / "model" / "manifest.json").read_text())
    assert manifest["counts"]["steps"] == (4 if number == 2 else 2)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["train.md", "extend.md"])
def test_the_command_that_names_a_backbone_trains_it(whole_run, qwen, page):
    (command,) = [command for command in commands(page) if "--backbone" in command]
    assert main(shlex.split(command)) == 0
    model = RegenForCausalLM.from_pretrained(whole_run / "model")
    assert model.config.text_config.model_type == "qwen3"


def test_the_page_on_training_gives_settings_and_commands_that_are_taken(tmp_path, monkeypatch):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    from regen_hf.stages.training.settings import phases

    blocks = re.findall(r"```yaml\n(.*?)```", (PAGES / "train.md").read_text(), flags=re.DOTALL)
    given = [make_config(yaml.safe_load(block))["training"] for block in blocks]
    assert [bool(settings.lora) for settings in given] == [False, True, True, False]
    assert [stage.freeze for stage in phases(given[2])] == ["backbone", None]
    (tmp_path / "train.yaml").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    for command in commands("train.md"):
        words = shlex.split(command)
        make_config(_overrides(make_parser(words).parse_args(words)))
    monkeypatch.chdir(PAGES.parent)
    launched = re.findall(r"^accelerate launch (.*)$", (PAGES / "train.md").read_text(), flags=re.MULTILINE)
    assert len(launched) == 5
    for command in launched:
        options, _, _ = _validate_launch_command(launch_command_parser().parse_args(shlex.split(command)))
        assert Path(options.training_script).exists()
