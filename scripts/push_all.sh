#!/usr/bin/env bash
# Push several runs to one namespace on the Hub: one dataset with all of them, a model each, the metric, and a demo of the
# first. All runs are checked before the first push, and verified after it. Run the same command again to resume.
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
# All four parts of the first run at once: its cards link to metric and demo, so that a second push changes nothing.
regen push "$first" --namespace "$namespace" --verify
for run in "$@"; do
    regen push "$run" --namespace "$namespace" --dataset --model --verify
done
if (($# > 0)); then # the demo loads the dataset with all runs
    regen push "$first" --namespace "$namespace" --space --verify
fi
