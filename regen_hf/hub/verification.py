"""The proof of a push: all of it loaded back by a process that knows the Hub alone, and compared with the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..cards.card import resource
from ..cards.config_name import config_name
from ..errors import RegenError
from ..outputs import item_files, split_files
from ..schema import SPLITS
from .space import APP

PROGRAM = Path(__file__).with_name("reload_check.py")

CACHES = re.compile(r"HF_HOME|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE|SENTENCE_TRANSFORMERS_HOME|HF_\w+_CACHE")
"""Where the libraries would find what this machine already has."""


def verify(run: Path, pushed: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Load back what was pushed, in a fresh cache and where this package cannot be imported; yields what was compared.

    Args:
        run: the run folder.
        pushed: name and commit of each repository, by part.

    Raises:
        RegenError: something cannot be loaded, or is not what the run holds.
    """
    from huggingface_hub import get_token

    name = config_name(run)
    rows = {split: [str(path.resolve()) for path in split_files(run / "dataset" / name, split)] for split in SPLITS}
    asked = {
        "pushed": pushed,
        "configs": {
            name: {split: files for split, files in rows.items() if files},
            f"{name}-items": {"train": [str(path.resolve()) for path in item_files(run / "dataset" / f"{name}-items")]},
        },
        "model": str((run / "model").resolve()),
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
            # -P: the folder of the program stays out of the path, and this package with it.
            [sys.executable, "-P", str(PROGRAM)],
            input=json.dumps(asked),
            cwd=cache,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    yield from (f"verified {line.removeprefix('= ')}" for line in done.stdout.splitlines() if line.startswith("= "))
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RegenError(
            f"What was pushed is on the Hub, but could not be verified: {lines[-1] if lines else 'no reason'}"
        )
