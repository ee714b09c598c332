"""Checks that the saved model is the trained one: a fresh process loads the folder, and the logits are compared.

<work>/stage-0/trained_logits.safetensors    inputs, logits and means of the tensors of the model in memory
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...errors import RunError

if TYPE_CHECKING:
    from .trainer import GroupedTrainer

EXAMPLES, POSITIONS = 4, 8
NOT_READ = ("labels", "item_labels", "next_item_weight")
"""Parts of a batch that only the loss reads."""
TOLERANCE = {torch.float32: 0.005, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Norm of the difference by the norm of the logits, between devices and implementations of attention."""

PROGRAM = """
import sys
sys.modules["regen_hf"] = None  # as where only the folder is
import json
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

folder, trained, out = sys.argv[1:]
logging.set_verbosity_error()
logging.disable_progress_bar()
inputs = {name: value for name, value in load_file(trained).items() if name != "logits"}
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
if getattr(model, "is_quantized", False) and torch.cuda.is_available():
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
with torch.inference_mode():
    logits = model(**inputs).logits
tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
means = {name: value.mean(dtype=torch.float64).item() for name, value in tensors.items()}
save_file({"logits": logits.cpu()}, out, metadata={"means": json.dumps(means)})
"""


def save_logits(trainer: GroupedTrainer, file: Path) -> None:
    """Write inputs and logits of the model in memory for a few examples into `file`; all processes must call this.

    Raises:
        RunError: a logit is NaN or infinite.
    """
    model: Any = trainer.accelerator.unwrap_model(
        trainer.model_wrapped, keep_fp32_wrapper=False, keep_torch_compile=False
    )
    rows: Any = trainer.train_dataset
    first = rows.select(range(min(64, len(rows))))
    with_history = sorted(range(len(first)), key=lambda number: first[number]["row"] < 0)
    batch = trainer.data_collator([first[number] for number in with_history[:EXAMPLES]])
    inputs = {name: value for name, value in batch.items() if name not in NOT_READ}
    shortest = int(inputs["attention_mask"].sum(1).min())  # padding is on the right
    inputs["logits_to_keep"] = torch.arange(max(0, shortest - POSITIONS), shortest)
    model.eval()
    with torch.no_grad():
        logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits.cpu()
    if not logits.isfinite().all():
        raise RunError(
            "The logits of the trained model are NaN or infinite, so the training diverged. Lower "
            "training.learning_rate, or train with another dtype."
        )
    if trainer.is_world_process_zero():
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        means = {
            _plain(name): value.mean(dtype=torch.float64).item()
            for name, value in tensors.items()
            if _is_whole(name, value)
        }
        tensors = {name: value.contiguous() for name, value in {**inputs, "logits": logits}.items()}
        save_file(tensors, file, metadata={"means": json.dumps(means)})


def check_reload(folder: Path, file: Path) -> None:
    """Check that the model of `folder`, loaded by a fresh process without this package, has the logits in `file`.

    Raises:
        RunError: it does not load, or the logits differ.
    """
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "loaded.safetensors"
        environment = os.environ | {"HF_MODULES_CACHE": temporary, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, str(folder), str(file), str(out)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise RunError(
                f"The trained model was saved, but a fresh process cannot load it: {reason} The weights are kept in "
                f"{file.parent}."
            )
        (trained, means), (loaded, loaded_means) = _read(file), _read(out)
    difference = ((loaded.float() - trained.float()).norm() / trained.float().norm()).item()
    if not difference <= TOLERANCE.get(trained.dtype, TOLERANCE[torch.bfloat16]):
        changed = [name for name, mean in means.items() if not _close(mean, loaded_means.get(name))]
        names = (
            f" These tensors differ: {', '.join(changed[:5])}{', …' if len(changed) > 5 else ''}." if changed else ""
        )
        raise RunError(
            f"The trained model was saved, but a fresh process that loads it computes other logits: they differ by "
            f"{difference:.2g} of their norm.{names} The weights are kept in {file.parent}."
        )


def _read(file: Path) -> tuple[torch.Tensor, dict[str, float]]:
    """The logits in `file`, and the mean of each tensor of the model by name."""
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor("logits"), json.loads(opened.metadata()["means"])


def _close(mean: float, loaded: float | None) -> bool:
    """Whether two means are equal up to the order of the sum."""
    return loaded is None or abs(mean - loaded) <= 1e-6 + 1e-4 * abs(mean)


def _plain(name: str) -> str:
    """The name of a tensor without the prefixes of PEFT."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


def _is_whole(name: str, value: torch.Tensor) -> bool:
    """Whether a tensor is complete in this process, and not changed by merging LoRA."""
    return not (hasattr(value, "full_tensor") or "lora_" in name or "base_layer" in name or "original_module" in name)
