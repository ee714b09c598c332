#!/usr/bin/env bash
# All stages in order, one command per stage. `regen run RUN` does the same and skips fresh stages.
#
#   scripts/pipeline.sh runs/sample --sample
#   scripts/pipeline.sh runs/office --reviews Office_Products_5.json.gz --items meta_Office_Products.json.gz
set -euo pipefail
run=$1
shift

regen sequences "$run" "$@"
regen narratives "$run"
regen ratings "$run"
regen dataset "$run"
regen embeddings "$run"
regen train "$run" # for several processes: accelerate launch scripts/train.py "$run"
regen evaluate "$run"
regen figures "$run"
regen status "$run"
