"""Settings of the `training` section, and the errors for invalid ones."""

import dataclasses

import pytest
import yaml
from peft import LoraConfig
from trl import SFTConfig

from regen_hf.cli import main
from regen_hf.errors import ConfigError
from regen_hf.run import Run
from regen_hf.run.stages import make_config
from regen_hf.stages.training.library_fields import RESERVED, checked_lora
from regen_hf.stages.training.settings import TrainingConfig, phases
from regen_hf.stages.training.trainer import peak_learning_rate


def training(**values):
    return make_config({"training": values})["training"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_decai": 0.1}, ["'weight_decai'", "Did you mean 'weight_decay'"]),
        ({"max_step": 3}, ["'max_step'", "Did you mean 'max_steps'"]),
        ({"weight_decay": "much"}, ["weight_decay was given 'much'", "valid number"]),
        ({"logging_steps": [1]}, ["logging_steps was given [1]"]),
        ({"lora": {"lora_alfa": 8}}, ["'lora.lora_alfa'", "Did you mean 'lora.lora_alpha'", "LoraConfig"]),
        ({"lora": {"r": "wide"}}, ["lora.r was given 'wide'", "valid integer"]),
        ({"lora": 8}, ["training.lora was given 8", "valid dictionary"]),
        ({"r": 8}, ["Unknown setting 'r'"]),
        ({"lora": {}, "freeze": "backbone"}, ["freeze and lora were given together", "stages"]),
        ({"freeze": "adapter"}, ["training.freeze was given 'adapter'", "'backbone'"]),
        ({"optimizer": "muon", "optim": "adafactor"}, ["muon", "optim"]),
        ({"optimizer": "muon", "backbone": "gpt2"}, ["learning_rate was not given", "Muon"]),
        ({"patience": -1}, ["patience was given -1"]),
        ({"validation_users": 0}, ["validation_users was given 0"]),
        ({"task_weights": {"user_profil": 2}}, ["Did you mean 'task_weights.user_profile'"]),
        ({"task_weights": {"user_profile": -1}}, ["task_weights.user_profile was given -1", "0 to 100"]),
        ({"tasks": ["user_profile"], "task_weights": {"user_profile": 0}}, ["leave no task"]),
        ({"stages": [{"max_steps": 2}, {"backbone": "gpt2"}]}, ["stages.1 was given backbone", "complete training"]),
        ({"stages": [{"max_step": 2}]}, ["stages.0", "Did you mean 'max_steps'"]),
        ({"stages": [{"lora": {"rank": 2}}]}, ["stages.0", "'lora.rank'"]),
        ({"stages": {"max_steps": 2}}, ["training.stages"]),
        ({"stages": [{"model_init_kwargs": {}}]}, ["stages.0 was given model_init_kwargs", "complete training"]),
        ({"stages": [{"sft": {"model_init_kwargs": {}}}]}, ["stages.0 was given model_init_kwargs"]),
        ({"sft": {"learning_rate": 1e-3}}, ["sft.learning_rate was given", "beside sft"]),
    ],
)
def test_an_invalid_setting_is_an_error(values, words):
    with pytest.raises(ConfigError) as caught:
        training(**values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_field_that_this_package_sets_is_an_error_with_the_reason(name):
    assert name in {field.name for field in dataclasses.fields(SFTConfig)}
    with pytest.raises(ConfigError, match=f"{name} is set by this package: ") as caught:
        training(**{name: 1})
    assert RESERVED[name] in str(caught.value)


def test_every_other_field_of_sft_and_lora_is_accepted():
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    own = {field.name for field in dataclasses.fields(TrainingConfig)}
    assert {"max_steps", "learning_rate", "seed", "save_steps"} <= fields & own  # settings of both, under our names
    for field in dataclasses.fields(SFTConfig):
        if field.name not in RESERVED and field.name not in own and field.default not in (dataclasses.MISSING,):
            assert field.name in training(**{field.name: field.default}).sft
    for field in dataclasses.fields(LoraConfig):
        if field.default not in (None, dataclasses.MISSING):
            assert field.name in training(lora={field.name: field.default}).lora


def test_a_number_in_the_notation_that_yaml_takes_for_text_is_a_number():
    assert yaml.safe_load("1e-4") == "1e-4"
    made = checked_lora({"r": "16", "lora_dropout": "1e-1"})
    assert (made["r"], made["lora_dropout"]) == (16, 0.1)
    assert made["modules_to_save"] == ["adapter", "item_head"]
    assert made["target_modules"] == "all-linear"
    assert checked_lora({"modules_to_save": ["lm_head"]})["modules_to_save"] == ["adapter", "item_head", "lm_head"]


def test_fields_of_sft_stand_beside_the_other_settings_and_survive_the_run_folder(tmp_path):
    run = Run(tmp_path / "run", {"training": {"weight_decay": 0.2, "lora": {"r": 4}, "max_steps": 9}})
    with run.locked():
        run.save()
    again = Run(tmp_path / "run", {"training": {"max_grad_norm": 0.5}}).config["training"]
    assert again.sft == {"weight_decay": 0.2, "max_grad_norm": 0.5}
    assert (again.lora, again.max_steps) == ({"r": 4}, 9)
    changed = Run(tmp_path / "run", {"training": {"weight_decay": 0.3}}).config["training"]
    assert changed.sft == {"weight_decay": 0.3}


def test_a_typo_on_the_command_line_is_an_error_before_a_folder_is_created(tmp_path, capsys):
    assert main(["run", str(tmp_path / "run"), "--sample", "--set", "training.weight_decai=1"]) == 1
    assert "Did you mean 'weight_decay'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stage_has_what_the_training_has_but_for_its_own():
    config = training(
        lora={"r": 4},
        weight_decay=0.2,
        batch_size=16,
        stages=[{"freeze": "backbone", "max_steps": 5, "learning_rate": 1e-2}, {"max_grad_norm": 2.0}, {"lora": None}],
    )
    warm, lora, full = phases(config)
    assert (warm.freeze, warm.lora, warm.max_steps, warm.learning_rate) == ("backbone", None, 5, 1e-2)
    assert (lora.freeze, lora.lora, lora.sft) == (None, {"r": 4}, {"weight_decay": 0.2, "max_grad_norm": 2.0})
    assert (full.freeze, full.lora, full.max_steps) == (None, None, TrainingConfig().max_steps)
    assert {stage.batch_size for stage in (warm, lora, full)} == {16}
    assert phases(training()) == [training()]


def test_the_learning_rate_follows_what_is_trained_if_not_given():
    def rates(**settings):
        return [peak_learning_rate(stage) for stage in phases(training(**settings))]

    assert rates() == [0.015]
    assert rates(optimizer="adamw") == rates(optim="adafactor") == [5e-3]
    assert rates(backbone="other/model") == [2e-5]
    assert rates(backbone="other/model", lora={"r": 4}) == [2e-4]
    assert rates(backbone="other/model", stages=[{"freeze": "backbone"}, {"learning_rate": 1e-6}]) == [1e-3, 1e-6]
    assert rates(learning_rate=0) == [0]
