#!/usr/bin/env bash
# Several runs to one namespace on the Hub: a dataset of all of them, a model each, the metric, and a demo of the first.
# Everything is looked through before the first file leaves, and loaded back after. Broken off, the same command goes on.
#
#   scripts/push_all.sh my-org runs/office runs/clothing
#   scripts/push_all.sh my-org runs/sample
set -euo pipefail
namespace=$1
shift

for run in "$@"; do
    regen push "$run" --namespace "$namespace" --dry-run
done
for run in "$@"; do
    regen push "$run" --namespace "$namespace" --dataset --model --verify
done
regen push "$1" --namespace "$namespace" --metric --space --verify
