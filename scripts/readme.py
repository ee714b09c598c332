"""Write the scores of a quickstart run into benchmarks/results/quickstart.json and from there into README.md.

python scripts/readme.py runs/sample
"""

import json
import os
import sys
from pathlib import Path

from regen_hf.metrics.results import table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quickstart.json"
BEGIN, END = "<!-- scores of the quickstart: begin -->", "<!-- scores of the quickstart: end -->"


def section(results: dict) -> str:
    """The text between the marks."""
    counts = results["training"]["counts"]
    controls = "\n".join(f"- `{model}`: {about}" for model, about in results["about"].items())
    minutes = sum(results["seconds"].values()) / 60
    return (
        f"{BEGIN}\n"
        f"What `make quickstart` printed ({counts['parameters']:,} parameters, {counts['steps']:,} steps, one seed; "
        f"its stages took {minutes:.1f} minutes on {results['cores']} cores): the model beside its controls.\n\n"
        f"{table(results)}\n\n{controls}\n{END}"
    )


def main() -> None:
    """Copy the results of the run and put the table into the README."""
    run = Path(sys.argv[1])
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    manifests = {
        name: json.loads((run / folder / "manifest.json").read_text(encoding="utf-8"))
        for name, folder in (("training", "model"), ("evaluation", "evaluation"))
    }
    results |= {name: {key: found[key] for key in ("counts", "versions")} for name, found in manifests.items()}
    stages = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("*/manifest.json"))]
    results["seconds"] = {stage["stage"]: stage["seconds"] for stage in stages}
    results["cores"] = os.cpu_count()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    readme.write_text(before + section(results) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
