"""Checksums of the files of a checkpoint: after a power loss, files can be cut, empty or missing."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ... import outputs, progress


class Checksums(TrainerCallback):
    """Writes the checksums of each checkpoint when all processes have written their files."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the checksums of the new checkpoint."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            write_checksums(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def write_checksums(folder: Path) -> None:
    """Write the CRC-32 of every file of `folder` into it (about 4 GB/s)."""
    outputs.write_json(folder / outputs.CHECKSUMS, _checksums(folder))


def is_intact(folder: Path) -> bool:
    """Whether the files of `folder` are those of its checksums."""
    try:
        return outputs.read_json(folder / outputs.CHECKSUMS) == _checksums(folder)
    except (OSError, ValueError):
        return False


def remove_damaged(checkpoints: Path) -> None:
    """Remove the damaged checkpoints of a folder, with a message on stderr that states what is left.

    A checkpoint whose best checkpoint (early stopping) is damaged is removed too: the training would end with other
    weights.
    """
    damaged = []
    for checkpoint in sorted(checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step):
        intact = is_intact(checkpoint)
        if intact and (best := outputs.read_json(checkpoint / "trainer_state.json").get("best_model_checkpoint")):
            intact = (checkpoints / Path(best).name).exists()  # checked before: it is not newer
        if not intact:
            shutil.rmtree(checkpoint)
            damaged.append(checkpoint.name)
    if damaged:
        last = get_last_checkpoint(str(checkpoints))
        rest = f"resumes from {Path(last).name}" if last else "has no other checkpoint and starts from the beginning"
        message = f"removed {', '.join(damaged)}, incomplete or damaged. The training {rest}."
        progress.say(f"warning: {message}")


def _checksums(folder: Path) -> dict[str, int]:
    """The CRC-32 of each file below `folder`, by its path."""
    checksums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != outputs.CHECKSUMS:
            checksum = 0
            with path.open("rb") as file:
                while chunk := file.read(1 << 24):
                    checksum = zlib.crc32(chunk, checksum)
            checksums[path.relative_to(folder).as_posix()] = checksum
    return checksums


def _step(checkpoint: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])
