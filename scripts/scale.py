"""Write the tables of docs/scale.md from benchmarks/results: measured costs, and those of a larger log.

python scripts/scale.py
"""

import itertools
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs" / "scale.md"
MARKERS = "<!-- {}: begin -->", "<!-- {}: end -->"
TARGET = 233_000_000
"""Reviews in all categories of the 2018 release."""
NAMES = {"regen": "`regen sequences`", "polars": "Polars", "pandas": "pandas", "hf_datasets": "HF `datasets`"}


def sequences(results: dict) -> str:
    """The costs of `regen sequences` and other programs, and those of a larger log."""
    sizes = sorted(results, key=int)
    lines = [
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
    ]
    return "\n".join(lines)


def stages(results: dict) -> str:
    """The costs of all stages at the two largest numbers of users, and how they grow."""
    small, large = sorted(results, key=int)[-2:]
    before, after = (results[size]["stages"] for size in (small, large))
    lines = [
        f"CPU seconds, peak memory and peak disk in GB, each for {int(small):,} users, for {int(large):,} users, and "
        "the ratio of the two; and the wall-clock seconds of the second.",
        "",
        "| stage | CPU | | | memory | | | disk | | | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cost in after.items():
        cells = [name]
        for key, form in (("cpu_seconds", ",.0f"), ("memory_gb", ".2f"), ("peak_disk_gb", ".3f")):
            less = before[name][key]
            cells += [format(less, form), format(cost[key], form), f"{cost[key] / less:.1f}" if less else ""]
        lines.append(f"| {' | '.join(cells)} | {cost['seconds']:,.0f} |")
    first = " and ".join(f"{part['train']['first_steps_seconds']:.0f}" for part in (before, after))
    loads = " and ".join(f"{results[size]['load']:.0f}" for size in (small, large))
    different = [name for name, cost in after.items() if not cost.get("same", True)]
    lines += [
        "",
        f"{results[large]['cores']} cores; other programs ran on the machine, its load was {loads}. The first five "
        f"steps of the training were finished after {first} seconds. Two processes wrote "
        + (
            f"other files than one in: {', '.join(different)}."
            if different
            else "the files of one; the losses of the training differ by less than 0.2 %."
        ),
    ]
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The text of each section of docs/scale.md that comes from a results file, by the name in its markers."""
    return {
        name: table(json.loads((RESULTS / file).read_text(encoding="utf-8")))
        for name, file, table in (("scale", "sequences.json", sequences), ("stages", "stages.json", stages))
    }


def main() -> None:
    """Write the tables between the markers of docs/scale.md."""
    page = DOCS.read_text(encoding="utf-8")
    for name, text in tables().items():
        begin, end = (marker.format(name) for marker in MARKERS)
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    DOCS.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
