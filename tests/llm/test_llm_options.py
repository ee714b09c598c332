"""Further fields, headers and addresses of the requests, and the secrets among them."""

import dataclasses
import json

import pytest

from regen_hf import llm
from regen_hf.cli import main
from regen_hf.config import section
from regen_hf.errors import ConfigError, RunError
from tests.batch_server import BatchApi
from tests.llm.test_llm import Colour, ask, request, requests, settings
from tests.llm_server import Server, error

SECRET = "secret-value-of-the-environment"


def asked(config, number=0):
    return llm.Request.of(config, ({"role": "user", "content": f"question {number}"},), Colour)


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({"extra_body": {"top_k": 20, "min_p": 0.1}}, {"top_k": 20, "min_p": 0.1}),
        ({"top_p": 0.8}, {"top_p": 0.8}),
        ({"thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"thinking": True, "extra_body": {"chat_template_kwargs": {"builtin_tools": []}}},
            {"chat_template_kwargs": {"enable_thinking": True, "builtin_tools": []}},
        ),
        ({"extra_body": {"reasoning_effort": "low"}}, {"reasoning_effort": "low"}),
    ],
    ids=["extra_body", "top_p", "thinking", "both", "reasoning effort"],
)
@pytest.mark.parametrize("backend", ["openai", "openai-batch"])
def test_sampling_options_are_sent_and_change_the_key(store, backend, changes, sent):
    api = BatchApi()
    with Server(extra=api) as fake:
        plain = settings(fake.url, backend=backend, poll=0.01)
        config = dataclasses.replace(plain, **changes)
        llm.ask(lambda: [asked(config)], config, store, 1, "test")
        bodies = fake.bodies or [json.loads(line)["body"] for line in api.files["file-0"].splitlines()]
    (body,) = bodies
    assert {name: body[name] for name in sent} == sent
    assert (body["model"], body["seed"], body["response_format"]["type"]) == ("m", 0, "json_schema")
    assert asked(config).key != asked(plain).key
    ((sampling,),) = store.execute("SELECT sampling FROM replies")
    assert changes.items() <= json.loads(sampling).items()


def test_without_the_options_nothing_is_sent_and_keys_of_paid_answers_are_the_same(store):
    with Server() as fake:
        ask(requests(1), fake, store, extra_body={}, top_p=None, thinking=None)
    assert set(fake.bodies[0]) == {"model", "messages", "temperature", "seed", "max_tokens", "response_format"}
    assert request(0).key == "74f1a59c24d79a9b9f9ef6369207dada25c521e54b68d0d9d2fc8f10700843b9"
    assert request(0).sampling == {"temperature": 0.5, "seed": 1, "max_tokens": 50, "vote": 0}


