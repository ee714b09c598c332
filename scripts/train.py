"""Train the model of a run in one or several processes, or run another stage that computes with a model.

    accelerate launch scripts/train.py runs/sample
    accelerate launch --multi_gpu --num_processes 2 scripts/train.py runs/sample --set training.max_steps=100
    accelerate launch --multi_gpu --num_processes 2 scripts/train.py runs/sample --stage evaluate

The first process writes into the run folder; the others compute their share.
"""

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from regen_hf.config import parse_yaml
from regen_hf.errors import ConfigError, RegenError
from regen_hf.run import Run
from regen_hf.run.full_disk import full_disk
from regen_hf.run.stages import STAGES


def main() -> None:
    """Parse the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="RUN")
    parser.add_argument("--stage", choices=["embeddings", "train", "evaluate"], default="train", help="%(default)s")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the stage")
    options = parser.parse_args()
    stage = STAGES[options.stage]
    # The processes wait for the slowest one, for example until the first has trained the encoder.
    waiting = {} if stage.command == "train" else {"timeout": datetime.timedelta(days=1)}
    state = PartialState(cpu=not torch.cuda.is_available(), **waiting)
    try:
        run = Run(options.folder, {stage.section: settings_of(stage.section, options.set)})
        run.need(stage)
        fresh = run.is_fresh(stage)
        state.wait_for_everyone()  # the first process must not write before the others have read
        if state.is_main_process:
            with run.locked():
                run.save()
                run.build_with_progress(stage)
        elif not fresh:
            work = run.keep(stage)
            work.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as out:
                stage.code.build(run=run.folder, out=Path(out), work=work, config=run.config[stage.section])
    except RegenError as error:
        raise SystemExit(f"train.py: {error}") from None
    except Exception as error:  # each library has its own for a full disk; others are raised again
        if message := full_disk(error, [options.folder]):
            raise SystemExit(f"train.py: {message}") from None
        raise


def settings_of(section: str, options: list[str]) -> dict[str, Any]:
    """The settings in the values of `--set`, whose keys may begin with the `section`.

    Raises:
        ConfigError: a value is not KEY=VALUE, or its VALUE is not valid YAML.
    """
    settings = {}
    for text in options:
        key, equals, value = text.partition("=")
        try:
            settings[key.removeprefix(f"{section}.")] = parse_yaml(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--set was given {text!r}, expected KEY=VALUE, such as max_steps=200.")
    return settings


if __name__ == "__main__":
    main()
