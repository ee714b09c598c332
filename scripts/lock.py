"""Resolve this project with some extras and write the versions found as a constraints file.

python scripts/lock.py llm,train,eval constraints.txt
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

# The CPU build where the index has one; a bare `torch` may bring several GB of CUDA packages.
PINS = ["torch==2.13.0"]


def main() -> None:
    """Resolve with pip in an environment of its own, so that nothing installed matters."""
    extras, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        pip = [f"{scratch}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        pins = Path(scratch) / "pins.txt"
        pins.write_text("\n".join(PINS) + "\n", encoding="utf-8")
        report = Path(scratch) / "report.json"
        subprocess.run(
            [*pip, "install", "--dry-run", "-q", "--report", str(report), "-c", str(pins), f".[{extras}]"], check=True
        )
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    versions = {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in installed}
    versions.pop("regen-hf")
    lines = ["# Made by `make lock`. The versions that the tests ran with."]
    # A local version such as 2.13.0+cpu exists on some indexes only; 2.13.0 admits it.
    lines += [f"{name}=={version.partition('+')[0]}" for name, version in sorted(versions.items())]
    Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
