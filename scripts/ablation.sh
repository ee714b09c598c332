#!/usr/bin/env bash
# The paper's table 1 on the sample world, and what each part of the training recipe is worth: results in benchmarks/results/.
#
#   scripts/ablation.sh runs/ablation                          three seeds of table and recipe: hours on two cores
#   scripts/ablation.sh runs/ablation --seeds 0 --set max_steps=300
set -euo pipefail
runs=${1:-runs/ablation}
shift || true

python benchmarks/ablation.py "$runs" table1 "$@"
python benchmarks/ablation.py "$runs" recipe "$@"
# These have steps, seeds and a world of their own: the options above are not for them.
python benchmarks/ablation.py "$runs/600" table1 --only fused content cf --results benchmarks/results/600_steps
python benchmarks/ablation.py "$runs/steps" steps --seeds 0
