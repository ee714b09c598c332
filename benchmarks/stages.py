"""Time, memory and disk of every stage at growing numbers of simulated users.

    python benchmarks/stages.py --users 20000 200000 --write

Narrator and rater are the fixed rules. The training ends after 5 steps. The evaluation writes for 100 users, 16 tokens
of each narrative: a model of 5 steps would end none. All other settings are the defaults, with one item per 7.5 users.
Each stage runs in a process of its own. Then embeddings, training and evaluation run again in two processes
(`accelerate launch`, gloo), whose output is compared with that of one process.

Seconds are wall-clock, so other work on the machine counts; CPU seconds and memory hardly depend on it. Memory is the
peak of the resident memory of the largest process, with the pages that it has mapped of files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "stages.json"
SETTINGS = {
    "sequences": {"sample": True},
    "training": {"max_steps": 5, "save_steps": 5},
    "evaluation": {"users": 100, "max_new_tokens": 16},
}
USERS_PER_ITEM = 7.5
COMMANDS = ("sample", "sequences", "narratives", "ratings", "dataset", "embeddings", "train", "evaluate")
FOLDERS = {"embeddings": "embeddings", "evaluate": "evaluation", "train": "model"}
"""The stages that run again in two processes, with the folders of their output; the new model comes last."""
FIRST_STEPS = ".work/**/checkpoint-5"
START = "import json, sys; from regen_hf.run import Run; Run(sys.argv[1], json.loads(sys.argv[2])).save()"
STAGE = "import sys; from regen_hf.run import Run, STAGES; Run(sys.argv[1]).build(STAGES[sys.argv[2]])"


def stages(users: int, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the name and the cost of every stage for `users` users, in order; the run is written to `folder`."""
    from sequences import measure, size

    folder.mkdir()
    settings = SETTINGS | {"sample": {"shoppers": users, "items": int(users / USERS_PER_ITEM)}}
    subprocess.run([sys.executable, "-c", START, str(folder), json.dumps(settings)], check=True)
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "scripts" / "accelerate" / "cpu2.yaml")]
    runs = {name: ["-c", STAGE, str(folder), name] for name in COMMANDS}
    runs |= {
        f"{name}, 2 processes": [*launch, str(ROOT / "scripts" / "train.py"), str(folder), "--stage", name]
        for name in FOLDERS
    }
    for name, words in runs.items():
        stage, _, several = name.partition(", ")
        one = folder.with_name("one")
        if several:
            shutil.move(folder / FOLDERS[stage], one)
        before = size(folder)
        measured = measure([sys.executable, *words], folder, FIRST_STEPS if stage == "train" else "")
        after = size(folder)
        cost = {
            "seconds": round(measured["wall"], 1),
            "cpu_seconds": round(measured["cpu"], 1),
            "memory_gb": round(measured["memory"], 3),
            "disk_gb": round((after - before) / 1e9, 4),
            "peak_disk_gb": round((max(measured["peak_disk"], after) - before) / 1e9, 4),
        }
        if "seen" in measured:
            cost["first_steps_seconds"] = round(measured["seen"], 1)
        if several:
            cost["same"] = same(stage, one, folder / FOLDERS[stage])
            shutil.rmtree(one)
        yield name, cost


def same(stage: str, one: Path, two: Path) -> bool:
    """Whether two processes wrote what one process wrote; the losses of a training may differ by 0.2 %."""
    if stage == "train":
        first, second = (json.loads((folder / "manifest.json").read_text())["counts"] for folder in (one, two))
        return abs(first["last_loss"] / second["last_loss"] - 1) < 2e-3
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.suffix in (".npy", ".parquet"))
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[20_000, 200_000], help="simulated users (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the runs are written, a temporary folder by default")
    parser.add_argument("--write", action="store_true", help=f"add the costs to {RESULTS.name}")
    options = parser.parse_args()
    # With active waiting, idle threads would count as CPU seconds.
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    report: dict[str, dict] = {}
    for users in options.users:
        entry = report[str(users)] = {"cores": os.cpu_count(), "stages": {}}
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, cost in stages(users, Path(folder) / "run"):
                entry["load"], entry["stages"][name] = round(os.getloadavg()[2], 1), cost
                print(users, name, json.dumps(cost), file=sys.stderr, flush=True)
                if options.write:
                    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
                    RESULTS.write_text(json.dumps(results | report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
