import dataclasses
import math
import typing

import pytest

from regen_hf import run
from regen_hf.config import fingerprint, help_texts, read_yaml
from regen_hf.errors import ConfigError


def test_every_setting_of_every_stage_has_a_help_text():
    for stage in run.STAGES.values():
        cls = run.config_class(stage)
        missing = [field.name for field in dataclasses.fields(cls) if not help_texts(cls).get(field.name)]
        assert missing == [], f"{cls.__name__} says nothing about {missing}"


def test_defaults_are_accepted_by_their_own_checks():
    config = run.make_config({})
    assert set(config) == {stage.section for stage in run.STAGES.values()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training": {"max_step": 5}},
            r"'training'.*'max_step'.*Did you mean 'max_steps'",
        ),
        ({"trainning": {"max_steps": 5}}, r"trainning.*Did you mean 'training'.*sequences"),
        ({"training": {"max_steps": "many"}}, r"training\.max_steps was given 'many'"),
        ({"training": {"max_steps": 0}}, "max_steps was given 0, expected at least 1"),
        ({"training": 5}, "Section 'training' was given 5"),
        ({"training": {"tasks": ["haiku"]}}, "haiku.*user_profile"),
        ({"evaluation": {"tasks": ["haiku"]}}, "haiku.*user_profile"),
        ({"evaluation": {"tasks": ["user_profile", "user_profile"]}}, "user_profile.*each once"),
        ({"evaluation": {"split": "train"}}, "split was given 'train', expected test or validation"),
        ({"training": {"learning_rate": "nan"}}, "learning_rate was given nan"),
        ({"training": {"hidden_size": 100}}, "hidden_size was given 100, expected a multiple of 32"),
        ({"training": {"warmup_ratio": 2}}, "warmup_ratio was given 2"),
        ({"training": {"seed": -1}}, "seed was given -1"),
        ({"embeddings": {"seed": 2**32}}, "seed was given 4294967296"),
        ({"sequences": {"memory": "0GB"}}, "memory is '0GB'"),
        ({"sequences": {"reviews": 5}}, r"sequences\.reviews was given 5"),
        ({"sequences": {"reviews": [5]}}, r"sequences\.reviews\.0 was given 5"),
        ({"sequences": {5: 1}}, r"Unknown setting 'sequences\.5'"),
        ({5: {"a": 1}}, "Unknown setting '5'"),
        ({"figures": {"dpi": 10**6}}, "dpi was given 1000000"),
        ({"training": {"lora": {"r": 0}}}, "lora.r was given 0, expected at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_known(values, message):
    with pytest.raises(ConfigError, match=message):
        run.make_config(values)


def test_a_refusal_names_the_setting_and_not_all_the_others():
    with pytest.raises(ConfigError) as error:
        run.make_config({"training": {"max_steps": 0, "batch_size": 16}})
    assert "batch_size" not in str(error.value)


def test_one_value_stands_for_a_list_of_one(tmp_path):
    config = run.make_config({"sequences": {"reviews": "a.gz", "items": "b.gz"}})["sequences"]
    assert (config.reviews, config.items) == (("a.gz",), ("b.gz",))


def test_dates_in_yaml_stay_text(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 2018-01-31\nb: 2018-13-45\nc: 1")
    assert read_yaml(tmp_path / "config.yaml") == {"a": "2018-01-31", "b": "2018-13-45", "c": 1}


def test_a_repeated_key_in_yaml_is_an_error(tmp_path):
    path = tmp_path / "columns.yaml"
    path.write_text("columns: {user: a, item: b, user: c}\n")
    with pytest.raises(ConfigError, match="the key 'user' occurs twice"):
        read_yaml(path)


def test_text_from_the_command_line_becomes_the_right_type():
    config = run.make_config({"training": {"max_steps": "7", "learning_rate": "1e-3", "tasks": ["user_profile"]}})
    assert (config["training"].max_steps, config["training"].learning_rate) == (7, 1e-3)
    assert config["training"].tasks == ("user_profile",)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_fingerprints_tell_values_apart():
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


NUMBERS = [
    (stage.section, field.name, int if int in kinds else float)
    for stage in run.STAGES.values()
    for cls in [run.config_class(stage)]
    for field in dataclasses.fields(cls)
    for kind in [typing.get_type_hints(cls)[field.name]]
    for kinds in [{kind, *typing.get_args(kind)}]
    if kinds & {int, float}
]


@pytest.mark.parametrize(("section", "name", "kind"), NUMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_every_number_has_a_range(section, name, kind):
    wrong = [-1, True, 2**63, 10**30] if kind is int else [-1, True, math.nan, math.inf]
    for value in wrong:
        with pytest.raises(ConfigError):
            run.make_config({section: {name: value}})


@pytest.mark.parametrize("word", ["no", "off", "on", "yes", "No", "OFF"])
def test_words_for_booleans_stay_text_and_set_boolean_settings(tmp_path, word):
    (tmp_path / "config.yaml").write_text(f"columns: {{user: {word}}}\nscrub: {word}\nlanguage: {word}\n")
    values = read_yaml(tmp_path / "config.yaml")
    assert values["columns"] == {"user": word}
    assert values["language"] == word
    config = run.make_config({"sequences": {"scrub": values["scrub"]}})
    assert config["sequences"].scrub is (word.lower() in ("on", "yes"))


def test_true_and_false_are_booleans(tmp_path):
    (tmp_path / "config.yaml").write_text("a: true\nb: False\nc: 'true'\n")
    assert read_yaml(tmp_path / "config.yaml") == {"a": True, "b": False, "c": "true"}