@pytest.mark.parametrize("name", ["model", "messages", "seed", "temperature", "max_tokens", "response_format", "n"])
def test_a_field_that_is_set_elsewhere_is_not_accepted_in_extra_body(name):
    with pytest.raises(ValueError, match=f"extra_body contains '{name}', which regen sets itself; (set|remove)"):
        settings("http://x/v1", extra_body={name: 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_header": ("Authorization: Bearer sk-hidden",)}, "'Authorization: \\$MY_SECRET' here"),
        ({"extra_header": ("X-API-Key: sk-hidden",)}, "literal value of X-API-Key"),
        ({"extra_header": ("cookie: a=sk-hidden$A",)}, "literal value of cookie"),
        ({"extra_header": ("X-Amz-Security-Token: sk-hidden",)}, "literal value of X-Amz-Security-Token"),
        ({"extra_header": ("sk-hidden",)}, "a text without a colon"),
        ({"extra_header": ("Content-Type: text/plain",)}, "depends on the request"),
        ({"extra_header": ("X-A: b\nX-B: c",)}, "invalid character"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"thinking": True, "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, "thinking is set too"),
        ({"extra_body": {"a": float("nan")}}, "cannot be written as JSON"),
        ({"requests_per_minute": -1.0}, "expected a number per minute"),
        ({"base_url": ()}, "base_url is empty"),
        ({"base_url": ("http://x/v1", "http://x/v1/")}, "twice"),
        ({"base_url": ("http://x/v1", "http://y/v1"), "backend": "openai-batch"}, "one server"),
        ({"backend": "transformers", "extra_body": {"top_k": 20}}, "does not support it; remove extra_body"),
    ],
)
def test_invalid_options_are_reported_without_a_secret(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        settings(**{"url": "http://x/v1"} | changes) if "base_url" not in changes else llm.LLMConfig(
            **{"backend": "openai", "model": "m"} | changes
        )
    assert "sk-hidden" not in str(caught.value)


def test_a_header_of_the_wrong_type_is_reported_without_it():
    for header in ({"Authorization": "sk-hidden"}, [{"Authorization": "sk-hidden"}], "Authorization: sk-hidden"):
        values = {"backend": "openai", "model": "m", "extra_header": header}
        with pytest.raises(ConfigError, match=r"narratives.*extra_header") as caught:
            section(llm.LLMConfig, values, "narratives")
        assert "sk-hidden" not in str(caught.value)


@pytest.mark.parametrize("form", ["$GATEWAY_TOKEN", "${GATEWAY_TOKEN}"])
@pytest.mark.parametrize("backend", ["openai", "openai-batch"])
def test_headers_are_sent_with_values_of_the_environment(store, monkeypatch, backend, form):
    monkeypatch.setenv("GATEWAY_TOKEN", SECRET + "\n")
    seen = []

    def extra(method, path, headers, data):
        seen.append(headers)
        return api(method, path, headers, data)

    api = BatchApi()
    header = ("X-Team: research", f"Authorization: Token {form}")
    with Server(extra=extra) as fake:
        config = settings(fake.url, backend=backend, extra_header=header, poll=0.01)
        llm.ask(lambda: [asked(config)], config, store, 1, "test")
    for headers in fake.headers + seen:
        assert (headers["x-team"], headers["authorization"]) == ("research", f"Token {SECRET}")
    assert fake.headers or seen


def test_a_header_whose_variable_is_missing_is_reported_before_any_request(store, monkeypatch):
    monkeypatch.delenv("GATEWAY_TOKEN", raising=False)
    with Server() as fake, pytest.raises(ConfigError, match="variable GATEWAY_TOKEN, which is not set"):
        ask(requests(1), fake, store, extra_header=("X-Auth: $GATEWAY_TOKEN",))
    assert fake.bodies == []


@pytest.mark.parametrize("backend", ["openai", "openai-batch"])
@pytest.mark.parametrize("path", ["/openai/deployments/mine", "/openai/v1"])
def test_azure_gets_its_version_and_the_key_in_its_header(store, monkeypatch, backend, path):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    seen = []

    def extra(method, whole, headers, data):
        seen.append((whole, headers))
        return api(method, whole.replace(path, "/v1"), headers, data)

    api = BatchApi()
    with Server(extra=extra) as fake:
        config = settings(
            fake.url.replace("/v1", path), backend=backend, api_version="2024-10-21", retries=0, poll=0.01
        )
        llm.ask(lambda: [asked(config)], config, store, 1, "test")
    seen += zip(fake.paths, fake.headers, strict=True)
    assert seen
    for whole, headers in seen:
        assert whole.startswith(path)
        assert whole.endswith("api-version=2024-10-21")
        assert headers["api-key"] == SECRET
        assert "authorization" not in headers


def test_secrets_are_in_no_file_and_no_message_and_options_change_no_answer(tmp_path, monkeypatch, capfd):
    run, key = tmp_path / "run", SECRET[:12]  # the start of the other secret
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("GATEWAY_TOKEN", SECRET)
    monkeypatch.setenv("TEAM", "words")
    size = ["--set", "sample.shoppers=2", "--set", "sample.items=48"]
    assert main(["sequences", str(run), "--sample", *size]) == 0
    headers = ["--extra-header", "X-Gateway: $GATEWAY_TOKEN", "--extra-header", "X-Team: $TEAM"]
    options = [*headers, "--extra-body", '{"top_k": 20}', "--set", "narratives.extra_body.min_p=0.1", "--no-thinking"]
    echo = error(400, f"too long {SECRET} {key}")
    with Server(lambda number, body: error(401, f"not {SECRET}, not {key}")) as fake:
        command = ["narratives", str(run), "--backend", "openai", "--model", "m", "--base-url"]
        assert main([*command, fake.url, *options]) == 1
    with Server(lambda number, body: echo if number == 3 else None) as fake:
        assert main([*command, fake.url, "--max-failed", "1", "--concurrency", "1"]) == 0  # the options are kept
    assert {headers["x-gateway"] for headers in fake.headers} == {SECRET}
    assert {headers["x-team"] for headers in fake.headers} == {"words"}
    (config,) = {json.dumps([body["top_k"], body["chat_template_kwargs"]]) for body in fake.bodies}
    assert config == '[20, {"enable_thinking": false}]'
    files = [file for file in run.rglob("*") if file.is_file()]
    assert any(b"$GATEWAY_TOKEN" in file.read_bytes() for file in files if file.name == "config.yaml")
    for secret in (key, SECRET[12:]):
        assert not [file for file in files if secret.encode() in file.read_bytes()]
        assert secret not in "".join(capfd.readouterr())
    manifest = json.loads((run / "narratives" / "manifest.json").read_text())
    statistics = manifest["counts"]["this_run"]
    assert statistics["requests"] == manifest["counts"]["replies"] == 5
    assert (statistics["prompt_tokens"], statistics["completion_tokens"]) == (50, 10)
    assert 0 < statistics["median_seconds"] <= statistics["p95_seconds"] < 5
    assert statistics["tokens_per_second"] > 0
    assert "servers" not in statistics
    assert b"Some words." in (run / "requests" / "narratives.sqlite").read_bytes()  # $TEAM is no secret


def test_redirects_are_not_followed_with_secrets_but_named(store, monkeypatch):
    monkeypatch.setenv("GATEWAY_TOKEN", SECRET)
    seen = []
    with Server(extra=lambda *get: seen.append(get) or (200, {}, {})) as other:
        moved = 307, {"location": f"{other.url}/chat/completions"}, {}
        with Server(lambda number, body: moved, extra=lambda *get: (302, moved[1], {})) as fake:
            config = settings(fake.url, extra_header=("X-Gateway: $GATEWAY_TOKEN",), retries=0)
            assert next(llm.passes(config, store)).tokens == 128_000
            for backend in ("openai", "openai-batch"):
                sent = dataclasses.replace(config, backend=backend)
                with pytest.raises(
                    (ConfigError, RunError), match=f"redirects to {other.url}/chat/completions; base_url"
                ):
                    llm.ask(lambda sent=sent: [asked(sent)], sent, store, 1, "test")
    assert not other.bodies
    assert not seen


def test_several_addresses_and_mappings_on_the_command_line_and_in_a_file(tmp_path, capsys):
    from regen_hf.cli.commands import _overrides
    from regen_hf.cli.parser import make_parser
    from regen_hf.run.stages import make_config

    def narratives(*words):
        words = ["narratives", "RUN", "--set", "narratives.model=m", "--set", "narratives.backend=openai", *words]
        return make_config(_overrides(make_parser(words).parse_args(words)))["narratives"]

    urls = ("http://a/v1", "http://b/v1")
    assert narratives("--base-url", urls[0], "--base-url", urls[1]).base_url == urls
    assert narratives("--base-url", *urls).base_url == urls
    path = tmp_path / "mine.yaml"
    path.write_text("narratives: {base_url: [http://a/v1, http://b/v1], extra_body: {top_k: 20}, thinking: true}")
    config = narratives("--config", str(path), "--set", "narratives.extra_body.stop_token_ids=[1]")
    assert (config.base_url, config.thinking) == (urls, True)
    assert config.extra_body == {"top_k": 20, "stop_token_ids": [1]}
    assert narratives("--set", "narratives.base_url=http://a/v1").base_url == urls[:1]
    with pytest.raises(SystemExit):
        narratives("--extra-body", "top_k")
    assert "expected a mapping as JSON or YAML, such as {top_k: 20}" in capsys.readouterr().err
