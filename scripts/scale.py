"""Write the tables of docs/scale.md from benchmarks/results/sequences.json: measured costs, and those of a larger log.

python scripts/scale.py
"""

import itertools
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sequences.json"
DOCS = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"
TARGET = 233_000_000
"""Reviews in all categories of the 2018 release."""
NAMES = {"regen": "`regen sequences`", "polars": "Polars", "pandas": "pandas", "hf_datasets": "HF `datasets`"}


def section(results: dict) -> str:
    """The text between the markers BEGIN and END."""
    sizes = sorted(results, key=int)
    lines = [
        BEGIN,
        "| reviews | program | CPU seconds | CPU, Polars = 1 | peak memory, GB | runs |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        median = results[size]["median"]
        for name, cost in median.items():
            ratio = f"{cost['cpu'] / median['polars']['cpu']:.2f}" if "polars" in median else ""
            runs = len(results[size]["cpu_of_each_run"][name])
            lines.append(
                f"| {int(size):,} | {NAMES[name]} | {cost['cpu']:.1f} | {ratio} | {cost['memory']:.2f} | {runs} |"
            )
    large = sizes[-1]
    cost, times = results[large]["median"]["regen"], TARGET / int(large)
    growth = [
        f"{results[two]['median']['regen']['cpu'] / results[one]['median']['regen']['cpu']:.1f} times from "
        f"{int(one):,} to {int(two):,} reviews ({int(two) / int(one):.1f} times as many)"
        for one, two in itertools.pairwise(sizes)
    ]
    small = sizes[-2]
    first, last = (results[size]["median"]["regen"]["memory"] for size in (small, large))
    memory = last + (last - first) / (int(large) - int(small)) * (TARGET - int(large))
    loads = ", ".join(f"{results[size]['load']:.0f}" for size in sizes)
    lines += [
        "",
        f"Each size on {results[large]['cores']} cores with --memory {results[large]['limit']}. Other programs ran on "
        f"the machine: its load at the end of each size was {loads}. The CPU of `regen sequences` grew "
        f"{', '.join(growth)}.",
        "",
        f"For {TARGET:,} reviews, each cost of {int(large):,} reviews is multiplied by {times:.0f}; memory grows as "
        f"from {first:.2f} GB for {int(small):,} reviews to {last:.2f} GB for {int(large):,}:",
        "",
        "| | |",
        "|---|---|",
        f"| CPU | {cost['cpu'] * times / 3600:.1f} hours |",
        f"| time on this machine with its load | {cost['wall'] * times / 3600:.1f} hours |",
        f"| memory | {memory:.0f} GB |",
        f"| disk: the log, gzip | {results[large]['log_gb'] * times:.0f} GB |",
        f"| disk: maximum size of the run folder | {cost['peak_disk'] * times:.0f} GB |",
        f"| disk: the finished sequences | {cost['output'] * times:.0f} GB |",
        END,
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the tables between the markers of docs/scale.md."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    text = section(json.loads(RESULTS.read_text(encoding="utf-8")))
    DOCS.write_text(before + text + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
