#!/usr/bin/env bash
# Several runs to one namespace on the Hub: a dataset of all of them, a model each, the metric, and a demo of the first.
# Everything is looked through before the first file leaves, and loaded back after. Broken off, the same command goes on.
#
#   scripts/push_all.sh my-org runs/office runs/clothing
#   scripts/push_all.sh my-org runs/sample
set -euo pipefail
if (($# < 2)); then
    echo "usage: scripts/push_all.sh NAMESPACE RUN…" >&2
    exit 2
fi
namespace=$1 first=$2
shift 2

regen push "$first" --namespace "$namespace" --dry-run
for run in "$@"; do
    regen push "$run" --namespace "$namespace" --dataset --model --dry-run
done
# The first run brings all four, so that its cards name metric and demo at once and a second push changes nothing.
regen push "$first" --namespace "$namespace" --verify
for run in "$@"; do
    regen push "$run" --namespace "$namespace" --dataset --model --verify
done
if (($# > 0)); then # the demo takes the dataset with all runs in it
    regen push "$first" --namespace "$namespace" --space --verify
fi
