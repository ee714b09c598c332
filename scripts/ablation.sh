#!/usr/bin/env bash
# Trains the models of the paper's table 1 on the sample world, and the training recipe without each of its parts.
# Results: benchmarks/results/.
#
#   scripts/ablation.sh runs/ablation                three seeds: hours on two cores
#   scripts/ablation.sh runs/ablation --seeds 0      one seed of table1 and recipe
set -euo pipefail
runs=${1:-runs/ablation}
shift || true

python benchmarks/ablation.py "$runs" table1 --set max_steps=300 "$@"
python benchmarks/ablation.py "$runs" recipe --set max_steps=300 "$@"
# The default of 1,200 steps, and other numbers of steps, with separate runs and results.
python benchmarks/ablation.py "$runs/default" table1 --only fused content cf --results benchmarks/results/default
python benchmarks/ablation.py "$runs/default" recipe --only default "between_users 0" "none of it" --results benchmarks/results/default
python benchmarks/ablation.py "$runs/steps" steps --seeds 0
