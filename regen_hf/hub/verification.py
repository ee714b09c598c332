"""Verify a push: another process loads everything from the Hub only and compares it with the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..cards.facts import config_name
from ..cards.templates import resource
from ..errors import RegenError
from ..outputs import folder, interaction_files, item_files, split_files
from ..schema import SPLITS
from .space import APP

PROGRAM = Path(__file__).with_name("reload_check.py")
PACKAGES = {"model": ("torch", "transformers"), "metric": ("evaluate", "rouge-score", "sacrebleu")}
"""The optional packages that the comparison of each part needs."""

CACHES = re.compile(r"HF_HOME|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE|SENTENCE_TRANSFORMERS_HOME|HF_\w+_CACHE")
"""Environment variables with the paths of caches on this machine."""


def verify(run: Path, pushed: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Load what was pushed with an empty cache and without this package; yields a line per comparison.

    Args:
        run: the run folder.
        pushed: name and commit of each repository, by part.

    Raises:
        RegenError: something cannot be loaded, or differs from the run.
    """
    from huggingface_hub import get_token

    name, dataset = config_name(run), folder(run, "dataset").resolve()
    rows = {split: [str(path) for path in split_files(dataset / name, split)] for split in SPLITS}
    flat = [str(path) for path in interaction_files(dataset)]  # none in a dataset of an earlier version
    request = {
        "pushed": pushed,
        "configs": {
            name: {split: files for split, files in rows.items() if files},
            f"{name}-items": {"train": [str(path) for path in item_files(dataset / f"{name}-items")]},
            **({f"{name}-interactions": {"train": flat}} if flat else {}),
        },
        "model": str(folder(run, "train").resolve()),
        "metric": str(Path(__file__).parents[1] / "metrics" / "regen_narrative.py"),
        "space": str(resource(APP).resolve()),
    }
    with tempfile.TemporaryDirectory() as cache:
        environment = {key: value for key, value in os.environ.items() if not CACHES.fullmatch(key)}
        environment |= {
            "HF_HOME": cache,
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            **({"HF_TOKEN": token} if (token := get_token()) else {}),
        }
        done = subprocess.run(
            # -P keeps the program's folder, and so this package, out of the import path.
            [sys.executable, "-P", str(PROGRAM)],
            input=json.dumps(request),
            cwd=cache,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    yield from (f"verified {line.removeprefix('= ')}" for line in done.stdout.splitlines() if line.startswith("= "))
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RegenError(f"The push is complete, but its verification failed: {lines[-1] if lines else 'no message'}")
